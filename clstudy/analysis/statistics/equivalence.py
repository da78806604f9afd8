"""Whether a difference is smaller than the smallest one of interest: two one-sided t tests.

"No difference seen" is not "no difference": these tests show whether a larger one is ruled out. Pure functions take one
difference per identity, ``differences`` float ``[n]``, the unit of claims about new people.

Sources: Schuirmann, J. Pharmacokinet. Biopharm. 15(6), 1987 (two one-sided tests); Berger and Hsu, Stat. Sci. 11(4),
1996 (their 90% interval); Sasabuchi, Biometrika 67(2), 1980, and Hauschke et al., Stat. Med. 18(1), 1999 (a share of a
mean that is itself estimated); Lakens, Soc. Psychol. Personal. Sci. 8(4), 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from clstudy.analysis.statistics.intervals import identity_interval
from clstudy.analysis.statistics.paired import ALPHA

RULES_OUT, CANNOT_SAY, EXCEEDS = "rules out", "cannot say", "exceeds"
EQUIVALENCE_CONFIDENCE = 1 - 2 * ALPHA
"""Two one-sided tests at ``ALPHA`` are equivalent to asking whether this interval lies inside the margin."""


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """Whether differences are smaller than a margin.

    Attributes:
        margin: mean of the margins.
        low, high: 90% t interval of the mean difference (NaN for one identity).
        p_not_below: one-sided p of "the difference is +margin or more".
        p_not_above: one-sided p of "the difference is -margin or less".
        verdict: ``RULES_OUT``: both are rejected at 5%, so that the difference is smaller than the margin either way;
            ``EXCEEDS``: it is larger than the margin, one-sided 5%; ``CANNOT_SAY``: neither.
    """

    margin: float
    mean: float
    low: float
    high: float
    p_not_below: float
    p_not_above: float
    verdict: str


def paired_t(differences: Sequence[float] | np.ndarray) -> float:
    """Two-sided p of the paired t test ``[n]``; NaN for one difference, and for equal ones that are not 0.

    Raises:
        ValueError: no differences, or one that is not finite.
    """
    differences = _checked(differences)
    below = _one_sided(differences, "less")
    if differences.size > 1 and _spread(differences) == 0 and differences.mean() != 0:
        return math.nan
    return below if math.isnan(below) else min(1.0, 2 * min(below, _one_sided(differences, "greater")))


def equivalence(
    differences: Sequence[float] | np.ndarray, margins: float | Sequence[float] | np.ndarray, *, alpha: float = ALPHA
) -> Equivalence:
    """Two one-sided t tests of differences ``[n]`` against a margin.

    Args:
        margins: one number for all, or one per identity ``[n]``: a share of each identity's own value of a reference.
            The tests are then of mean(difference -+ margin), which is exact for a share of the reference's mean
            although that mean is estimated from the same people.

    Raises:
        ValueError: no differences, other shapes, numbers that are not finite, a mean margin that is not above 0, or
            ``alpha`` outside (0, 0.5).
    """
    differences = _checked(differences)
    margins = np.broadcast_to(np.asarray(margins, dtype=np.float64), np.shape(margins) or differences.shape)
    if margins.shape != differences.shape or not np.isfinite(margins).all() or not margins.mean() > 0:
        raise ValueError(f"expected margins with a mean above 0 for {differences.size} differences, got {margins!r}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must lie in (0, 0.5), got {alpha}")
    interval = identity_interval(differences, 1 - 2 * alpha)
    below, above = differences - margins, differences + margins
    not_below, not_above = _one_sided(below, "less"), _one_sided(above, "greater")
    verdict = CANNOT_SAY
    if max(not_below, not_above) <= alpha:  # NaN (one identity) compares false, as intended
        verdict = RULES_OUT
    elif min(_one_sided(below, "greater"), _one_sided(above, "less")) <= alpha:
        verdict = EXCEEDS
    return Equivalence(
        margin=float(margins.mean()),
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        p_not_below=not_below,
        p_not_above=not_above,
        verdict=verdict,
    )


def _one_sided(values: np.ndarray, alternative: str) -> float:
    """p of "the mean is 0 or beyond" against "less" or "greater"; NaN for one value.

    For values without spread p is 0 or 1 (1 at 0).
    """
    n, mean, spread = values.size, float(values.mean()), _spread(values)
    if n == 1:
        return math.nan
    sign = 1.0 if alternative == "less" else -1.0
    if spread == 0:
        return 0.0 if sign * mean < 0 else 1.0
    return float(stdtr(n - 1, sign * mean / (spread / math.sqrt(n))))


def _spread(values: np.ndarray) -> float:
    """Standard deviation; 0 if the values differ only by rounding."""
    if values.size < 2 or np.ptp(values) <= 8 * np.finfo(np.float64).eps * np.abs(values).max():
        return 0.0
    return float(values.std(ddof=1))


def _checked(differences: Sequence[float] | np.ndarray) -> np.ndarray:
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 1 or not differences.size or not np.isfinite(differences).all():
        raise ValueError(f"expected one finite difference per identity, shape [n], got {differences!r}")
    return differences
