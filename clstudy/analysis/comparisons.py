"""Paired differences between strategies: the same identities and seeds, hence the same photos and random draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from statistics import fmean

from clstudy.analysis.intervals import CONFIDENCE, Interval, identity_interval
from clstudy.analysis.matrix import Cell, ScoreValues
from clstudy.analysis.scores import SCORES
from clstudy.metrics.directions import HIGHER_IS_BETTER

BASELINES = ("er_rand", "lower")
COMPARED_SCORES = ("aip", "forgetting", "final")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """``difference`` = strategy - baseline, averaged over the identities that both have.

    Attributes:
        cell: the strategy's cell; its buffer size is the one at which the two are compared (None: neither has one).
        n_seeds: fewest common seeds of any identity in it.
        negative_is_better: True where a negative difference speaks for the strategy.
    """

    cell: Cell
    baseline: str
    difference: Interval
    n_seeds: int
    negative_is_better: bool

    @property
    def verdict(self) -> str:
        """What the interval supports: "better", "worse", "interval includes 0" or "no interval"."""
        low, high = self.difference.low, self.difference.high
        if isnan(low):
            return "no interval"
        if low <= 0 <= high:
            return "interval includes 0"
        return "better" if (high < 0) == self.negative_is_better else "worse"


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
    differences, seeds = [], []
    for identity in sorted(strategy.keys() & baseline.keys()):
        common = sorted(strategy[identity].keys() & baseline[identity].keys())
        if common:
            differences.append(fmean(strategy[identity][seed] - baseline[identity][seed] for seed in common))
            seeds.append(len(common))
    return (identity_interval(differences, confidence), min(seeds)) if differences else None


def compare(values: ScoreValues, baselines: Sequence[str] = BASELINES) -> list[Comparison]:
    """Every strategy against every baseline at the same buffer size and learning rate, for ``COMPARED_SCORES``.

    A strategy without a buffer size (``upper``) meets a baseline at each of the baseline's sizes, and a baseline
    without one (``lower``) meets every size. ``lower`` itself is only ever a baseline: turned round, the number is
    already there. Pairs without a common identity are left out.
    """
    sizes = sorted({cell.buffer_size for cell in values if cell.buffer_size is not None})
    comparisons = []
    for cell in values:
        if cell.score not in COMPARED_SCORES or cell.strategy == "lower":
            continue
        higher = SCORES[cell.score].direction(HIGHER_IS_BETTER[cell.metric])
        for baseline, at in _opponents(cell, values, baselines, sizes):
            paired = paired_difference(values[cell], values[baseline])
            if paired is not None:
                comparisons.append(
                    Comparison(
                        cell=cell._replace(buffer_size=at),
                        baseline=baseline.strategy,
                        difference=paired[0],
                        n_seeds=paired[1],
                        negative_is_better=not higher,
                    )
                )
    return comparisons


def _opponents(
    cell: Cell, values: ScoreValues, baselines: Sequence[str], sizes: Sequence[int]
) -> Iterator[tuple[Cell, int | None]]:
    """Baseline cells that meet ``cell``, each with the buffer size at which they meet."""
    for name in baselines:
        for size in (None, *sizes):
            other = cell._replace(strategy=name, buffer_size=size)
            if (
                name != cell.strategy
                and other in values
                and (None in (size, cell.buffer_size) or size == cell.buffer_size)
            ):
                yield other, cell.buffer_size if size is None else size
