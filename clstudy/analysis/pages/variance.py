"""The section of the HTML report on where the uncertainty comes from (``clstudy.analysis.variance``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from clstudy.analysis.pages.blocks import Block, Folded, Section, paragraph, soft_paragraph, text_table
from clstudy.analysis.report_data import ReportData
from clstudy.analysis.scores import SCORES
from clstudy.analysis.variance import BUDGETED_SCORES, spread_factors

_OPEN = "forgetting"
_COLUMNS = (
    "comparison",
    "people",
    "seeds",
    "photos",
    "half-width now",
    "with one more person",
    "with one more seed",
    "with twice the test photos",
)
_NOTES = (
    "Shares of the variance of one person's difference. People: how much the difference varies from person to person, "
    "the draw of training photos included. Seeds: what another seed changes (nested analysis of variance). Photos: "
    "what it owes to the few test photos (delta method; where two best scores are nearly equal, Forgetting's share is "
    "understated). Estimates below 0 count as 0.",
    "Half-width: of the 95% Student t interval, and as it may be expected to be after a change, taking the estimated "
    "parts for the true ones and the spread over people as it is. A plan for the next study, not a result.",
)


def variance_sections(material: ReportData, table: pa.Table) -> list[Section]:
    """Budgets of the main metric's paired differences, one folded table per score."""
    rows = table.to_pylist()
    if material.panel is None or not rows:
        return []
    with_rate = len({row["learning_rate"] for row in rows}) > 1
    parts = []
    for score in BUDGETED_SCORES:
        own = [row for row in rows if row["score"] == score]
        if own:
            lines = [_line(row, material.digits, with_rate) for row in own]
            title = f"{SCORES[score].title}: where the uncertainty comes from"
            table = text_table("", _COLUMNS, lines, name=title)
            parts.append(Folded(title=title, blocks=(*map(paragraph, _remarks(own)), table), opened=score == _OPEN))
    n = max(row["n_identities"] for row in rows)
    notes = list(_NOTES)
    if n > 1:
        low, high = spread_factors(n)
        notes.append(f"From {n} people, a spread is known to within a factor of {low:.1f} to {high:.1f} (95%).")
    blocks: tuple[Block, ...] = (*parts, *map(soft_paragraph, notes))
    return [Section(anchor="variance", title="People, seeds, photos: what more of each would buy", blocks=blocks)]


def _line(row: Mapping[str, Any], digits: int, with_rate: bool) -> list[str]:
    def arm(name: str, size: int | None) -> str:
        return name if size is None else f"{name}, K = {size}"

    def share(part: float | None) -> str:
        return "–" if part is None or not row["variance"] else f"{part / row['variance']:.0%}"

    def width(value: float | None) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    rate = f", lr {row['learning_rate']:g}" if with_rate else ""
    people = share(row["people"])
    if row["people"] is None and row["variance"]:
        left = 1 - (row["photos"] or 0.0) / row["variance"]
        people = f"{left:.0%} with seeds"
    return [
        f"{arm(row['strategy'], row['buffer_size'])} minus {arm(row['baseline'], row['baseline_size'])}{rate}",
        people,
        share(row["seeds"]),
        share(row["photos"]),
        width(row["half_width"]),
        *(width(row[f"half_width_{name}"]) for name in ("person", "seed", "photos")),
    ]


def _remarks(rows: list[dict[str, Any]]) -> list[str]:
    """Each remark once, with the number of comparisons that it concerns."""
    about: dict[str, int] = {}
    for row in rows:
        for note in filter(None, row["note"].split("; ")):
            about[note] = about.get(note, 0) + 1
    return [
        f"{note[0].upper()}{note[1:]}" + ("." if count == len(rows) else f" ({count} of {len(rows)} comparisons).")
        for note, count in about.items()
    ]
