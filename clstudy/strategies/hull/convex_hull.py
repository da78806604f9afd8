"""Distances to convex hulls of few latents, exact and for thousands of hulls at once.

The reference scripts reduce the latents to K - 1 dimensions, build the hull with Qhull and run a generic constrained
optimiser per point. The same number is min over a >= 0, sum a = 1 of |x - sum_i a_i v_i|, a problem in K unknowns
that needs only inner products of the candidates. Here it is solved in three layers:

* ``_Ascent`` finds good weights a for many (subset, point) pairs at once: it solves for the affine hull, then raises
  the multipliers of negative weights one coordinate at a time (Hildreth 1957). Any weights give a lower bound,
  however they were found: with r = x - sum_i a_i v_i the hull lies behind the plane of normal r through the vertex
  nearest x along r, so distance >= min_i <x - v_i, r> / |r|.
* ``_nearest_norms`` makes weights exact: Wolfe's active-set method (Finding the nearest point in a polytope, 1976)
  in lockstep over a batch, until |r| and that lower bound agree.
* ``_careful_norm`` is the same method with projections instead of normal equations, for the few problems that the batch
  cannot certify (vertices that are affinely dependent or nearly so).

Everything is float64. Latents are centred, scaled and, where there are fewer of them than dimensions, rotated into
their own span (QR) first: after that the cost does not depend on w_dim.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from clstudy.strategies.balance import count_subsets, draw_subsets
from clstudy.strategies.hull.refinement import exchange_search

NUM_SUBSETS = 5000  # the paper's number

_CERTIFIED = 1e-11  # relative gap between a distance and its lower bound
_ROUNDING = 1e-15  # relative to the largest distance between a point and a vertex: nothing below it can be resolved
_TIE = 1e-10  # relative difference below which two scores are equal
_FLAT = 16 * np.finfo(float).eps  # relative rounding of a vertex, times k: heights below it are none
_BLOCK = 2**17  # numbers per array in the batched loops, so that they stay in the cache


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
    coordinates, scale = _reduce(np.concatenate([corners, targets]))
    return scale * _distances(coordinates[: len(corners)], coordinates[len(corners) :])


def score_subsets(latents: ArrayLike, groups: ArrayLike, spread: ArrayLike, subsets: ArrayLike) -> np.ndarray:
    """Score subsets of the candidates: how far what would be discarded lies from the hull of what is kept.

    The score is the mean over timestamps of the mean distance of the timestamp's candidates outside the subset to
    the subset's hull; a timestamp that lies wholly in the subset contributes the mean of its items' spread.

    Args:
        latents: candidates ``[n, d]``.
        groups: their timestamps, integers ``[n]``.
        spread: their mean distances to the other training photos of their timestamp ``[n]``, >= 0.
        subsets: candidate indices ``[m, k]``, 1 <= k <= n, distinct within a row.

    Returns:
        float64 ``[m]``, lower is better.

    Raises:
        ValueError: shapes or values do not fit.
    """
    problem = _Problem(_Candidates(latents, groups, spread), subsets)
    scores = np.empty(len(problem.subsets))
    for rows in problem.blocks(np.arange(len(scores))):
        ascent = _Ascent(problem, rows)
        for _ in range(4):
            ascent.sweep()
        scores[rows] = problem.exact_scores(rows, ascent.feasible_weights())
    return scores


def best_subset(latents: ArrayLike, groups: ArrayLike, spread: ArrayLike, subsets: ArrayLike) -> int:
    """Return the row of the subset with the lowest score, the first one where several are equal up to rounding.

    The same answer as the ``argmin`` of ``score_subsets``, found faster: subsets whose lower bound is above the best
    score so far are never solved. Arguments and errors as there, m >= 1. Relative differences below 1e-10 count as
    rounding.
    """
    return _Candidates(latents, groups, spread).best(subsets)[0]


def select_hull_subset(
    latents: ArrayLike,
    groups: ArrayLike,
    spread: ArrayLike,
    capacity: int,
    *,
    rng: np.random.Generator,
    num_subsets: int = NUM_SUBSETS,
    refine: bool = False,
) -> np.ndarray:
    """Choose candidates as the paper's ER-Hull does: the best of ``num_subsets`` random balanced subsets.

    All balanced subsets are tried where there are at most ``num_subsets``. Where there are more, ``refine`` goes on
    from the best one, and from a few others, by exchanging one kept for one discarded candidate under the balance
    rule until no single exchange improves the score (``hull_refinement``). The same subsets are drawn with and
    without it, so a refined choice never scores worse.

    Args:
        latents: candidates ``[n, d]`` in canonical order (draws depend on the order).
        groups: their timestamps, integers ``[n]``.
        spread: see ``score_subsets``.
        capacity: how many to choose, >= 1.
        rng: draws the subsets.
        num_subsets: how many distinct subsets to try, >= 1.
        refine: whether to improve the best one by exchanges.

    Returns:
        Sorted candidate indices ``[min(capacity, n)]``.

    Raises:
        ValueError: shapes or values do not fit.
    """
    if num_subsets < 1:
        raise ValueError(f"expected at least 1 subset to try, got num_subsets = {num_subsets}")
    labels = np.asarray(groups)
    subsets = draw_subsets(labels, capacity, num_subsets, rng)
    candidates = _Candidates(latents, labels, spread)
    row, _ = candidates.best(subsets)
    if refine and count_subsets(labels, capacity) > len(subsets):
        return exchange_search(np.concatenate([subsets[[row]], subsets]), labels, candidates.improve)
    return subsets[row]


def log_volume(vertices: ArrayLike) -> float:
    """Return the natural log of the (k - 1)-volume of the simplex of k vertices.

    For k = 2 that is the log of a length, for k = 3 of an area. A single vertex has 0 by convention (its 0-volume, a
    count, is 1).

    Args:
        vertices: ``[k, d]``, k >= 1; coordinates may be of very different scale.

    Returns:
        A float; -inf where vertices repeat or are affinely dependent up to the rounding of their coordinates.

    Raises:
        ValueError: the shape does not fit or values are not finite.
    """
    corners = np.asarray(vertices, dtype=np.float64)
    if corners.ndim != 2 or len(corners) == 0:
        raise ValueError(f"expected vertices [k, d], k >= 1, got shape {corners.shape}")
    if not np.isfinite(corners).all():
        raise ValueError("expected finite vertices, got NaN or infinity among them")
    # A power of two costs no digits and keeps the squares in range.
    exponent = int(np.frexp(np.abs(corners).max(initial=0.0))[1])
    corners = np.ldexp(corners, -exponent)
    unsure = _FLAT * len(corners) * np.abs(corners).max(axis=0, initial=0.0)
    return float(_log_volumes(corners[None], unsure)[0]) + (len(corners) - 1) * exponent * math.log(2.0)


def log_volumes(latents: ArrayLike, subsets: ArrayLike) -> np.ndarray:
    """Return ``log_volume`` of many subsets of the candidates at once.

    Args:
        latents: candidates ``[n, d]``.
        subsets: candidate indices ``[m, k]``, k >= 1.

    Returns:
        float64 ``[m]``. Where d > n, rounding is judged over all coordinates together, not for each.

    Raises:
        ValueError: shapes do not fit or values are not finite.
    """
    points, rows = np.asarray(latents, dtype=np.float64), np.asarray(subsets)
    if points.ndim != 2 or rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"expected latents [n, d] and subsets [m, k], k >= 1, got {points.shape}, {rows.shape}")
    coordinates, scale = _reduce(points)
    unsure = _FLAT * rows.shape[1] * np.abs(points).max(axis=0, initial=0.0) / scale
    if points.shape[1] > len(points):
        unsure = np.full(coordinates.shape[1], np.sqrt(np.square(unsure).sum()))
    volumes = np.empty(len(rows))
    size = max(1, _BLOCK // (rows.shape[1] * coordinates.shape[1]))
    for first in range(0, len(rows), size):
        volumes[first : first + size] = _log_volumes(coordinates[rows[first : first + size]], unsure)
    return volumes + (rows.shape[1] - 1) * math.log(scale)


def _log_volumes(corners: np.ndarray, unsure: np.ndarray) -> np.ndarray:
    """Log volumes ``[m]`` of simplices ``[m, k, r]``; residuals within ``unsure`` ``[r]`` count as zero.

    Heights are multiplied up: of the vertices not yet used, the farthest from the affine hull of those used, by
    Gram-Schmidt with pivoting. It is done on coordinates, not on inner products, and each height is made orthogonal
    to the directions before it again: so small coordinates keep their digits beside large ones.
    """
    m, k, r = corners.shape
    every = np.arange(m)
    edges = corners - corners[:, :1]
    # From the end of a longest edge: a first vertex amid the others would make no difference but to rounding.
    edges = edges - edges[every, np.square(edges).sum(axis=2).argmax(axis=1)][:, None]
    logs = np.full(m, -math.lgamma(k))
    directions = np.zeros((m, k - 1, r))
    for step in range(k - 1):
        farthest = np.square(edges).sum(axis=2).argmax(axis=1)
        residual = edges[every, farthest]
        for _ in range(2):  # once leaves rounding of the size of the large coordinates
            for direction in directions[:, :step].swapaxes(0, 1):
                residual = residual - (residual * direction).sum(axis=1, keepdims=True) * direction
        height = np.sqrt(np.square(residual).sum(axis=1))
        flat = (np.abs(residual) <= unsure).all(axis=1)
        with np.errstate(divide="ignore"):
            logs += np.where(flat, -np.inf, np.log(height))
        direction = directions[:, step] = residual / np.where(height > 0, height, 1.0)[:, None]
        edges = edges - (edges @ direction[:, :, None]) * direction[:, None]
        edges[every, farthest] = 0.0
    return logs


class _Candidates:
    """The candidates' geometry and timestamps: what the scores of all subsets have in common."""

    def __init__(self, latents: ArrayLike, groups: ArrayLike, spread: ArrayLike):
        points, labels = np.asarray(latents, dtype=np.float64), np.asarray(groups)
        spreads = np.asarray(spread, dtype=np.float64)
        n = len(points)
        if points.ndim != 2 or labels.shape != (n,) or spreads.shape != (n,):
            raise ValueError(
                f"expected latents [n, d], groups [n] and spread [n], got {points.shape}, {labels.shape}, "
                f"{spreads.shape}"
            )
        self.coordinates, self.scale = _reduce(points)
        self.gram = self.coordinates @ self.coordinates.T
        _, self.labels = np.unique(labels, return_inverse=True)
        self.member = self.labels[:, None] == np.arange(self.labels.max(initial=0) + 1)  # [n, timestamps]
        self.mean_spread = (spreads @ self.member) / np.maximum(self.member.sum(axis=0), 1)

    def best(self, subsets: ArrayLike) -> tuple[int, float]:
        """Row and score of the lowest subset, the first one where several are equal up to rounding."""
        found = self.improve(subsets, np.inf)
        assert found is not None
        return found

    def improve(self, subsets: ArrayLike, below: float) -> tuple[int, float] | None:
        """Row and score of the lowest subset, None where none is below the given score by more than rounding."""
        scores = _Problem(self, subsets).scores_that_matter(below)
        lowest = float(scores.min())
        if not self.equal_up_to(lowest) < below:
            return None
        row = int(np.argmax(scores <= self.equal_up_to(lowest)))
        return row, float(scores[row])

    def equal_up_to(self, score: float) -> float:
        """The highest score that counts as equal: what rounding can do, and no more."""
        return score * (1 + _TIE) + 1e-13 * self.scale


