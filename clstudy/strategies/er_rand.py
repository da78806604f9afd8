"""ER-Rand: a random buffer in which every timestamp has its share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clstudy.strategies.balance import draw_subset
from clstudy.strategies.base import STRATEGIES, Item, PhotoStrategy, timestamps_of


@STRATEGIES.register("er_rand")
class ErRand(PhotoStrategy):
    name = "er_rand"
    description = "random photos, balanced over timestamps (ER-Rand; paper, arXiv 2412.02627)"
    balanced = True

    def choose(self, items: Sequence[Item], capacity: int, rng: np.random.Generator) -> np.ndarray:
        return draw_subset(timestamps_of(items), capacity, rng)
