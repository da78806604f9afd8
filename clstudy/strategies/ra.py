"""Replay alignment: of past classes the generator must keep making the images it made before (MeRGAN-RA)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clstudy.strategies.base import STRATEGIES, Past, Penalty
from clstudy.strategies.prior_replay import PriorReplay, drawn

if TYPE_CHECKING:
    from torch import Tensor, nn


@STRATEGIES.register("ra")
@dataclass(frozen=True)
class ReplayAlignment(PriorReplay):
    """Adds ``weight`` * squared distance between current and frozen generator's images (Wu et al. 2018, equation 7).

    The distance is summed over pixels and averaged over images, of latents that are drawn anew at every step.

    Attributes:
        weight: of the penalty, >= 0. With 0 this is ``lower``, bit for bit.
        batch: how many images are compared at every step.
    """

    weight: float = 1e-3
    batch: int = 32

    name = "ra"
    description = "keep the images that the generator of t-1 makes of past classes (MeRGAN-RA, arXiv 1809.02058)"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"expected a finite weight >= 0, got {self.weight}")
        if self.batch < 1:
            raise ValueError(f"expected batch >= 1, got {self.batch}")

    def penalty(self, past: Past, rng: np.random.Generator) -> Penalty:
        def alignment(module: nn.Module) -> Tensor:
            shown = drawn(past, self.batch, rng)
            distance: Tensor = (module(shown.latents) - shown.images).square().flatten(1).sum(1).mean()
            return self.weight * distance

        return alignment
