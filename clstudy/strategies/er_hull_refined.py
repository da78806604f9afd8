"""ER-Hull, refined: the same score as ER-Hull, minimised over the balanced subsets instead of sampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clstudy.strategies.base import STRATEGIES, Item, PhotoStrategy, stack_latents, timestamps_of
from clstudy.strategies.convex_hull import select_hull_subset


@STRATEGIES.register("er_hull_refined")
class ErHullRefined(PhotoStrategy):
    """Exhaustive up to 5,000 balanced subsets; otherwise ``er_hull``'s choice and others, improved by exchanges."""

    name = "er_hull_refined"
    description = "er_hull's score, all balanced subsets or exchanges until none improves (ours: er_hull, refined)"
    balanced = True

    def choose(self, items: Sequence[Item], capacity: int, rng: np.random.Generator) -> np.ndarray:
        spread = np.array([item.spread for item in items])
        return select_hull_subset(stack_latents(items), timestamps_of(items), spread, capacity, rng=rng, refine=True)
