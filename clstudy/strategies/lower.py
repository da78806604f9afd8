"""No replay: shows what is lost when nothing is done about forgetting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clstudy.strategies.base import STRATEGIES, Item, Memory, Strategy


@STRATEGIES.register("lower")
class Lower(Strategy):
    name = "lower"
    description = "lower bound: fine-tune on each timestamp in turn, remember nothing (paper, arXiv 2412.02627)"
    stores_photos = False
    balanced = False
    uses_buffer_size = False

    def select(self, memory: Memory, new: Sequence[Item], capacity: int, rng: np.random.Generator) -> Memory:
        return Memory()
