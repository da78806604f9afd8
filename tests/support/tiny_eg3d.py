"""An EG3D of 64 px with random weights, in a file, and a profile that personalises it in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from clstudy.generators.checkpoints.checkpoint import Checkpoint
from clstudy.generators.checkpoints.safetensors_files import write_safetensors
from clstudy.generators.eg3d import EG3D, EG3DSettings, RenderingSettings, UsualCamera
from clstudy.generators.stylegan2 import StyleGAN2Settings
from clstudy.generators.super_resolution import SuperResolutionSettings
from clstudy.settings.profiles import (
    AnchorSettings,
    DataSettings,
    EvaluationSettings,
    InversionSettings,
    LowRankSettings,
    PivotalSettings,
    Profile,
    Resources,
    TrainerSettings,
    ViewSettings,
    my3dgen,
)

SETTINGS = EG3DSettings(
    backbone=StyleGAN2Settings(
        img_resolution=32,
        z_dim=8,
        c_dim=25,
        w_dim=32,
        channel_base=256,
        channel_max=16,
        mapping_layers=1,
        img_channels=24,
    ),
    superresolution=SuperResolutionSettings(input_resolution=32, channels=(8, 8)),
    rendering=RenderingSettings(resolution=16, coarse=8, fine=8),
    features=8,
    hidden=16,
    camera=UsualCamera(pivot=(0.0, 0.0, 0.0)),
)


def tiny_network() -> EG3D:
    """The network; its volume is opaque enough for a depth."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = EG3D(SETTINGS)
    with torch.no_grad():
        network.decoder.net[2].bias[0] = 3.0
    return network


def tiny_checkpoint(path: Path) -> Path:
    """Write the network as ``path``, which ends in .safetensors."""
    tensors = {name: value.numpy() for name, value in tiny_network().state_dict().items()}
    write_safetensors(
        Checkpoint(kind=SETTINGS.kind, format="a test", settings=SETTINGS, tensors=tensors, sha256="0" * 64), path
    )
    return path


def tiny_profile(rank: int = 2) -> Profile:
    """``my3dgen`` for that network: a few steps on 64 px photos of virtual people."""
    return replace(
        my3dgen(),
        required_files=("generator",),
        optional_files=("directions",),
        data=DataSettings(name="virtual", timestamps=3, train=3, test=3),
        trainer=TrainerSettings(epochs=2),
        inversion=InversionSettings(steps=2),
        anchors=AnchorSettings(steps=2),
        evaluation=EvaluationSettings(metrics=("lpips", "psnr"), synthesis_images=2),
        low_rank=LowRankSettings(rank=rank),
        views=ViewSettings(),
        pivotal=PivotalSettings(),
        resources=Resources(),
        stage_seconds=1.0,
        log_images=True,
    )
