"""The section of the HTML report with the paired differences between strategies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clstudy.analysis.claim_notes import exploratory_notes
from clstudy.analysis.pages.blocks import Block, Folded, Section, Table, TableCell, TableRow, paragraph
from clstudy.analysis.printed import (
    PRINTED_SCORES,
    better_when,
    decimals_of,
    mean_and_interval,
    printed_row,
    score_title,
)
from clstudy.analysis.report_data import Arm, ReportData
from clstudy.settings.metric_facts import Metrics


def comparison_section(material: ReportData) -> Section:
    """Paired differences under the main metric, to every baseline that the study has."""
    rows = material.paired_rows
    if not rows:
        text = "No two strategies share an identity, so nothing can be compared."
        return Section(anchor="comparisons", title="Paired comparisons", blocks=(paragraph(text),))
    blocks: list[Block] = [
        paragraph(
            "Strategy minus baseline on the same identities and seeds; “better” or “worse” stands only where the "
            f"interval excludes 0. Nothing here is corrected for the number of comparisons ({len(rows)}).",
        ),
        *map(paragraph, exploratory_notes(material.summary)),
    ]
    for score in PRINTED_SCORES:
        table = [row for row in rows if row["score"] == score]
        for baseline in dict.fromkeys(row["baseline"] for row in table):
            lines = [_paired_line(material, row) for row in table if row["baseline"] == baseline]
            sign = better_when(score, material.metrics[table[0]["metric"]])
            title = f"{score_title(score)} minus {baseline}'s ({sign} is better)"
            shown = Table(caption=title, columns=("strategy", "difference", "identities", "verdict"), rows=tuple(lines))
            opened = (score, baseline) == ("forgetting", "lower")
            blocks.append(Folded(title=title, blocks=(shown,), opened=opened))
    return Section(anchor="comparisons", title="Paired comparisons", blocks=tuple(blocks))


def _paired_line(material: ReportData, row: Mapping[str, Any]) -> TableRow:
    mean, interval = printed_numbers(row, material.metrics, signed=True)
    label = Arm(row["strategy"], row["buffer_size"]).label
    label += f", lr {row['learning_rate']:g}" if len(material.rates) > 1 else ""
    verdict = row["verdict"] if row["verdict"] in ("better", "worse") else None
    return TableRow(
        label=label,
        cells=(
            TableCell(text=mean, small=interval),
            TableCell(text=str(row["n_identities"])),
            TableCell(text=row["verdict"] + (" (primary)" if row["claim"] == "primary" else ""), kind=verdict),
        ),
    )


def printed_numbers(row: Mapping[str, Any], metrics: Metrics, *, signed: bool = False) -> tuple[str, str]:
    """Mean and interval of a row of the scores or paired tables, as they are printed."""
    row = printed_row(row)
    digits = decimals_of(metrics, (row["protocol"], row["metric"]))
    return mean_and_interval(row["mean"], row["low"], row["high"], digits, signed=signed, missing="no interval")
