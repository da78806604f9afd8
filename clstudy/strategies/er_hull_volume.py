"""ER-Hull by volume: the buffer whose convex hull in W is the largest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from clstudy.strategies.balance import draw_subsets
from clstudy.strategies.base import STRATEGIES, Item, PhotoStrategy, stack_latents, timestamps_of
from clstudy.strategies.hull.subsets import NUM_SUBSETS
from clstudy.strategies.hull.volume import log_volumes

_TIE = 1e-10  # difference of logs below which two volumes count as equal
_FLAT = 16 * np.finfo(float).eps  # relative rounding of a latent, times k: extents below it count as zero
_BLOCK = 2**20  # numbers per array


@STRATEGIES.register("er_hull_volume")
class ErHullVolume(PhotoStrategy):
    """The project page's wording: of at most 5,000 random balanced subsets, the one with the largest hull."""

    name = "er_hull_volume"
    description = "best of 5,000 balanced subsets: largest hull volume (the paper's project page, arXiv 2412.02627)"
    balanced = True

    def choose(self, items: Sequence[Item], capacity: int, rng: np.random.Generator) -> np.ndarray:
        return select_volume_subset(stack_latents(items), timestamps_of(items), capacity, rng=rng)


def select_volume_subset(
    latents: ArrayLike,
    groups: ArrayLike,
    capacity: int,
    *,
    rng: np.random.Generator,
    num_subsets: int = NUM_SUBSETS,
) -> np.ndarray:
    """Choose the balanced subset with the largest hull volume, of all or of ``num_subsets`` drawn as for ER-Hull.

    Volumes are compared in logs; of equal ones the first subset is taken (so a single photo, which has no volume to
    compare, is the first one drawn or enumerated). Where every hull is flat (more photos than dimensions + 1, or
    repeated latents), ``log_extents`` decides instead.

    Args:
        latents: candidates ``[n, d]`` in canonical order (draws depend on the order).
        groups: their timestamps, integers ``[n]``.
        capacity: how many to choose, >= 1.
        rng: draws the subsets.
        num_subsets: how many distinct subsets to try, >= 1.

    Returns:
        Sorted candidate indices ``[min(capacity, n)]``.

    Raises:
        ValueError: shapes or values do not fit.
    """
    if num_subsets < 1:
        raise ValueError(f"expected at least 1 subset to try, got num_subsets = {num_subsets}")
    points, labels = np.asarray(latents, dtype=np.float64), np.asarray(groups)
    if points.ndim != 2 or labels.shape != points.shape[:1]:
        raise ValueError(f"expected latents [n, d] and groups [n], got {points.shape}, {labels.shape}")
    subsets = draw_subsets(labels, capacity, num_subsets, rng)
    volumes = log_volumes(points, subsets)
    if np.isneginf(volumes).all():
        volumes = log_extents(points, subsets)
    chosen: np.ndarray = subsets[np.argmax(volumes >= volumes.max() - _TIE)]
    return chosen


def log_extents(latents: np.ndarray, subsets: np.ndarray) -> np.ndarray:
    """Return the log extents of flat hulls in the dimensions they span, comparable among those that span the most.

    The log of the product of the non-zero singular values of the centred vertices: its square is, up to a constant,
    the sum of the squared volumes of all the largest non-flat simplices among the vertices. For hulls that are not
    flat it is the log volume plus a constant.

    Args:
        latents: candidates ``[n, d]``.
        subsets: candidate indices ``[m, k]``.

    Returns:
        float64 ``[m]``; -inf for subsets that span fewer dimensions than the best one.
    """
    m, k = subsets.shape
    unsure = _FLAT * k * np.sqrt(np.square(np.abs(latents).max(axis=0, initial=0.0)).sum())
    ranks, logs = np.empty(m, dtype=np.int64), np.empty(m)
    size = max(1, _BLOCK // max(1, k * latents.shape[1]))
    for first in range(0, m, size):
        block = slice(first, first + size)
        vertices = latents[subsets[block]]
        sizes = np.linalg.svd(vertices - vertices.mean(axis=1, keepdims=True), compute_uv=False)
        counted = sizes > unsure
        ranks[block] = counted.sum(axis=1)
        logs[block] = np.log(np.where(counted, sizes, 1.0)).sum(axis=1)
    return np.where(ranks == ranks.max(), logs, -np.inf)
