"""The packaged 64 px EG3D and its W encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from clstudy.assets import asset_path
from clstudy.assets.readers.tensor_files import read_with_metadata
from clstudy.generators.base import GENERATORS, DomainGenerator, GeneratorKind, GeneratorWeights
from clstudy.generators.eg3d import EG3D, EG3DSettings, RenderingSettings, UsualCamera
from clstudy.generators.eg3d_copies import EG3DCopies
from clstudy.generators.stylegan2 import StyleGAN2Settings
from clstudy.generators.super_resolution import SuperResolutionSettings
from clstudy.generators.synthesis_copies import arrays_under
from clstudy.generators.tri_planes import CORRECTED_AXES
from clstudy.generators.w_encoder import WEncoder
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.profiles import Profile

_W = 256
_FILE = "embedded_3d.safetensors"

SETTINGS = EG3DSettings(
    backbone=StyleGAN2Settings(
        img_resolution=64,
        z_dim=256,
        c_dim=25,
        w_dim=_W,
        channel_base=3072,
        channel_max=128,
        mapping_layers=2,
        img_channels=48,
    ),
    superresolution=SuperResolutionSettings(input_resolution=32, channels=(32, 16)),
    rendering=RenderingSettings(
        resolution=32, near=2.3, far=3.1, box=0.8, coarse=12, fine=12, plane_axes=CORRECTED_AXES
    ),
    features=16,
    hidden=32,
    camera=UsualCamera(pivot=(0.0, 0.0, 0.0), focal=5.09, centre=(0.5, 0.48)),
)
"""Sizes, and where virtual people stand: their heads fill the box, and the camera of a photo of 64 px is this one."""


def encoder() -> WEncoder:
    """A W encoder of the size that goes with it, with random weights."""
    return WEncoder(w_dim=_W, widths=(32, 64, 128, 192), blocks=(1, 1, 1, 1), neck=48)


def save_networks(network: EG3D, to_w: WEncoder, directions: Mapping[str, Tensor], path: Path) -> None:
    """Write them as float16 safetensors (prefixes ``generator.``, ``encoder.``, ``direction.``), with the settings."""
    state = {f"generator.{name}": value for name, value in network.state_dict().items()}
    state |= {f"encoder.{name}": value for name, value in to_w.state_dict().items()}
    state |= {f"direction.{name}": value for name, value in directions.items()}
    metadata = {"settings": json.dumps(network.settings.to_dict(), sort_keys=True)}
    save_file({name: value.detach().half().contiguous() for name, value in state.items()}, path, metadata=metadata)


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of such a file as they are, and its settings as a dictionary."""
    arrays, metadata = read_with_metadata(path)
    return arrays, json.loads(metadata["settings"])


def networks_of(
    arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]
) -> tuple[EG3D, WEncoder, dict[str, Tensor]]:
    """Generator, W encoder and semantic directions ``[w_dim]`` by name of such a file's content, in float32."""
    network, to_w = EG3D(EG3DSettings.from_dict(settings)), encoder()
    network.load_state_dict(arrays_under("generator.", arrays))
    to_w.load_state_dict(arrays_under("encoder.", arrays))
    return network, to_w, arrays_under("direction.", arrays)


class Embedded3DKind(GeneratorKind):
    """The packaged 3D generator."""

    description = "packaged EG3D of 64 px with its W encoder; photos need cameras"
    pretrained = True

    def read(self, files: Mapping[str, Path]) -> GeneratorWeights:
        arrays, settings = read_arrays(asset_path(_FILE))
        return GeneratorWeights(arrays, {"settings": settings})

    def image_size(self, weights: GeneratorWeights, profile: Profile) -> int:
        return EG3DSettings.from_dict(weights.facts["settings"]).img_resolution

    def build(self, weights: GeneratorWeights, profile: Profile, device: torch.device, lpips: LPIPS) -> DomainGenerator:
        network, to_w, directions = networks_of(weights.arrays, weights.facts["settings"])
        return EG3DCopies(network, profile, device, lpips, to_w, directions=directions)


GENERATORS.register("embedded_3d")(Embedded3DKind())
