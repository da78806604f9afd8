"""A study's answers as tidy tables, and these as text: terminal (rich), Markdown, CSV.

Everything is computed from ``results/*.parquet`` and ``study.yaml``; equal rows give byte-identical output.
"""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.csv
import yaml
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from clstudy.analysis.comparisons import BASELINES, COMPARED_SCORES, compare
from clstudy.analysis.intervals import CONFIDENCE, NEW_IDENTITIES, Interval, identity_interval
from clstudy.analysis.matrix import (
    JOINT_STRATEGIES,
    Cell,
    ResultMatrix,
    ScoreValues,
    Trial,
    result_matrices,
    score_values,
)
from clstudy.analysis.scores import SCORES, MissingCellsError, missing_cells
from clstudy.errors import UserError
from clstudy.metrics.directions import HIGHER_IS_BETTER

JOINT_NOTE = "final (joint training; not a continual learner)"
UNBUFFERED_NOTE = "no buffer: the same trials in every buffer-size column"
MAIN_SCORES = ("aip", "forgetting", "final")
PANEL_TITLES = {
    ("reconstruction", "lpips"): "Reconstruction LPIPS",
    ("reconstruction", "id"): "Reconstruction ID similarity",
    ("reconstruction", "psnr"): "Reconstruction PSNR (dB)",
    ("reconstruction", "dists"): "Reconstruction DISTS",
    ("synthesis", "id"): "Synthesis ID similarity",
    ("synthesis", "fid"): "Synthesis FID (few images: biased upward)",
    ("synthesis", "kid"): "Synthesis KID (few images: noisy)",
}
DECIMALS = {"psnr": 2, "fid": 2}
DEFAULT_DECIMALS = 4
MISSING_IN_TERMINAL = 12

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
)
PAIRED_SCHEMA = pa.schema(
    CELL_FIELDS
    + [("baseline", pa.string())]
    + INTERVAL_FIELDS
    + [("better_when", pa.string()), ("verdict", pa.string()), ("population", pa.string())]
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


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A trial of the plan that is not (wholly) in the numbers, and why."""

    trial: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The tidy tables of one study and everything a reader must know about them.

    Attributes:
        scores: ``SCORES_SCHEMA``, one row per protocol, metric, score, learning rate, strategy and buffer size. Scores
            are per trial, averaged over seeds, one value per identity; ``buffer_size`` null for ``lower`` and
            ``upper``; ``low`` and ``high`` null where n = 1; ``n_seeds``: fewest seeds of any identity.
        paired: ``PAIRED_SCHEMA``, difference = strategy - baseline on common identities and seeds.
        missing: trials of the plan that failed, were not run or lack cells.
        left_out: result files of trials that are not in this plan (not in the numbers).
    """

    study: Study
    scores: pa.Table
    paired: pa.Table
    missing: tuple[Missing, ...]
    left_out: tuple[str, ...]

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
    if not folder.is_dir():
        raise UserError(f"no such study folder: {folder}. Give one that clstudy.run wrote, such as runs/hull_sizes.")
    if not path.is_file():
        raise UserError(f"{folder} is not a study: it has no study.yaml. Give a folder that clstudy.run wrote.")
    try:
        plan = yaml.safe_load(path.read_text(encoding="utf-8"))
        trials = tuple(_trial(entry) for entry in plan["trials"])
        sizes = plan.get("buffer_sizes") or {trial.buffer_size for trial in trials}
        timestamps = plan.get("timestamps")
        if not isinstance(timestamps, int | dict | None):
            raise TypeError(f"timestamps is {timestamps!r}, expected a number or a mapping identity: number")
        return Study(
            folder=folder,
            name=str(plan.get("name", folder.name)),
            timestamps=timestamps,
            buffer_sizes=tuple(sorted(int(size) for size in sizes if size is not None)),
            trials=trials,
            failures=_failures(folder / "failures.json"),
        )
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path} cannot be understood ({message}). Run the study again to rewrite it.") from error


