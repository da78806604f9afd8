"""Summarises a study: its tidy tables (scores, paired differences, curves) and what is missing from them.

Everything is computed from ``results/*.parquet`` and ``study.yaml``; equal rows give equal tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import pyarrow as pa
import pyarrow.compute as pc

from clstudy.analysis.matrix import ResultMatrix, ScoreCell, ScoreValues, read_rows, result_matrices, score_values
from clstudy.analysis.photo_bias import trial_photo_biases
from clstudy.analysis.published import Setting, comparable
from clstudy.analysis.score_tables import (
    CELL_FIELDS,
    INTERVAL_FIELDS,
    Column,
    best_in_columns,
    cell_order,
    interval_fields,
    paired_table,
    scores_table,
)
from clstudy.analysis.scores import MissingCellsError, average_performance, missing_cells
from clstudy.analysis.statistics.intervals import identity_interval
from clstudy.analysis.study_plan import Study, read_study, study_labels
from clstudy.errors import UserError
from clstudy.records.results import Examined, examine

CURVES_SCHEMA = pa.schema(
    [field for field in CELL_FIELDS if field[0] != "score"]
    + [("timestamp", pa.int64())]
    + INTERVAL_FIELDS
    + [("population", pa.string())]
)


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A trial of the plan that is not, or not completely, in the results, and why."""

    trial: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The tidy tables of one study, and everything that readers must know about them.

    Attributes:
        scores: ``SCORES_SCHEMA``, one row per protocol, metric, score, learning rate, strategy and buffer size. Scores
            are per trial, averaged over seeds, one value per identity; ``buffer_size`` null for ``lower`` and
            ``upper``; ``low`` and ``high`` null where n = 1; ``n_seeds``: fewest seeds of any identity;
            ``published``: the paper's value if the study repeats the paper's experiment; ``photo_bias``: how much of
            Forgetting is estimated to be photo noise (``clstudy.analysis.photo_bias``).
        paired: ``PAIRED_SCHEMA``, difference = strategy - baseline on common identities and seeds; ``claim`` is
            "primary" if the space named it before anything was measured, else "exploratory". Both tables hold BWT as
            defined; it is printed as −BWT (``clstudy.analysis.printed``).
        missing: trials of the plan that failed, were not run or lack cells.
        left_out: result files of trials that are not in this plan (and not in the tables).
        files: trial -> result file, for trials in the tables (damaged files are in ``missing``).
        unchecked: trials whose result files have no checksum; ``unconfirmed``: those that could not be compared with
            their stages either.
        best: the strategy that is better than every other in its column, if intervals show it (``best_in_columns``).
        setting: the paper's experiment that this study repeats, if any; ``published_note`` names it or the reason for
            None.
        values: scores per trial, which the tables are computed from.
        matrices: R of every trial, including incomplete ones.
        shorter: of joint training on fewer than all timestamps (``clstudy.analysis.horizons``), including incomplete
            ones.
        photo_biases: of every trial's Forgetting, structured as ``values``; NaN if not known.
    """

    study: Study
    scores: pa.Table
    paired: pa.Table
    missing: tuple[Missing, ...]
    left_out: tuple[str, ...]
    files: Mapping[str, Path] = field(default_factory=dict)
    unchecked: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()
    best: Mapping[Column, str] = field(default_factory=dict)
    setting: Setting | None = None
    published_note: str = ""
    values: ScoreValues = field(default_factory=dict, repr=False, compare=False)
    matrices: tuple[ResultMatrix, ...] = field(default=(), repr=False, compare=False)
    shorter: tuple[ResultMatrix, ...] = field(default=(), repr=False, compare=False)
    photo_biases: ScoreValues = field(default_factory=dict, repr=False, compare=False)

    @property
    def checksum_note(self) -> str:
        """A note about result files without a checksum; empty if all have one."""
        if not self.unchecked:
            return ""
        count, equal = len(self.unchecked), len(self.unchecked) - len(self.unconfirmed)
        return (
            f"{count} result {'file carries' if count == 1 else 'files carry'} no checksum (written by an earlier "
            f"version of clstudy, or interrupted): {equal} equal to the rows of the stages, {len(self.unconfirmed)} "
            "with nothing to compare them to. The next run of the study adds checksums."
        )

    @property
    def complete(self) -> bool:
        """Whether every planned trial is in the tables."""
        return not self.missing


def summarise(study_dir: Path | str) -> Summary:
    """Compute all scores, intervals and paired differences of a study.

    A trial that failed, has not run or lacks cells is named in ``missing``; its cell is then computed from the
    available trials, counted in ``n_identities`` and ``n_trials``.

    Raises:
        UserError: the folder is not a study, or its results cannot be read.
    """
    study = read_study(study_dir)
    files = {path.stem for path in (study.folder / "results").glob("*.parquet")}
    planned = {trial.trial: trial for trial in study.planned}
    results = examine(study.folder, {name: trial.columns() for name, trial in planned.items()})
    found = [results.readable[name] for name in sorted(results.readable)]
    matrices = result_matrices(found, study.timestamps, study.joint_strategies)
    for matrix in matrices:
        name = matrix.trial.trial
        wanted = planned.get(name)
        if wanted is None or replace(wanted, timestamps=None) != matrix.trial:
            raise UserError(
                f"{study.folder}: the results of trial {name} say {matrix.trial}, study.yaml says "
                f"{planned.get(name)}. Remove that results file and run the study again."
            )
    shorter = [
        replace(matrix, trial=trial, r=matrix.r[: trial.timestamps, : trial.timestamps])
        for matrix in matrices
        if (trial := planned[matrix.trial.trial]).timestamps is not None
    ]
    matrices = [matrix for matrix in matrices if planned[matrix.trial.trial].timestamps is None]
    if study.chosen_rates:  # one rate per cell: cells are compared, each at its own rate
        study = replace(study, trials=tuple(replace(trial, learning_rate=None) for trial in study.trials))
        matrices, shorter = (
            [replace(matrix, trial=replace(matrix.trial, learning_rate=None)) for matrix in some]
            for some in (matrices, shorter)
        )
    gaps = _gaps([*matrices, *shorter])
    values = score_values(
        (matrix for matrix in matrices if not missing_cells(matrix.r, matrix.trial.joint)), study.metrics
    )
    measured = {matrix.metric for matrix in matrices}
    horizons = timestamp_counts(study, matrices).values()
    setting, note = comparable(study.profile, horizons, study.practice, measured, study.workload)
    biases = trial_photo_biases(found, matrices, study.metrics)
    return Summary(
        study=study,
        scores=scores_table(study, values, setting, biases),
        paired=paired_table(study, values),
        missing=tuple(_missing(study, results, gaps)),
        left_out=tuple(sorted(files - planned.keys())),
        files=results.readable,
        unchecked=results.unchecked,
        unconfirmed=results.unconfirmed,
        best=best_in_columns(study, values),
        setting=setting,
        published_note=note,
        values=values,
        matrices=tuple(matrices),
        shorter=tuple(shorter),
        photo_biases=biases,
    )


def summarise_many(study_dirs: Iterable[Path | str]) -> dict[str, Summary]:
    """Summaries of several studies by a name of their own; a folder given twice is read once.

    Studies with the same name are distinguished by as much of their folders' paths as necessary.

    Raises:
        UserError: as ``summarise``.
    """
    folders = list(dict.fromkeys(Path(folder).resolve() for folder in study_dirs))
    summaries = [summarise(folder) for folder in folders]
    return dict(zip(study_labels([summary.study for summary in summaries]), summaries, strict=True))


def combine(tables: Mapping[str, pa.Table]) -> pa.Table:
    """Tables of one schema, one per study, as one table with a first column ``study``.

    For instance ``combine({name: summary.scores for name, summary in summarise_many(folders).items()})``.

    Raises:
        ValueError: no table is given.
    """
    if not tables:
        raise ValueError("combine needs the table of at least one study")
    return pa.concat_tables(
        table.add_column(0, "study", pa.array([name] * table.num_rows, pa.string())) for name, table in tables.items()
    )


def read_studies(
    study_dirs: Iterable[Path | str], columns: list[str] | None = None, where: pc.Expression | None = None
) -> pa.Table:
    """Rows of the planned trials of several studies with a first column ``study``; ``columns`` and ``where`` push down.

    Raises:
        UserError: a folder is not a study, or a file cannot be read.
    """
    studies = [read_study(folder) for folder in dict.fromkeys(Path(folder).resolve() for folder in study_dirs)]
    tables = {}
    for name, study in zip(study_labels(studies), studies, strict=True):
        results = examine(study.folder, {trial.trial: trial.columns() for trial in study.trials})
        if results.damaged:
            raise UserError("; ".join(results.damaged.values()))
        tables[name] = read_rows(list(results.readable.values()), columns, where)
    return combine(tables)


def curve_table(summary: Summary) -> pa.Table:
    """AP_t of every strategy and buffer size, with the t interval over identities: ``CURVES_SCHEMA``.

    Averaged over seeds, one value per identity, as the scores are; ``upper`` only has its last timestamp, and a
    timestamp that fewer identities reach is averaged over those (``n_identities``).
    """
    found: dict[ScoreCell, dict[int, dict[str, list[float]]]] = {}
    for matrix in summary.matrices:
        spec = matrix.trial
        if missing_cells(matrix.r, spec.joint):
            continue
        last = matrix.r.shape[-1] - 1
        curve = {last: float(matrix.r[-1].mean())} if spec.joint else dict(enumerate(average_performance(matrix.r)))
        # "aip" only because the sort key needs a score
        cell = ScoreCell(matrix.protocol, matrix.metric, "aip", spec.learning_rate, spec.strategy, spec.buffer_size)
        for t, value in curve.items():
            found.setdefault(cell, {}).setdefault(t, {}).setdefault(spec.identity, []).append(float(value))
    rows = []
    for cell in sorted(found, key=cell_order(summary.study)):
        for t, identities in sorted(found[cell].items()):
            means = [fmean(identities[identity]) for identity in sorted(identities)]
            fields = interval_fields(identity_interval(means), min(map(len, identities.values())))
            rows.append(cell._asdict() | {"timestamp": t} | fields)
    return pa.Table.from_pylist(rows, schema=CURVES_SCHEMA)


def _gaps(matrices: Sequence[ResultMatrix]) -> dict[str, list[str]]:
    """Trial -> what it lacks: cells, or a whole metric that other trials have."""
    panels = {(matrix.protocol, matrix.metric) for matrix in matrices}
    measured: dict[str, set[tuple[str, str]]] = {}
    gaps: dict[str, list[str]] = {}
    for matrix in matrices:
        name = matrix.trial.trial
        measured.setdefault(name, set()).add((matrix.protocol, matrix.metric))
        cells = missing_cells(matrix.r, matrix.trial.joint)
        if matrix.other_photos:
            gaps.setdefault(name, []).append(_other_photos(matrix))
        elif cells:
            gaps.setdefault(name, []).append(str(MissingCellsError(cells, f"{matrix.protocol} {matrix.metric}")))
    for name, has in measured.items():
        for protocol, metric in sorted(panels - has):
            gaps.setdefault(name, []).append(f"{protocol} {metric}: no rows")
    return {name: gaps.get(name, []) for name in measured}


def _other_photos(matrix: ResultMatrix) -> str:
    at: dict[str, list[int]] = {}
    for k, trial in matrix.other_photos.items():
        at.setdefault(trial, []).append(k)
    unlike = "; ".join(
        f"tested on other photos than trial {trial} at timestamp{'s' if len(times) > 1 else ''} "
        f"{', '.join(map(str, times))}"
        for trial, times in at.items()
    )
    return f"{matrix.protocol} {matrix.metric}: {unlike}, so that it cannot be compared"


def _missing(study: Study, results: Examined, gaps: Mapping[str, list[str]]) -> list[Missing]:
    """In the plan's order, failures first. A result overrides an old failure, because the trial was run again since."""
    failed, other = [], []
    for trial in study.planned:
        name = trial.trial
        if name in results.damaged:
            other.append(Missing(trial=name, reason=results.damaged[name]))
        elif name in results.readable:
            lacks = gaps.get(name, ["its results file holds no rows"])
            if lacks:
                other.append(Missing(trial=name, reason="incomplete: " + "; ".join(lacks)))
        elif name in study.failures:
            failed.append(Missing(trial=name, reason=f"failed: {study.failures[name]}"))
        else:
            other.append(Missing(trial=name, reason="not finished"))
    return failed + other


def timestamp_counts(study: Study, matrices: Sequence[ResultMatrix]) -> dict[str, int]:
    """T by identity: as planned, or as measured if the plan does not say."""
    measured = {matrix.trial.identity: matrix.r.shape[-1] for matrix in matrices}
    if study.timestamps is None:
        return measured
    if isinstance(study.timestamps, int):
        return dict.fromkeys(study.identities, study.timestamps)
    return {name: study.timestamps.get(name, measured.get(name, 0)) for name in study.identities}
