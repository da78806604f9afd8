"""Greedy k-centre: a buffer from which no candidate's latent is far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clstudy.strategies.base import STRATEGIES, Item, PhotoStrategy, stack_latents


@STRATEGIES.register("k_center")
class KCenter(PhotoStrategy):
    name = "k_center"
    description = "coreset that covers the latents, farthest first, not balanced (Gonzalez 1985; Sener, Savarese 2018)"
    balanced = False

    def choose(self, items: Sequence[Item], capacity: int, rng: np.random.Generator) -> np.ndarray:
        return farthest_first(stack_latents(items), capacity)


def farthest_first(points: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of ``count`` points, each the farthest from those before it, ``[count]``.

    The start is the point nearest the mean. Any start bounds the largest distance of a point to its nearest centre
    by twice the smallest possible one; this one needs no draw and is a sensible answer for a single place. Ties
    go to the first point, and no point is taken twice.

    Args:
        points: float64 ``[n, d]``, n >= count.
        count: how many centres, >= 1.
    """
    chosen = [int(np.square(points - points.mean(axis=0)).sum(axis=1).argmin())]
    nearest = np.full(len(points), np.inf)  # squared distance to the nearest centre
    while len(chosen) < count:
        nearest = np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(axis=1))
        nearest[chosen] = -1.0  # below the distance of any duplicate
        chosen.append(int(nearest.argmax()))
    return np.array(chosen)