def summarise(study_dir: Path | str) -> Summary:
    """Compute all scores, intervals and paired differences of a study.

    A trial that failed, has not run or lacks cells is named in ``missing``; its cell then rests on the trials that are
    there and says so in ``n_identities`` and ``n_trials``.

    Raises:
        UserError: the folder is no study, or its results cannot be read.
    """
    study = read_study(study_dir)
    files = {path.stem: path for path in sorted((study.folder / "results").glob("*.parquet"))}
    planned = {trial.trial: trial for trial in study.trials}
    matrices = result_matrices([files[name] for name in sorted(planned.keys() & files.keys())], study.timestamps)
    for matrix in matrices:
        name = matrix.trial.trial
        if planned.get(name) != matrix.trial:
            raise UserError(
                f"{study.folder}: the results of trial {name} say {matrix.trial}, study.yaml says "
                f"{planned.get(name)}. Remove that results file and run the study again."
            )
    gaps = _gaps(matrices)
    values = score_values(matrix for matrix in matrices if not missing_cells(matrix.r, matrix.trial.joint))
    return Summary(
        study=study,
        scores=_scores_table(study, values),
        paired=_paired_table(study, values),
        missing=tuple(_missing(study, files.keys(), gaps)),
        left_out=tuple(sorted(files.keys() - planned.keys())),
    )


def to_csv(table: pa.Table) -> str:
    """CSV with a header; floats round-trip, nulls are empty."""
    sink = io.BytesIO()
    pyarrow.csv.write_csv(table, sink, pyarrow.csv.WriteOptions(quoting_style="needed"))
    return sink.getvalue().decode("utf-8")


def to_markdown(summary: Summary) -> str:
    """The main tables, the paired differences and what limits them."""
    lines = [f"# {summary.study.name}", ""]
    lines += [f"- {note}" for note in [*_population_notes(summary), *_layout_notes(summary)]] + [""]
    for grid in [*_main_grids(summary), *_paired_grids(summary)]:
        lines += [f"## {grid.title}", ""]
        for title, rows in grid.sections:
            lines += [f"**{title}**", "", "| strategy | " + " | ".join(grid.columns) + " |"]
            lines += ["|---" * (len(grid.columns) + 1) + "|"]
            lines += [f"| {label} | " + " | ".join(" ".join(cell) for cell in cells) + " |" for label, cells in rows]
            lines += [""]
    incomplete = _missing_notes(summary)
    if incomplete:
        lines += ["## Missing", "", *(f"- {note}" for note in incomplete), ""]
    return "\n".join(lines)


def to_terminal(summary: Summary, width: int = 100) -> Group:
    """Main tables, paired differences on the first metric, and notes, for ``rich.console.Console.print``."""
    grids = [*_main_grids(summary), *_paired_grids(summary)[:1]]
    notes = [*_population_notes(summary), *_layout_notes(summary)]
    incomplete = _missing_notes(summary)
    if len(incomplete) > MISSING_IN_TERMINAL + 1:
        rest = len(incomplete) - MISSING_IN_TERMINAL
        incomplete = [*incomplete[:MISSING_IN_TERMINAL], f"and {rest} more: see tables.md"]
    parts = [part for grid in grids for part in _rich_tables(grid, width)]
    parts += [Text(note) for note in notes]
    parts += [Text(note, style="yellow") for note in incomplete]
    return Group(*parts)


# --- tidy tables --------------------------------------------------------------------------------------------------


