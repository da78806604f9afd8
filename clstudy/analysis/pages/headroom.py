"""The section of the HTML report on how much the choice of photos could matter; it comes before the comparisons."""

from __future__ import annotations

import math

from clstudy.analysis.headroom import RANDOM, Headroom, headrooms, sentences
from clstudy.analysis.pages.blocks import Section, rows_section
from clstudy.analysis.printed import number, panel_title, score_title
from clstudy.analysis.report_data import ReportData


def headroom_sections(material: ReportData) -> list[Section]:
    """The main metric's headroom at every buffer size; no section without ``er_rand`` and ``lower``."""
    found = [
        one
        for one in headrooms(material.summary)
        if (one.cell.protocol, one.cell.metric) == material.panel and one.cell.learning_rate == material.rate
    ]
    if not found or material.panel is None:
        return []
    heads = [
        "score",
        "K",
        "left by random choice",
        "spread over seeds",
        "of it lower's",
        "of choice",
        "gained over lower",
    ]
    notes = [
        f"{panel_title(material.metrics, material.panel)}. {RANDOM} is the reference: what it leaves bounds what any "
        "other way of choosing can gain. In final performance that is the share of the gap between lower and upper; in "
        "Forgetting, its share of lower's (both with Fieller's interval over identities). Spread is the standard "
        "deviation between seeds within identities; lower, which stores nothing, shows what the order of training "
        "makes of it, and the rest is of choice.",
        *sentences(found),
    ]
    return [
        rows_section(
            "headroom",
            "Headroom: how much could choosing matter?",
            heads,
            [_line(material, one) for one in found],
            notes,
        )
    ]


def _line(material: ReportData, one: Headroom) -> list[str]:
    numbers = [
        "–" if math.isnan(value) else number(value, material.digits + 1)
        for value in (one.spread, one.control, one.of_choice, one.gained)
    ]
    return [score_title(one.cell.score), str(one.cell.buffer_size), one.share, *numbers]
