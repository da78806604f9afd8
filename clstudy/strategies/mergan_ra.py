"""MeRGAN, replay alignment: on old latents the generator must keep making the images it made before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clstudy.strategies.base import STRATEGIES, Past, Penalty
from clstudy.strategies.generative_replay import RandomAnchors, generate

if TYPE_CHECKING:
    from torch import Tensor, nn


@STRATEGIES.register("mergan_ra")
@dataclass(frozen=True)
class MerganReplayAlignment(RandomAnchors):
    """Adds ``weight`` * mean squared pixel difference between current and frozen generator (Wu et al. 2018, 3.3).

    The buffer holds anchors, chosen at random under the balance rule; no photo is kept.

    Attributes:
        weight: of the penalty, >= 0. With 0 this is ``lower``, bit for bit. Default from search_spaces/penalty_search.
        images: latents sampled per timestamp.
        batch: how many of them are compared at every step.
        anchors: stored anchors per sampled latent.
    """

    weight: float = 10.0
    images: int = 64
    batch: int = 2
    anchors: int = 3

    name = "mergan_ra"
    description = "stay close to the images of the generator of t-1 on stored anchors (MeRGAN-RA, arXiv 1809.02058)"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"expected a finite weight >= 0, got {self.weight}")
        if min(self.images, self.batch, self.anchors) < 1:
            raise ValueError(
                f"expected images, batch and anchors >= 1, got {self.images}, {self.batch}, {self.anchors}"
            )

    def penalty(self, past: Past, rng: np.random.Generator) -> Penalty:
        import torch

        from clstudy.training.personalise import replay_draws

        shown = generate(past, self.images, self.anchors, rng)
        draws = replay_draws(self.images, self.batch, rng)

        def alignment(module: nn.Module) -> Tensor:
            index = torch.from_numpy(next(draws)).to(shown.latents.device)
            penalty: Tensor = self.weight * (module(shown.latents[index]) - shown.images[index]).square().mean()
            return penalty

        return alignment
