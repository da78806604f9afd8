"""Joint training with replay: images of past classes come from the generator itself (MeRGAN-JTR)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clstudy.strategies.base import STRATEGIES, Generated, Past
from clstudy.strategies.prior_replay import DrawnImages, drawn


@STRATEGIES.register("jtr")
@dataclass(frozen=True)
class JointTrainingWithReplay(DrawnImages):
    """Trains on new photos and on images that the frozen generator of t-1 draws (Wu et al. 2018, section 3.2)."""

    name = "jtr"
    description = "replay images that the generator of t-1 draws of past classes (MeRGAN-JTR, arXiv 1809.02058)"

    def replays(self, past: Past, rng: np.random.Generator) -> Generated:
        return drawn(past, self.images, rng)
