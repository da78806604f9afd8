"""A study's results as text: terminal (rich), Markdown, LaTeX, CSV; and every table file of a report.

The tidy tables themselves are made in ``clstudy.analysis.score_tables``; equal rows give byte-identical output.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from clstudy.analysis.comparisons import BASELINES
from clstudy.analysis.efficiency import efficiency_table
from clstudy.analysis.horizons import horizon_paired, horizon_scores
from clstudy.analysis.limits import not_concluded
from clstudy.analysis.notes import BEST, BEST_NOTE, MINUS_BWT_NOTE, limit_notes, missing_notes, notes, population_notes
from clstudy.analysis.paper import markdown_table, paper_latex, paper_markdown, paper_tables, shortfall
from clstudy.analysis.printed import (
    PRINTED_SCORES,
    better_when,
    decimals_of,
    directed_title,
    mean_and_interval,
    number,
    panel_title,
    printed_row,
    score_title,
)
from clstudy.analysis.score_tables import CELL_FIELDS, JOINT_NOTE, Column
from clstudy.analysis.summary import Summary, curve_table
from clstudy.safe_text import csv_cell, markdown

MISSING_IN_TERMINAL = 12
_EFFICIENCY_NOTES = (
    "gain: final performance over lower's, on the same identities and seeds; positive is better, whichever way the "
    "metric points",
    "gap closed: share of the mean gap between lower and upper in final performance, with Fieller's interval",
    "photos: stored at the last timestamp; MB: photos as plain 8-bit RGB, latents and learned terms kept between "
    "timestamps, not the weights themselves; MB frozen: the trained weights of the timestamp before, which strategies "
    "with generated replay or weight penalties look at while they train",
    "core-seconds: of all stages of a trial, stages shared with other trials in full; longer on a busy machine",
)


def table_files(summary: Summary) -> dict[str, bytes]:
    """File name -> content of every table of a report.

    Those named after ``efficiency`` hold costs read from the study's folders (among them times); all others depend on
    its rows and its plan alone.
    """
    efficiency = efficiency_table(summary)
    return {
        "tables.md": to_markdown(summary).encode(),
        "tables.tex": to_latex(summary).encode(),
        "summary.csv": to_csv(summary.scores).encode(),
        "summary.parquet": to_parquet(summary.scores),
        "paired.csv": to_csv(summary.paired).encode(),
        "paired.parquet": to_parquet(summary.paired),
        "curves.csv": to_csv(curve_table(summary)).encode(),
        **_horizon_files(summary),
        "efficiency.csv": to_csv(efficiency).encode(),
        "efficiency.md": efficiency_markdown(summary, efficiency).encode(),
    }


def _horizon_files(summary: Summary) -> dict[str, bytes]:
    """Scores and paired differences after fewer timestamps, if the space asks for them (``grid.timestamps``)."""
    if not summary.study.horizons:
        return {}
    return {
        "horizons.csv": to_csv(horizon_scores(summary)).encode(),
        "horizons_paired.csv": to_csv(horizon_paired(summary)).encode(),
    }


def to_csv(table: pa.Table) -> str:
    """CSV with a header; floats round-trip, nulls are empty, and no text is a formula (``safe_text.csv_cell``)."""
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            cells = [None if text is None else csv_cell(text) for text in table.column(place).to_pylist()]
            table = table.set_column(place, field, pa.array(cells, field.type))
    sink = io.BytesIO()
    pyarrow.csv.write_csv(table, sink, pyarrow.csv.WriteOptions(quoting_style="needed"))
    return sink.getvalue().decode("utf-8")


def to_parquet(table: pa.Table) -> bytes:
    """The table as one Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def to_latex(summary: Summary) -> str:
    r"""The tables in the paper's layout, for ``\input`` (needs ``\usepackage{booktabs}``), with their notes."""
    marks = [BEST_NOTE.format(mark="Bold")] if summary.best else []
    marks += [MINUS_BWT_NOTE] if "bwt" in summary.scores["score"].to_pylist() else []
    joint = [f"*: {JOINT_NOTE}."] if any(table.joint for table in paper_tables(summary)) else []
    return paper_latex(summary, [*population_notes(summary), *marks, *joint, *limit_notes(summary)])


