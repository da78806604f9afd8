"""A study's answers as tidy tables: scores, paired differences, curves; what is missing.

Everything is computed from ``results/*.parquet`` and ``study.yaml``; equal rows give equal tables.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from clstudy.analysis.comparisons import BASELINES, compare, paired_difference
from clstudy.analysis.intervals import Interval, identity_interval
from clstudy.analysis.matrix import (
    JOINT_STRATEGIES,
    Cell,
    ResultMatrix,
    ScoreValues,
    Trial,
    read_rows,
    result_matrices,
    score_values,
)
from clstudy.analysis.photo_bias import trial_photo_biases
from clstudy.analysis.printed import PRINTED_SCORES
from clstudy.analysis.published import Practice, Setting, comparable, published_value, read_practice
from clstudy.analysis.scores import SCORES, MissingCellsError, average_performance, missing_cells
from clstudy.errors import UserError
from clstudy.records.results import Examined, examine
from clstudy.records.study_document import read_document, read_failures
from clstudy.settings.claims import Statement, primary_before_results, read_statements
from clstudy.settings.metric_directions import HIGHER_IS_BETTER

JOINT_NOTE = "final (joint training; not a continual learner)"
UNBUFFERED_NOTE = "no buffer: the same trials in every buffer-size column"
MAIN_SCORES = ("aip", "forgetting", "final")
PANEL_TITLES = {
    ("reconstruction", "lpips"): "Reconstruction LPIPS",
    ("reconstruction", "id"): "Reconstruction ID similarity",
    ("reconstruction", "lpips_eyes_mouth"): "Reconstruction LPIPS of eyes and mouth",
    ("reconstruction", "psnr"): "Reconstruction PSNR (dB)",
    ("reconstruction", "dists"): "Reconstruction DISTS",
    ("synthesis", "id"): "Synthesis ID similarity",
    ("synthesis", "fid"): "Synthesis FID (few images: biased upward)",
    ("synthesis", "kid"): "Synthesis KID (few images: noisy)",
    ("reconstruction", "lpips_as_published"): "Reconstruction LPIPS as published",
    ("reconstruction", "id_as_published"): "Reconstruction ID similarity as published",
    ("reconstruction", "psnr_as_published"): "Reconstruction PSNR as published (dB)",
    ("reconstruction", "dists_as_published"): "Reconstruction DISTS as published",
    ("synthesis", "id_as_published"): "Synthesis ID similarity as published",
}
"""(protocol, metric) -> its name; the order of the tables, of which the first is the study's main one."""

MOST_TIMESTAMPS = 1000
"""A matrix has its square of cells: beyond this a number in ``study.yaml`` is a mistake."""

