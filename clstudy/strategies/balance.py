"""The balance rule: every timestamp gets its fair share of the buffer.

With n timestamps among the candidates and K places: if K <= n, K distinct timestamps get one place each; otherwise
each gets floor(K / n) or ceil(K / n). Places are handed out in turns: a turn gives one place to every timestamp
that still has photos, and the last, incomplete turn goes to timestamps drawn uniformly among those. So a timestamp
with too few photos gives all it has, its places go to the others, and exactly min(K, candidates) photos are kept.

Subsets are drawn in two steps, as the reference scripts do: first which timestamps get a place of the last turn,
uniformly over timestamps; then the photos, uniformly without replacement within each. (Drawing uniformly over
balanced subsets would favour timestamps with many photos.)

All functions take ``groups``, the timestamp of each candidate as integers ``[n]``, and return sorted candidate
indices.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np

_ENUMERATE_UP_TO = 4  # times the wanted number of distinct subsets: above it, repeats are rare enough to redraw


def draw_subset(groups: np.ndarray, capacity: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one balanced subset in two steps; sorted indices ``[min(capacity, n)]``."""
    subset: np.ndarray = _draw(_Shares(groups, capacity), 1, rng)[0]
    return subset


def draw_subsets(groups: np.ndarray, capacity: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw distinct balanced subsets, or return all of them where there are at most ``count``.

    Subsets are drawn in two steps and repeats are drawn again; rows are in the order of their first appearance.
    Where all fit, they come in lexicographic order and nothing is drawn.

    Returns:
        Sorted indices ``[m, min(capacity, n)]``, m = min(count, number of balanced subsets).
    """
    shares = _Shares(groups, capacity)
    total = shares.count()
    if total <= count:
        return _enumerate(shares)
    if total <= _ENUMERATE_UP_TO * count:
        return _race(shares, count, rng)
    rows: np.ndarray | None = None
    while rows is None or len(rows) < count:
        drawn = _draw(shares, count, rng)
        rows = _distinct(drawn if rows is None else np.concatenate([rows, drawn]))
    return rows[:count]


def count_subsets(groups: np.ndarray, capacity: int) -> int:
    """Return the exact number of balanced subsets (it can be large)."""
    return _Shares(groups, capacity).count()


def enumerate_subsets(groups: np.ndarray, capacity: int) -> np.ndarray:
    """Return all balanced subsets in lexicographic order, sorted indices ``[m, min(capacity, n)]``."""
    return _enumerate(_Shares(groups, capacity))


def is_balanced(groups: np.ndarray, chosen: np.ndarray, capacity: int) -> bool:
    """Whether the chosen candidates (indices) are a subset that the balance rule allows."""
    shares = _Shares(groups, capacity)
    extra = np.array([np.isin(members, chosen).sum() for members in shares.members]) - shares.certain
    return (
        len(set(np.asarray(chosen).tolist())) == len(chosen) == shares.size
        and bool(((extra >= 0) & (extra <= shares.open)).all())
        and int(extra.sum()) == shares.extra
    )


class _Shares:
    """How many places each timestamp gets: ``certain`` ones, and ``extra`` more for some of the ``open`` ones."""

    def __init__(self, groups: np.ndarray, capacity: int):
        groups = np.asarray(groups)
        if groups.ndim != 1 or len(groups) == 0:
            raise ValueError(f"expected the timestamps of at least one candidate [n], got shape {groups.shape}")
        if capacity < 1:
            raise ValueError(f"the buffer must hold at least 1 photo, got a capacity of {capacity}")
        self.candidates = len(groups)
        self.size = min(capacity, len(groups))
        self.members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
        available = np.array([len(members) for members in self.members])
        self.certain = np.zeros(len(available), dtype=np.int64)
        self.open = available > 0
        self.extra = self.size
        while self.extra >= self.open.sum() > 0:
            self.certain += self.open
            self.extra -= int(self.open.sum())
            self.open = self.certain < available

    def count(self) -> int:
        """Number of balanced subsets: products of binomials, summed over the ways to assign the extra places."""
        ways = [1] + [0] * self.extra  # by the number of extra places given so far
        for members, certain, may_get_more in zip(self.members, self.certain.tolist(), self.open, strict=True):
            without, with_extra = math.comb(len(members), certain), math.comb(len(members), certain + 1)
            ways = [
                n * without + (ways[used - 1] * with_extra if used and may_get_more else 0)
                for used, n in enumerate(ways)
            ]
        return ways[self.extra]


def _draw(shares: _Shares, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``count`` subsets independently, in two steps; sorted indices ``[count, size]``."""
    quota = np.repeat(shares.certain[None], count, axis=0)
    takers = np.flatnonzero(shares.open)
    if shares.extra:
        order = rng.random((count, len(takers))).argsort(axis=1)
        np.add.at(quota, (np.arange(count)[:, None], takers[order[:, : shares.extra]]), 1)
    chosen = np.zeros((count, shares.candidates), dtype=bool)
    for group, members in enumerate(shares.members):
        rank = rng.random((count, len(members))).argsort(axis=1).argsort(axis=1)  # a random permutation per row
        chosen[:, members] = rank < quota[:, group, None]
    return np.nonzero(chosen)[1].reshape(count, shares.size)


def _distinct(rows: np.ndarray) -> np.ndarray:
    """Drop repeated rows, keeping the first of each and the order."""
    _, first = np.unique(rows, axis=0, return_index=True)
    return rows[np.sort(first)]


def _enumerate(shares: _Shares) -> np.ndarray:
    # partial[e]: all choices from the timestamps so far that used e extra places, as indices [m, places so far].
    partial: list[np.ndarray | None] = [np.zeros((1, 0), dtype=np.int64)] + [None] * shares.extra
    for members, certain, may_get_more in zip(shares.members, shares.certain.tolist(), shares.open, strict=True):
        without = _choices(members, certain)
        with_extra = _choices(members, certain + 1) if may_get_more and shares.extra else None
        partial = [
            _stack(_cross(partial[used], without), _cross(partial[used - 1] if used else None, with_extra))
            for used in range(shares.extra + 1)
        ]
    rows = partial[shares.extra]
    assert rows is not None
    rows = np.sort(rows, axis=1)
    return rows[np.lexsort(rows.T[::-1])]


def _choices(members: np.ndarray, size: int) -> np.ndarray:
    """All subsets of ``size`` members ``[m, size]``."""
    subsets = list(combinations(members.tolist(), size))
    return np.array(subsets, dtype=np.int64).reshape(len(subsets), size)


def _cross(left: np.ndarray | None, right: np.ndarray | None) -> np.ndarray | None:
    """Every row of ``left`` joined with every row of ``right``."""
    if left is None or right is None:
        return None
    return np.concatenate([np.repeat(left, len(right), axis=0), np.tile(right, (len(left), 1))], axis=1)


def _stack(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    present = [rows for rows in (first, second) if rows is not None]
    return np.concatenate(present) if present else None


def _race(shares: _Shares, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw distinct subsets where redrawing repeats would take long.

    Drawing one after the other and skipping repeats has the same distribution as letting every subset arrive after
    an exponential time whose rate is its probability, and taking the first ones (Efraimidis and Spirakis 2006).
    """
    rows = _enumerate(shares)
    log_probability = np.zeros(len(rows))  # up to a constant: extra places are assigned uniformly
    for members in shares.members:
        taken = np.isin(rows, members).sum(axis=1)
        log_ways = np.array([math.log(math.comb(len(members), size)) for size in range(len(members) + 1)])
        log_probability -= log_ways[taken]
    arrival = np.log(rng.exponential(size=len(rows))) - log_probability
    return rows[np.argsort(arrival, kind="stable")[:count]]
