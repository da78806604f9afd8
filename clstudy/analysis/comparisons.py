"""Paired differences between strategies: the same identities and seeds, hence the same photos and random draws.

``compare``, ``compare_all`` and ``compare_sizes`` say who meets whom; ``weigh`` adds to a family of comparisons what a
reviewer asks for: effect size, exact sign-flip p, Holm's adjustment, probability of improvement. ``size_next_study``
says how many identities the next study needs. Below these are pure functions on one difference per identity,
``differences`` float ``[n]``, the unit of every claim about new people.

Sources: Lakens, Frontiers in Psychology 4:863, 2013 (d_z); Hedges, J. Educ. Stat. 6(2), 1981 (its correction); Cumming
and Finch, Educ. Psychol. Meas. 61(4), 2001 (noncentral t); Fisher, The Design of Experiments, 21 (sign flips); Phipson
and Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010 (the + 1); Holm, Scand. J. Stat. 6(2), 1979; Agarwal et al., arXiv
2108.13264 (probability of improvement); Clopper and Pearson, Biometrika 26(4), 1934; Browne, Stat. Med. 14, 1995
(sizing from a pilot's spread).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import isnan, nan
from statistics import fmean

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincinv, chdtri, gammaln, nctdtr, stdtrit

from clstudy.analysis.image_values import identity_images as identity_images
from clstudy.analysis.intervals import (
    CONFIDENCE,
    NEW_IDENTITIES,
    THIS_IDENTITY,
    Interval,
    identity_interval,
)
from clstudy.analysis.matrix import Cell, ScoreValues
from clstudy.analysis.scores import SCORES
from clstudy.settings.metric_directions import HIGHER_IS_BETTER

BASELINES = ("er_rand", "lower")
COMPARED_SCORES = ("aip", "forgetting", "final")
ALPHA = 0.05
POWER = 0.8
ROUNDING = 64 * float(np.finfo(np.float64).eps)
"""Differences that spread by less than this share of the scores behind them do not spread: it is rounding."""
EXACT_UP_TO = 20
"""Most differences whose sign patterns are all counted (2^20); above that they are drawn."""
SIGN_DRAWS = 20_000
MOST_IDENTITIES = 1_000_000
SPREAD_ASSURANCE = 0.8
FAR = 300.0
"""t / sqrt(df) above which only the spread's chi-square matters to the noncentral t (relative error under 1e-3)."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """``difference`` = strategy - baseline, averaged over the identities that both have.

    Attributes:
        cell: the strategy's cell; its buffer size is the one at which the two are compared (None: neither has one).
        baseline: name of the strategy that is subtracted.
        difference: Student-t interval over identities.
        n_seeds: fewest common seeds of any identity in it.
        negative_is_better: True where a negative difference speaks for the strategy.
        baseline_size: buffer size of the baseline; differs from the cell's in ``compare_sizes``.
        identities: who is in it, sorted.
        differences: one per identity, mean over common seeds.
        scale: size of the largest score that was subtracted: differences are rounded to about 1e-16 of it.
    """

    cell: Cell
    baseline: str
    difference: Interval
    n_seeds: int
    negative_is_better: bool
    baseline_size: int | None = None
    identities: tuple[str, ...] = ()
    differences: tuple[float, ...] = ()
    scale: float = 0.0

    @property
    def verdict(self) -> str:
        """What the interval supports: "better", "worse", "interval includes 0" or "no interval"."""
        low, high = self.difference.low, self.difference.high
        if isnan(low):
            return "no interval"
        noise = ROUNDING * self.scale  # equal scores may differ in their last bits, for all people alike
        if low <= noise and high >= -noise:
            return "interval includes 0"
        return "better" if (high < 0) == self.negative_is_better else "worse"


@dataclass(frozen=True, kw_only=True)
class EffectSize:
    """A paired difference in units of its own spread over identities; NaN: not there.

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
        p: share of sign patterns whose |mean| is at least the observed one.
        smallest: the p that no data of this n can go below.
        patterns: counted (2^n where ``exact``, else drawn).
    """

    p: float
    smallest: float
    patterns: int
    exact: bool


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A comparison with what it is worth within its family.

    Attributes:
        effect: effect size, with the sign of the difference.
        test: sign-flip test; None where there is one identity only.
        p_holm: adjusted over the family (NaN where ``test`` is None).
        improvement: probability that a new identity's difference speaks for the strategy.
    """

    comparison: Comparison
    effect: EffectSize
    test: SignFlip | None
    p_holm: float
    improvement: Interval