def to_markdown(summary: Summary) -> str:
    """The main tables (the paper's layout first), the paired differences and their limitations."""
    lines = [f"# {summary.study.name}", ""]
    lines += [f"- {note}" for note in notes(summary)] + [""]
    for table in paper_tables(summary):
        lines += [f"## In the paper's layout: {table.title}", "", *paper_markdown(table), ""]
    for grid in [*_main_grids(summary), *_paired_grids(summary)]:
        lines += [f"## {grid.title}", ""]
        for title, rows in grid.sections:
            body = [[label, *(_markdown_cell(cell) for cell in cells)] for label, cells in rows]
            lines += [f"**{title}**", "", *markdown_table(["strategy", *grid.columns], body), ""]
    incomplete = missing_notes(summary)
    if incomplete:
        lines += ["## Missing", "", *(f"- {note}" for note in incomplete), ""]
    return markdown(lines)


def _markdown_cell(cell: tuple[str, ...]) -> str:
    text = " ".join(cell)
    return f"**{text.removesuffix(BEST).rstrip()}**" if text.endswith(f" {BEST}") else text


def to_terminal(summary: Summary, width: int = 100, *, everything: bool = True) -> Group:
    """Main tables, paired differences on the first metric, and notes, for ``rich.console.Console.print``.

    Without ``everything``: only the main table of the first metric, what it cannot show, and what is missing.
    """
    grids = [*_main_grids(summary), *_paired_grids(summary)[:1]] if everything else _main_grids(summary)[:1]
    incomplete = missing_notes(summary)
    if len(incomplete) > MISSING_IN_TERMINAL + 1:
        rest = len(incomplete) - MISSING_IN_TERMINAL
        incomplete = [*incomplete[:MISSING_IN_TERMINAL], f"and {rest} more: see tables.md"]
    parts = [part for grid in grids for part in _rich_tables(grid, width)]
    parts += [
        Text(note) for note in (notes(summary) if everything else [*population_notes(summary), *not_concluded(summary)])
    ]
    parts += [Text(note, style="yellow") for note in incomplete]
    return Group(*parts)


def efficiency_markdown(summary: Summary, table: pa.Table | None = None) -> str:
    """Gain and cost of a memory, per metric.

    Args:
        table: ``EFFICIENCY_SCHEMA``; by default computed here.
    """
    table = efficiency_table(summary) if table is None else table
    lines = [f"# {summary.study.name}: what a memory buys, and its price", ""]
    if not table.num_rows:
        return markdown([*lines, "Nothing can be said: no finished trial of lower stands beside others.", ""])
    lines += [f"- {note}" for note in _EFFICIENCY_NOTES] + [""]
    rates = len(set(table["learning_rate"].to_pylist())) > 1
    head = ["strategy", "K", "gain", "gap closed", "photos", "MB", "MB frozen", "core-seconds"]
    head += ["gain per photo", "gain per MB", "gain per 1000 s", "note"]
    for panel in _panels(table):
        body = [
            _efficiency_cells(row, summary, rates)
            for row in table.to_pylist()
            if (row["protocol"], row["metric"]) == panel
        ]
        lines += [f"## {panel_title(summary.study.metrics, panel)}", "", *markdown_table(head, body), ""]
    return markdown(lines)


def _efficiency_cells(row: Mapping[str, Any], summary: Summary, with_rate: bool) -> list[str]:
    digits = _digits(row, summary)
    per_second = row["gain_per_second"]
    return [
        row["strategy"] + (f" lr={row['learning_rate']:g}" if with_rate else ""),
        _given(row["buffer_size"], "d"),
        "–"
        if row["gain"] is None
        else " ".join(filter(None, mean_and_interval(row["gain"], row["gain_low"], row["gain_high"], digits))),
        _given(row["gap_closed"], ".0%") + _between(row["gap_low"], row["gap_high"], ".0%"),
        _given(row["photos"], ".4g"),
        _given(row["megabytes"], ".3g"),
        _given(row["frozen_megabytes"], ".3g"),
        _given(row["seconds"], ".0f"),
        _given(row["gain_per_photo"], ".3g"),
        _given(row["gain_per_megabyte"], ".3g"),
        _given(None if per_second is None else 1000 * per_second, ".3g"),
        row["note"],
    ]


def _between(low: float | None, high: float | None, style: str) -> str:
    return "" if low is None or high is None else f" [{low:{style}}, {high:{style}}]"


def _given(value: float | None, style: str) -> str:
    return "–" if value is None else format(value, style)


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """A table: sections of (label, cells); a cell is (value, interval) so that it can be split into two lines."""

    title: str
    columns: list[str]
    sections: list[tuple[str, list[tuple[str, list[tuple[str, ...]]]]]]


