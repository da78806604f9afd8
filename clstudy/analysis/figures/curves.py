"""Scores over timestamps, against buffer size, and against learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from clstudy.analysis.figures.style import (
    BOUND,
    DASHES,
    INK,
    PALETTE,
    TEXT,
    Drawing,
    NothingToDrawError,
    bare,
    drawing,
    interval_line,
    label_ends,
    panel_grid,
    shades,
    timestamp_colours,
)
from clstudy.analysis.printed import (
    PRINTED_SCORES,
    directed_title,
    panel_title,
    printed_row,
    score_title,
)
from clstudy.analysis.report_data import Arm, ReportData
from clstudy.analysis.scores import average_performance
from clstudy.analysis.statistics.intervals import identity_interval

CURVE_PANELS = 2
"""Number of metrics with curves, counted from the first in the tables; the tables hold all metrics."""
_SIZE, _GAP, _MARGIN = (2.35, 1.75), (0.85, 0.5), (0.62, 0.85, 0.45, 0.35)
_COLUMNS = 2
_MOST_LABELS = 10
_BAND = "The band is the 95% Student t interval over identities."


def over_identities(values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, low and high over identities per timestamp, each ``[T]``; NaN where no identity (or only one) has a value.

    Args:
        values: identity -> ``[T_identity]``; identities may have seen different numbers of timestamps.
    """
    longest = max(len(value) for value in values.values())
    found = np.full((3, longest), np.nan)
    for t in range(longest):
        there = [value[t] for value in values.values() if len(value) > t and np.isfinite(value[t])]
        if there:
            interval = identity_interval(there)
            found[:, t] = interval.mean, interval.low, interval.high
    return found[0], found[1], found[2]


def ap_over_time(material: ReportData) -> list[Drawing]:
    """AP_t per strategy and buffer size, a panel per strategy."""
    drawings = []
    for panel in material.panels[:CURVE_PANELS]:
        learners = of_learners(material, panel, average_performance)
        names = [name for name in material.strategies if any(arm.strategy == name for arm in learners)]
        if not names or max(len(v) for values in learners.values() for v in values.values()) < 2:
            continue
        joint = {arm: np.mean([v[-1] for v in values.values()]) for arm, values in _finals(material, panel).items()}
        drawings.append(_ap_drawing(material, panel, learners, names, joint))
    if not drawings:
        raise NothingToDrawError("Scores over time need a continual learner that has seen at least two timestamps.")
    return drawings


def of_learners(
    material: ReportData, panel: tuple[str, str], compute: Callable[[np.ndarray], np.ndarray]
) -> dict[Arm, dict[str, np.ndarray]]:
    """``compute(R)`` of the continual learners, averaged over seeds: arm -> identity -> ``[T]``.

    Joint training has one row only and no curve; its final value is drawn as a point.
    """
    joint = material.summary.study.joint_strategies
    values = material.identity_values(panel, lambda r: compute(r) if np.isfinite(r[0, 0]) else np.full(len(r), np.nan))
    return {arm: people for arm, people in values.items() if arm.strategy not in joint}


def _finals(material: ReportData, panel: tuple[str, str]) -> dict[Arm, dict[str, np.ndarray]]:
    finals = material.identity_values(panel, lambda r: r[-1].mean(keepdims=True))
    return {arm: values for arm, values in finals.items() if arm.strategy in material.summary.study.joint_strategies}


