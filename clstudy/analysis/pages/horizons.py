"""The section of the HTML report on fewer timestamps."""

from __future__ import annotations

from clstudy.analysis.horizons import horizon_paired, horizon_scores
from clstudy.analysis.pages.blocks import Section, rows_section
from clstudy.analysis.printed import PRINTED_SCORES, mean_and_interval, panel_title, printed_row, score_title
from clstudy.analysis.report_data import Arm, ReportData


def horizon_sections(material: ReportData) -> list[Section]:
    """Every arm's scores as if the study had ended earlier, and the differences; none without ``grid.timestamps``."""
    counts = material.summary.study.horizons
    if len(counts) < 2 or material.panel is None:
        return []
    title = panel_title(material.metrics, material.panel)
    heads = ["score", "strategy", *(f"T = {count}" for count in counts)]
    scores = _lines(material, horizon_scores(material.summary).to_pylist(), signed=False)
    differences = _lines(material, horizon_paired(material.summary).to_pylist(), signed=True)
    said = (
        f"{title}, as if the study had ended after T timestamps. A continual trial of T timestamps is the beginning of "
        "a longer one; joint training was trained on those alone."
    )
    paired = "Paired within identities and seeds: strategy − baseline, with its interval."
    return [
        rows_section("horizons", "Over the number of timestamps", heads, scores, [said]),
        rows_section("horizons-paired", "Differences over the number of timestamps", heads, differences, [paired]),
    ]


def _lines(material: ReportData, rows: list[dict[str, object]], *, signed: bool) -> list[list[str]]:
    counts = material.summary.study.horizons
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for row in map(printed_row, rows):
        if (row["protocol"], row["metric"], row["learning_rate"]) != (*(material.panel or ()), material.rate):
            continue
        if row["score"] not in PRINTED_SCORES:
            continue
        label = Arm(row["strategy"], row["buffer_size"]).label + (f" − {row['baseline']}" if signed else "")
        text = " ".join(
            filter(None, mean_and_interval(row["mean"], row["low"], row["high"], material.digits, signed=signed))
        )
        cells.setdefault((score_title(row["score"]), label), {})[row["timestamps"]] = text
    return [[*names, *(found.get(count, "–") for count in counts)] for names, found in cells.items()]
