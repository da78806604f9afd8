"""Paired differences to a baseline as a forest plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clstudy.analysis.figures.style import Drawing, NothingToDrawError, drawing
from clstudy.analysis.printed import (
    DEFAULT_DECIMALS,
    better_when,
    decimals_of,
    interval_texts,
    number,
    panel_title,
    printed_row,
)
from clstudy.analysis.report_data import ReportData
from clstudy.analysis.summary import Summary

# Okabe and Ito's palette: distinguishable with any colour vision, and by lightness in print.
COLOURS = {"better": "#0072B2", "worse": "#D55E00", "interval includes 0": "#555555", "no interval": "#767676"}
_MARKERS = {"better": "o", "worse": "s", "interval includes 0": "D", "no interval": "x"}
_FILES = {"forgetting_minus_lower": ("forgetting", "lower"), "aip_minus_lower": ("aip", "lower")}
_TITLES = {"aip": "AIP", "forgetting": "Forgetting"}
_BESIDE = {"forgetting": "bwt"}
"""A score that is drawn under another one, thin and hollow."""
_STEP = 0.28
_ABOVE = 0.22
"""How far single identities are above their line."""


def forest_plots(material: ReportData) -> list[Drawing]:
    """Forgetting and AIP against ``lower``."""
    drawings = []
    panel = material.panels[0] if material.panels else ("reconstruction", "lpips")
    digits = decimals_of(material.metrics, panel)
    what = panel_title(material.metrics, panel)
    for name, (score, baseline) in _FILES.items():
        rows = differences(material.summary, score, baseline, panel)
        beside = differences(material.summary, _BESIDE[score], baseline, panel) if score in _BESIDE else []
        dots = {one.cell[3:]: one.differences for one in material.compared(score, baseline)}
        if rows:
            title = f"{_TITLES[score]}: difference to {baseline}"
            left = better_when(score, material.metrics[panel[1]]) == "negative"
            drawings.append(
                drawing(
                    forest_plot(
                        rows,
                        beside,
                        dots,
                        score=score,
                        baseline=baseline,
                        digits=digits,
                        what=what,
                        left_is_better=left,
                    ),
                    name=name,
                    title=title,
                    caption=f"Strategy minus {baseline}, paired on identities and seeds, with the 95% Student t "
                    f"interval over identities. {'Left' if left else 'Right'} of 0 is better. Blue circle: better; "
                    "orange square: worse; grey diamond: the interval includes 0; cross: no interval. Small dots "
                    "above: single identities."
                    + (
                        " Under each, thin and hollow: −BWT, which photo noise does not push up as it does Forgetting."
                        if beside
                        else ""
                    ),
                    alt=f"Forest plot of {title.lower()}, {len(rows)} lines; the paired table has the same numbers.",
                )
            )
    if not drawings:
        raise NothingToDrawError("No strategy shares an identity with lower, so there is no difference to draw.")
    return drawings


def differences(
    summary: Summary, score: str, baseline: str, panel: tuple[str, str] = ("reconstruction", "lpips")
) -> list[Mapping[str, Any]]:
    """Rows of the paired table for one score, baseline and (protocol, metric), in the tables' order."""
    wanted = dict(zip(("protocol", "metric"), panel, strict=True)) | {"score": score, "baseline": baseline}
    return [row for row in summary.paired.to_pylist() if all(row[key] == value for key, value in wanted.items())]


def forest_plot(
    rows: Sequence[Mapping[str, Any]],
    beside: Sequence[Mapping[str, Any]] = (),
    dots: Mapping[tuple[Any, ...], Sequence[float]] | None = None,
    *,
    score: str,
    baseline: str,
    digits: int = DEFAULT_DECIMALS,
    what: str = "Reconstruction LPIPS",
    left_is_better: bool = True,
) -> Figure:
    """One line per strategy and buffer size: difference to the baseline with its interval; 0 is the baseline.

    Args:
        rows: rows of ``PAIRED_SCHEMA``, at least one, all of one score and baseline.
        beside: rows of another score, each drawn under the line of the same cell.
        dots: (learning rate, strategy, buffer size) -> differences of single identities.
        score: what is compared ("aip", "forgetting").
        baseline: name of the strategy at 0.
        digits: decimals, unless an interval needs more.
        what: title of the protocol and metric.
        left_is_better: whether a negative difference favours the strategy.
    """
    rates = {row["learning_rate"] for row in rows}
    figure = Figure(figsize=(7.2, 1.3 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0.0, color="#000000", linewidth=1.0)
    for place, row in enumerate(rows):
        values = (dots or {}).get(_cell(row), ())
        axes.scatter(values, [_ABOVE - place] * len(values), s=9, color="#000000", alpha=0.4, linewidths=0)
        _draw(axes, -place, row, digits)
    places = {_cell(row): place for place, row in enumerate(rows)}
    for row in beside:
        if _cell(row) in places:
            _draw_beside(axes, -places[_cell(row)] - _STEP, printed_row(row))
    axes.set_yticks([-place for place in range(len(rows))], [_label(row, len(rates) > 1) for row in rows])
    axes.set_ylim(-len(rows) + 0.4, 0.6)
    title, better = _TITLES.get(score, score), "left" if left_is_better else "right"
    axes.set_xlabel(f"{title} ({what[:1].lower()}{what[1:]}) minus {baseline}'s: {better} of 0 is better")
    axes.set_title(f"{title}: difference to {baseline}, 95% interval over identities", loc="left", fontsize=10)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _draw(axes: Axes, height: float, row: Mapping[str, Any], digits: int) -> None:
    colour, marker = COLOURS[row["verdict"]], _MARKERS[row["verdict"]]
    if row["low"] is not None:
        axes.plot([row["low"], row["high"]], [height, height], color=colour, linewidth=2.0, solid_capstyle="butt")
    axes.plot([row["mean"]], [height], color=colour, marker=marker, markersize=6, linestyle="none")
    far = row["high"] if row["high"] is not None else row["mean"]
    label = (
        number(row["mean"], digits, signed=True)
        if row["low"] is None
        else interval_texts(row["mean"], row["low"], row["high"], digits, signed=True)[0]
    )
    axes.annotate(
        label, (far, height), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8,
        color=colour, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )  # fmt: skip  # the box: a narrow interval near 0 has its label on the line of 0


def _draw_beside(axes: Axes, height: float, row: Mapping[str, Any]) -> None:
    if row["low"] is not None:
        axes.plot([row["low"], row["high"]], [height, height], color="#767676", linewidth=0.8)
    axes.plot([row["mean"]], [height], color="#767676", marker="o", markersize=3.5, markerfacecolor="white")


def _cell(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["learning_rate"], row["strategy"], row["buffer_size"]


def _label(row: Mapping[str, Any], with_rate: bool) -> str:
    size = "" if row["buffer_size"] is None else f"  K = {row['buffer_size']}"
    return f"{row['strategy']}{size}" + (f"  lr {row['learning_rate']:g}" if with_rate else "")