CELL_FIELDS = [
    ("protocol", pa.string()),
    ("metric", pa.string()),
    ("score", pa.string()),
    ("learning_rate", pa.float64()),
    ("strategy", pa.string()),
    ("buffer_size", pa.int64()),
]
INTERVAL_FIELDS = [
    ("mean", pa.float64()),
    ("low", pa.float64()),
    ("high", pa.float64()),
    ("n_identities", pa.int64()),
    ("n_seeds", pa.int64()),
]
SCORES_SCHEMA = pa.schema(
    CELL_FIELDS
    + INTERVAL_FIELDS
    + [("n_trials", pa.int64()), ("n_planned", pa.int64()), ("population", pa.string()), ("note", pa.string())]
    + [("published", pa.float64()), ("photo_bias", pa.float64())]
)
PAIRED_SCHEMA = pa.schema(
    CELL_FIELDS
    + [("baseline", pa.string())]
    + INTERVAL_FIELDS
    + [("better_when", pa.string()), ("verdict", pa.string()), ("population", pa.string()), ("claim", pa.string())]
)
CURVES_SCHEMA = pa.schema(
    [field for field in CELL_FIELDS if field[0] != "score"]
    + [("timestamp", pa.int64())]
    + INTERVAL_FIELDS
    + [("population", pa.string())]
)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What the analysis needs of ``study.yaml`` and ``failures.json``."""

    folder: Path
    name: str
    timestamps: int | Mapping[str, int] | None
    buffer_sizes: tuple[int, ...]
    trials: tuple[Trial, ...]
    failures: Mapping[str, str]
    profile: str | None = None
    practice: Practice = field(default_factory=Practice)
    chosen_rates: tuple[tuple[str, int | None, float], ...] = ()
    """Strategy, buffer size and learning rate of every cell, where a search chose them; then ``trials`` have none."""
    claims: tuple[Statement, ...] = ()
    """What the study's space claimed, and when (``clstudy.settings.claims``); empty where it never claimed anything."""

    @property
    def identities(self) -> tuple[str, ...]:
        """Every identity of the plan, in its order."""
        return tuple(dict.fromkeys(trial.identity for trial in self.trials))

    @property
    def strategies(self) -> tuple[str, ...]:
        """Lower bound first, joint training last, the others in the plan's order."""
        names = dict.fromkeys(trial.strategy for trial in self.trials)
        return tuple(sorted(names, key=lambda name: (name in self.joint_strategies, name != "lower")))

    @property
    def joint_strategies(self) -> frozenset[str]:
        """The strategies that are joint training."""
        return frozenset(trial.strategy for trial in self.trials if trial.joint)

    @property
    def rates(self) -> tuple[float | None, ...]:
        """Learning rates of the plan, ascending; one None where every cell has its own."""
        return tuple(sorted({trial.learning_rate for trial in self.trials}, key=lambda rate: rate or 0.0))

    @property
    def columns(self) -> tuple[int | None, ...]:
        """Buffer sizes as the tables' columns; one column without a size where no trial has one."""
        return self.buffer_sizes or (None,)


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A trial of the plan that is not (wholly) in the numbers, and why."""

    trial: str
    reason: str


class Column(NamedTuple):
    """One column of one block of a table: the cells that compete for "best"."""

    protocol: str
    metric: str
    score: str
    learning_rate: float | None
    buffer_size: int | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The tidy tables of one study and everything a reader must know about them.

    Attributes:
        scores: ``SCORES_SCHEMA``, one row per protocol, metric, score, learning rate, strategy and buffer size. Scores
            are per trial, averaged over seeds, one value per identity; ``buffer_size`` null for ``lower`` and
            ``upper``; ``low`` and ``high`` null where n = 1; ``n_seeds``: fewest seeds of any identity;
            ``published``: the paper's value where the study repeats the paper's experiment; ``photo_bias``: how much
            of Forgetting is estimated to be photo noise (``clstudy.analysis.photo_bias``).
        paired: ``PAIRED_SCHEMA``, difference = strategy - baseline on common identities and seeds; ``claim`` is
            "primary" where the space named it before anything was measured, else "exploratory". BWT stands in both
            tables as defined; what is printed is −BWT (``clstudy.analysis.printed``).
        missing: trials of the plan that failed, were not run or lack cells.
        left_out: result files of trials that are not in this plan (not in the numbers).
        files: trial -> result file, of those that the numbers are of (damaged ones are in ``missing``).
        unchecked: trials whose result files have no checksum; ``unconfirmed``: those that could not be compared with
            their stages either.
        best: the strategy that beats every other of its column, where the intervals say so (``best_in_columns``).
        setting: the paper's experiment that this study repeats, if it does; ``published_note`` says so or why not.
        values: scores per trial, what the tables are made of.
        matrices: R of every trial, of incomplete ones too.
        photo_biases: of every trial's Forgetting, as ``values``; NaN where it is not known.
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
    photo_biases: ScoreValues = field(default_factory=dict, repr=False, compare=False)

    @property
    def checksum_note(self) -> str:
        """What a reader must know of result files without a checksum; empty where all have one."""
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
        """True where every planned trial is in the numbers."""
        return not self.missing


def read_study(study_dir: Path | str) -> Study:
    """Read a study's plan and failures.

    Raises:
        UserError: no such folder, no ``study.yaml`` in it, or one that cannot be understood.
    """
    folder = Path(study_dir)
    path = folder / "study.yaml"
    plan = read_document(folder)
    try:
        trials = tuple(_trial(entry) for entry in plan["trials"])
        sizes = plan.get("buffer_sizes") or {trial.buffer_size for trial in trials}
        timestamps = plan.get("timestamps")
        for count in timestamps.values() if isinstance(timestamps, dict) else [timestamps]:
            if count is not None and not (type(count) is int and 1 <= count <= MOST_TIMESTAMPS):
                raise TypeError(
                    f"timestamps is {str(count)[:40]}, expected a number from 1 to {MOST_TIMESTAMPS} or a mapping "
                    "identity: number"
                )
        return Study(
            folder=folder,
            name=str(plan.get("name", folder.name)),
            timestamps=timestamps,
            buffer_sizes=tuple(sorted(int(size) for size in sizes if size is not None)),
            trials=trials,
            failures=_failures(folder),
            profile=_profile(plan.get("profile")),
            practice=read_practice(plan.get("profile")),
            chosen_rates=tuple(_chosen(entry) for entry in plan.get("chosen_rates") or ()),
            claims=read_statements(plan.get("claims")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"{path} cannot be understood ({message}). Run the study again to rewrite it.") from error


def summarise(study_dir: Path | str) -> Summary:
    """Compute all scores, intervals and paired differences of a study.

    A trial that failed, has not run or lacks cells is named in ``missing``; its cell then rests on the trials that are
    there and says so in ``n_identities`` and ``n_trials``.

    Raises:
        UserError: the folder is no study, or its results cannot be read.
    """
    study = read_study(study_dir)
    files = {path.stem for path in (study.folder / "results").glob("*.parquet")}
    planned = {trial.trial: trial for trial in study.trials}
    results = examine(study.folder, {trial.trial: trial.columns() for trial in study.trials})
    found = [results.readable[name] for name in sorted(results.readable)]
    matrices = result_matrices(found, study.timestamps, study.joint_strategies)
    for matrix in matrices:
        name = matrix.trial.trial
        if planned.get(name) != matrix.trial:
            raise UserError(
                f"{study.folder}: the results of trial {name} say {matrix.trial}, study.yaml says "
                f"{planned.get(name)}. Remove that results file and run the study again."
            )
    if study.chosen_rates:  # one rate per cell: what is compared is the cells, each at its own
        study = replace(study, trials=tuple(replace(trial, learning_rate=None) for trial in study.trials))
        matrices = [replace(matrix, trial=replace(matrix.trial, learning_rate=None)) for matrix in matrices]
    gaps = _gaps(matrices)
    values = score_values(matrix for matrix in matrices if not missing_cells(matrix.r, matrix.trial.joint))
    measured = {matrix.metric for matrix in matrices}
    setting, note = comparable(study.profile, timestamp_counts(study, matrices).values(), study.practice, measured)
    biases = trial_photo_biases(found, matrices)
    return Summary(
        study=study,
        scores=_scores_table(study, values, setting, biases),
        paired=_paired_table(study, values),
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
        photo_biases=biases,
    )


def summarise_many(study_dirs: Iterable[Path | str]) -> dict[str, Summary]:
    """Summaries of several studies by a name of their own; a folder given twice is read once.

    Studies of one name are told apart by as much of their folders' paths as it takes.

    Raises:
        UserError: as ``summarise``.
    """
    folders = list(dict.fromkeys(Path(folder).resolve() for folder in study_dirs))
    summaries = [summarise(folder) for folder in folders]
    return dict(zip(study_labels([summary.study for summary in summaries]), summaries, strict=True))


def study_labels(studies: Sequence[Study]) -> list[str]:
    """A distinct name per study (of distinct folders): its own, with the end of its path where others share it."""
    labels = []
    shared = Counter(study.name for study in studies)
    for study in studies:
        if shared[study.name] == 1:
            labels.append(study.name)
            continue
        parts = study.folder.resolve().parts
        others = [other.folder.resolve().parts for other in studies if other.name == study.name and other is not study]
        length = next(n for n in range(1, len(parts) + 1) if all(other[-n:] != parts[-n:] for other in others))
        labels.append(f"{study.name} ({'/'.join(parts[-length:])})")
    # a study may be called what another is labelled: counting ends that, too
    repeated: Counter[str] = Counter()
    for place, label in enumerate(labels):
        repeated[label] += 1
        labels[place] = label if repeated[label] == 1 else f"{label} #{repeated[label]}"
    return labels


def combine(tables: Mapping[str, pa.Table]) -> pa.Table:
    """Tables of one schema, one per study, as one table with a first column ``study``.

    For instance ``combine({name: summary.scores for name, summary in summarise_many(folders).items()})``.

    Raises:
        ValueError: no table.
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
        UserError: a folder is no study, or a file cannot be read.
    """
    studies = [read_study(folder) for folder in dict.fromkeys(Path(folder).resolve() for folder in study_dirs)]
    tables = {}
    for name, study in zip(study_labels(studies), studies, strict=True):
        results = examine(study.folder, {trial.trial: trial.columns() for trial in study.trials})
        if results.damaged:
            raise UserError("; ".join(results.damaged.values()))
        tables[name] = read_rows(list(results.readable.values()), columns, where)
    return combine(tables)


def best_in_columns(study: Study, values: ScoreValues) -> dict[Column, str]:
    """The strategies that are best where it is shown: the paired interval to *every* other of the column excludes 0.

    Joint training does not compete, strategies without a buffer compete in every column. No correction for their number
    is needed: to be marked wrongly a strategy must be told apart from the truly best one (or, where two
    share that place, one of them from the other), which a single 95% interval already makes a 5% event.
    """
    fields: dict[
        tuple[str, str, str, float | None], dict[tuple[str, int | None], Mapping[str, Mapping[int, float]]]
    ] = {}
    joint = study.joint_strategies
    for cell, found in values.items():
        if cell.score in MAIN_SCORES and cell.strategy not in joint:
            block = fields.setdefault((cell.protocol, cell.metric, cell.score, cell.learning_rate), {})
            block[cell.strategy, cell.buffer_size] = found
    best = {}
    for head, block in fields.items():
        sign = 1.0 if SCORES[head[2]].direction(HIGHER_IS_BETTER[head[1]]) else -1.0
        for size in study.columns:
            rivals = {name: found for (name, at), found in block.items() if at in (None, size)}
            means = {name: sign * fmean(_identity_means(found)) for name, found in rivals.items()}
            first = max(means, key=means.__getitem__, default=None)
            if first is not None and _beats_all(first, rivals, sign):
                best[Column(*head, size)] = first
    return best


def _beats_all(name: str, rivals: Mapping[str, Mapping[str, Mapping[int, float]]], sign: float) -> bool:
    others = [found for other, found in rivals.items() if other != name]
    for other in others:
        paired = paired_difference(rivals[name], other)
        # NaN (one identity) compares false, as it should
        if paired is None or not (sign * paired[0].low > 0 and sign * paired[0].high > 0):
            return False
    return bool(others)


def curve_table(summary: Summary) -> pa.Table:
    """AP_t of every strategy and buffer size, with the t interval over identities: ``CURVES_SCHEMA``.

    Averaged over seeds, one value per identity, as the scores are; ``upper`` has its last timestamp only, and a
    timestamp that fewer identities reach rests on those (``n_identities``).
    """
    found: dict[Cell, dict[int, dict[str, list[float]]]] = {}
    for matrix in summary.matrices:
        spec = matrix.trial
        if missing_cells(matrix.r, spec.joint):
            continue
        last = matrix.r.shape[-1] - 1
        curve = {last: float(matrix.r[-1].mean())} if spec.joint else dict(enumerate(average_performance(matrix.r)))
        # "aip" only because the sort key wants a score
        cell = Cell(matrix.protocol, matrix.metric, "aip", spec.learning_rate, spec.strategy, spec.buffer_size)
        for t, value in curve.items():
            found.setdefault(cell, {}).setdefault(t, {}).setdefault(spec.identity, []).append(float(value))
    rows = []
    for cell in sorted(found, key=cell_order(summary.study)):
        for t, identities in sorted(found[cell].items()):
            means = [fmean(identities[identity]) for identity in sorted(identities)]
            fields = _interval_fields(identity_interval(means), min(map(len, identities.values())))
            rows.append(cell._asdict() | {"timestamp": t} | fields)
    return pa.Table.from_pylist(rows, schema=CURVES_SCHEMA)


# --- tidy tables --------------------------------------------------------------------------------------------------


def _scores_table(study: Study, values: ScoreValues, setting: Setting | None, biases: ScoreValues) -> pa.Table:
    planned = Counter((trial.learning_rate, trial.strategy, trial.buffer_size) for trial in study.trials)
    joint = study.joint_strategies
    measured = {cell.metric for cell in values}
    rows = []
    for cell in sorted(values, key=cell_order(study)):
        identities = values[cell]
        seeds = [len(by_seed) for by_seed in identities.values()]
        means = _identity_means(identities)
        place = (cell.protocol, cell.metric, cell.score, cell.strategy, cell.buffer_size)
        unbuffered = UNBUFFERED_NOTE if cell.buffer_size is None else ""
        rows.append(
            cell._asdict()
            | _interval_fields(identity_interval(means), min(seeds))
            | {
                "n_trials": sum(seeds),
                "n_planned": planned[cell.learning_rate, cell.strategy, cell.buffer_size],
                "note": JOINT_NOTE if cell.strategy in joint else unbuffered,
                "published": published_value(setting, place, cell.learning_rate, measured),
                "photo_bias": _mean_bias(biases.get(cell)),
            }
        )
    return pa.Table.from_pylist(rows, schema=SCORES_SCHEMA)


def _paired_table(study: Study, values: ScoreValues) -> pa.Table:
    order = cell_order(study)
    primary = primary_before_results(study.claims)
    comparisons = sorted(
        compare(values, scores=PRINTED_SCORES), key=lambda c: (order(c.cell), BASELINES.index(c.baseline))
    )
    rows = [
        c.cell._asdict()
        | _interval_fields(c.difference, c.n_seeds)
        | {
            "baseline": c.baseline,
            "better_when": "negative" if c.negative_is_better else "positive",
            "verdict": c.verdict,
            "claim": "primary"
            if primary is not None
            and primary.covers(
                (c.cell.protocol, c.cell.metric), c.cell.score, c.cell.strategy, c.baseline, c.cell.buffer_size
            )
            else "exploratory",
        }
        for c in comparisons
    ]
    return pa.Table.from_pylist(rows, schema=PAIRED_SCHEMA)


def _mean_bias(identities: Mapping[str, Mapping[int, float]] | None) -> float | None:
    """As a cell's mean is: over seeds, then identities; None where it is not known of all its trials."""
    mean = math.nan if identities is None else fmean(_identity_means(identities))
    return None if math.isnan(mean) else mean


