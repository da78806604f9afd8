"""Deep generative replay: generated images of the past, labelled by the past network's classifier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clstudy.strategies.base import STRATEGIES, Generated, Past
from clstudy.strategies.prior_replay import PriorReplay, drawn, relabelled


@STRATEGIES.register("dgr")
@dataclass(frozen=True)
class DeepGenerativeReplay(PriorReplay):
    """As ``jtr``, but images get the labels that the classifier of t-1 gives them (Shin et al. 2017, 1705.08690).

    The published method draws from a generator without classes; this one's draws are made of known classes, which are
    then forgotten, so that what differs from ``jtr`` is the labels.

    Attributes:
        images: how many are generated per timestamp.
    """

    images: int = 512

    name = "dgr"
    description = "replay generated images with labels of the classifier of t-1 (deep generative replay, 1705.08690)"

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"expected images >= 1, got {self.images}")

    def replays(self, past: Past, rng: np.random.Generator) -> Generated:
        return relabelled(past, drawn(past, self.images, rng))
