"""Choosing a subset of the candidates by the distances of what it leaves out to the hull of what it keeps.

Thousands of subsets are scored at once. ``_Ascent`` finds good weights a for many (subset, point) pairs: it solves for
the affine hull, then raises the multipliers of negative weights one coordinate at a time (Hildreth 1957). These
weights give lower bounds on the distances, which rule out most subsets; the others are solved exactly
(``clstudy.strategies.hull.distance``, which states the problem and the bound).

Everything is float64. Latents are centred, scaled and, where there are fewer of them than dimensions, rotated into
their own span (``clstudy.strategies.hull.coordinates``) first: after that the cost does not depend on w_dim.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from clstudy.strategies.balance import count_subsets, draw_subsets
from clstudy.strategies.hull.coordinates import BLOCK, edges_from, reduced
from clstudy.strategies.hull.distance import nearest_norms
from clstudy.strategies.hull.refinement import exchange_search

NUM_SUBSETS = 5000  # the paper's number

_TIE = 1e-10  # relative difference below which two scores are equal


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
    score so far are never solved. Arguments and errors are the same; m >= 1. Relative differences below 1e-10 count as
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
    rule until no single exchange improves the score (``hull.refinement``). The same subsets are drawn with and
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
    chosen: np.ndarray = subsets[row]
    return chosen


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
        self.coordinates, self.scale = reduced(points)
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
        """The highest score that counts as equal to the given one, up to rounding."""
        return score * (1 + _TIE) + 1e-13 * self.scale


class _Problem:
    """For every subset, the candidates it leaves out and their weights in the score."""

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
        size = max(1, BLOCK // (k * max(others, k)))
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def scores(self, rows: np.ndarray, distances: np.ndarray) -> np.ndarray:
        """Scores ``[m]`` of subsets from the scaled distances ``[m, n - k]`` of the candidates they leave out."""
        scores: np.ndarray = self.scale * (self.weight[rows] * distances).sum(axis=1) + self.constant[rows]
        return scores

    def exact_scores(self, rows: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Exact scores ``[m]`` of subsets, from feasible weights ``[m, n - k, k]`` to start from."""
        k, others = self.subsets.shape[1], self.rest.shape[1]
        coordinates = self.candidates.coordinates
        distances = np.zeros((len(rows), others))
        size = max(1, BLOCK // (max(others, 1) * max(k * k, coordinates.shape[1])))
        for first in range(0, len(rows) if others else 0, size):
            block = slice(first, first + size)
            edges = edges_from(coordinates, self.subsets[rows[block]], self.rest[rows[block]])
            norms = nearest_norms(edges.reshape(-1, k, edges.shape[3]), start[block].reshape(-1, k))
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
        """Keep only the subsets of the mask (bool ``[m]``)."""
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
        # A generous bound on the rounding of these sums: nothing below it is claimed.
        unsure = 1e-13 * self._problem.gram.max() * np.square(1.0 + np.abs(weights).sum(axis=1))
        lower = np.maximum(plane - unsure, 0.0) / np.sqrt(np.maximum(square, 0.0) + unsure + np.finfo(float).tiny)
        return self._problem.scores(self.rows, lower)

    def feasible_weights(self) -> np.ndarray:
        """Weights ``[m, n - k, k]`` >= 0 that sum to 1."""
        weights = np.maximum(self._weights.transpose(2, 1, 0), 0.0)
        weights[weights < 1e-9] = 0.0
        shares: np.ndarray = weights / weights.sum(axis=2, keepdims=True)
        return shares
