"""AIP, Forgetting, BWT and final performance of a result matrix: pure functions on arrays.

``r`` is float ``[..., T, T]``: row t = after training on timestamp t, column k = test set of timestamp k; cells above
the diagonal are NaN and never read. Definitions: docs/numbers.md (Forgetting after Chaudhry et al.,
arXiv 1801.10112; BWT after GEM, arXiv 1706.08840, signed so that higher is better for every metric).

Every function raises ``MissingCellsError`` (a ``ValueError``) if a cell that it needs is NaN or infinite, and
``ValueError`` if ``r`` is not a stack of square matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

MAX_CELLS_NAMED = 8
TINY_GAP = 1e-3
"""A gap between lower and upper below this share of their size counts as none: dividing by it would give noise."""


class MissingCellsError(ValueError):
    """Cells that a score needs are missing; ``cells`` holds their indices into the array."""

    def __init__(self, cells: list[tuple[int, ...]], where: str = ""):
        self.cells = cells
        self.where = where
        more = f" and {len(cells) - MAX_CELLS_NAMED} more" if len(cells) > MAX_CELLS_NAMED else ""
        named = ", ".join(f"R{list(cell)}" for cell in cells[:MAX_CELLS_NAMED])
        super().__init__(f"{where}{': ' if where else ''}missing cells {named}{more}")


def average_performance(r: np.ndarray) -> np.ndarray:
    """AP_t = mean over k <= t of R[t, k]; ``[..., T, T] -> [..., T]``."""
    r = _checked(r, _lower_triangle)
    size = r.shape[-1]
    performance: np.ndarray = np.where(_lower_triangle(size), r, 0.0).sum(axis=-1) / np.arange(1, size + 1)
    return performance


def average_incremental_performance(r: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """AIP = mean over t of AP_t, in the metric's own unit and direction; ``[..., T, T] -> [...]``.

    ``higher_is_better`` does not change the value; it is a parameter so that all three trial scores have the same
    signature.
    """
    mean: np.ndarray = average_performance(r).mean(axis=-1)
    return mean


def forgetting(r: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """Mean over k < T-1 of (max over k <= l < T-1 of s R[l, k]) - s R[T-1, k]; ``[..., T, T] -> [...]``.

    Lower is better for every metric. Not clipped: negative means that old timestamps improved. The corner
    R[T-1, T-1] is not needed.

    Raises:
        ValueError: T = 1, where there is no past to forget.
    """
    signed = _sign(higher_is_better) * _checked(r, _all_but_corner, at_least=2)
    seen = _lower_triangle(signed.shape[-1] - 1)
    best = np.where(seen, signed[..., :-1, :-1], -np.inf).max(axis=-2)
    lost: np.ndarray = (best - signed[..., -1, :-1]).mean(axis=-1)
    return lost


def backward_transfer(r: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """BWT = mean over k < T-1 of s (R[T-1, k] - R[k, k]); ``[..., T, T] -> [...]``. Higher is better for every metric.

    Raises:
        ValueError: T = 1, where there is no earlier timestamp.
    """
    r = _checked(r, _diagonal_and_last_row, at_least=2)
    first = np.diagonal(r, axis1=-2, axis2=-1)[..., :-1]
    transfer: np.ndarray = (_sign(higher_is_better) * (r[..., -1, :-1] - first)).mean(axis=-1)
    return transfer


def final_performance(r: np.ndarray) -> np.ndarray:
    """AP_{T-1} = mean of the last row; ``[..., T, T] -> [...]``. Needs only the last row, so it works for ``upper``."""
    final: np.ndarray = _checked(r, _last_row)[..., -1, :].mean(axis=-1)
    return final


def gap_closed(final: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Share of the gap between lower and upper bound that is closed: (x - lower) / (upper - lower), elementwise.

    For final performances (AP_{T-1}) only, because ``upper`` has no other score. 0 is ``lower``, 1 is ``upper``,
    whatever the metric's direction; not clipped. NaN where the gap is tiny (``TINY_GAP`` of the larger bound) or a
    number is NaN.
    """
    final, lower, upper = (np.asarray(values, dtype=np.float64) for values in (final, lower, upper))
    gap = upper - lower
    defined = np.abs(gap) > TINY_GAP * np.maximum(np.abs(lower), np.abs(upper))
    nowhere = np.full(np.broadcast(final, gap).shape, np.nan)
    closed: np.ndarray = np.divide(final - lower, gap, out=nowhere, where=defined)
    return closed


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number per trial.

    Attributes:
        compute: (r, higher_is_better) -> score.
        continual: whether it needs the whole history, so that joint training (``upper``) has no such score.
        at_least: fewest timestamps for which it is defined.
        higher_is_better: direction of the score itself; None if it is that of the metric.
    """

    name: str
    title: str
    compute: Callable[[np.ndarray, bool], np.ndarray]
    continual: bool = True
    at_least: int = 1
    higher_is_better: bool | None = None

    def direction(self, metric_higher_is_better: bool) -> bool:
        """Whether a higher score is better for a metric of the given direction."""
        return metric_higher_is_better if self.higher_is_better is None else self.higher_is_better


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score(name="aip", title="AIP", compute=average_incremental_performance),
        Score(name="forgetting", title="Forgetting", compute=forgetting, at_least=2, higher_is_better=False),
        Score(name="bwt", title="BWT", compute=backward_transfer, at_least=2, higher_is_better=True),
        Score(
            name="final",
            title="Final performance",
            compute=lambda r, higher_is_better: final_performance(r),
            continual=False,
        ),
    )
}


def missing_cells(r: np.ndarray, joint: bool) -> list[tuple[int, ...]]:
    """Cells of one matrix ``[T, T]`` that a trial should have but lacks (``joint``: only the last row is required)."""
    due = (_last_row if joint else _lower_triangle)(r.shape[-1])
    return _cells(due & ~np.isfinite(r))


def _sign(higher_is_better: bool) -> float:
    return 1.0 if higher_is_better else -1.0


# Masks [T, T] of the cells that a score needs; made once per T and read-only.


@cache
def _lower_triangle(size: int) -> np.ndarray:
    return _frozen(np.tri(size, dtype=bool))


@cache
def _last_row(size: int) -> np.ndarray:
    return _frozen(np.arange(size)[:, None] == np.full(size, size - 1))


@cache
def _all_but_corner(size: int) -> np.ndarray:
    return _frozen(_lower_triangle(size) & ~_corner(size))


@cache
def _diagonal_and_last_row(size: int) -> np.ndarray:
    return _frozen((np.eye(size, dtype=bool) | _last_row(size)) & ~_corner(size))


def _corner(size: int) -> np.ndarray:
    return _last_row(size) & np.eye(size, dtype=bool)


def _frozen(needed: np.ndarray) -> np.ndarray:
    needed.setflags(write=False)
    return needed


def _cells(missing: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(int(i) for i in index) for index in np.argwhere(missing)]


def _checked(r: np.ndarray, needed: Callable[[int], np.ndarray], at_least: int = 1) -> np.ndarray:
    r = np.asarray(r, dtype=np.float64)
    if r.ndim < 2 or r.shape[-1] != r.shape[-2] or r.shape[-1] == 0:
        raise ValueError(f"expected matrices [..., T, T] with T >= 1, got shape {r.shape}")
    if r.shape[-1] < at_least:
        raise ValueError(f"needs at least {at_least} timestamps (there is no past otherwise), got T = {r.shape[-1]}")
    missing = needed(r.shape[-1]) & ~np.isfinite(r)
    if missing.any():
        raise MissingCellsError(_cells(missing))
    return r
