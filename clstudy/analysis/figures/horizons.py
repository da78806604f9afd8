"""Scores over the number of timestamps, and against stored bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clstudy.analysis.figures.style import (
    BOUND,
    DASHES,
    PALETTE,
    TEXT,
    Drawing,
    NothingToDrawError,
    bare,
    drawing,
    interval_line,
    label_ends,
    panel_grid,
)
from clstudy.analysis.horizons import horizon_scores
from clstudy.analysis.printed import (
    PRINTED_SCORES,
    directed_title,
    panel_title,
    printed_row,
    score_title,
)
from clstudy.analysis.report_data import Arm, ReportData

_SIZE, _GAP, _MARGIN = (2.35, 1.9), (1.45, 0.6), (0.7, 1.2, 0.5, 0.35)
_COLUMNS = 2


def against_timestamps(material: ReportData) -> list[Drawing]:
    """Scores after fewer and after all timestamps, an arm a line (one buffer size for each strategy)."""
    panel, counts = material.panel, material.summary.study.horizons
    if panel is None or len(counts) < 2:
        raise NothingToDrawError("Scores over the number of timestamps need a grid.timestamps with at least two.")
    rows = [
        printed_row(row)
        for row in horizon_scores(material.summary).to_pylist()
        if (row["protocol"], row["metric"], row["learning_rate"]) == (*panel, material.rate)
    ]
    scores = [name for name in PRINTED_SCORES if any(row["score"] == name for row in rows)]
    figure, axes = panel_grid(len(scores), _COLUMNS, size=_SIZE, gap=_GAP, margin=_MARGIN)
    place_of = {count: place for place, count in enumerate(counts)}
    arms = material.focus_arms
    for score, panel_axes in zip(scores, axes, strict=True):
        ends = []
        for number, arm in enumerate(arms):
            points = [row for row in rows if row["score"] == score and Arm(row["strategy"], row["buffer_size"]) == arm]
            if not points:
                continue
            shift = 0.05 * (number - (len(arms) - 1) / 2)  # so that intervals do not hide one another
            x = [place_of[row["timestamps"]] + shift for row in points]
            interval_line(panel_axes, x, points, number)
            ends.append((x[-1], points[-1]["mean"], arm.strategy, PALETTE[number % len(PALETTE)]))
        panel_axes.set_xlim(-0.35, len(counts) - 0.65)
        panel_axes.set_xticks(range(len(counts)), [f"T = {count}" for count in counts])
        bare(panel_axes)
        label_ends(panel_axes, ends, height=_SIZE[1])
        title = directed_title(score, material.metrics[panel[1]])
        panel_axes.set_title(title, loc="left", fontsize=TEXT + 1, fontweight="bold")
    buffers = "" if material.focus_size is None else f"Buffers of K = {material.focus_size}. "
    return [
        drawing(
            figure,
            name="timestamps",
            title=f"{panel_title(material.metrics, panel)} over the number of timestamps",
            caption="Scores as if the study had ended after T timestamps; joint training was trained on those alone. "
            f"{buffers}Bars are 95% Student t intervals over identities.{material.rate_note}",
            alt=f"Charts of {', '.join(map(score_title, scores))} after {', '.join(map(str, counts))} timestamps for "
            f"{', '.join(arm.label for arm in arms)}; horizons.csv has the same numbers.",
        )
    ]


def against_bytes(material: ReportData) -> list[Drawing]:
    """Scores against the megabytes that a strategy carries from timestamp to timestamp."""
    panel = material.panel
    if panel is None:
        raise NothingToDrawError("No trial is in the numbers yet.")
    stored = {
        Arm(row["strategy"], row["buffer_size"]): row["megabytes"]
        for row in material.efficiency
        if row["learning_rate"] == material.rate and row["megabytes"]
    }
    joint = material.summary.study.joint_strategies
    stored = {arm: size for arm, size in stored.items() if arm.strategy not in joint}
    if len(set(stored.values())) < 2:
        raise NothingToDrawError("Scores against stored bytes need memories of at least two sizes, and `lower`.")
    rows = [printed_row(row) for row in material.rows if (row["protocol"], row["metric"]) == panel]
    scores = [name for name in PRINTED_SCORES if any(row["score"] == name for row in rows)]
    figure, axes = panel_grid(len(scores), _COLUMNS, size=_SIZE, gap=_GAP, margin=_MARGIN)
    names = list(dict.fromkeys(arm.strategy for arm in stored))
    for score, panel_axes in zip(scores, axes, strict=True):
        ends = []
        for number, name in enumerate(names):
            points = [
                (stored[arm], row)
                for row in rows
                if (row["score"], row["strategy"]) == (score, name)
                and (arm := Arm(row["strategy"], row["buffer_size"])) in stored
            ]
            points.sort(key=lambda point: point[0])
            if not points:
                continue
            # logarithms on a plain axis: ticks at the sizes themselves, and labels that know where lines end
            x = [math.log10(size) + 0.01 * (number - (len(names) - 1) / 2) for size, _ in points]
            interval_line(panel_axes, x, [row for _, row in points], number)
            ends.append((x[-1], points[-1][1]["mean"], name, PALETTE[number % len(PALETTE)]))
        for row in rows:
            if row["score"] == score and row["strategy"] in joint:
                panel_axes.axhline(row["mean"], color=BOUND, linewidth=1.2, linestyle=DASHES[1])
        sizes = _apart(sorted(set(stored.values())))
        panel_axes.set_xticks([math.log10(size) for size in sizes], [f"{size:.2g} MB" for size in sizes])
        panel_axes.set_xlim(math.log10(sizes[0]) - 0.06, math.log10(max(stored.values())) + 0.06)
        bare(panel_axes)
        label_ends(panel_axes, ends, height=_SIZE[1])
        title = directed_title(score, material.metrics[panel[1]])
        panel_axes.set_title(title, loc="left", fontsize=TEXT + 1, fontweight="bold")
    return [
        drawing(
            figure,
            name="stored_bytes",
            title=f"{panel_title(material.metrics, panel)} against stored bytes",
            caption="Photos as plain 8-bit RGB, latents and learned terms that are carried from one timestamp to the "
            "next, without the weights themselves (efficiency.csv); dashed: joint training, which stores everything. "
            f"Bars are 95% Student t intervals over identities.{material.rate_note}",
            alt=f"Charts of {', '.join(map(score_title, scores))} against megabytes for {', '.join(names)}.",
        )
    ]


def _apart(sizes: Sequence[float]) -> list[float]:
    """Those of the ascending sizes that are far enough from one another for tick labels."""
    kept = [sizes[0]]
    for size in sizes[1:]:
        if math.log10(size / kept[-1]) > 0.15:
            kept.append(size)
    return kept
