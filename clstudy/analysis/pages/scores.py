"""The sections of the HTML report with the scores: tables per metric, the paper's layout, one value per identity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clstudy.analysis.limits import not_concluded
from clstudy.analysis.matrix import ScoreCell
from clstudy.analysis.notes import BEST, notes
from clstudy.analysis.pages.blocks import (
    Block,
    Bullets,
    Folded,
    Section,
    Table,
    TableCell,
    TableRow,
    paragraph,
    text_table,
)
from clstudy.analysis.pages.comparisons import printed_numbers
from clstudy.analysis.paper import PaperCell, PaperTable, paper_tables, shortfall
from clstudy.analysis.printed import (
    PRINTED_SCORES,
    directed_title,
    number,
    panel_title,
    printed_higher_is_better,
    printed_value,
    score_title,
)
from clstudy.analysis.report_data import Arm, ReportData
from clstudy.analysis.score_tables import Column
from clstudy.analysis.statistics.intervals import CONFIDENCE
from clstudy.analysis.summary import Summary

_BEST = f"({BEST})"


def main_section(material: ReportData) -> Section:
    """The main table, with those of the other metrics and the paper's layout folded."""
    summary = material.summary
    if material.panel is None:
        return Section(anchor="table", title="Scores", blocks=(paragraph("No trial is in the numbers yet."),))
    tables = {panel: score_table(material, panel) for panel in material.panels}
    said = [note for note in notes(summary) if note not in not_concluded(summary)]
    others = [
        Folded(title=panel_title(material.metrics, panel), blocks=(table,))
        for panel, table in tables.items()
        if panel != material.panel
    ]
    paper = [
        Folded(title=f"As the paper prints it: {table.title}", blocks=(paper_table(table),))
        for table in paper_tables(summary)
    ]
    blocks: tuple[Block, ...] = (tables[material.panel], Bullets(tuple(said), soft=True), *others, *paper)
    return Section(anchor="table", title=panel_title(material.metrics, material.panel), blocks=blocks)


def score_table(material: ReportData, panel: tuple[str, str]) -> Table:
    """Blocks AIP, Forgetting, −BWT, final performance; rows strategy, columns buffer size."""
    summary = material.summary
    rows = [row for row in summary.scores.to_pylist() if (row["protocol"], row["metric"]) == panel]
    found = {(r["score"], r["learning_rate"], r["strategy"], r["buffer_size"]): r for r in rows}
    columns = summary.study.columns
    body: list[TableRow] = []
    for score in PRINTED_SCORES:
        lines = []
        for rate in material.rates:
            names = dict.fromkeys(r["strategy"] for r in rows if (r["score"], r["learning_rate"]) == (score, rate))
            for name in names:
                flat = found.get((score, rate, name, None))
                cells = [(flat or found.get((score, rate, name, size)), size) for size in columns]
                texts = [_score_cell(row, summary, size) if row else TableCell(text="–") for row, size in cells]
                mark = " *" if name in summary.study.joint_strategies else ""
                label = f"{name}{mark}" + (f" lr {rate:g}" if len(material.rates) > 1 else "")
                lines.append(TableRow(label=label, cells=tuple(texts)))
        if lines:
            block = directed_title(score, material.metrics[panel[1]])
            body += [TableRow(label=block, spans=True), *lines]
    heads = ("strategy", *("no buffer" if size is None else f"K = {size}" for size in columns))
    caption = f"{panel_title(material.metrics, panel)}: mean and {CONFIDENCE:.0%} interval over identities"
    return Table(caption=caption, columns=heads, rows=tuple(body))


def _score_cell(row: Mapping[str, Any], summary: Summary, size: int | None) -> TableCell:
    mean, interval = printed_numbers(row, summary.study.metrics)
    column = Column(row["protocol"], row["metric"], row["score"], row["learning_rate"], size)
    best = summary.best.get(column) == row["strategy"]
    text = " ".join(filter(None, (mean, shortfall(row, summary), _BEST if best else "")))
    return TableCell(text=text, small=interval, kind="better" if best else None)


def paper_table(table: PaperTable) -> Table:
    """A table in the paper's layout, with published values in separate lines."""
    rows = []
    for title, block in table.blocks:
        rows.append(TableRow(label=title, spans=True))
        for row in block:
            label = f"{row.label} (published)" if row.published else row.label
            rows.append(TableRow(label=label, cells=tuple(map(_paper_cell, row.cells))))
    return Table(caption=table.title, columns=("strategy", *table.heads), rows=tuple(rows))


def _paper_cell(cell: PaperCell) -> TableCell:
    text = " ".join(filter(None, (cell.value, cell.short, _BEST if cell.best else "")))
    return TableCell(text=text, small=cell.interval, kind="better" if cell.best else None)


def identity_section(material: ReportData) -> Section:
    """One value per identity (mean over seeds) for every printed score under the main metric."""
    title = "Per identity"
    if material.panel is None:
        return Section(anchor="identities", title=title, blocks=(paragraph("No trial is in the numbers yet."),))
    identities = sorted(material.summary.study.identities)
    tables = []
    for score in PRINTED_SCORES:
        lines = []
        for rate in material.rates:
            for arm in _arms(material, rate):
                values = material.values.get(ScoreCell(*material.panel, score, rate, *arm))
                if values:
                    means = [values.get(identity) for identity in identities]
                    texts = [
                        number(printed_value(score, float(np.mean(list(by.values())))), material.digits) if by else "–"
                        for by in means
                    ]
                    lines.append([arm.label + (f", lr {rate:g}" if len(material.rates) > 1 else ""), *texts])
        if lines:
            direction = "higher" if printed_higher_is_better(score, material.metrics[material.panel[1]]) else "lower"
            measured = panel_title(material.metrics, material.panel)
            caption = f"{score_title(score)}, {measured} ({direction} is better), mean over seeds"
            table = text_table(caption, ["strategy", *identities], lines)
            tables.append(Folded(title=score_title(score), blocks=(table,), opened=score == "forgetting"))
    return Section(anchor="identities", title=title, blocks=tuple(tables))


def _arms(material: ReportData, rate: float | None) -> list[Arm]:
    rows = [row for row in material.summary.scores.to_pylist() if row["learning_rate"] == rate]
    return list(dict.fromkeys(Arm(row["strategy"], row["buffer_size"]) for row in rows if row["score"] == "final"))
