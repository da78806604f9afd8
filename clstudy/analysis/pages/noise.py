"""The section of the HTML report that sets effects against the noise floor of the arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from clstudy.analysis.noise_floor import noise_of_difference
from clstudy.analysis.pages.blocks import Section, paragraph, soft_paragraph, text_table
from clstudy.analysis.printed import PRINTED_SCORES, printed_row, score_title
from clstudy.analysis.report_data import Arm, ReportData
from clstudy.records.noise_floor import read_noise_floor

_NEEDED = 2.0
"""An effect of less than so many times the floor may be rounding."""


def noise_sections(material: ReportData) -> list[Section]:
    """One section, if the noise floor was measured (``clstudy noise``)."""
    floor = read_noise_floor(material.summary.study.folder)
    if floor is None or material.panel is None:
        return []
    measured = {score: noise for score in PRINTED_SCORES if (noise := floor.of(*material.panel, score)) is not None}
    if not measured:
        return []
    rows = [row for row in material.paired_rows if row["score"] in measured]
    floors = [noise_of_difference(measured[row["score"]], row["n_identities"]) for row in rows]
    times = [abs(row["mean"]) / floor if floor else math.inf for row, floor in zip(rows, floors, strict=True)]
    lines = [_line(material, *one) for one in zip(rows, floors, times, strict=True)]
    listed = "; ".join(
        f"{score_title(score)} by {noise.rms:.1e} (largest {noise.largest:.1e})" for score, noise in measured.items()
    )
    blocks = (
        paragraph(
            f"The same trials computed by {floor.there} instead of {floor.here} (n = "
            f"{max(noise.trials for noise in measured.values())}) changed, as a root mean square: {listed}. "
            f"{_verdict(times)}"
        ),
        text_table("Differences and what rounding may change in them", _COLUMNS, lines),
        soft_paragraph(
            "Rounding: root mean square of what another kind of processor changes in a difference, if both trials of a "
            "pair round independently: that of one trial times the root of 2/n for n people."
        ),
    )
    return [Section(anchor="noise", title="The noise floor of the arithmetic", blocks=blocks)]


_COLUMNS = ("score", "comparison", "difference", "rounding", "effect / rounding")


def _verdict(times: list[float]) -> str:
    within = sum(ratio < _NEEDED for ratio in times)
    if not within:
        return f"Every difference below is at least {_NEEDED:g} times as large as what that changes in it."
    return f"Of the {len(times)} differences below, {within} are less than {_NEEDED:g} times what that changes in them."


def _line(material: ReportData, row: Mapping[str, Any], floor: float, times: float) -> list[str]:
    rate = f", lr {row['learning_rate']:g}" if len(material.rates) > 1 else ""
    return [
        score_title(row["score"]),
        f"{Arm(row['strategy'], row['buffer_size']).label} minus {row['baseline']}{rate}",
        f"{printed_row(row)['mean']:+.{material.digits}f}",
        f"{floor:.1e}",
        f"{times:.1f}" if times < 1000 else "above 1000",
    ]
