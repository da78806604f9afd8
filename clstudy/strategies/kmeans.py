"""K-means: the photos nearest the K centres of the candidates' latents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clstudy.strategies.base import STRATEGIES, Item, PhotoStrategy, stack_latents

_RESTARTS = 10
_MAX_ITERATIONS = 300


@STRATEGIES.register("kmeans")
class KMeans(PhotoStrategy):
    name = "kmeans"
    description = "the photo nearest each of K centres in latent space, not balanced (paper's baseline, 2412.02627)"
    balanced = False

    def choose(self, items: Sequence[Item], capacity: int, rng: np.random.Generator) -> np.ndarray:
        latents = stack_latents(items)
        return nearest_unused(latents, kmeans_centroids(latents, capacity, rng))


def kmeans_centroids(points: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Return the centres of the best of ten K-means runs, ``[clusters, d]``.

    k-means++ start (Arthur and Vassilvitskii 2007), Lloyd's iterations until no point changes its cluster; a
    cluster that loses all its points starts again at the point farthest from its centre. Best: least sum of squares.

    Args:
        points: float64 ``[n, d]``, n >= clusters.
        clusters: how many, >= 1.
        rng: draws the starts.
    """
    best, least = points[:clusters], np.inf
    for _ in range(_RESTARTS):
        centroids, inertia = _lloyd(points, _plus_plus(points, clusters, rng))
        if inertia < least * (1 - 1e-12):  # equal solutions found twice differ by rounding: keep the first
            best, least = centroids, inertia
    return best


def nearest_unused(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return, for each centroid in turn, the index of the nearest point not taken by an earlier one, ``[k]``."""
    distances = _squared_distances(points, centroids)
    taken: list[int] = []
    for column in distances.T:
        column[taken] = np.inf
        taken.append(int(column.argmin()))
    return np.array(taken)


def _squared_distances(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Squared distances ``[n, k]``, from differences: exact zeros for duplicates matter more here than speed."""
    return np.stack([np.square(points - centroid).sum(axis=1) for centroid in centroids], axis=1)


def _plus_plus(points: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    chosen = [int(rng.integers(len(points)))]
    nearest = np.square(points - points[chosen[0]]).sum(axis=1)
    while len(chosen) < clusters:
        weight = nearest.copy()
        weight[chosen] = 0.0
        if not weight.any():  # only duplicates of chosen points are left
            weight = np.ones(len(points))
            weight[chosen] = 0.0
        chosen.append(int(rng.choice(len(points), p=weight / weight.sum())))
        nearest = np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(axis=1))
    return points[chosen]


def _lloyd(points: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, float]:
    labels = np.full(len(points), -1)
    for _ in range(_MAX_ITERATIONS):
        distances = _squared_distances(points, centroids)
        before, labels = labels, distances.argmin(axis=1)
        if (labels == before).all():
            break
        own = distances[np.arange(len(points)), labels]
        centroids = centroids.copy()
        for cluster in range(len(centroids)):
            inside = labels == cluster
            if inside.any():
                centroids[cluster] = points[inside].mean(axis=0)
            else:
                farthest = int(own.argmax())
                centroids[cluster], own[farthest] = points[farthest], 0.0
    return centroids, float(_squared_distances(points, centroids).min(axis=1).sum())
