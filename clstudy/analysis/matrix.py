"""From per-image rows to result matrices R[t, k], and from these to the scores of every trial."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from clstudy.analysis.photos import other_photos, photo_marks
from clstudy.analysis.scores import SCORES, MissingCellsError
from clstudy.errors import UserError
from clstudy.records.rows import RESULT_SCHEMA, SORT_KEY, TRIAL_FIELDS
from clstudy.settings.metric_facts import Metrics, known_metrics

TRIAL_COLUMNS = [name for name, _ in TRIAL_FIELDS]
JOINT_STRATEGIES = frozenset({"upper"})
"""Joint training if ``study.yaml`` does not name it: older studies only had ``upper``."""
_IMAGES = pa.schema(
    [pa.field(f.name, pa.dictionary(pa.int32(), pa.string())) if f.name == "image" else f for f in RESULT_SCHEMA]
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What defines a trial: the trial columns of the rows, and the entries of ``study.yaml``.

    ``learning_rate`` is None where a search chose one for every cell: such trials are compared, each at its own rate.
    ``joint``: trained on everything at once; not a continual learner, so its matrix has only the last row (protocol,
    "Strategies"). The strategy's class declares it, and ``study.yaml`` records it.
    """

    trial: str
    identity: str
    strategy: str
    buffer_size: int | None
    learning_rate: float | None
    seed: int
    joint: bool = False
    timestamps: int | None = None
    """Joint training on the first so many alone (``study.yaml``; the rows do not say); None: on all."""

    def columns(self) -> dict[str, Any]:
        """The trial columns of its rows."""
        return {name: getattr(self, name) for name in TRIAL_COLUMNS}


@dataclass(frozen=True, kw_only=True)
class ResultMatrix:
    """R of one trial under one protocol and metric: ``r`` is float64 ``[T, T]``, NaN where nothing was measured.

    ``other_photos``: test timestamp -> a trial of the identity whose photos this trial was not tested on; the cells in
    question are NaN.
    """

    trial: Trial
    protocol: str
    metric: str
    r: np.ndarray
    other_photos: Mapping[int, str] = field(default_factory=dict)


_KEPT = "__kept"


class ScoreCell(NamedTuple):
    """One cell of a table: everything but the identity and the seed."""

    protocol: str
    metric: str
    score: str
    learning_rate: float | None
    strategy: str
    buffer_size: int | None


ScoreValues = dict[ScoreCell, dict[str, dict[int, float]]]
"""cell -> identity -> seed -> score of that trial."""


def load_rows(study_dir: Path | str) -> pa.Table:
    """All rows of a study as one table in canonical order (empty if no trial has finished)."""
    rows = read_rows(sorted((Path(study_dir) / "results").glob("*.parquet")))
    return rows.sort_by(SORT_KEY)


def read_rows(
    files: Sequence[Path],
    columns: list[str] | None = None,
    where: pc.Expression | None = None,
    schema: pa.Schema = RESULT_SCHEMA,
) -> pa.Table:
    """Read result files through one dataset scan.

    Rows are selected by their own values. As a filter, ``where`` would be applied to the statistics that Parquet keeps
    to skip row groups, and if those are damaged, whole files would silently be left out.

    Args:
        schema: the columns' types; strings may be requested as dictionaries, which are read faster.

    Raises:
        UserError: a file cannot be read.
    """
    if not files:
        return schema.empty_table().select(columns or schema.names)
    encoded = [column.name for column in schema if pa.types.is_dictionary(column.type)]
    form = pyarrow.dataset.ParquetFileFormat(read_options={"dictionary_columns": encoded})
    try:
        dataset = pyarrow.dataset.dataset([str(file) for file in files], schema=schema, format=form)
        names = columns or schema.names
        if where is None:
            return dataset.to_table(columns=names)
        read = dataset.to_table(columns={name: pc.field(name) for name in names} | {_KEPT: where})
        return read.filter(read[_KEPT]).drop_columns([_KEPT])
    except (pa.ArrowException, OSError) as error:
        message = " ".join(str(error).split())
        raise UserError(
            f"a results file cannot be read: {message}. Delete that file and run the study again."
        ) from error


