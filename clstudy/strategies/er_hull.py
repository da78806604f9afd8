"""ER-Hull: the buffer whose convex hull in W comes nearest to everything that is discarded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from clstudy.strategies.base import STRATEGIES, Item, PhotoStrategy, stack_latents, timestamps_of
from clstudy.strategies.hull.subsets import select_hull_subset


@STRATEGIES.register("er_hull")
class ErHull(PhotoStrategy):
    """The paper's procedure and nothing else: the best of at most 5,000 random balanced subsets."""

    name = "er_hull"
    description = "best of 5,000 balanced subsets: latent hull nearest the rest (ER-Hull; paper, arXiv 2412.02627)"
    balanced = True
    refine: ClassVar[bool] = False

    def choose(self, items: Sequence[Item], capacity: int, rng: np.random.Generator) -> np.ndarray:
        spread = np.array([item.spread for item in items])
        latents, groups = stack_latents(items), timestamps_of(items)
        return select_hull_subset(latents, groups, spread, capacity, rng=rng, refine=self.refine)
