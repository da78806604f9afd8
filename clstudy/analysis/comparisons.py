"""Paired differences between strategies: the same identities and seeds, hence the same photos and random draws.

``compare``, ``compare_all`` and ``compare_sizes`` choose the pairs; ``weigh`` adds the evidence that reviewers expect
to a family of comparisons: effect size, exact sign-flip p, Holm's adjustment, probability of improvement
(``clstudy.analysis.statistics.paired``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import isnan, nan
from statistics import fmean

import numpy as np

from clstudy.analysis.matrix import ScoreCell, ScoreValues
from clstudy.analysis.scores import SCORES
from clstudy.analysis.statistics.intervals import CONFIDENCE, Interval, identity_interval
from clstudy.analysis.statistics.paired import (
    ALPHA,
    ROUNDING,
    EffectSize,
    SignFlip,
    effect_size,
    holm,
    probability_of_improvement,
    sign_flip,
)
from clstudy.settings.metric_facts import Metrics, known_metrics

BASELINES = ("er_rand", "lower")
COMPARED_SCORES = ("aip", "forgetting", "final")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """``difference`` = strategy - baseline, averaged over the identities that both have.

    Attributes:
        cell: the strategy's cell; its buffer size is the one at which the two are compared (None: neither has one).
        baseline: name of the strategy that is subtracted.
        difference: Student-t interval over identities.
        n_seeds: fewest common seeds of any identity compared.
        negative_is_better: whether a negative difference favours the strategy.
        baseline_size: buffer size of the baseline; differs from the cell's in ``compare_sizes``.
        identities: names of those compared, sorted.
        differences: one per identity, mean over common seeds.
        scale: size of the largest score that was subtracted: differences are rounded to about 1e-16 of it.
    """

    cell: ScoreCell
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
class Evidence:
    """A comparison with its evidence within its family.

    Attributes:
        effect: effect size, with the sign of the difference.
        test: sign-flip test; None if there is only one identity.
        p_holm: adjusted over the family (NaN where ``test`` is None).
        improvement: probability that a new identity's difference favours the strategy.
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
        smallest: lower bound, whatever the data, of the adjusted p of the family's most favourable member (NaN: no
            member can be tested).
        statement: one or two sentences for the reader on what can be concluded from p-values here.
    """

    members: tuple[Evidence, ...]
    alpha: float
    smallest: float
    statement: str

    @property
    def can_reach(self) -> bool:
        """Whether any data of this size could be significant."""
        return self.smallest <= self.alpha


def paired_difference(
    strategy: Mapping[str, Mapping[int, float]],
    baseline: Mapping[str, Mapping[int, float]],
    confidence: float = CONFIDENCE,
) -> tuple[Interval, int] | None:
    """Per-identity mean over common seeds of strategy - baseline, with its interval, and the fewest seeds used.

    Args:
        strategy, baseline: identity -> seed -> score.

    Returns:
        None if no identity has a seed in both.
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
    values: ScoreValues,
    baselines: Sequence[str] = BASELINES,
    scores: Sequence[str] = COMPARED_SCORES,
    *,
    metrics: Metrics | None = None,
) -> list[Comparison]:
    """Every strategy against every baseline at the same buffer size and learning rate, for some scores.

    A strategy without a buffer size (``upper``) is compared with a baseline at each of the baseline's sizes, and a
    baseline without one (``lower``) at every size. ``lower`` itself is only ever a baseline: the reverse comparison
    would repeat a number. Pairs without a common identity are left out.

    Args:
        metrics: of the study, which define what is better; by default the packaged ones.
    """
    pairs = (
        (cell, other, size)
        for cell in _compared(values, scores)
        if cell.strategy != "lower"
        for other, size in _opponents(cell, values, baselines)
    )
    return list(_comparisons(values, metrics, pairs))


def compare_all(values: ScoreValues, *, metrics: Metrics | None = None) -> list[Comparison]:
    """Every two strategies at the same buffer size and learning rate, once each, in alphabetical order of the two.

    The later name is subtracted from the earlier. Buffer sizes, and ``metrics``, are as in ``compare``.
    """
    names = sorted({cell.strategy for cell in values})
    pairs = (
        (cell, other, size)
        for cell in _compared(values)
        for other, size in _opponents(cell, values, [name for name in names if name > cell.strategy])
    )
    return list(_comparisons(values, metrics, pairs))


def compare_sizes(values: ScoreValues, *, metrics: Metrics | None = None) -> list[Comparison]:
    """Every strategy at every two of its buffer sizes (and one learning rate): the larger minus the smaller."""
    pairs = (
        (cell, other, cell.buffer_size)
        for cell, other in permutations(_compared(values), 2)
        if cell.buffer_size is not None
        and other.buffer_size is not None
        and cell.buffer_size > other.buffer_size
        and cell._replace(buffer_size=other.buffer_size) == other
    )
    return list(_comparisons(values, metrics, pairs))


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
        rng: draws sign patterns if there are too many to enumerate (more than ``EXACT_UP_TO`` identities).

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


def _compared(values: ScoreValues, scores: Sequence[str] = COMPARED_SCORES) -> list[ScoreCell]:
    return [cell for cell in values if cell.score in scores]


def _comparisons(
    values: ScoreValues, metrics: Metrics | None, pairs: Iterable[tuple[ScoreCell, ScoreCell, int | None]]
) -> Iterator[Comparison]:
    """Every (cell, other, size at which they are compared) with an identity in common."""
    known = known_metrics() if metrics is None else metrics
    for cell, other, size in pairs:
        differences, n_seeds = paired_differences(values[cell], values[other])
        if differences:
            yield Comparison(
                cell=cell._replace(buffer_size=size),
                baseline=other.strategy,
                difference=identity_interval(list(differences.values())),
                n_seeds=n_seeds,
                negative_is_better=not SCORES[cell.score].direction(known[cell.metric].higher_is_better),
                baseline_size=other.buffer_size,
                identities=tuple(differences),
                differences=tuple(differences.values()),
                scale=_scale(values[cell], values[other]),
            )


def _scale(*arms: Mapping[str, Mapping[int, float]]) -> float:
    return max(abs(value) for arm in arms for seeds in arm.values() for value in seeds.values())


def _opponents(cell: ScoreCell, values: ScoreValues, others: Sequence[str]) -> Iterator[tuple[ScoreCell, int | None]]:
    """Cells of other strategies to compare ``cell`` with, each with the buffer size of that comparison."""
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
