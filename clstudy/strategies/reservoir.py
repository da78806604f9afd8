"""Reservoir sampling: every photo seen so far is in the buffer with the same probability."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clstudy.strategies.base import STRATEGIES, Item, Memory, Strategy, candidates


@STRATEGIES.register("reservoir")
class Reservoir(Strategy):
    """Algorithm R: photo number i replaces a random place with probability K / i.

    New photos stream in canonical order. Drawing an order would change nothing: whatever the order, the buffer is
    a uniformly random subset of all photos seen. ``Memory.state`` counts them: ``{"seen": 24}``.
    """

    name = "reservoir"
    description = "a uniform sample of all photos seen so far, not balanced (algorithm R; Vitter 1985)"
    stores_photos = True
    balanced = False
    uses_buffer_size = True

    def select(self, memory: Memory, new: Sequence[Item], capacity: int, rng: np.random.Generator) -> Memory:
        """Let the new photos stream past the reservoir.

        Raises:
            ValueError: the capacity is below 1.
        """
        self.require_capacity(capacity)
        stored = {(item.timestamp, item.digest) for item in memory.items}
        pool = candidates(memory, new)
        old = [item for item in pool if (item.timestamp, item.digest) in stored]
        fresh = [item for item in pool if (item.timestamp, item.digest) not in stored]
        seen = int(memory.state.get("seen", 0))
        kept: list[Item] = []
        # Stored photos enter freely; if there are fewer places than before, a uniform sample of them stays.
        for number, item in (*enumerate(old, start=1), *enumerate(fresh, start=seen + 1)):
            if len(kept) < capacity:
                kept.append(item)
            elif (place := int(rng.integers(number))) < capacity:
                kept[place] = item
        return Memory(items=candidates(Memory(), kept), state={"seen": seen + len(fresh)})