def _scores_table(study: Study, values: ScoreValues) -> pa.Table:
    planned = Counter((trial.learning_rate, trial.strategy, trial.buffer_size) for trial in study.trials)
    rows = []
    for cell in sorted(values, key=_order(study)):
        identities = values[cell]
        seeds = [len(by_seed) for by_seed in identities.values()]
        means = [fmean(identities[identity].values()) for identity in sorted(identities)]
        unbuffered = UNBUFFERED_NOTE if cell.buffer_size is None else ""
        rows.append(
            cell._asdict()
            | _interval_fields(identity_interval(means), min(seeds))
            | {
                "n_trials": sum(seeds),
                "n_planned": planned[cell.learning_rate, cell.strategy, cell.buffer_size],
                "note": JOINT_NOTE if cell.strategy in JOINT_STRATEGIES else unbuffered,
            }
        )
    return pa.Table.from_pylist(rows, schema=SCORES_SCHEMA)


def _paired_table(study: Study, values: ScoreValues) -> pa.Table:
    order = _order(study)
    comparisons = sorted(compare(values), key=lambda c: (order(c.cell), BASELINES.index(c.baseline)))
    rows = [
        c.cell._asdict()
        | _interval_fields(c.difference, c.n_seeds)
        | {
            "baseline": c.baseline,
            "better_when": "negative" if c.negative_is_better else "positive",
            "verdict": c.verdict,
        }
        for c in comparisons
    ]
    return pa.Table.from_pylist(rows, schema=PAIRED_SCHEMA)


def _interval_fields(interval: Interval, n_seeds: int) -> dict[str, Any]:
    return {
        "mean": interval.mean,
        "low": None if math.isnan(interval.low) else interval.low,
        "high": None if math.isnan(interval.high) else interval.high,
        "n_identities": interval.n,
        "n_seeds": n_seeds,
        "population": interval.population,
    }


def _strategies(study: Study) -> list[str]:
    """Lower bound first, joint training last, the others in the plan's order."""
    names = list(dict.fromkeys(trial.strategy for trial in study.trials))
    return sorted(names, key=lambda name: (name in JOINT_STRATEGIES, name != "lower"))


def _order(study: Study) -> Any:
    """Sort key of cells: panels as in ``PANEL_TITLES`` (others after them), then the order of the tables."""
    panels, scores, strategies = list(PANEL_TITLES), list(SCORES), _strategies(study)

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
        if cells:
            gaps.setdefault(name, []).append(str(MissingCellsError(cells, f"{matrix.protocol} {matrix.metric}")))
    for name, has in measured.items():
        for protocol, metric in sorted(panels - has):
            gaps.setdefault(name, []).append(f"{protocol} {metric}: no rows")
    return {name: gaps.get(name, []) for name in measured}


def _missing(study: Study, finished: Iterable[str], gaps: Mapping[str, list[str]]) -> list[Missing]:
    """In the plan's order, failures first. A result outweighs an old failure: the trial was run again since."""
    finished = set(finished)
    failed, other = [], []
    for trial in study.trials:
        name = trial.trial
        if name in finished:
            lacks = gaps.get(name, ["its results file holds no rows"])
            if lacks:
                other.append(Missing(trial=name, reason="incomplete: " + "; ".join(lacks)))
        elif name in study.failures:
            failed.append(Missing(trial=name, reason=f"failed: {study.failures[name]}"))
        else:
            other.append(Missing(trial=name, reason="not finished"))
    return failed + other


def _trial(entry: Mapping[str, Any]) -> Trial:
    size = entry["buffer_size"]
    return Trial(
        trial=str(entry["trial"]),
        identity=str(entry["identity"]),
        strategy=str(entry["strategy"]),
        buffer_size=None if size is None else int(size),
        learning_rate=float(entry["learning_rate"]),
        seed=int(entry["seed"]),
    )