class _Problem:
    """For every subset what is left out and how much it weighs in the score."""

    def __init__(self, candidates: _Candidates, subsets: ArrayLike):
        rows, n = np.asarray(subsets), len(candidates.labels)
        if rows.ndim != 2 or rows.size == 0 or rows.min() < 0 or rows.max() >= n:
            raise ValueError(f"expected subsets [m, k] of indices below {n}, m, k >= 1, got shape {rows.shape}")
        inside = np.zeros((len(rows), n), dtype=bool)
        np.put_along_axis(inside, rows, True, axis=1)
        if not (inside.sum(axis=1) == rows.shape[1]).all():
            raise ValueError("expected distinct indices within each subset, got a repeated one")

        self.candidates = candidates
        self.gram, self.scale = candidates.gram, candidates.scale
        self.subsets = rows.astype(np.int64)
        self.rest = np.nonzero(~inside)[1].reshape(len(rows), n - rows.shape[1])  # [m, n - k]
        left_out = (~inside).astype(np.float64) @ candidates.member  # [m, timestamps]
        share = 1.0 / (left_out.shape[1] * np.maximum(left_out, 1.0))
        self.weight = np.take_along_axis(share[:, candidates.labels], self.rest, axis=1)  # [m, n - k]
        self.constant = ((left_out == 0) * candidates.mean_spread).mean(axis=1)  # [m], in the latents' own unit

    def blocks(self, rows: np.ndarray) -> list[np.ndarray]:
        """Cut subsets into blocks that fit the cache."""
        k, others = self.subsets.shape[1], self.rest.shape[1]
        size = max(1, _BLOCK // (k * max(others, k)))
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def scores(self, rows: np.ndarray, distances: np.ndarray) -> np.ndarray:
        """Scores ``[m]`` of subsets from the scaled distances ``[m, n - k]`` of the candidates they leave out."""
        return self.scale * (self.weight[rows] * distances).sum(axis=1) + self.constant[rows]

    def exact_scores(self, rows: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Exact scores ``[m]`` of subsets, from feasible weights ``[m, n - k, k]`` to start from."""
        k, others = self.subsets.shape[1], self.rest.shape[1]
        coordinates = self.candidates.coordinates
        distances = np.zeros((len(rows), others))
        size = max(1, _BLOCK // (max(others, 1) * max(k * k, coordinates.shape[1])))
        for first in range(0, len(rows) if others else 0, size):
            block = slice(first, first + size)
            edges = _edges(coordinates, self.subsets[rows[block]], self.rest[rows[block]])
            norms = _nearest_norms(edges.reshape(-1, k, edges.shape[3]), start[block].reshape(-1, k))
            distances[block] = norms.reshape(-1, others)
        return self.scores(rows, distances)

    def scores_that_matter(self, limit: float = np.inf) -> np.ndarray:
        """Exact scores ``[m]`` of all subsets that can be the best or equal to it, infinity for the others.

        Subsets above ``limit`` do not matter either.
        """
        scores, best = np.full(len(self.subsets), np.inf), limit
        matters = self.candidates.equal_up_to
        first = np.concatenate([_Ascent(self, rows).lower_scores() for rows in self.blocks(np.arange(len(scores)))])
        # Promising subsets first: a low best score early spares work on all that follow.
        for rows in self.blocks(np.argsort(first, kind="stable")):
            rows = rows[first[rows] <= matters(best)]
            if len(rows) == 0:
                break  # and no later one can matter, since they are in order
            ascent = _Ascent(self, rows)
            for sweeps in (1, 1, 2, 4, 8):
                for _ in range(sweeps):
                    ascent.sweep()
                lower = ascent.lower_scores()
                if np.isinf(best):
                    lead = [int(lower.argmin())]
                    scores[ascent.rows[lead]] = self.exact_scores(ascent.rows[lead], ascent.feasible_weights()[lead])
                    best = float(scores[ascent.rows[lead]].min())
                ascent.keep((lower <= matters(best)) & np.isinf(scores[ascent.rows]))
                if len(ascent.rows) == 0:
                    break
            scores[ascent.rows] = self.exact_scores(ascent.rows, ascent.feasible_weights())
            best = min(best, float(scores[rows].min()))
        return scores


class _Ascent:
    """Weights of the nearest points in the hulls of a block of subsets, improved sweep by sweep.

    Minimising |x - sum_i a_i v_i|^2 over sum a = 1, a >= 0 with multipliers l >= 0 for a gives a = a0 + W l, where
    a0 are the weights in the affine hull and W is the inverse of the quadratic form on {sum a = 0}. Coordinate
    ascent in l moves one negative weight to 0 at a time. Arrays have the subset as last axis, which makes every
    step one long vector operation.
    """

    def __init__(self, problem: _Problem, rows: np.ndarray):
        subsets, rest = problem.subsets[rows], problem.rest[rows]
        k = subsets.shape[1]
        gram = problem.gram
        self.rows = rows
        self._problem = problem
        self._inner = gram[subsets[:, :, None], subsets[:, None, :]]  # [m, k, k]
        self._cross = gram[subsets[:, :, None], rest[:, None, :]]  # [m, k, n - k]
        self._square = gram[rest, rest]  # [m, n - k]
        # Adding a constant to the form changes nothing where sum a = 1 and makes it definite. The ridge keeps it so
        # for dependent vertices; it only costs tightness, since bounds hold for any weights.
        mean = float(np.trace(gram)) / len(gram) or 1.0
        inverse = np.linalg.inv(self._inner + mean * (np.ones((k, k)) + 1e-9 * np.eye(k)))
        ones = inverse.sum(axis=2)
        affine = ones / ones.sum(axis=1, keepdims=True)  # [m, k]
        form = inverse - ones[:, :, None] * affine[:, None, :]
        weights = form @ self._cross + affine[:, :, None]
        self._form = np.ascontiguousarray(form.transpose(1, 2, 0))  # W: [k, k, m]
        self._weights = np.ascontiguousarray(weights.transpose(1, 2, 0))  # a: [k, n - k, m]
        self._multipliers = np.zeros_like(self._weights)  # l: [k, n - k, m]

    def keep(self, mask: np.ndarray) -> None:
        """Go on with some of the subsets (bool ``[m]``)."""
        if mask.all():
            return
        self.rows = self.rows[mask]
        self._inner, self._cross, self._square = self._inner[mask], self._cross[mask], self._square[mask]
        self._form, self._weights = self._form[..., mask], self._weights[..., mask]
        self._multipliers = self._multipliers[..., mask]

    def sweep(self) -> None:
        """One coordinate step for each vertex."""
        for i, (form, weight, multiplier) in enumerate(zip(self._form, self._weights, self._multipliers, strict=True)):
            step = np.maximum(weight / -np.maximum(form[i], np.finfo(float).tiny), -multiplier)
            multiplier += step
            self._weights += form[:, None, :] * step

    def lower_scores(self) -> np.ndarray:
        """Lower bounds ``[m]`` on the subsets' scores."""
        weights = self._weights.transpose(2, 0, 1)  # [m, k, n - k]
        product = self._inner @ weights
        along = self._square - (weights * self._cross).sum(axis=1)  # <x, r>
        plane = along - (self._cross - product).max(axis=1)  # min_i <x - v_i, r>
        square = along - (weights * (self._cross - product)).sum(axis=1)  # |r|^2
        # Rounding of these sums, generously: below it nothing is claimed.
        unsure = 1e-13 * self._problem.gram.max() * np.square(1.0 + np.abs(weights).sum(axis=1))
        lower = np.maximum(plane - unsure, 0.0) / np.sqrt(np.maximum(square, 0.0) + unsure + np.finfo(float).tiny)
        return self._problem.scores(self.rows, lower)

    def feasible_weights(self) -> np.ndarray:
        """Weights ``[m, n - k, k]`` >= 0 that sum to 1."""
        weights = np.maximum(self._weights.transpose(2, 1, 0), 0.0)
        weights[weights < 1e-9] = 0.0
        return weights / weights.sum(axis=2, keepdims=True)


def _reduce(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre, scale and rotate points ``[n, d]`` into ``[n, min(n, d)]``; distances shrink by the returned scale."""
    if not np.isfinite(points).all():
        raise ValueError("expected finite latents, got NaN or infinity among them")
    if points.size == 0:
        return np.zeros((len(points), 1)), 1.0
    centred = points - points.mean(axis=0)
    scale = float(np.abs(centred).max())
    if scale == 0.0:
        return np.zeros((len(points), 1)), 1.0
    centred /= scale
    # QR, not an eigen-decomposition of the Gram matrix, which would lose half of the digits.
    if points.shape[1] > len(points):
        centred = np.asarray(np.linalg.qr(centred.T, mode="r")).T
    return centred, scale


def _edges(coordinates: np.ndarray, subsets: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Vertices of subsets ``[m, k]`` as seen from the points left out ``[m, o]``, ``[m, o, k, min(r, k)]``.

    Where coordinates ``[n, r]`` have more dimensions than a hull can fill, each subset is rotated into its own affine
    hull (QR), and all that a point has outside it becomes one coordinate.
    """
    vertices, points = coordinates[subsets], coordinates[rest]
    k = subsets.shape[1]
    if coordinates.shape[1] <= k:
        return vertices[:, None] - points[:, :, None]
    basis, triangle = np.linalg.qr((vertices[:, 1:] - vertices[:, :1]).swapaxes(1, 2))  # [m, r, k - 1]
    offset = points - vertices[:, :1]
    along = offset @ basis  # [m, o, k - 1]
    edges = np.zeros((*rest.shape, k, k))
    edges[:, :, 1:, :-1] = triangle.swapaxes(1, 2)[:, None]
    edges[..., :-1] -= along[:, :, None]
    edges[..., -1] = np.sqrt(np.square(offset - along @ basis.swapaxes(1, 2)).sum(axis=2))[:, :, None]
    return edges


def _distances(vertices: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distances ``[n]`` of points ``[n, r]`` to the hull of vertices ``[k, r]``."""
    distances = np.empty(len(points))
    size = max(1, _BLOCK // (len(vertices) * max(vertices.shape)))
    for first in range(0, len(points), size):
        block = slice(first, first + size)
        edges = vertices - points[block, None]
        weights = np.zeros(edges.shape[:2])
        np.put_along_axis(weights, np.square(edges).sum(axis=2).argmin(axis=1)[:, None], 1.0, axis=1)
        distances[block] = _nearest_norms(edges, weights)
    return distances


def _nearest_norms(edges: np.ndarray, weights: np.ndarray) -> np.ndarray:
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
        return np.linalg.pinv(systems, hermitian=True) @ right


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