def _identity_means(identities: Mapping[str, Mapping[int, float]]) -> list[float]:
    """Mean over seeds per identity, in the identities' order by name."""
    return [fmean(identities[identity].values()) for identity in sorted(identities)]


def _interval_fields(interval: Interval, n_seeds: int) -> dict[str, Any]:
    return {
        "mean": interval.mean,
        "low": None if math.isnan(interval.low) else interval.low,
        "high": None if math.isnan(interval.high) else interval.high,
        "n_identities": interval.n,
        "n_seeds": n_seeds,
        "population": interval.population,
    }


def cell_order(study: Study) -> Callable[[Cell], tuple[Any, ...]]:
    """Sort key of cells: panels as in ``PANEL_TITLES`` (others after them), then the order of the tables."""
    panels, scores, strategies = list(PANEL_TITLES), list(SCORES), study.strategies

    def key(cell: Cell) -> tuple[Any, ...]:
        panel = (cell.protocol, cell.metric)
        size = -1 if cell.buffer_size is None else cell.buffer_size
        place = panels.index(panel) if panel in panels else len(panels)
        return place, panel, scores.index(cell.score), cell.learning_rate, strategies.index(cell.strategy), size

    return key


def _gaps(matrices: Sequence[ResultMatrix]) -> dict[str, list[str]]:
    """trial -> what it lacks: cells, or a whole metric that other trials have."""
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
    """In the plan's order, failures first. A result outweighs an old failure: the trial was run again since."""
    failed, other = [], []
    for trial in study.trials:
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


