"""Improve on random subsets: exchange one photo at a time under the balance rule, until no exchange helps.

Scores are not computed here: the search takes a function that finds the best of many subsets. It descends from
several starts, because a subset that no single exchange improves need not be the best of all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STARTS = 8  # `benchmarks/hull_selection.py` prints how often they reach the optimum

Improve = Callable[[np.ndarray, float], "tuple[int, float] | None"]


def exchange_search(starts: np.ndarray, groups: np.ndarray, improve: Improve, max_starts: int = STARTS) -> np.ndarray:
    """Return the best subset that descents by exchanges reach.

    Deterministic: each step takes the best exchange of all, and of equal ones the first. A descent that meets an
    earlier one stops there, since it would end where that one did.

    Args:
        starts: balanced subsets, sorted candidate indices ``[m, k]``, m >= 1; the result is never worse than the first.
        groups: the candidates' timestamps, integers ``[n]``.
        improve: takes subsets ``[m, k]`` and a score; returns row and score of the best subset if it is better
            than that score by more than rounding, otherwise None.
        max_starts: how many different starts to descend from, >= 1.

    Returns:
        Sorted candidate indices ``[k]``, a subset that no balanced exchange improves.
    """
    best: np.ndarray = starts[0]
    lowest = np.inf
    seen: set[tuple[int, ...]] = set()
    descents = 0
    for start in starts:
        if descents == max_starts:
            break
        if tuple(start.tolist()) in seen:
            continue
        descents += 1
        subset, score = start, np.inf
        found = improve(start[None], np.inf)
        neighbours = start[None]
        while found is not None:
            subset, score = neighbours[found[0]], found[1]
            if tuple(subset.tolist()) in seen:
                break
            seen.add(tuple(subset.tolist()))
            neighbours = balanced_exchanges(subset, groups)
            found = improve(neighbours, score) if len(neighbours) else None
        if improve(subset[None], lowest) is not None:
            best, lowest = subset, score
    return best


def balanced_exchanges(subset: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return all balanced subsets that differ from a balanced one in a single candidate.

    Photos of one timestamp can always be exchanged. Between timestamps, the balance rule allows just those exchanges
    that pass on a place of the last turn: the timestamp that gives holds exactly one photo more than the one that
    receives.

    Args:
        subset: sorted candidate indices ``[k]``, balanced.
        groups: the candidates' timestamps, integers ``[n]``.

    Returns:
        Sorted candidate indices ``[m, k]``; m = 0 where every candidate is kept.
    """
    _, labels = np.unique(groups, return_inverse=True)
    held = np.bincount(labels[subset], minlength=int(labels.max()) + 1)
    others = np.setdiff1d(np.arange(len(labels)), subset, assume_unique=True)
    gives, takes = labels[subset][:, None], labels[others][None, :]
    places, choices = np.nonzero((gives == takes) | (held[gives] == held[takes] + 1))
    rows = np.repeat(subset[None], len(places), axis=0)
    rows[np.arange(len(rows)), places] = others[choices]
    return np.sort(rows, axis=1)
