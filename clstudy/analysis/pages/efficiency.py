"""The section of the HTML report on the gain and the cost of a memory."""

from __future__ import annotations

from clstudy.analysis.efficiency import ABOVE_UPPER, FROZEN
from clstudy.analysis.pages.blocks import Section, rows_section
from clstudy.analysis.printed import mean_and_interval, panel_title
from clstudy.analysis.report_data import Arm, ReportData


def efficiency_section(material: ReportData) -> list[Section]:
    """A memory's gain over ``lower`` and its cost, under the main metric; no section without ``lower``."""
    rows = material.efficiency
    if not rows or material.panel is None:
        return []
    digits = material.digits
    with_frozen = any(row["frozen_megabytes"] != 0 for row in rows)
    lines = []
    for row in rows:
        label = Arm(row["strategy"], row["buffer_size"]).label
        label += f", lr {row['learning_rate']:g}" if len(material.rates) > 1 else ""
        gain = (
            "–"
            if row["gain"] is None
            else " ".join(
                filter(None, mean_and_interval(row["gain"], row["gain_low"], row["gain_high"], digits, signed=True))
            )
        )
        gap = _ranged(row["gap_closed"], row["gap_low"], row["gap_high"], ".0%")
        stored = [_given(row["photos"], ".4g"), _given(row["megabytes"], ".2g")]
        held = [_given(row["frozen_megabytes"], ".2g")] if with_frozen else []
        costs = [*stored, *held, _given(row["seconds"], ".0f")]
        lines.append([label, gain, gap, *costs])
    heads = ["strategy", "gain over lower", "gap to upper closed", "stored photos", "MB stored"]
    heads += [*(["MB held frozen"] if with_frozen else []), "core-seconds"]
    remarks = FROZEN if with_frozen else ""
    remarks += ABOVE_UPPER if any((row["gap_closed"] or 0) > 1 for row in rows) else ""
    title = panel_title(material.metrics, material.panel)
    said = (
        f"Final performance in {title}; a positive gain is better. Gap closed: share of the gap "
        "between lower and upper, with Fieller's interval. Costs are means per trial; core-seconds count stages that "
        f"trials share in full.{remarks} efficiency.md beside this page holds all metrics and the gain per photo, MB "
        "and second."
    )
    return [rows_section("efficiency", "Gain and cost", heads, lines, [said])]


def _ranged(value: float | None, low: float | None, high: float | None, form: str) -> str:
    between = "" if low is None or high is None else f" [{low:{form}}, {high:{form}}]"
    return _given(value, form) + between


def _given(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
