"""Herding: per timestamp the photos whose running mean stays nearest the mean of all its photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from clstudy.strategies.balance import draw_subset
from clstudy.strategies.base import STRATEGIES, Item, Memory, Strategy, candidates, stack_latents, timestamps_of


@STRATEGIES.register("herding")
class Herding(Strategy):
    """iCaRL's exemplars with timestamps for classes and anchors for features.

    A timestamp is ranked once, when it arrives and all its photos are there (algorithm 4); later its photos are
    dropped from the tail of the ranking (algorithm 5). How many photos each timestamp keeps is drawn under the balance
    rule. iCaRL scales its features to length 1; anchors are used as they are, since W is not a sphere.
    ``Memory.state`` holds the digests that are left, best first: ``{"ranking": {"0": [...], "1": [...]}}``.
    """

    name = "herding"
    description = "photos whose mean latent follows that of their timestamp, balanced (iCaRL; Rebuffi et al. 2017)"
    stores_photos = True
    balanced = True
    uses_buffer_size = True

    def select(self, memory: Memory, new: Sequence[Item], capacity: int, rng: np.random.Generator) -> Memory:
        """Rank the new photos and cut every ranking to its share.

        Raises:
            ValueError: the capacity is below 1.
        """
        pool = candidates(memory, new)
        ranking = {int(timestamp): list(best) for timestamp, best in memory.state.get("ranking", {}).items()}
        fresh = [item for item in pool if item.digest not in ranking.get(item.timestamp, ())]
        for timestamp in sorted({item.timestamp for item in fresh}):
            photos = [item for item in fresh if item.timestamp == timestamp]
            order = herding_order(stack_latents(photos))
            ranking.setdefault(timestamp, []).extend(photos[index].digest for index in order)
        # Only the number of places per timestamp is taken from the draw.
        groups = timestamps_of(pool)
        places = Counter(groups[draw_subset(groups, capacity, rng)].tolist())
        kept = {timestamp: ranking[timestamp][: places[timestamp]] for timestamp in sorted(places)}
        return Memory(
            items=tuple(item for item in pool if item.digest in kept.get(item.timestamp, ())),
            state={"ranking": {str(timestamp): best for timestamp, best in kept.items()}},
        )


def herding_order(points: np.ndarray) -> list[int]:
    """Return all points in the order in which herding takes them (iCaRL, algorithm 4).

    The k-th is the remaining point that brings the mean of the first k nearest to the mean of all; ties go to the
    first.

    Args:
        points: float64 ``[n, d]``.
    """
    mean = points.mean(axis=0)
    left = np.ones(len(points), dtype=bool)
    wanted = np.zeros_like(mean)  # k * mean - sum of those taken: the point that would make the k-th mean exact
    order: list[int] = []
    while left.any():
        wanted = wanted + mean
        distances = np.where(left, np.square(points - wanted).sum(axis=1), np.inf)
        best = int(distances.argmin())
        order.append(best)
        left[best] = False
        wanted = wanted - points[best]
    return order