def _main_grids(summary: Summary) -> list[_Grid]:
    """Per metric: blocks AIP, Forgetting, −BWT and final performance; rows strategy, columns buffer size."""
    table = {tuple(row[name] for name, _ in CELL_FIELDS): row for row in summary.scores.to_pylist()}
    grids = []
    for panel in _panels(summary.scores):
        sections = []
        for score in PRINTED_SCORES:
            title = directed_title(score, summary.study.metrics[panel[1]])
            sections.append((title, _grid_rows(summary, table, (*panel, score), _score_cell)))
        grids.append(_grid(summary, panel_title(summary.study.metrics, panel), sections))
    return grids


def _paired_grids(summary: Summary) -> list[_Grid]:
    """Per metric: a block per score and baseline, same rows and columns as the main tables."""
    rows = summary.paired.to_pylist()
    grids = []
    for panel in _panels(summary.paired):
        sections = []
        for score in PRINTED_SCORES:
            for baseline in BASELINES:
                table = {
                    tuple(row[name] for name, _ in CELL_FIELDS): row for row in rows if row["baseline"] == baseline
                }
                sign = better_when(score, summary.study.metrics[panel[1]])
                title = f"{score_title(score)} minus {baseline}'s ({sign} is better)"
                sections.append((title, _grid_rows(summary, table, (*panel, score), _paired_cell)))
        grids.append(_grid(summary, f"{panel_title(summary.study.metrics, panel)}: paired differences", sections))
    return grids


def _grid(summary: Summary, title: str, sections: list[tuple[str, Any]]) -> _Grid:
    columns = [f"K = {size}" for size in summary.study.buffer_sizes] or ["no buffer"]
    return _Grid(title=title, columns=columns, sections=[(name, rows) for name, rows in sections if rows])


def _grid_rows(summary: Summary, table: Mapping[tuple[Any, ...], Any], head: tuple[str, ...], text: Any) -> Any:
    """(label, cells) of every learning rate and strategy that has a number in this block."""
    study = summary.study
    planned = {(trial.learning_rate, trial.strategy, trial.buffer_size) for trial in study.trials}
    rows = []
    for rate in study.rates:
        for strategy in study.strategies:
            cells = []
            for size in study.columns:
                found = table.get((*head, rate, strategy, size)) or table.get((*head, rate, strategy, None))
                due = (rate, strategy, size) in planned or (rate, strategy, None) in planned
                cells.append(text(found, summary, size) if found else ("missing" if due else "not planned",))
            if any(len(cell) > 1 for cell in cells):
                mark = " *" if strategy in study.joint_strategies else ""
                rows.append((strategy + mark + (f" lr={rate:g}" if len(study.rates) > 1 else ""), cells))
    return rows


def _score_cell(row: Mapping[str, Any], summary: Summary, size: int | None) -> tuple[str, ...]:
    mean, interval = _numbers(row, summary)
    short = shortfall(row, summary)
    if row["published"] is not None:
        interval += f" (paper {number(row['published'], _digits(row, summary))})"
    column = Column(row["protocol"], row["metric"], row["score"], row["learning_rate"], size)
    if summary.best.get(column) == row["strategy"]:
        interval += f" {BEST}"
    return mean + (f" {short}" if short else ""), interval


def _paired_cell(row: Mapping[str, Any], summary: Summary, size: int | None) -> tuple[str, ...]:
    mean, interval = _numbers(row, summary)
    short = f" n={row['n_identities']}" if row["n_identities"] < len(summary.study.identities) else ""
    verdict = f" {row['verdict']}" if row["verdict"] in ("better", "worse") else ""
    return mean + short + verdict + (" (primary)" if row["claim"] == "primary" else ""), interval


def _numbers(row: Mapping[str, Any], summary: Summary) -> tuple[str, str]:
    row = printed_row(row)
    return mean_and_interval(row["mean"], row["low"], row["high"], _digits(row, summary), missing="(no interval)")


def _digits(row: Mapping[str, Any], summary: Summary) -> int:
    return decimals_of(summary.study.metrics, (row["protocol"], row["metric"]))


def _panels(table: pa.Table) -> list[tuple[str, str]]:
    return list(dict.fromkeys(zip(table["protocol"].to_pylist(), table["metric"].to_pylist(), strict=True)))


def _rich_tables(grid: _Grid, width: int) -> list[Table | Text]:
    """A heading and one table per section, columns aligned; cells break into two lines if the width requires it."""
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