@dataclass(frozen=True, kw_only=True)
class Family:
    """Comparisons that are tested together.

    Attributes:
        members: in the order given.
        alpha: the family's error rate.
        smallest: the adjusted p that the family's most favourable member cannot go below, whatever the data (NaN: no
            member can be tested).
        statement: one or two sentences for the reader: what p-values can say here.
    """

    members: tuple[Evidence, ...]
    alpha: float
    smallest: float
    statement: str

    @property
    def can_reach(self) -> bool:
        """True where some data of this size could be significant."""
        return self.smallest <= self.alpha


@dataclass(frozen=True, kw_only=True)
class NextStudy:
    """How many identities a next study needs, from the spread that this one saw.

    Attributes:
        n: identities of this study.
        sd: standard deviation of the differences over identities, as seen.
        sd_cautious: upper limit of the true one, with 80% confidence: n values say little about a spread.
        detectable: smallest true difference that a study of this size finds with ``power`` (two-sided, ``alpha``).
        difference, half_width: what was wished for (None: nothing).
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


# --- who meets whom -----------------------------------------------------------------------------------------------


def paired_difference(
    strategy: Mapping[str, Mapping[int, float]],
    baseline: Mapping[str, Mapping[int, float]],
    confidence: float = CONFIDENCE,
) -> tuple[Interval, int] | None:
    """Per-identity mean over common seeds of strategy - baseline, with its interval, and the fewest seeds used.

    Args:
        strategy, baseline: identity -> seed -> score.

    Returns:
        None where no identity has a seed in both.
    """
    differences, n_seeds = paired_differences(strategy, baseline)
    return (identity_interval(list(differences.values()), confidence), n_seeds) if differences else None


def paired_differences(
    strategy: Mapping[str, Mapping[int, float]], baseline: Mapping[str, Mapping[int, float]]
) -> tuple[dict[str, float], int]:
    """Identity -> mean over common seeds of strategy - baseline, sorted, and the fewest seeds used (0: no identity)."""
    differences, seeds = {}, []
    for identity in sorted(strategy.keys() & baseline.keys()):
        common = sorted(strategy[identity].keys() & baseline[identity].keys())
        if common:
            differences[identity] = fmean(strategy[identity][seed] - baseline[identity][seed] for seed in common)
            seeds.append(len(common))
    return differences, min(seeds, default=0)


def compare(
    values: ScoreValues, baselines: Sequence[str] = BASELINES, scores: Sequence[str] = COMPARED_SCORES
) -> list[Comparison]:
    """Every strategy against every baseline at the same buffer size and learning rate, for some scores.

    A strategy without a buffer size (``upper``) meets a baseline at each of the baseline's sizes, and a baseline
    without one (``lower``) meets every size. ``lower`` itself is only ever a baseline: turned round, the number is
    already there. Pairs without a common identity are left out.
    """
    pairs = (
        (cell, other, size)
        for cell in _compared(values, scores)
        if cell.strategy != "lower"
        for other, size in _opponents(cell, values, baselines)
    )
    return list(_comparisons(values, pairs))


def compare_all(values: ScoreValues) -> list[Comparison]:
    """Every two strategies at the same buffer size and learning rate, once each, in alphabetical order of the two.

    The later name is subtracted from the earlier. Buffer sizes meet as in ``compare``.
    """
    names = sorted({cell.strategy for cell in values})
    pairs = (
        (cell, other, size)
        for cell in _compared(values)
        for other, size in _opponents(cell, values, [name for name in names if name > cell.strategy])
    )
    return list(_comparisons(values, pairs))


def compare_sizes(values: ScoreValues) -> list[Comparison]:
    """Every strategy at every two of its buffer sizes (and one learning rate): the larger minus the smaller."""
    pairs = (
        (cell, other, cell.buffer_size)
        for cell, other in permutations(_compared(values), 2)
        if cell.buffer_size is not None
        and other.buffer_size is not None
        and cell.buffer_size > other.buffer_size
        and cell._replace(buffer_size=other.buffer_size) == other
    )
    return list(_comparisons(values, pairs))


def families(comparisons: Iterable[Comparison]) -> dict[tuple[str, str, str, float | None], list[Comparison]]:
    """Comparisons by (protocol, metric, score, learning rate), in the order given: a table's block is a family."""
    found: dict[tuple[str, str, str, float | None], list[Comparison]] = {}
    for comparison in comparisons:
        cell = comparison.cell
        key = (cell.protocol, cell.metric, cell.score, cell.learning_rate)
        found.setdefault(key, []).append(comparison)
    return found