def result_matrices(
    rows: pa.Table | Sequence[Path],
    timestamps: int | Mapping[str, int] | None = None,
    joint: Collection[str] = JOINT_STRATEGIES,
) -> list[ResultMatrix]:
    """Mean over images per (trial, protocol, metric, t, k), as one matrix per trial, protocol and metric.

    A cell without rows is NaN. So is a cell with fewer images than another cell of its column: its mean would be over
    other photos, and the difference would look like Forgetting. So is a cell that was measured on other photos than the
    identity's other cells of that test timestamp, in this trial or another. Missing cells raise no error here, but they
    do in scores.

    Args:
        rows: a table in ``RESULT_SCHEMA`` (without ``image``, photos are counted only) or the result files to scan.
        timestamps: T, for all identities or by identity; by default the largest number that any trial of an identity
            has seen.
        joint: the strategies that are joint training.

    Returns:
        Sorted by trial, protocol, metric.

    Raises:
        UserError: a trial name has two different specifications, or a timestamp is outside 0..T-1 or above t.
    """
    if not isinstance(rows, pa.Table):
        rows = read_rows(rows, schema=_IMAGES)
    if rows.num_rows == 0:
        return []
    trials = _trials(rows, joint)
    sizes = _timestamps(rows, timestamps)

    # One thread: sums run in row order, so equal rows give equal bits.
    keys = ["trial", "protocol", "metric", "train_timestamp", "test_timestamp"]
    named = "image" in rows.column_names
    marks_of = photo_marks(rows["image"]) if named else pa.array(np.zeros(rows.num_rows, dtype=np.int64))
    measured = rows.select([*keys, "value"]).append_column("mark", marks_of)
    cells = measured.group_by(keys, use_threads=False).aggregate(
        [("value", "mean", pc.ScalarAggregateOptions(skip_nulls=False)), ("value", "count"), ("mark", "sum")]
    )
    names, trial = codes(cells["trial"])
    protocols, protocol = codes(cells["protocol"])
    metrics, metric = codes(cells["metric"])
    t, k = cells["train_timestamp"].to_numpy(), cells["test_timestamp"].to_numpy()
    limits = np.array([sizes[trials[name].identity] for name in names])[trial]
    wrong = np.flatnonzero((k < 0) | (k > t) | (t >= limits))
    if wrong.size:
        i = wrong[0]
        raise UserError(
            f"trial {names[trial[i]]}: a row with train timestamp {t[i]} and test timestamp {k[i]}; expected "
            f"0 <= test <= train < {limits[i]}. The results do not belong to this study: remove them and run it again."
        )
    size = int(limits.max())
    shape = (len(names), len(protocols), len(metrics), size, size)
    mean, count, marks = np.full(shape, np.nan), np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    mean[trial, protocol, metric, t, k] = cells["value_mean"].to_numpy()
    count[trial, protocol, metric, t, k] = cells["value_count"].to_numpy()
    marks[trial, protocol, metric, t, k] = cells["mark_sum"].to_numpy()
    fewer = count < count.max(axis=-2, keepdims=True)
    odd, usual = other_photos(marks, np.where(fewer, 0, count), [trials[name].identity for name in names])
    mean[fewer | odd] = np.nan
    present = np.zeros(shape[:3], dtype=bool)
    present[trial, protocol, metric] = True
    matrices = []
    for i, spec in enumerate(trials[name] for name in names):
        end = sizes[spec.identity]
        for p, m in np.argwhere(present[i]):
            r = mean[i, p, m, :end, :end]
            others = {int(k): names[usual[i, p, m, k]] for k in np.flatnonzero(odd[i, p, m].any(axis=0))}
            matrices.append(
                ResultMatrix(trial=spec, protocol=protocols[p], metric=metrics[m], r=r, other_photos=others)
            )
    return matrices


