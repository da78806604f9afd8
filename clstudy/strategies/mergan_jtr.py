"""MeRGAN, joint retraining: the past is replayed by the generator itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clstudy.strategies.base import STRATEGIES, Generated, Past
from clstudy.strategies.generative_replay import RandomAnchors, generate


@STRATEGIES.register("mergan_jtr")
@dataclass(frozen=True)
class MerganJointRetraining(RandomAnchors):
    """Trains on new photos and on images of the frozen generator of t-1 (Wu et al. 2018, section 3.2).

    The buffer holds anchors, chosen at random under the balance rule; no photo is kept.

    Attributes:
        images: how many are generated per timestamp, to be replayed like stored photos.
        anchors: stored anchors per sampled latent.
    """

    images: int = 64
    anchors: int = 3

    name = "mergan_jtr"
    description = "replay images that the generator of t-1 makes of stored anchors (MeRGAN-JTR, arXiv 1809.02058)"

    def __post_init__(self) -> None:
        if self.images < 1 or self.anchors < 1:
            raise ValueError(f"expected images >= 1 and anchors >= 1, got {self.images} and {self.anchors}")

    def replays(self, past: Past, rng: np.random.Generator) -> Generated:
        return generate(past, self.images, self.anchors, rng)