def _trial(entry: Mapping[str, Any]) -> Trial:
    size, joint = entry["buffer_size"], entry.get("joint", entry["strategy"] in JOINT_STRATEGIES)
    if not isinstance(joint, bool):
        raise TypeError(f"joint is {joint!r} for trial {entry['trial']}, expected true or false")
    return Trial(
        trial=str(entry["trial"]),
        identity=str(entry["identity"]),
        strategy=str(entry["strategy"]),
        buffer_size=None if size is None else int(size),
        learning_rate=float(entry["learning_rate"]),
        seed=int(entry["seed"]),
        joint=joint,
    )


def _chosen(entry: Mapping[str, Any]) -> tuple[str, int | None, float]:
    size = entry["buffer_size"]
    return str(entry["strategy"]), None if size is None else int(size), float(entry["learning_rate"])


def _failures(folder: Path) -> dict[str, str]:
    return {trial: " ".join(message.split()) for trial, message in read_failures(folder).items()}


def _profile(entry: Any) -> str | None:
    name = entry.get("name") if isinstance(entry, Mapping) else entry
    return None if name is None else str(name)


def timestamp_counts(study: Study, matrices: Sequence[ResultMatrix]) -> dict[str, int]:
    """T by identity: as planned, or as measured where the plan does not say."""
    measured = {matrix.trial.identity: matrix.r.shape[-1] for matrix in matrices}
    if study.timestamps is None:
        return measured
    if isinstance(study.timestamps, int):
        return dict.fromkeys(study.identities, study.timestamps)
    return {name: study.timestamps.get(name, measured.get(name, 0)) for name in study.identities}