def _ap_drawing(
    material: ReportData,
    panel: tuple[str, str],
    learners: Mapping[Arm, Mapping[str, np.ndarray]],
    names: Sequence[str],
    joint: Mapping[Arm, float],
) -> Drawing:
    shown = [name for name in names if name != "lower"] or names
    sizes = material.sizes
    colours: dict[int | None, str] = dict(zip(sizes, shades(len(sizes)), strict=True))
    figure, axes = panel_grid(len(shown), _COLUMNS, size=_SIZE, gap=_GAP, margin=_MARGIN)
    lower = learners.get(Arm("lower", None))
    ends: list[list[tuple[float, float, str, str]]] = []
    for name, panel_axes in zip(shown, axes, strict=True):
        tips = []
        if lower is not None and name != "lower":
            tips.append(line_with_band(panel_axes, over_identities(lower), BOUND, "lower", dash=DASHES[1]))
        for arm, values in learners.items():
            if arm.strategy == name:
                label = name if arm.buffer_size is None else f"K = {arm.buffer_size}"
                tips.append(
                    line_with_band(panel_axes, over_identities(values), colours.get(arm.buffer_size, PALETTE[0]), label)
                )
        last = max(tip[0] for tip in tips)
        for arm, value in joint.items():
            panel_axes.plot(
                [last], [value], marker="D", markersize=4.5, markerfacecolor="none", color=INK, clip_on=False
            )
            tips.append((last, value, arm.strategy, INK))
        ends.append(tips)
        panel_axes.set_title(name, loc="left", fontsize=TEXT + 1, fontweight="bold")
        timestamp_axis(panel_axes, int(last))
    _share_heights(axes)
    for tips, panel_axes in zip(ends, axes, strict=True):
        label_ends(panel_axes, tips, height=_SIZE[1])
    arrow = "higher" if material.metrics[panel[1]].higher_is_better else "lower"
    _outer_titles(axes, "timestamp t", f"AP_t ({arrow} is better)")
    title = f"{panel_title(material.metrics, panel)} over time"
    dashed = " Dashed grey: lower." if lower is not None and shown != ["lower"] else ""
    extra = "".join(f" Diamond: {arm.strategy}, trained on everything at once." for arm in joint)
    return drawing(
        figure,
        name=f"over_time_{panel[0]}_{panel[1]}",
        title=title,
        caption=f"AP_t, the mean over the test photos of all timestamps seen so far, after training on timestamp t. "
        f"{_BAND}{dashed}{extra}{material.rate_note}",
        alt=f"Line charts of {title}, a panel for each of {', '.join(shown)}.",
    )


