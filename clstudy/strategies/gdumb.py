"""GDumb: greedy balance over the stream of photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from clstudy.strategies.base import STRATEGIES, Item, PhotoStrategy, timestamps_of


@STRATEGIES.register("gdumb")
class GDumb(PhotoStrategy):
    name = "gdumb"
    description = "new photos push random ones out of the largest timestamp, balanced (GDumb; Prabhu et al. 2020)"
    balanced = True

    def choose(self, items: Sequence[Item], capacity: int, rng: np.random.Generator) -> np.ndarray:
        return greedy_balance(timestamps_of(items), capacity, rng)


def greedy_balance(groups: np.ndarray, capacity: int, rng: np.random.Generator) -> np.ndarray:
    """Return what GDumb's greedy sampler holds after the stream of candidates, indices ``[min(capacity, n)]``.

    A photo enters freely while there is room; afterwards only while its timestamp holds fewer photos than the
    largest one, and then it replaces a random photo of the largest. The result obeys the balance rule, and unlike a
    draw under that rule it always holds the newest timestamp.

    The stream runs through the timestamps in order. Stored photos come first and fit, so that starting again from
    an empty buffer is the same as continuing with the stored one. Within a timestamp the order is drawn: the first
    photos to arrive are those that stay, and in a fixed order they would be the same for every seed.

    Args:
        groups: the timestamp of each candidate, integers ``[n]``.
        capacity: places in the buffer, >= 1.
        rng: draws the order and the photos to remove.
    """
    shuffled = rng.permutation(len(groups))
    kept: list[int] = []
    for photo in shuffled[np.argsort(groups[shuffled], kind="stable")]:
        if len(kept) < capacity:
            kept.append(photo)
            continue
        held = Counter(groups[kept].tolist())
        most = max(held.values())
        if held[int(groups[photo])] < most:
            # Timestamps that share the maximum have equally many photos: one draw over all of them decides the tie.
            largest = [slot for slot, other in enumerate(kept) if held[int(groups[other])] == most]
            kept[largest[rng.integers(len(largest))]] = photo
    return np.array(kept)
