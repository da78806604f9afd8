"""Generative replay: the frozen generator renders latents in the hull of stored anchors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from clstudy.strategies.balance import draw_subset
from clstudy.strategies.base import AnchorStrategy, Generated, Item, Past, stack_latents, timestamps_of

if TYPE_CHECKING:
    from torch import Tensor, nn

_BATCH = 8


class RandomAnchors(AnchorStrategy):
    """Anchors chosen as ``er_rand`` chooses photos: at random under the balance rule."""

    balanced = True

    def choose(self, items: Sequence[Item], capacity: int, rng: np.random.Generator) -> np.ndarray:
        return draw_subset(timestamps_of(items), capacity, rng)


def sample_latents(items: Sequence[Item], count: int, anchors: int, rng: np.random.Generator) -> np.ndarray:
    """Return latents float32 ``[count, *latent_shape]``: random convex combinations of stored anchors.

    Each mixes anchors of one timestamp, drawn uniformly (MeRGAN draws a class and then a latent: the timestamp is the
    class here, and a mixture of two occasions would show neither): up to ``anchors`` of them, with weights uniform on
    the simplex, as in the synthesis protocol.

    Args:
        items: stored anchors, at least one.
        count: how many latents, >= 0.
        anchors: anchors per combination, >= 1.
        rng: draws timestamps, anchors and weights.
    """
    timestamps = timestamps_of(items)
    latents = np.zeros((count, *items[0].latent.shape), dtype=np.float32)
    for row in range(count):
        members = np.flatnonzero(timestamps == rng.choice(np.unique(timestamps)))
        chosen = rng.choice(members, min(anchors, len(members)), replace=False)
        weights = rng.dirichlet(np.ones(len(chosen)))
        mixed = weights @ stack_latents([items[index] for index in chosen])
        latents[row] = mixed.reshape(latents.shape[1:])
    return latents


def generate(past: Past, count: int, anchors: int, rng: np.random.Generator) -> Generated:
    """Sample latents and render them with the frozen generator of t-1."""
    import torch

    device = next(past.frozen.parameters()).device
    latents = torch.from_numpy(sample_latents(past.memory.items, count, anchors, rng)).to(device)
    return Generated(latents, frozen_images(past.frozen, latents))


def frozen_images(frozen: nn.Module, latents: Tensor) -> Tensor:
    """Images ``[n, 3, s, s]`` of latents ``[n, *latent_shape]`` without gradients."""
    import torch

    with torch.no_grad():
        return torch.cat([frozen(part) for part in torch.split(latents, _BATCH)])
