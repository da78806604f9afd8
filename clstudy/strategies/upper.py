"""Joint training on everything: shows what could be reached if nothing had to be discarded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clstudy.strategies.base import STRATEGIES, Item, Memory, Strategy


@STRATEGIES.register("upper")
class Upper(Strategy):
    name = "upper"
    description = "upper bound: train once on the photos of all timestamps together (paper, arXiv 2412.02627)"
    stores_photos = False
    balanced = False
    uses_buffer_size = False
    joint = True

    def select(self, memory: Memory, new: Sequence[Item], capacity: int, rng: np.random.Generator) -> Memory:
        return Memory()