def weigh(
    comparisons: Sequence[Comparison],
    *,
    alpha: float = ALPHA,
    confidence: float = CONFIDENCE,
    rng: np.random.Generator | None = None,
) -> Family:
    """Effect sizes, tests and probabilities of improvement of comparisons that are one family.

    Args:
        rng: for sign patterns that are too many to count (more than ``EXACT_UP_TO`` identities).

    Raises:
        ValueError: more identities than that and no ``rng``.
    """
    tests = [sign_flip(one.differences, rng) if len(one.differences) > 1 else None for one in comparisons]
    tested = [test for test in tests if test is not None]
    adjusted = iter(holm([test.p for test in tested]))
    members = tuple(
        Evidence(
            comparison=one,
            effect=effect_size(one.differences, confidence, scale=one.scale),
            test=test,
            p_holm=nan if test is None else float(next(adjusted)),
            improvement=probability_of_improvement(
                one.differences, negative_is_better=one.negative_is_better, confidence=confidence
            ),
        )
        for one, test in zip(comparisons, tests, strict=True)
    )
    smallest = min(1.0, len(tested) * min(test.smallest for test in tested)) if tested else nan
    statement = _statement([len(one.differences) for one in comparisons], tested, smallest, alpha)
    return Family(members=members, alpha=alpha, smallest=smallest, statement=statement)


def size_next_study(
    differences: Sequence[float] | np.ndarray,
    *,
    scale: float = 0.0,
    difference: float | None = None,
    half_width: float | None = None,
    power: float = POWER,
    alpha: float = ALPHA,
) -> NextStudy:
    """What this study could have seen, and how many identities a wished difference or precision asks for.

    Args:
        scale: size of the scores that were subtracted, as in ``effect_size``.
        difference, half_width: what is wished for. An observed difference is no wish where its interval includes 0:
            what was not shown cannot size a study.

    Raises:
        ValueError: fewer than 2 differences, differences without spread, or a wish that is not positive.
    """
    differences = _differences(differences)
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


# --- numbers of one difference per identity -------------------------------------------------------------------------


def effect_size(
    differences: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE, *, scale: float = 0.0
) -> EffectSize:
    """Cohen's d_z, Hedges' g and exact limits for normal differences ``[n]``.

    t = d sqrt(n) has a noncentral t distribution with noncentrality delta sqrt(n): the limits are those delta under
    which the observed t lies at the upper and the lower tail. One difference, or differences without spread, have no
    effect size: NaN.

    Args:
        scale: size of the scores that were subtracted, as far as it exceeds that of the differences: what spreads by
            no more than its rounding (``ROUNDING``) has no spread.

    Raises:
        ValueError: no differences, one that is not finite, or ``confidence`` outside (0, 1).
    """
    differences = _differences(differences, at_least=1)
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
    """Whether differences ``[n]`` of scores of that size differ among themselves by more than rounding."""
    return float(np.ptp(differences)) > ROUNDING * max(scale, float(np.abs(differences).max()))


def sign_flip(
    differences: Sequence[float] | np.ndarray, rng: np.random.Generator | None = None, *, draws: int = SIGN_DRAWS
) -> SignFlip:
    """Sign-flip test of differences ``[n]``: exact up to n = 20, above that from drawn patterns, p = (1 + b) / (1 + B).

    Raises:
        ValueError: fewer than 2 differences, one that is not finite, or n > 20 without ``rng``.
    """
    differences = _differences(differences)
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
    """How probable it is that a new identity's difference speaks for the strategy: share of identities, ties half.

    rliable's P(X > Y) on our unit: identities are paired, so each counts once, instead of every run against every run.
    The limits are Clopper and Pearson's (never too narrow; a bootstrap of 5 out of 5 would say [1, 1]); with ties their
    beta quantiles are taken at half-integer counts. One identity: no interval.

    Raises:
        ValueError: no differences, one that is not finite, or ``confidence`` outside (0, 1).
    """
    differences = _differences(differences, at_least=1)
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


