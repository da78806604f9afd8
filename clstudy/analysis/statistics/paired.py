"""Statistics of paired differences: effect size, sign-flip test, Holm's adjustment, probability of improvement.

Pure functions on ``differences`` float ``[n]``, the unit of every claim about new people.

Sources: Lakens, Frontiers in Psychology 4:863, 2013 (d_z); Hedges, J. Educ. Stat. 6(2), 1981 (its correction); Cumming
and Finch, Educ. Psychol. Meas. 61(4), 2001 (noncentral t); Fisher, The Design of Experiments, 21 (sign flips); Phipson
and Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010 (the + 1); Holm, Scand. J. Stat. 6(2), 1979; Agarwal et al., arXiv
2108.13264 (probability of improvement); Clopper and Pearson, Biometrika 26(4), 1934.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincinv, chdtri, gammaln, nctdtr

from clstudy.analysis.statistics.intervals import CONFIDENCE, NEW_IDENTITIES, THIS_IDENTITY, Interval

ALPHA = 0.05
ROUNDING = 64 * float(np.finfo(np.float64).eps)
"""A spread of differences below this share of the scores behind them counts as rounding, not as spread."""
EXACT_UP_TO = 20
"""Largest number of differences whose sign patterns are all enumerated (2^20); above that, patterns are drawn."""
SIGN_DRAWS = 20_000
FAR = 300.0
"""t / sqrt(df) above which only the spread's chi-square matters to the noncentral t (relative error under 1e-3)."""


@dataclass(frozen=True, kw_only=True)
class EffectSize:
    """A paired difference in units of its own spread over identities; NaN if undefined.

    Attributes:
        d: Cohen's d_z, mean / standard deviation of the differences.
        g: d without its small-sample bias (Hedges); NaN for n = 2, where the correction does not exist.
        low, high: limits for the population's effect size, from the noncentral t distribution.
        n: identities.
    """

    d: float
    g: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class SignFlip:
    """Two-sided p of the hypothesis that each identity's difference is as likely to have the other sign.

    Attributes:
        p: share of sign patterns whose mean is at least as far from 0 as the observed one.
        smallest: lower bound of p for any data of this n.
        patterns: number of patterns (2^n if ``exact``, otherwise the number drawn).
    """

    p: float
    smallest: float
    patterns: int
    exact: bool


def effect_size(
    differences: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE, *, scale: float = 0.0
) -> EffectSize:
    """Cohen's d_z, Hedges' g and exact limits for normal differences ``[n]``.

    t = d sqrt(n) has a noncentral t distribution with noncentrality delta sqrt(n): the limits are those delta under
    which the observed t lies at the upper and the lower tail. One difference, or differences without spread, have no
    effect size: NaN.

    Args:
        scale: size of the scores that were subtracted, if it exceeds that of the differences: a spread within its
            rounding error (``ROUNDING``) counts as none.

    Raises:
        ValueError: no differences, one that is not finite, or ``confidence`` outside (0, 1).
    """
    differences = checked_differences(differences, at_least=1)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    n = differences.size
    if n == 1 or not has_spread(differences, scale):
        return EffectSize(d=nan, g=nan, low=nan, high=nan, n=n)
    d = float(differences.mean() / differences.std(ddof=1))
    df, root = n - 1, math.sqrt(n)
    low, high = (_noncentrality(d * root, df, tail) / root for tail in ((1 + confidence) / 2, (1 - confidence) / 2))
    correction = math.exp(gammaln(df / 2) - gammaln((df - 1) / 2)) / math.sqrt(df / 2) if df > 1 else nan
    return EffectSize(d=d, g=correction * d, low=low, high=high, n=n)


def has_spread(differences: np.ndarray, scale: float = 0.0) -> bool:
    """Whether differences ``[n]`` of scores of size ``scale`` vary by more than rounding."""
    return float(np.ptp(differences)) > ROUNDING * max(scale, float(np.abs(differences).max()))


