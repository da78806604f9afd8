"""Distances to convex hulls of few latents, exact and in batches.

The reference scripts reduce the latents to K - 1 dimensions, build the hull with Qhull and run a generic constrained
optimiser per point. The same number is min over a >= 0, sum a = 1 of |x - sum_i a_i v_i|, a problem in K unknowns
that needs only inner products of the candidates. Any weights a give a lower bound, however they were found: with
r = x - sum_i a_i v_i the hull lies behind the plane of normal r through the vertex nearest x along r, so
distance >= min_i <x - v_i, r> / |r|.

* ``nearest_norms`` makes weights exact: Wolfe's active-set method (Finding the nearest point in a polytope, 1976)
  in lockstep over a batch, until |r| and that lower bound agree.
* ``_careful_norm`` is the same method with projections instead of normal equations, for the few problems that the batch
  cannot certify (vertices that are affinely dependent or nearly so).

Everything is float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from clstudy.strategies.hull.coordinates import BLOCK, reduced

_CERTIFIED = 1e-11  # relative gap between a distance and its lower bound
_ROUNDING = 1e-15  # relative to the largest distance between a point and a vertex: nothing below it can be resolved


def distance_to_hull(points: ArrayLike, vertices: ArrayLike) -> np.ndarray:
    """Return the Euclidean distance of each point to the convex hull of the vertices.

    Args:
        points: ``[n, d]``.
        vertices: ``[k, d]``, k >= 1; may repeat and be affinely dependent.

    Returns:
        float64 ``[n]``, 0 (up to rounding) inside the hull.

    Raises:
        ValueError: shapes do not fit or values are not finite.
    """
    targets, corners = np.asarray(points, dtype=np.float64), np.asarray(vertices, dtype=np.float64)
    if targets.ndim != 2 or corners.ndim != 2 or targets.shape[1] != corners.shape[1] or len(corners) == 0:
        raise ValueError(f"expected points [n, d] and vertices [k, d], k >= 1, got {targets.shape}, {corners.shape}")
    coordinates, scale = reduced(np.concatenate([corners, targets]))
    return scale * _distances(coordinates[: len(corners)], coordinates[len(corners) :])


def _distances(vertices: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distances ``[n]`` of points ``[n, r]`` to the hull of vertices ``[k, r]``."""
    distances = np.empty(len(points))
    size = max(1, BLOCK // (len(vertices) * max(vertices.shape)))
    for first in range(0, len(points), size):
        block = slice(first, first + size)
        edges = vertices - points[block, None]
        weights = np.zeros(edges.shape[:2])
        np.put_along_axis(weights, np.square(edges).sum(axis=2).argmin(axis=1)[:, None], 1.0, axis=1)
        distances[block] = nearest_norms(edges, weights)
    return distances


def nearest_norms(edges: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Norms ``[b]`` of the points nearest the origin in the hulls of edges ``[b, k, r]``.

    Args:
        edges: vertices as seen from the point.
        weights: feasible weights ``[b, k]`` to start from.
    """
    norms = np.empty(len(edges))
    problems = np.arange(len(edges))
    all_edges = edges
    k = edges.shape[1]
    identity = np.eye(k)
    form = edges @ edges.swapaxes(1, 2)
    reach = np.sqrt(form.diagonal(axis1=1, axis2=2).max(axis=1))
    # A constant added to the form makes it definite on the support (Wolfe); the last factor guards against exact
    # repetitions.
    form = form + (np.square(reach)[:, None, None] / k) * (1.0 + 4e-15 * identity)
    settled = (weights > 0).sum(axis=1) == 1  # at the nearest point of the affine hull of its support
    for _ in range(4 * k + 8):
        residual = (weights[:, None, :] @ edges)[:, 0]
        norm = np.sqrt(np.square(residual).sum(axis=1))
        slope = (edges @ residual[:, :, None])[..., 0]
        norms[problems] = norm
        lower = np.maximum(slope.min(axis=1), 0.0) / np.maximum(norm, np.finfo(float).tiny)
        open_ = norm - lower > _CERTIFIED * norm + _ROUNDING * reach
        if not open_.all():
            problems, edges, weights, form = problems[open_], edges[open_], weights[open_], form[open_]
            reach, settled, slope = reach[open_], settled[open_], slope[open_]
        if len(problems) == 0:
            return norms
        support = weights > 0
        entering = slope.argmin(axis=1)
        support[np.arange(len(problems)), entering] |= settled
        # Step to the nearest point of the support's affine hull, as a correction: repeated, it refines itself.
        count = support.sum(axis=1, keepdims=True)
        level = slope - (slope * support).sum(axis=1, keepdims=True) / count
        system = np.where(support[:, :, None] & support[:, None, :], form, identity)
        solved = _solve(system, np.stack([-level * support, support], axis=2))
        free, ones = solved[..., 0] * support, solved[..., 1] * support
        with np.errstate(divide="ignore", invalid="ignore"):
            step = free - ones * (free.sum(axis=1) / ones.sum(axis=1))[:, None]
            ratio = np.where(step < 0, weights / -step, np.inf)
            length = np.minimum(ratio.min(axis=1), 1.0)[:, None]
            weights = np.where(ratio <= length, 0.0, np.maximum(weights + length * step, 0.0))
            weights /= weights.sum(axis=1, keepdims=True)
        settled = length[:, 0] >= 1.0
        solved_well = np.isfinite(weights).all(axis=1)
        if not solved_well.all():  # repeated vertices: rounding left nothing of the system
            _solve_carefully(norms, problems[~solved_well], all_edges)
            problems, edges, weights, form = (a[solved_well] for a in (problems, edges, weights, form))
            reach, settled = reach[solved_well], settled[solved_well]
    _solve_carefully(norms, problems, all_edges)
    return norms


def _solve_carefully(norms: np.ndarray, problems: np.ndarray, edges: np.ndarray) -> None:
    """Put the careful solution into ``norms`` where it is better."""
    for problem in problems:
        norms[problem] = min(norms[problem], _careful_norm(edges[problem]))


def _solve(systems: np.ndarray, right: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.solve(systems, right)
    except np.linalg.LinAlgError:  # one exactly singular system in the batch
        solution: np.ndarray = np.linalg.pinv(systems, hermitian=True) @ right
        return solution


def _careful_norm(edges: np.ndarray) -> float:
    """Norm of the point nearest the origin in the hull of edges ``[k, r]``: Wolfe's method with projections."""
    lengths = np.sqrt(np.square(edges).sum(axis=1))
    support = np.array([lengths.argmin()])
    weights, residual, best = np.ones(1), edges[support[0]], np.inf
    while True:
        norm = float(np.sqrt(np.square(residual).sum()))
        slope = edges @ residual
        slope[support] = np.inf
        entering = int(slope.argmin())
        lower = max(min(slope[entering], norm * norm), 0.0) / max(norm, np.finfo(float).tiny)
        certified = norm - lower <= _CERTIFIED * norm + np.finfo(float).eps * lengths.max()
        if certified or norm >= best:  # without progress, rounding is all that is left
            return min(best, norm)
        best = norm
        support, weights = np.append(support, entering), np.append(weights, 0.0)
        while True:
            target, residual = _affine_nearest(edges[support])
            falling = target < 0
            if not falling.any():
                weights = target
                break
            ratio = np.where(falling, weights / np.where(falling, weights - target, 1.0), np.inf)
            weights = np.maximum(weights + ratio.min() * (target - weights), 0.0)
            stay = ratio > ratio.min()
            support, weights = support[stay], weights[stay] / weights[stay].sum()


def _affine_nearest(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights ``[k]`` (sum 1, any sign) and position ``[r]`` of the point nearest the origin in an affine hull.

    The position comes from a projection, made twice, and not from the weights: in a hull much longer than its
    distance, rounded weights would leave the residual far from perpendicular.
    """
    origin = int(np.square(edges).sum(axis=1).argmin())
    others = np.delete(np.arange(len(edges)), origin)
    basis, sizes, directions = np.linalg.svd((edges[others] - edges[origin]).T, full_matrices=False)
    rank = int((sizes > max(edges.shape) * np.finfo(float).eps * sizes.max(initial=0.0)).sum())
    basis = basis[:, :rank]
    along = basis.T @ edges[origin]
    position = edges[origin] - basis @ along
    position = position - basis @ (basis.T @ position)
    weights = np.zeros(len(edges))
    weights[others] = -directions[:rank].T @ (along / sizes[:rank])
    weights[origin] = 1.0 - weights.sum()
    return weights, position
