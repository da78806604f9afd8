"""The data behind the figures and the HTML report: a study's summary and the matrices that it was computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from clstudy.analysis.comparisons import Comparison, compare
from clstudy.analysis.efficiency import efficiency_table
from clstudy.analysis.matrix import ResultMatrix, ScoreValues, Trial
from clstudy.analysis.printed import PRINTED_SCORES, decimals_of
from clstudy.analysis.scores import missing_cells
from clstudy.analysis.study_folder import StoredStage, trial_stages
from clstudy.analysis.summary import Summary
from clstudy.settings.metric_facts import Metrics

FOCUS_SIZE = 3


class Arm(NamedTuple):
    """A strategy with its buffer size (None: it has no buffer)."""

    strategy: str
    buffer_size: int | None

    @property
    def label(self) -> str:
        """The arm's label in figures and tables."""
        return self.strategy if self.buffer_size is None else f"{self.strategy}, K = {self.buffer_size}"


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """A study's summary with the data behind it.

    Attributes:
        matrices: R of every trial and metric that has all its cells.
    """

    summary: Summary
    matrices: tuple[ResultMatrix, ...]

    @property
    def values(self) -> ScoreValues:
        """The scores of these trials."""
        return self.summary.values

    @property
    def metrics(self) -> Metrics:
        """Facts of the metrics that the rows may name."""
        return self.summary.study.metrics

    @property
    def panel(self) -> tuple[str, str] | None:
        """The study's main (protocol, metric): the first one of its tables; None if there are no results."""
        return self.panels[0] if self.panels else None

    @property
    def digits(self) -> int:
        """Decimals of the main metric."""
        return decimals_of(self.metrics, self.panel)

    @cached_property
    def panels(self) -> tuple[tuple[str, str], ...]:
        """All (protocol, metric), in the tables' order."""
        scores = self.summary.scores
        pairs = zip(scores["protocol"].to_pylist(), scores["metric"].to_pylist(), strict=True)
        return tuple(dict.fromkeys(pairs))

    @cached_property
    def paired_rows(self) -> list[dict[str, Any]]:
        """Rows of the table of paired differences: the main metric's, in the scores that are printed."""
        rows: list[dict[str, Any]] = self.summary.paired.to_pylist()
        return [
            row for row in rows if self.panel == (row["protocol"], row["metric"]) and row["score"] in PRINTED_SCORES
        ]

    @cached_property
    def efficiency(self) -> list[dict[str, Any]]:
        """Rows of ``efficiency_table`` of the main metric; read once, because costs are in the study's stages."""
        rows: list[dict[str, Any]] = efficiency_table(self.summary).to_pylist()
        return [row for row in rows if self.panel == (row["protocol"], row["metric"])]

    @cached_property
    def rates(self) -> tuple[float | None, ...]:
        """Learning rates of the plan, ascending; a single None if every cell has its own."""
        return self.summary.study.rates

    @property
    def rate(self) -> float | None:
        """The learning rate that figures show if there are several: the plan's first."""
        return self.summary.study.trials[0].learning_rate

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of the scores table at the shown learning rate."""
        return [row for row in self.summary.scores.to_pylist() if row["learning_rate"] == self.rate]

    @cached_property
    def strategies(self) -> tuple[str, ...]:
        """Strategies with numbers, in the tables' order (``lower`` first, joint training last)."""
        return tuple(dict.fromkeys(row["strategy"] for row in self.rows if row["score"] == "final"))

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """Strategies with their buffer sizes, in the tables' order."""
        found = {Arm(row["strategy"], row["buffer_size"]) for row in self.rows}
        place = {name: i for i, name in enumerate(self.strategies)}
        return tuple(sorted(found, key=lambda arm: (place[arm.strategy], arm.buffer_size or 0)))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Buffer sizes with numbers, ascending."""
        return tuple(sorted({arm.buffer_size for arm in self.arms if arm.buffer_size is not None}))

    @property
    def focus_size(self) -> int | None:
        """The buffer size for figures that show only one: the smallest of at least 3, where choices matter most."""
        wide = [size for size in self.sizes if size >= FOCUS_SIZE]
        return min(wide) if wide else max(self.sizes, default=None)

    @property
    def shown_sizes(self) -> tuple[int, ...]:
        """Up to three buffer sizes for figures with a panel for each: smallest, middle, largest."""
        sizes = self.sizes
        return sizes if len(sizes) <= 3 else (sizes[0], sizes[len(sizes) // 2], sizes[-1])

    @property
    def focus_arms(self) -> tuple[Arm, ...]:
        """One arm per strategy: its focus size, or no buffer."""
        return tuple(arm for arm in self.arms if arm.buffer_size in (None, self.focus_size))

    @property
    def rate_note(self) -> str:
        """A sentence for captions if the study has several learning rates."""
        return f" Learning rate {self.rate:g}." if len(self.rates) > 1 else ""

    def identity_values(
        self, panel: tuple[str, str], compute: Callable[[np.ndarray], np.ndarray]
    ) -> dict[Arm, dict[str, np.ndarray]]:
        """``compute(R)`` of every trial at the shown rate, averaged over seeds: arm -> identity -> array."""
        found: dict[Arm, dict[str, list[np.ndarray]]] = {}
        for matrix in self.matrices:
            trial = matrix.trial
            if (matrix.protocol, matrix.metric) == panel and trial.learning_rate == self.rate:
                arm = found.setdefault(Arm(trial.strategy, trial.buffer_size), {})
                arm.setdefault(trial.identity, []).append(compute(matrix.r))
        return {
            arm: {identity: np.mean(arrays, axis=0) for identity, arrays in sorted(found[arm].items())}
            for arm in self.arms
            if arm in found
        }

    def compared(self, score: str, baseline: str) -> list[Comparison]:
        """Everything against a baseline in one score, under the main metric, at every rate."""
        own = {cell: people for cell, people in self.values.items() if (cell.protocol, cell.metric) == self.panel}
        return compare(own, [baseline], [score], metrics=self.metrics)

    @cached_property
    def stages(self) -> Mapping[Trial, tuple[StoredStage, ...]]:
        """Stages of every trial with results whose stages are still in the folder (shown rate only)."""
        measured = {matrix.trial.trial for matrix in self.matrices}
        folder = self.summary.study.folder
        notes = {
            trial: trial_stages(folder, trial.trial)
            for trial in self.summary.study.trials
            if trial.trial in measured and trial.learning_rate == self.rate
        }
        return {trial: stages for trial, stages in notes.items() if stages}

    def trial_of(self, arm: Arm, identity: str) -> Trial | None:
        """The first seed's trial of an arm for one identity among those with stages."""
        wanted = [
            trial for trial in self.stages if (trial.strategy, trial.buffer_size, trial.identity) == (*arm, identity)
        ]
        return min(wanted, key=lambda trial: trial.seed, default=None)


def gather(summary: Summary) -> ReportData:
    """The report data of a summarised study."""
    whole = tuple(matrix for matrix in summary.matrices if not missing_cells(matrix.r, matrix.trial.joint))
    return ReportData(summary=summary, matrices=whole)
