"""The section of the HTML report that sets effects against the noise floor of the arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clstudy.analysis.noise_floor import noise_of_difference
from clstudy.analysis.pages.blocks import Section, paragraph, soft_paragraph, text_table
from clstudy.analysis.printed import PRINTED_SCORES, printed_row, score_title
from clstudy.analysis.report_data import Arm, ReportData
from clstudy.records.noise_floor import ScoreNoise, read_noise_floor

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
    rows = [
        (row, measured[row["score"]])
        for row in material.summary.paired.to_pylist()
        if material.panel == (row["protocol"], row["metric"]) and row["score"] in measured
    ]
    lines = [_line(material, row, noise) for row, noise in rows]
    listed = "; ".join(
        f"{score_title(score)} by {noise.rms:.1e} (largest {noise.largest:.1e})" for score, noise in measured.items()
    )
    blocks = (
        paragraph(
            f"The same trials computed by {floor.there} instead of {floor.here} (n = "
            f"{max(noise.trials for noise in measured.values())}) changed, as a root mean square: {listed}. "
            f"{_verdict(rows)}"
        ),
        text_table("Differences and what rounding may change in them", _COLUMNS, lines),
        soft_paragraph(
            "Rounding: root mean square of what another kind of processor changes in a difference, if both trials of a "
            "pair round independently: that of one trial times the root of 2/n for n people."
        ),
    )
    return [Section(anchor="noise", title="The noise floor of the arithmetic", blocks=blocks)]


_COLUMNS = ("score", "comparison", "difference", "rounding", "effect / rounding")


def _times(row: Mapping[str, Any], noise: ScoreNoise) -> float:
    floor = noise_of_difference(noise, row["n_identities"])
    return abs(row["mean"]) / floor if floor else float("inf")


def _verdict(rows: list[tuple[Mapping[str, Any], ScoreNoise]]) -> str:
    within = sum(_times(row, noise) < _NEEDED for row, noise in rows)
    if not within:
        return f"Every difference below is at least {_NEEDED:g} times as large as what that changes in it."
    return f"Of the {len(rows)} differences below, {within} are less than {_NEEDED:g} times what that changes in them."


def _line(material: ReportData, row: Mapping[str, Any], noise: ScoreNoise) -> list[str]:
    rate = f", lr {row['learning_rate']:g}" if len(material.rates) > 1 else ""
    times = _times(row, noise)
    return [
        score_title(row["score"]),
        f"{Arm(row['strategy'], row['buffer_size']).label} minus {row['baseline']}{rate}",
        f"{printed_row(row)['mean']:+.{material.digits}f}",
        f"{noise_of_difference(noise, row['n_identities']):.1e}",
        f"{times:.1f}" if times < 1000 else "above 1000",
    ]