def line_with_band(
    axes: Axes,
    band: tuple[np.ndarray, np.ndarray, np.ndarray],
    colour: str,
    label: str,
    dash: Any = "-",
    start: int = 0,
) -> tuple[float, float, str, str]:
    """Draw mean and band from timestamp ``start`` on; return the line's end with its label."""
    mean, low, high = band
    t = np.arange(start, start + len(mean))
    axes.fill_between(t, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(t, mean, color=colour, linewidth=1.6, linestyle=dash, marker="o", markersize=2.5)
    return float(t[-1]), float(mean[-1]), label, colour


def timestamp_lines(material: ReportData) -> list[Drawing]:
    """R[t, k] over t: how well the photos of each timestamp are kept after they were learned."""
    panel = material.panel
    if panel is None:
        raise NothingToDrawError("No trial is in the numbers yet.")
    matrices = material.identity_values(panel, lambda r: r)
    wanted = [
        arm
        for arm in material.focus_arms
        if arm in matrices and arm.strategy not in material.summary.study.joint_strategies
    ]
    size = max((len(r) for arm in wanted for r in matrices[arm].values()), default=0)
    if size < 2:
        raise NothingToDrawError("The fate of old photos needs a continual learner with at least two timestamps.")
    colours = timestamp_colours(size)
    every = -(-size // _MOST_LABELS)
    figure, axes = panel_grid(len(wanted), _COLUMNS, size=_SIZE, gap=_GAP, margin=_MARGIN)
    ends = []
    for arm, panel_axes in zip(wanted, axes, strict=True):
        tips = []
        for k in range(size):
            columns = {name: r[k:, k] for name, r in matrices[arm].items() if len(r) > k}
            tip = line_with_band(panel_axes, over_identities(columns), colours[k], f"k = {k}", start=k)
            if k % every == 0 or k == size - 1:
                tips.append(tip)
        ends.append(tips)
        panel_axes.set_title(arm.label, loc="left", fontsize=TEXT + 1, fontweight="bold")
        timestamp_axis(panel_axes, size - 1)
    _share_heights(axes)
    for tips, panel_axes in zip(ends, axes, strict=True):
        label_ends(panel_axes, tips, height=_SIZE[1])
    arrow = "higher" if material.metrics[panel[1]].higher_is_better else "lower"
    _outer_titles(axes, "timestamp t", f"R[t, k] ({arrow} is better)")
    return [
        drawing(
            figure,
            name="timestamps_over_time",
            title=f"{panel_title(material.metrics, panel)} of every timestamp's photos, over time",
            caption=f"R[t, k]: the test photos of timestamp k after training on timestamp t ≥ k; a line that turns for "
            f"the worse is being forgotten. {_BAND}{material.rate_note}",
            alt=f"Line charts, a panel for each of {', '.join(arm.label for arm in wanted)}; a line per timestamp.",
        )
    ]


def against_buffer_size(material: ReportData) -> list[Drawing]:
    """AIP, Forgetting, −BWT and final performance against K; strategies without a buffer are horizontal lines."""
    if len(material.sizes) < 2:
        raise NothingToDrawError("A score against buffer size needs at least two buffer sizes.")
    return [_size_drawing(material, panel) for panel in material.panels[:CURVE_PANELS]]


def _size_drawing(material: ReportData, panel: tuple[str, str]) -> Drawing:
    names = list(dict.fromkeys(arm.strategy for arm in material.arms if arm.buffer_size is not None))
    scores = [name for name in PRINTED_SCORES if any(row["score"] == name for row in material.rows)]
    size = (2.3, 2.0)
    figure, axes = panel_grid(2 * len(scores), 2, size=size, gap=(1.2, 0.55), margin=(0.7, 1.15, 0.45, 0.35))
    place_of = {k: i for i, k in enumerate(material.sizes)}
    for score, (whole, close) in zip(scores, zip(axes[::2], axes[1::2], strict=True), strict=True):
        rows = [
            printed_row(row)
            for row in material.rows
            if (row["protocol"], row["metric"], row["score"]) == (*panel, score)
        ]
        flat = [row for row in rows if row["buffer_size"] is None]
        ends = []
        for number, name in enumerate(names):
            points = [row for row in rows if row["strategy"] == name and row["buffer_size"] is not None]
            if not points:
                continue
            # each strategy is shifted a little, so that intervals do not hide one another
            x = [place_of[row["buffer_size"]] + 0.05 * (number - (len(names) - 1) / 2) for row in points]
            for panel_axes in (whole, close):
                interval_line(panel_axes, x, points, number)
            ends.append((x[-1], points[-1]["mean"], name, PALETTE[number % len(PALETTE)]))
        low, high = close.get_ylim()
        for row in flat:
            for panel_axes in (whole, close):
                panel_axes.axhline(row["mean"], color=BOUND, linewidth=1.2, linestyle=DASHES[1])
                if row["low"] is not None:
                    panel_axes.axhspan(row["low"], row["high"], color=BOUND, alpha=0.10, linewidth=0)
        close.set_ylim(low, high)
        for panel_axes in (whole, close):
            panel_axes.set_xlim(-0.35, len(place_of) - 0.65)
            panel_axes.set_xticks(range(len(place_of)), [f"K = {k}" for k in place_of])
            bare(panel_axes)
        edge = len(place_of) - 0.65
        label_ends(whole, [(edge, row["mean"], row["strategy"], BOUND) for row in flat], height=size[1])
        inside = [(edge, row["mean"], row["strategy"], BOUND) for row in flat if low <= row["mean"] <= high]
        label_ends(close, ends + inside, height=size[1])
        title = directed_title(score, material.metrics[panel[1]])
        whole.set_title(title, loc="left", fontsize=TEXT + 1, fontweight="bold")
        close.set_title("the same, closer", loc="left", fontsize=TEXT)
    return drawing(
        figure,
        name=f"buffer_size_{panel[0]}_{panel[1]}",
        title=f"{panel_title(material.metrics, panel)} against buffer size",
        caption="Left: with everything that has no buffer as dashed lines (band: its interval); right: the replay "
        f"strategies alone. Bars are 95% Student t intervals over identities.{material.rate_note}",
        alt=f"Charts of {', '.join(score_title(name) for name in scores)} against buffer sizes "
        f"{', '.join(map(str, material.sizes))} for {', '.join(names)}; the main table has the same numbers.",
    )


def against_learning_rate(material: ReportData) -> list[Drawing]:
    """AIP, Forgetting, −BWT and final performance of the main metric against the learning rate."""
    if len(material.rates) < 2:
        raise NothingToDrawError("The response to the learning rate needs at least two learning rates.")
    panel = material.panel
    if panel is None:
        raise NothingToDrawError("No trial is in the numbers yet.")
    rows = [
        printed_row(row)
        for row in material.summary.scores.to_pylist()
        if (row["protocol"], row["metric"]) == panel and row["buffer_size"] in (None, material.focus_size)
    ]
    scores = [name for name in PRINTED_SCORES if any(row["score"] == name for row in rows)]
    size = (3.6, 1.9)
    figure, axes = panel_grid(len(scores), 1, size=size, gap=(0.3, 0.5), margin=(0.7, 1.3, 0.45, 0.35))
    names = list(dict.fromkeys(row["strategy"] for row in rows if row["score"] == "final"))
    places = {rate: i for i, rate in enumerate(material.rates)}
    for score, panel_axes in zip(scores, axes, strict=True):
        ends = []
        for number, name in enumerate(names):
            points = [row for row in rows if (row["score"], row["strategy"]) == (score, name)]
            if points:
                x = [places[row["learning_rate"]] + 0.03 * (number - (len(names) - 1) / 2) for row in points]
                interval_line(panel_axes, x, points, number)
                ends.append((x[-1], points[-1]["mean"], name, PALETTE[number % len(PALETTE)]))
        panel_axes.set_xticks(range(len(places)), [f"{rate:g}" for rate in places])
        panel_axes.set_xlim(-0.3, len(places) - 0.7)
        bare(panel_axes)
        label_ends(panel_axes, ends, height=size[1])
        panel_axes.set_title(directed_title(score, material.metrics[panel[1]]), loc="left", fontsize=TEXT + 1)
    axes[-1].set_xlabel("learning rate")
    shown = "" if material.focus_size is None else f" Buffer size {material.focus_size}, where there is one."
    return [
        drawing(
            figure,
            name="learning_rate",
            title=f"{panel_title(material.metrics, panel)} against learning rate",
            caption=f"Bars are 95% Student t intervals over identities.{shown}",
            alt=f"Charts of {', '.join(score_title(name) for name in scores)} against learning rate for "
            f"{', '.join(names)}; the main table has the same numbers.",
        )
    ]


def timestamp_axis(axes: Axes, last: int) -> None:
    """Bare axes with timestamps 0 to ``last`` along x."""
    bare(axes)
    step = 1 if last <= 10 else 2 if last <= 20 else 5
    axes.set_xticks(range(0, last + 1, step))
    axes.set_xlim(-0.15, last + 0.05)


def _share_heights(axes: Sequence[Axes]) -> None:
    limits = [panel.get_ylim() for panel in axes]
    for panel in axes:
        panel.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _outer_titles(axes: Sequence[Axes], below: str, beside: str) -> None:
    """Axis titles on the outer panels only; they all have the same heights."""
    for place, panel in enumerate(axes):
        if place % _COLUMNS == 0:
            panel.set_ylabel(beside)
        else:
            panel.tick_params(labelleft=False)
        if place + _COLUMNS >= len(axes):
            panel.set_xlabel(below, labelpad=1)