# --- how large a study must be ------------------------------------------------------------------------------------


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
    return 1.0 - _noncentral_t(n - 1, shift, critical) + _noncentral_t(n - 1, shift, -critical)


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
    """Fewest identities for which t sd / sqrt(n), half of the interval's width at spread ``sd``, is small enough.

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


# --- inside -------------------------------------------------------------------------------------------------------


def _compared(values: ScoreValues, scores: Sequence[str] = COMPARED_SCORES) -> list[Cell]:
    return [cell for cell in values if cell.score in scores]


def _comparisons(values: ScoreValues, pairs: Iterable[tuple[Cell, Cell, int | None]]) -> Iterator[Comparison]:
    """Of every (cell, other, size at which they meet) that have an identity in common."""
    for cell, other, size in pairs:
        differences, n_seeds = paired_differences(values[cell], values[other])
        if differences:
            yield Comparison(
                cell=cell._replace(buffer_size=size),
                baseline=other.strategy,
                difference=identity_interval(list(differences.values())),
                n_seeds=n_seeds,
                negative_is_better=not SCORES[cell.score].direction(HIGHER_IS_BETTER[cell.metric]),
                baseline_size=other.buffer_size,
                identities=tuple(differences),
                differences=tuple(differences.values()),
                scale=_scale(values[cell], values[other]),
            )


def _scale(*arms: Mapping[str, Mapping[int, float]]) -> float:
    return max(abs(value) for arm in arms for seeds in arm.values() for value in seeds.values())


def _opponents(cell: Cell, values: ScoreValues, others: Sequence[str]) -> Iterator[tuple[Cell, int | None]]:
    """Cells of other strategies that meet ``cell``, each with the buffer size at which they meet."""
    sizes = sorted({met.buffer_size for met in values if met.buffer_size is not None})
    for name in others:
        for size in (None, *sizes):
            other = cell._replace(strategy=name, buffer_size=size)
            if (
                name != cell.strategy
                and other in values
                and (None in (size, cell.buffer_size) or size == cell.buffer_size)
            ):
                yield other, cell.buffer_size if size is None else size


def _statement(ns: Sequence[int], tests: Sequence[SignFlip], smallest: float, alpha: float) -> str:
    if not tests:
        return "No comparison rests on two identities or more: there is no test."
    n, m = max(ns), len(tests)
    family = f"a family of {m} comparison{'' if m == 1 else 's'}"
    if smallest <= alpha:
        return (
            f"n = {n} identities, {family}: sign-flip p-values, adjusted by Holm, can go down to {smallest:.3g}; "
            f"at {alpha:g} the chance of one false claim or more in the family is held."
        )
    least = math.ceil(1 + math.log2(m / alpha))
    return (
        f"n = {n} identities, {family}: the sign-flip test cannot go below p = {min(t.smallest for t in tests):.4g} "
        f"(Holm: {smallest:.3g}), so none of them can reach {alpha:g}, whatever the data; that takes {least} "
        "identities. Read the intervals and effect sizes."
    )


def _noncentrality(t: float, df: int, tail: float) -> float:
    """The noncentrality under which P(T <= t) = ``tail``; the probability falls as the noncentrality grows."""
    if t < 0:
        return -_noncentrality(-t, df, 1 - tail)
    if t > FAR * math.sqrt(df):
        return t * math.sqrt(float(chdtri(df, tail)) / df)
    step = 1.0 + t
    low, high = t - step, t + step
    while _noncentral_t(df, low, t) < tail:
        low -= step
    while _noncentral_t(df, high, t) > tail:
        high += step
    return float(brentq(lambda shift: _noncentral_t(df, shift, t) - tail, low, high, xtol=1e-10))


def _noncentral_t(df: int, shift: float, t: float) -> float:
    """P(T <= t). scipy gives NaN at some places far from the middle, where it cannot be told from 0 or 1."""
    probability = float(nctdtr(df, shift, t))
    return float(shift < t) if isnan(probability) else probability


def _signed_sums(values: np.ndarray) -> np.ndarray:
    """Sums under all sign patterns, ``[2^n]``."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _fewest(enough: Callable[[int], bool], what: str) -> int:
    """Smallest n >= 2 that is enough, where enough stays true once it is."""
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


def _differences(differences: Sequence[float] | np.ndarray, at_least: int = 2) -> np.ndarray:
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 1 or not np.isfinite(differences).all():
        raise ValueError(f"expected one finite difference per identity, shape [n], got {differences!r}")
    if differences.size < at_least:
        raise ValueError(f"expected at least {at_least} paired differences (identities), got {differences.size}")
    return differences