def _failures(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    failures = json.loads(path.read_text(encoding="utf-8"))
    return {str(trial): " ".join(str(message).split()) for trial, message in failures.items()}


# --- layout shared by terminal and Markdown -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """A table: sections of (label, cells); a cell is (value, interval) so that it can be broken in two lines."""

    title: str
    columns: list[str]
    sections: list[tuple[str, list[tuple[str, list[tuple[str, ...]]]]]]


def _main_grids(summary: Summary) -> list[_Grid]:
    """Per metric: blocks AIP, Forgetting and final performance; rows strategy, columns buffer size."""
    table = {tuple(row[name] for name, _ in CELL_FIELDS): row for row in summary.scores.to_pylist()}
    grids = []
    for panel in _panels(summary.scores):
        sections = []
        for score in MAIN_SCORES:
            direction = "higher" if SCORES[score].direction(HIGHER_IS_BETTER[panel[1]]) else "lower"
            title = f"{SCORES[score].title} ({direction} is better)"
            sections.append((title, _grid_rows(summary, table, (*panel, score), _score_cell)))
        grids.append(_grid(summary, _panel_title(panel), sections))
    return grids


def _paired_grids(summary: Summary) -> list[_Grid]:
    """Per metric: a block per score and baseline, same rows and columns as the main tables."""
    rows = summary.paired.to_pylist()
    grids = []
    for panel in _panels(summary.paired):
        sections = []
        for score in COMPARED_SCORES:
            for baseline in BASELINES:
                table = {
                    tuple(row[name] for name, _ in CELL_FIELDS): row for row in rows if row["baseline"] == baseline
                }
                higher = SCORES[score].direction(HIGHER_IS_BETTER[panel[1]])
                title = f"{SCORES[score].title} minus {baseline}'s ({'positive' if higher else 'negative'} is better)"
                sections.append((title, _grid_rows(summary, table, (*panel, score), _paired_cell)))
        grids.append(_grid(summary, f"{_panel_title(panel)}: paired differences", sections))
    return grids


def _grid(summary: Summary, title: str, sections: list[tuple[str, Any]]) -> _Grid:
    columns = [f"K = {size}" for size in summary.study.buffer_sizes] or ["no buffer"]
    return _Grid(title=title, columns=columns, sections=[(name, rows) for name, rows in sections if rows])


def _grid_rows(summary: Summary, table: Mapping[tuple[Any, ...], Any], head: tuple[str, ...], text: Any) -> Any:
    """(label, cells) of every learning rate and strategy that has a number in this block."""
    study = summary.study
    rates = sorted({trial.learning_rate for trial in study.trials})
    planned = {(trial.learning_rate, trial.strategy, trial.buffer_size) for trial in study.trials}
    rows = []
    for rate in rates:
        for strategy in _strategies(study):
            cells = []
            for size in study.buffer_sizes or (None,):
                found = table.get((*head, rate, strategy, size)) or table.get((*head, rate, strategy, None))
                due = (rate, strategy, size) in planned or (rate, strategy, None) in planned
                cells.append(text(found, summary) if found else ("missing" if due else "not planned",))
            if any(len(cell) > 1 for cell in cells):
                mark = " *" if strategy in JOINT_STRATEGIES else ""
                rows.append((strategy + mark + (f" lr={rate:g}" if len(rates) > 1 else ""), cells))
    return rows


def _score_cell(row: Mapping[str, Any], summary: Summary) -> tuple[str, ...]:
    mean, interval = _numbers(row)
    identities = len({trial.identity for trial in summary.study.trials})
    short = f" n={row['n_identities']}" if row["n_identities"] < identities else ""
    if not short and row["n_trials"] < row["n_planned"]:
        short = f" {row['n_trials']}/{row['n_planned']} trials"
    return mean + short, interval


def _paired_cell(row: Mapping[str, Any], summary: Summary) -> tuple[str, ...]:
    mean, interval = _numbers(row)
    identities = len({trial.identity for trial in summary.study.trials})
    short = f" n={row['n_identities']}" if row["n_identities"] < identities else ""
    return mean + short + (f" {row['verdict']}" if row["verdict"] in ("better", "worse") else ""), interval


def _numbers(row: Mapping[str, Any]) -> tuple[str, str]:
    digits = DECIMALS.get(row["metric"], DEFAULT_DECIMALS)
    interval = "(no interval)" if row["low"] is None else f"[{row['low']:.{digits}f}, {row['high']:.{digits}f}]"
    return f"{row['mean']:.{digits}f}", interval


def _panels(table: pa.Table) -> list[tuple[str, str]]:
    return list(dict.fromkeys(zip(table["protocol"].to_pylist(), table["metric"].to_pylist(), strict=True)))


def _panel_title(panel: tuple[str, str]) -> str:
    return PANEL_TITLES.get(panel, " ".join(panel).capitalize())


def _rich_tables(grid: _Grid, width: int) -> list[Table | Text]:
    """A heading and one table per section, columns aligned; cells break in two lines where the width asks for it."""
    rows = [row for _, rows in grid.sections for row in rows]
    labels = max(len(label) for label, _ in rows)
    cells = [cell for _, cells in rows for cell in cells]
    padding = 2
    room = (width - labels - padding) // len(grid.columns) - padding
    between = " " if max(len(" ".join(cell)) for cell in cells) <= room else "\n"
    widest = max(len(line) for cell in cells for line in between.join(cell).splitlines())
    parts: list[Table | Text] = [Text(grid.title, style="bold")]
    for title, section in grid.sections:
        table = Table(
            title=Text(title, style="italic"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
        )
        table.add_column("strategy", no_wrap=True, min_width=labels)
        for column in grid.columns:
            table.add_column(column, min_width=min(widest, room))
        for label, texts in section:
            table.add_row(Text(label), *(Text(between.join(text)) for text in texts))
        parts += [table, Text()]
    return parts


def _population_notes(summary: Summary) -> list[str]:
    """Which population the numbers speak of; or that there are none."""
    done = summary.scores.num_rows
    if not done:
        return [f"No trial of {summary.study.name!r} is in the numbers yet: nothing can be concluded."]
    n = max(summary.scores["n_identities"].to_pylist())
    seeds = sorted(set(summary.scores["n_seeds"].to_pylist()))
    span = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    over = f"each the average over {span} seed{'' if seeds == [1] else 's'}"
    if n == 1:
        return [f"One identity (n = 1; {over}): no interval can be given, and nothing is said about {NEW_IDENTITIES}."]
    interval = f"Mean [{CONFIDENCE:.0%} Student t interval] over n = {n} identities, {over}."
    return [f"{interval} The intervals speak of {NEW_IDENTITIES}."]


def _layout_notes(summary: Summary) -> list[str]:
    if not summary.scores.num_rows:
        return []
    notes = []
    strategies = set(summary.scores["strategy"].to_pylist())
    rows = summary.scores.to_pylist()
    if "lower" in strategies:
        notes.append(f"lower: {UNBUFFERED_NOTE}.")
    notes += [f"{name} *: {JOINT_NOTE}: no AIP, no Forgetting." for name in sorted(strategies & JOINT_STRATEGIES)]
    if summary.paired.num_rows:
        notes.append(
            "Paired differences are strategy minus baseline on the same identities and seeds; "
            '"better" or "worse" stands only where the interval excludes 0.'
        )
    if all(row["score"] not in ("forgetting", "bwt") for row in rows):
        notes.append("Forgetting and BWT are not defined here: they need a continual learner and two timestamps.")
    if any(row["n_trials"] < row["n_planned"] for row in rows):
        notes.append("A cell with n=... or .../... trials rests only on the identities or trials that are there.")
    return notes


def _missing_notes(summary: Summary) -> list[str]:
    notes = []
    if summary.missing:
        total = len(summary.study.trials)
        notes.append(f"{len(summary.missing)} of {total} trials are missing, in whole or in part:")
        notes += [f"{missing.trial}: {missing.reason}" for missing in summary.missing]
    if summary.left_out:
        notes.append(f"Not of this plan and left out: {', '.join(summary.left_out)}")
    return notes
