"""The packaged generator on faces it has never seen, and the pieces of its pretraining."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clstudy.faces.embedding import IdentityEmbedder
from clstudy.faces.torch_embedder import TorchIdentityEmbedder
from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.generators.pretraining.train import (
    IdentityLoss,
    Networks,
    PretrainSettings,
    encoder_figures,
    train_autoencoder,
)
from clstudy.identities.dcgan import LATENT_SIZE
from clstudy.identities.people import FaceTools
from clstudy.images import to_unit_range


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    """Aligned faces of latents that pretraining did not draw."""
    tools = FaceTools.load()
    drawn = tools.source.draw(np.random.default_rng(99).standard_normal((60, LATENT_SIZE)))
    found = (tools.finder.align(image) for image in drawn)
    return np.stack([one[0] for one in found if one is not None and one[1].score >= 0.9 and abs(one[1].yaw()) <= 0.4])


def test_held_out_faces_are_rebuilt_and_told_apart(faces: np.ndarray) -> None:
    generator = EmbeddedGenerator()
    figures = encoder_figures(Networks(generator.network, generator._encoder), faces)
    assert figures["mse_share_of_variance"] < 0.2
    assert figures["own_above_other"] > 0.95
    assert figures["lpips_alex"] < 0.15


def test_the_torch_embedder_equals_the_onnx_one(faces: np.ndarray) -> None:
    images = to_unit_range(faces[:6])
    assert (TorchIdentityEmbedder()(images) - IdentityEmbedder()(images)).abs().max() < 2e-6


def test_the_identity_loss_is_0_for_the_photo_and_has_gradients(faces: np.ndarray) -> None:
    photos = to_unit_range(faces[:8])
    loss = IdentityLoss(photos)
    assert loss(photos[:4], photos[:4]).abs().max() < 1e-5
    others = photos[4:8].clone().requires_grad_(True)
    losses = loss(others, photos[:4])
    assert (losses > 0.3).all() and (losses < 2).all()
    losses.sum().backward()
    assert others.grad is not None and others.grad.abs().max() > 0
    with torch.no_grad():
        closer = loss(others - 0.5 * others.grad / others.grad.abs().max(), photos[:4])
    assert closer.sum() < losses.sum()


@pytest.mark.slow
def test_pretraining_is_repeatable(faces: np.ndarray, tmp_path: Path) -> None:
    settings = PretrainSettings(steps=3, batch=4, lpips_faces=2, identity_faces=2, identity_from=1)
    first, second = (train_autoencoder(faces, settings, lambda networks: None) for _ in range(2))
    for ours, theirs in zip(first.generator.parameters(), second.generator.parameters(), strict=True):
        assert torch.equal(ours, theirs)
