"""Joint training with replay: images of past classes come from the generator itself (MeRGAN-JTR)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clstudy.strategies.base import STRATEGIES, Generated, Past
from clstudy.strategies.prior_replay import PriorReplay, drawn


@STRATEGIES.register("jtr")
@dataclass(frozen=True)
class JointTrainingWithReplay(PriorReplay):
    """Trains on new photos and on images that the frozen generator of t-1 draws (Wu et al. 2018, section 3.2).

    Attributes:
        images: how many are generated per timestamp, as many of every class so far on average.
    """

    images: int = 512

    name = "jtr"
    description = "replay images that the generator of t-1 draws of past classes (MeRGAN-JTR, arXiv 1809.02058)"

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"expected images >= 1, got {self.images}")

    def replays(self, past: Past, rng: np.random.Generator) -> Generated:
        return drawn(past, self.images, rng)
