"""How large a study must be: what this one could have detected, and how many identities the next one needs.

Pure functions on one difference per identity, ``differences`` float ``[n]``, or on the spread of such differences.

Source: Browne, Stat. Med. 14, 1995 (sizing from a pilot's spread).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import chdtri, stdtrit

from clstudy.analysis.statistics.intervals import CONFIDENCE
from clstudy.analysis.statistics.paired import ALPHA, checked_differences, has_spread, noncentral_t

POWER = 0.8
MOST_IDENTITIES = 1_000_000
SPREAD_ASSURANCE = 0.8


@dataclass(frozen=True, kw_only=True)
class NextStudy:
    """How many identities the next study needs, from the spread observed in this one.

    Attributes:
        n: identities of this study.
        sd: observed standard deviation of the differences over identities.
        sd_cautious: upper limit of the true one, with 80% confidence, because n values tell little about a spread.
        detectable: smallest true difference that a study of this size finds with ``power`` (two-sided, ``alpha``).
        difference, half_width: the requested ones (None: not requested).
        for_difference, for_half_width: identities needed with ``sd`` and with ``sd_cautious``; None as above.
    """

    n: int
    sd: float
    sd_cautious: float
    power: float
    alpha: float
    detectable: float
    difference: float | None
    for_difference: tuple[int, int] | None
    half_width: float | None
    for_half_width: tuple[int, int] | None


def size_next_study(
    differences: Sequence[float] | np.ndarray,
    *,
    scale: float = 0.0,
    difference: float | None = None,
    half_width: float | None = None,
    power: float = POWER,
    alpha: float = ALPHA,
) -> NextStudy:
    """What this study could have detected, and how many identities a given difference or precision needs.

    Args:
        scale: size of the scores that were subtracted, as in ``effect_size``.
        difference, half_width: to be detected or reached. Do not pass an observed difference whose interval includes 0:
            a difference that was not shown cannot size a study.

    Raises:
        ValueError: fewer than 2 differences, differences without spread, or a request that is not positive.
    """
    differences = checked_differences(differences)
    n, sd = differences.size, float(differences.std(ddof=1)) if has_spread(differences, scale) else 0.0
    cautious = cautious_sd(sd, n)
    spreads = (sd, cautious)
    return NextStudy(
        n=n,
        sd=sd,
        sd_cautious=cautious,
        power=power,
        alpha=alpha,
        detectable=minimum_detectable_difference(sd, n, power=power, alpha=alpha),
        difference=difference,
        for_difference=None
        if difference is None
        else _two(identities_for_difference(difference, spread, power=power, alpha=alpha) for spread in spreads),
        half_width=half_width,
        for_half_width=None
        if half_width is None
        else _two(identities_for_half_width(half_width, spread, confidence=1 - alpha) for spread in spreads),
    )


def power_of(difference: float, sd: float, n: int, *, alpha: float = ALPHA) -> float:
    """Probability that the two-sided paired t test of n identities finds a true ``difference`` with spread ``sd``.

    Raises:
        ValueError: n < 2, ``sd`` not positive, or ``alpha`` outside (0, 1).
    """
    _check_sizing(sd, n, alpha)
    if not math.isfinite(difference):
        raise ValueError(f"expected a finite difference, got {difference}")
    shift = abs(difference) / sd * math.sqrt(n)
    critical = float(stdtrit(n - 1, 1 - alpha / 2))
    return 1.0 - noncentral_t(n - 1, shift, critical) + noncentral_t(n - 1, shift, -critical)


def minimum_detectable_difference(sd: float, n: int, *, power: float = POWER, alpha: float = ALPHA) -> float:
    """The true difference that n identities with spread ``sd`` find with probability ``power`` (in the unit of sd).

    Raises:
        ValueError: as ``power_of``, or ``power`` outside (alpha, 1).
    """
    _check_sizing(sd, n, alpha, power)
    above = 1.0
    while power_of(above, 1.0, n, alpha=alpha) < power:
        above *= 2
    found = brentq(lambda d: power_of(d, 1.0, n, alpha=alpha) - power, 0.0, above, xtol=1e-12, rtol=1e-12)
    return sd * float(found)


def identities_for_difference(difference: float, sd: float, *, power: float = POWER, alpha: float = ALPHA) -> int:
    """Fewest identities with which the paired t test finds ``difference`` with probability ``power``.

    Raises:
        ValueError: as ``power_of``, a difference of 0, or more than a million identities.
    """
    _check_sizing(sd, 2, alpha, power)
    if difference == 0 or not math.isfinite(difference):
        raise ValueError(f"expected a finite difference other than 0, got {difference}")
    return _fewest(lambda n: power_of(difference, sd, n, alpha=alpha) >= power, f"a difference of {difference:g}")


def identities_for_half_width(half_width: float, sd: float, *, confidence: float = CONFIDENCE) -> int:
    """Fewest identities for which half of the interval's width at spread ``sd``, t sd / sqrt(n), is small enough.

    Raises:
        ValueError: ``half_width`` or ``sd`` not positive, ``confidence`` outside (0, 1), or more than a million.
    """
    _check_sizing(sd, 2, 1 - confidence)
    if not (half_width > 0 and math.isfinite(half_width)):
        raise ValueError(f"expected a positive half-width, got {half_width}")
    return _fewest(
        lambda n: float(stdtrit(n - 1, 0.5 + confidence / 2)) * sd / math.sqrt(n) <= half_width,
        f"a half-width of {half_width:g}",
    )


def cautious_sd(sd: float, n: int, assurance: float = SPREAD_ASSURANCE) -> float:
    """Upper limit of the true standard deviation behind ``sd`` of n normal values, with confidence ``assurance``."""
    _check_sizing(sd, n, 1 - assurance)
    return sd * math.sqrt((n - 1) / float(chdtri(n - 1, assurance)))


def _fewest(enough: Callable[[int], bool], what: str) -> int:
    """Smallest n >= 2 that is enough; ``enough`` must stay true for all larger n."""
    high = 2
    while not enough(high):
        if high >= MOST_IDENTITIES:
            raise ValueError(f"{what} would take more than {MOST_IDENTITIES:,} identities: ask for a larger one")
        high *= 2
    low = high // 2  # not enough, or 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _two(numbers: Iterable[int]) -> tuple[int, int]:
    first, second = numbers
    return first, second


def _check_sizing(sd: float, n: int, alpha: float, power: float | None = None) -> None:
    if not (sd > 0 and math.isfinite(sd)):
        raise ValueError(f"expected a positive standard deviation of the differences, got {sd}")
    if n < 2:
        raise ValueError(f"a spread over identities needs at least 2 of them, got {n}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha (1 - confidence) must lie in (0, 1), got {alpha}")
    if power is not None and not alpha < power < 1:
        raise ValueError(f"power must lie in (alpha, 1) = ({alpha:g}, 1), got {power}")