def trial_scores(matrix: ResultMatrix, metrics: Metrics | None = None) -> dict[str, float]:
    """All scores that are defined for this trial: score name -> value (joint training: final performance only).

    Args:
        metrics: of the study; by default the packaged ones.

    Raises:
        MissingCellsError: a cell is missing; the message names the trial.
        UserError: the metric is not among them.
    """
    return {score: float(value[0]) for score, value in _scores([matrix], metrics).items()}


def score_values(matrices: Iterable[ResultMatrix], metrics: Metrics | None = None) -> ScoreValues:
    """Scores per trial, sorted into cells, identities and seeds; ``metrics`` as in ``trial_scores``.

    Raises:
        MissingCellsError, UserError: as ``trial_scores``.
    """
    stacks: dict[tuple[str, bool, int], list[ResultMatrix]] = {}
    for matrix in matrices:
        stacks.setdefault((matrix.metric, matrix.trial.joint, matrix.r.shape[-1]), []).append(matrix)
    values: ScoreValues = {}
    for stack in stacks.values():
        for score, found in _scores(stack, metrics).items():
            for matrix, value in zip(stack, found.tolist(), strict=True):
                spec = matrix.trial
                cell = ScoreCell(
                    matrix.protocol, matrix.metric, score, spec.learning_rate, spec.strategy, spec.buffer_size
                )
                values.setdefault(cell, {}).setdefault(spec.identity, {})[spec.seed] = value
    return values


def _scores(stack: Sequence[ResultMatrix], metrics: Metrics | None) -> dict[str, np.ndarray]:
    """Defined scores of matrices of one metric, kind and size: score name -> float ``[len(stack)]``."""
    metric, joint, size = stack[0].metric, stack[0].trial.joint, stack[0].r.shape[-1]
    known = known_metrics() if metrics is None else metrics
    if metric not in known:
        raise UserError(
            f"metric {metric!r} of trial {stack[0].trial.trial} has no known direction: it is not in the package, and "
            f"study.yaml says nothing about it. Known: {', '.join(sorted(known))}. Delete the trial's results file "
            "and run the study again."
        )
    defined = [score for score in SCORES.values() if size >= score.at_least and not (score.continual and joint)]
    r = np.stack([matrix.r for matrix in stack])
    try:
        return {score.name: score.compute(r, known[metric].higher_is_better) for score in defined}
    except MissingCellsError as error:
        place = error.cells[0][0]
        where = f"trial {stack[place].trial.trial}, {stack[place].protocol} {metric}"
        raise MissingCellsError([cell[1:] for cell in error.cells if cell[0] == place], where) from error


def _trials(rows: pa.Table, joint: Collection[str]) -> dict[str, Trial]:
    trials: dict[str, Trial] = {}
    for spec in rows.group_by(TRIAL_COLUMNS, use_threads=False).aggregate([]).to_pylist():
        trial = Trial(**spec, joint=spec["strategy"] in joint)
        known = trials.setdefault(trial.trial, trial)
        if known != trial:
            raise UserError(f"trial {trial.trial} has rows of two specifications: {known} and {trial}")
    return trials


def _timestamps(rows: pa.Table, timestamps: int | Mapping[str, int] | None) -> dict[str, int]:
    seen = rows.group_by("identity", use_threads=False).aggregate([("train_timestamp", "max")])
    counted = {row["identity"]: row["train_timestamp_max"] + 1 for row in seen.to_pylist()}
    if timestamps is None:
        return counted
    if isinstance(timestamps, int):
        return dict.fromkeys(counted, timestamps)
    return {identity: timestamps.get(identity, size) for identity, size in counted.items()}


def codes(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """Distinct values in sorted order and each row's index into them."""
    encoded = column.combine_chunks().dictionary_encode()
    found = encoded.dictionary.to_pylist()
    names = sorted(found)
    places = {name: place for place, name in enumerate(names)}
    return names, np.array([places[name] for name in found], dtype=np.int64)[encoded.indices.to_numpy()]