def sign_flip(
    differences: Sequence[float] | np.ndarray, rng: np.random.Generator | None = None, *, draws: int = SIGN_DRAWS
) -> SignFlip:
    """Sign-flip test of differences ``[n]``: exact up to n = 20, above that from drawn patterns, p = (1 + b) / (1 + B).

    Raises:
        ValueError: fewer than 2 differences, one that is not finite, or n > 20 without ``rng``.
    """
    differences = checked_differences(differences)
    n = differences.size
    # Sums that are equal in exact arithmetic may differ in their last bits; they count as equal.
    least = abs(differences.sum()) - 8 * n * np.finfo(np.float64).eps * np.abs(differences).sum()
    if n <= EXACT_UP_TO:
        half = n // 2
        sums = np.add.outer(_signed_sums(differences[:half]), _signed_sums(differences[half:]))
        count = int((np.abs(sums) >= least).sum())
        return SignFlip(p=count / 2**n, smallest=2 / 2**n, patterns=2**n, exact=True)
    if rng is None:
        raise ValueError(
            f"{n} differences have too many sign patterns to count (more than {EXACT_UP_TO}): give rng, a seeded "
            "numpy.random.Generator, to draw them"
        )
    signs = 1.0 - 2.0 * rng.integers(2, size=(draws, n), dtype=np.int8)
    count = int((np.abs(signs @ differences) >= least).sum())
    return SignFlip(p=(1 + count) / (1 + draws), smallest=1 / (1 + draws), patterns=draws, exact=False)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values ``[m]``, in the order given: the largest over p_j <= p_i of (m - rank_j + 1) p_j.

    Raises:
        ValueError: a p-value outside [0, 1], NaN among them.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    if p_values.ndim != 1 or not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(f"expected p-values in [0, 1], shape [m], got {p_values!r}")
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def probability_of_improvement(
    differences: Sequence[float] | np.ndarray, *, negative_is_better: bool, confidence: float = CONFIDENCE
) -> Interval:
    """The probability that a new identity's difference favours the strategy: share of identities; ties count half.

    rliable's P(X > Y) for paired identities: each counts once, instead of every run against every run. The limits are
    Clopper and Pearson's (never too narrow; a bootstrap of 5 out of 5 would say [1, 1]); with ties their beta quantiles
    are taken at half-integer counts. One identity: no interval.

    Raises:
        ValueError: no differences, one that is not finite, or ``confidence`` outside (0, 1).
    """
    differences = checked_differences(differences, at_least=1)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    gains = -differences if negative_is_better else differences
    n = gains.size
    wins = float((gains > 0).sum() + (gains == 0).sum() / 2)
    if n == 1:
        return Interval(mean=wins, low=nan, high=nan, n=1, population=THIS_IDENTITY)
    tail = (1 - confidence) / 2
    low = float(betaincinv(wins, n - wins + 1, tail)) if wins > 0 else 0.0
    high = float(betaincinv(wins + 1, n - wins, 1 - tail)) if wins < n else 1.0
    return Interval(mean=wins / n, low=low, high=high, n=n, population=NEW_IDENTITIES)


def _noncentrality(t: float, df: int, tail: float) -> float:
    """The noncentrality under which P(T <= t) = ``tail``; the probability falls as the noncentrality grows."""
    if t < 0:
        return -_noncentrality(-t, df, 1 - tail)
    if t > FAR * math.sqrt(df):
        return t * math.sqrt(float(chdtri(df, tail)) / df)
    step = 1.0 + t
    low, high = t - step, t + step
    while noncentral_t(df, low, t) < tail:
        low -= step
    while noncentral_t(df, high, t) > tail:
        high += step
    return float(brentq(lambda shift: noncentral_t(df, shift, t) - tail, low, high, xtol=1e-10))


def noncentral_t(df: int, shift: float, t: float) -> float:
    """P(T <= t). scipy gives NaN at some points far in the tails, where it is practically 0 or 1."""
    probability = float(nctdtr(df, shift, t))
    return float(shift < t) if isnan(probability) else probability


def _signed_sums(values: np.ndarray) -> np.ndarray:
    """Sums under all sign patterns, ``[2^n]``."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def checked_differences(differences: Sequence[float] | np.ndarray, at_least: int = 2) -> np.ndarray:
    """``differences`` as float ``[n]``.

    Raises:
        ValueError: other shapes, one that is not finite, or fewer than ``at_least``.
    """
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 1 or not np.isfinite(differences).all():
        raise ValueError(f"expected one finite difference per identity, shape [n], got {differences!r}")
    if differences.size < at_least:
        raise ValueError(f"expected at least {at_least} paired differences (identities), got {differences.size}")
    return differences
