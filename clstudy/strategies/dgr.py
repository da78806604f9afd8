"""Deep generative replay: generated images of the past, labelled by the past network's classifier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clstudy.strategies.base import STRATEGIES, Generated, Past
from clstudy.strategies.prior_replay import DrawnImages, drawn, relabelled


@STRATEGIES.register("dgr")
@dataclass(frozen=True)
class DeepGenerativeReplay(DrawnImages):
    """As ``jtr``, but images get the labels that the classifier of t-1 gives them (Shin et al. 2017, 1705.08690).

    The published method draws from a generator without classes; this one's draws are made of known classes, which are
    then forgotten, so that what differs from ``jtr`` is the labels.
    """

    name = "dgr"
    description = "replay generated images with labels of the classifier of t-1 (deep generative replay, 1705.08690)"

    def replays(self, past: Past, rng: np.random.Generator) -> Generated:
        return relabelled(past, drawn(past, self.images, rng))
