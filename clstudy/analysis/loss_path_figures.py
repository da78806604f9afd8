"""Loss paths as figures (SVG and PNG), drawn from their tables; equal tables give byte-identical SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from clstudy.analysis.figures.style import DASHES, PALETTE, Drawing, bare, drawing, label_ends, quiet_text
from clstudy.analysis.loss_path_numbers import GROUPS, PHOTOS, SPANS, mean_curves

_MOST = len(PALETTE) * len(DASHES)
_SHADES = {"all": "#222222", "weights": PALETTE[0], "biases": PALETTE[1]}
_MARKERS = {"all": "o", "weights": "s", "biases": "D"}
_PANEL_INCHES = 2.4
_NUMBERS = {
    "barrier": "barrier height (loss above the line between the ends)",
    "plateau": "plateau length (share of the path)",
}
_WIDTHS = {"barrier": (0.002, np.inf), "plateau": (0.2, 1.02)}
"""The smallest and the largest range that an axis shows."""


class Curve(NamedTuple):
    """What one line of a figure represents."""

    strategy: str
    buffer_size: int | None
    learning_rate: float


def loss_path_drawings(curves: pa.Table, numbers: pa.Table) -> list[Drawing]:
    """The curves of each span, and barrier and plateau per strategy.

    Args:
        curves: ``CURVE_SCHEMA``.
        numbers: ``STRATEGY_SCHEMA`` of the same paths.
    """
    found = []
    means = mean_curves(curves)
    with quiet_text():
        for span, words in SPANS.items():
            chosen = {key: curve for key, curve in means.items() if key[3] == span}
            if chosen:
                counted = _counted(curves, span)
                found.append(
                    drawing(
                        curve_figure(chosen, span, counted),
                        name=f"loss_path_{span}",
                        title=f"Loss path {words}",
                        caption=f"Trainer's loss (LPIPS + MSE) on test photos at their fixed starting latents, on the "
                        f"straight line between the weights {words}; {counted}. What does not move stays as it is at "
                        "the start.",
                        alt=f"Curves of the loss against the place on the line {words}, one per strategy, for old and "
                        "new photos, and for all parameters, weights only and biases only.",
                    )
                )
        if numbers.num_rows:
            found.append(
                drawing(
                    number_figure(numbers.to_pylist()),
                    name="loss_path_numbers",
                    title="Loss path: barrier and plateau",
                    caption="Barrier: the most the loss rises above the straight line between its two ends, from each "
                    "stage to the next. Plateau: the share of the path, from its start, on which the loss stays near "
                    "its start; where the loss is a straight line, it is the tolerance itself.",
                    alt="Barrier height and plateau length per strategy for all parameters, weights and biases.",
                )
            )
    return found


def _counted(curves: pa.Table, span: str) -> str:
    rows = [row for row in curves.select(["span", "trial", "identity"]).to_pylist() if row["span"] == span]
    people, trials = len({row["identity"] for row in rows}), len({row["trial"] for row in rows})
    return f"mean over {people} {'identity' if people == 1 else 'identities'}, {trials} trials"


def shown_curves(found: Sequence[Curve], most: int = _MOST) -> list[Curve]:
    """The lines to draw: for a strategy with several buffer sizes the largest (and at most ``most`` lines)."""
    largest: dict[tuple[str, float], int] = {}
    for one in found:
        key = (one.strategy, one.learning_rate)
        largest[key] = max(largest.get(key, -1), -1 if one.buffer_size is None else one.buffer_size)
    kept = [
        one
        for one in dict.fromkeys(found)
        if (-1 if one.buffer_size is None else one.buffer_size) == largest[one.strategy, one.learning_rate]
    ]
    return kept[:most]


def curve_figure(means: Mapping[tuple[Any, ...], np.ndarray], span: str, counted: str) -> Figure:
    """Loss over alpha: one row per kind of photos, one column per group, one line per strategy.

    Args:
        means: (strategy, buffer size, learning rate, span, photos, group) -> curve ``[n]``, all of one span.
        span: name of the span, for the title.
        counted: what the means are over, for the title.
    """
    found = [Curve(*key[:3]) for key in means]
    lines = shown_curves(found)
    styles = {one: (PALETTE[i % len(PALETTE)], DASHES[i // len(PALETTE)]) for i, one in enumerate(lines)}
    labels = {one: _label(one, len({line.learning_rate for line in lines}) > 1) for one in lines}
    columns = list(reversed(GROUPS))  # "all" on the right, where the labels are: there the lines differ most
    figure = Figure(figsize=(11.0, 2 * _PANEL_INCHES + 1.6), layout="constrained")
    panels = figure.subplots(len(PHOTOS), len(columns), sharex=True, sharey="row", squeeze=False)
    for (row, photos), (column, group) in product(enumerate(PHOTOS), enumerate(columns)):
        axes = panels[row][column]
        drawn = {one: means[key] for one in lines if (key := (*one, span, photos, group)) in means}
        for one, curve in drawn.items():
            colour, dashes = styles[one]
            axes.plot(np.linspace(0, 1, len(curve)), curve, color=colour, linestyle=dashes, linewidth=1.8)
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1])
        bare(axes, "both")
        if row == 0:
            axes.set_title(GROUPS[group], loc="left", fontsize=10)
        else:
            axes.set_xlabel("place on the line (0: start, 1: end)")
        if column == 0:
            axes.set_ylabel(f"loss on {photos} photos (LPIPS + MSE)")
    for row, photos in enumerate(PHOTOS):
        axes = panels[row][-1]
        ends = {one: float(means[key][-1]) for one in lines if (key := (*one, span, photos, "all")) in means}
        label_ends(axes, [(1.0, end, labels[one], styles[one][0]) for one, end in ends.items()], height=_PANEL_INCHES)
    title = f"Loss on the straight line {SPANS[span]}; {counted}"
    if len(lines) < len(set(found)):
        title += "; largest K of each strategy"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def number_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Barrier height and plateau length of the steps per strategy, group and kind of photos, with intervals.

    Args:
        rows: of ``STRATEGY_SCHEMA``, at least one.
    """
    chosen = [row for row in rows if row["span"] == "step" and row["measure"] in _NUMBERS]
    found = list(dict.fromkeys(Curve(row["strategy"], row["buffer_size"], row["learning_rate"]) for row in chosen))
    labels = [_label(one, len({line.learning_rate for line in found}) > 1) for one in found]
    heights = {one: -place for place, one in enumerate(found)}
    offsets = dict(zip(GROUPS, (0.28, 0.0, -0.28), strict=True))
    figure = Figure(figsize=(11.0, 2.4 + 0.8 * len(found)), layout="constrained")
    panels = figure.subplots(len(_NUMBERS), len(PHOTOS), sharey=True, sharex="row", squeeze=False)
    for (i, measure), (j, photos) in product(enumerate(_NUMBERS), enumerate(PHOTOS)):
        axes = panels[i][j]
        for row in (row for row in chosen if (row["measure"], row["photos"]) == (measure, photos)):
            one = Curve(row["strategy"], row["buffer_size"], row["learning_rate"])
            height, shade = heights[one] + offsets[row["group"]], _SHADES[row["group"]]
            if row["low"] is not None:
                axes.plot([row["low"], row["high"]], [height, height], color=shade, linewidth=1.6)
            axes.plot([row["mean"]], [height], color=shade, marker=_MARKERS[row["group"]], markersize=4.5)
            if one == found[0] and (i, j) == (0, 0):
                far = row["mean"] if row["high"] is None else row["high"]
                axes.annotate(
                    GROUPS[row["group"]], (far, height), xytext=(6, 0), textcoords="offset points", va="center",
                    fontsize=7, color=shade,
                )  # fmt: skip
        axes.set_yticks(list(heights.values()), labels)
        axes.set_ylim(-len(found) + 0.5, 0.5)
        axes.set_xlabel(_NUMBERS[measure])
        # neither number can be negative, and a share is at most 1, whatever an interval over few identities gives;
        # barriers within rounding error must not fill the panel
        most = max((row["high"] or row["mean"] for row in chosen if row["measure"] == measure), default=0.0)
        least, limit = _WIDTHS[measure]
        width = min(max(1.05 * most, least), limit)
        axes.set_xlim(-0.02 * width, width)
        bare(axes, "x")
        axes.tick_params(axis="y", length=0)
        if i == 0:
            axes.set_title(f"{photos} photos: {PHOTOS[photos]}", loc="left", fontsize=10)
    people = {row["identities"] for row in chosen}
    over = f"95% intervals over {max(people)} identities" if max(people) > 1 else "one identity, so no interval"
    figure.suptitle(f"From each stage to the next: barrier and plateau; {over}", x=0.01, ha="left", fontsize=11)
    return figure


def _label(one: Curve, with_rate: bool) -> str:
    size = "" if one.buffer_size is None else f"  K = {one.buffer_size}"
    return f"{one.strategy}{size}" + (f"  lr {one.learning_rate:g}" if with_rate else "")
