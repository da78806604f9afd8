"""Replay from a generator's own prior, as in Memory Replay GANs (1809.02058): nothing of the past is stored.

For generators that can draw latents of what they have learned so far (``prior``), such as class-conditional ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from clstudy.strategies.base import Generated, Item, Memory, Past, Strategy
from clstudy.strategies.generative_replay import frozen_images

if TYPE_CHECKING:
    from torch import Tensor


class _WithPrior(Protocol):
    def prior(self, count: int, rng: np.random.Generator) -> Tensor: ...

    def relabelled(self, latents: Tensor, images: Tensor) -> Tensor: ...


class PriorReplay(Strategy):
    """A strategy without any memory but the generator of t-1 itself."""

    stores_photos = False
    balanced = False
    uses_buffer_size = False
    needs_prior = True

    def select(self, memory: Memory, new: Sequence[Item], capacity: int, rng: np.random.Generator) -> Memory:
        return Memory()


@dataclass(frozen=True)
class DrawnImages(PriorReplay):
    """A strategy that replays images drawn by the generator of t-1.

    Attributes:
        images: how many are drawn per timestamp, as many of every class so far on average.
    """

    images: int = 512

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"expected images >= 1, got {self.images}")


def drawn(past: Past, count: int, rng: np.random.Generator) -> Generated:
    """Latents of the frozen generator's prior, classes uniform among those learned, and their images."""
    latents = cast("_WithPrior", past.frozen).prior(count, rng)
    return Generated(latents, frozen_images(past.frozen, latents))


def relabelled(past: Past, shown: Generated) -> Generated:
    """The same images with the classes that the frozen network itself sees in them."""
    return Generated(cast("_WithPrior", past.frozen).relabelled(shown.latents, shown.images), shown.images)
