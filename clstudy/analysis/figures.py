"""A study's answers as figures (SVG and PNG), drawn from the tidy tables; equal tables give byte-identical SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clstudy.analysis.tables import Summary

# Okabe and Ito's palette: told apart with any colour vision, and by lightness in print.
COLOURS = {"better": "#0072B2", "worse": "#D55E00", "interval includes 0": "#555555", "no interval": "#999999"}
_MARKERS = {"better": "o", "worse": "s", "interval includes 0": "D", "no interval": "x"}
_FILES = {"forgetting_minus_lower": ("forgetting", "lower"), "aip_minus_lower": ("aip", "lower")}


def figures(summary: Summary) -> dict[str, bytes]:
    """Return file name -> content of every figure that the study has rows for."""
    found: dict[str, bytes] = {}
    for name, (score, baseline) in _FILES.items():
        rows = differences(summary, score, baseline)
        if rows:
            figure = forest_plot(rows, score=score, baseline=baseline)
            found |= {f"{name}.svg": encode(figure, "svg"), f"{name}.png": encode(figure, "png")}
    return found


def differences(summary: Summary, score: str, baseline: str) -> list[Mapping[str, Any]]:
    """Rows of the paired table (reconstruction LPIPS) for one score and baseline, in the tables' order."""
    wanted = {"protocol": "reconstruction", "metric": "lpips", "score": score, "baseline": baseline}
    return [row for row in summary.paired.to_pylist() if all(row[key] == value for key, value in wanted.items())]


def forest_plot(rows: Sequence[Mapping[str, Any]], *, score: str, baseline: str) -> Figure:
    """One line per strategy and buffer size: difference to the baseline with its interval; 0 is the baseline.

    Args:
        rows: rows of ``PAIRED_SCHEMA``, at least one, all of one score and baseline.
        score: what is compared ("aip", "forgetting").
        baseline: name of the strategy that 0 stands for.
    """
    rates = {row["learning_rate"] for row in rows}
    figure = Figure(figsize=(7.2, 1.3 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0.0, color="#000000", linewidth=1.0)
    for place, row in enumerate(rows):
        _draw(axes, -place, row)
    axes.set_yticks([-place for place in range(len(rows))], [_label(row, len(rates) > 1) for row in rows])
    axes.set_ylim(-len(rows) + 0.4, 0.6)
    title = {"aip": "AIP", "forgetting": "Forgetting"}.get(score, score)
    axes.set_xlabel(f"{title} (reconstruction LPIPS) minus {baseline}'s: left of 0 is better")
    axes.set_title(f"{title}: difference to {baseline}, 95% interval over identities", loc="left", fontsize=10)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _draw(axes: Axes, height: float, row: Mapping[str, Any]) -> None:
    colour, marker = COLOURS[row["verdict"]], _MARKERS[row["verdict"]]
    if row["low"] is not None:
        axes.plot([row["low"], row["high"]], [height, height], color=colour, linewidth=2.0, solid_capstyle="butt")
    axes.plot([row["mean"]], [height], color=colour, marker=marker, markersize=6, linestyle="none")
    far = row["high"] if row["high"] is not None else row["mean"]
    axes.annotate(
        f"{row['mean']:+.4f}", (far, height), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8,
        color=colour,
    )  # fmt: skip


def _label(row: Mapping[str, Any], with_rate: bool) -> str:
    size = "" if row["buffer_size"] is None else f"  K = {row['buffer_size']}"
    return f"{row['strategy']}{size}" + (f"  lr {row['learning_rate']:g}" if with_rate else "")


def encode(figure: Figure, kind: str) -> bytes:
    """The figure as "svg" or "png" bytes, without a date and with fixed element names."""
    sink = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "clstudy", "svg.fonttype": "none"}):
        figure.savefig(sink, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return sink.getvalue()
