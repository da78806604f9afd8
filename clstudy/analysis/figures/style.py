"""The style of figures: palette, panels placed in inches, direct labels that do not collide, files without a date."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from scipy.optimize import isotonic_regression

# Okabe and Ito's palette: distinguishable with any colour vision; yellow is left out (too light on white).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#444444")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))
BOUND = "#777777"
INK = "#222222"
SEQUENCE = "cividis"  # by lightness, and made for colour-blind readers
TEXT = 8.0
DPI = 150


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A finished figure: file name stem, texts about it, and file contents by kind ("svg", "png"; "gif": it moves).

    ``photographic``: made of photos, so that a page should embed it as a compressed picture and not as SVG.
    ``moving``: a page embeds the GIF.
    ``first``: one of those that a page shows at its top.
    ``folded``: one of many alike, which a page folds away, or only links.
    ``dpi``: of the PNG.
    """

    name: str
    title: str
    caption: str
    alt: str
    files: Mapping[str, bytes]
    figure: Figure = field(repr=False, compare=False)
    photographic: bool = False
    moving: bool = False
    first: bool = False
    folded: bool = False
    dpi: int = DPI


class NothingToDrawError(Exception):
    """The study does not have the data for a figure; the message is a sentence for the report."""


@contextmanager
def quiet_text() -> Iterator[None]:
    """Draw names as plain text, never as mathematics: a strategy or a folder may be called anything."""
    with matplotlib.rc_context({"text.parse_math": False, "font.size": TEXT, "axes.linewidth": 0.7}):
        yield


def drawing(
    figure: Figure, *, name: str, title: str, caption: str, alt: str, photographic: bool = False, first: bool = False
) -> Drawing:
    """Encode a figure as SVG and PNG."""
    files = {kind: encode(figure, kind) for kind in ("svg", "png")}
    return Drawing(
        name=name,
        title=title,
        caption=caption,
        alt=alt,
        files=files,
        figure=figure,
        photographic=photographic,
        first=first,
    )


def encode(figure: Figure, kind: str) -> bytes:
    """The figure as "svg" or "png" bytes, without a date and with fixed element names."""
    sink = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "clstudy", "svg.fonttype": "none", "text.parse_math": False}):
        figure.savefig(sink, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    return sink.getvalue()


def gif(frames: Sequence[np.ndarray], milliseconds: int) -> bytes:
    """Pictures uint8 ``[h, w, 3]``, one after the other for ever."""
    sink = io.BytesIO()
    first, *others = map(Image.fromarray, frames)
    first.save(sink, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    return sink.getvalue()


def panel_grid(
    slots: int | Sequence[bool],
    columns: int,
    *,
    size: tuple[float, float],
    gap: tuple[float, float] = (0.3, 0.45),
    margin: tuple[float, float, float, float] = (0.6, 0.2, 0.45, 0.35),
) -> tuple[Figure, list[Axes]]:
    """Panels of ``size`` inches in rows of ``columns``; margin: left, right, bottom, top in inches.

    Panels are placed explicitly: automatic layout is slow with many panels.

    Args:
        slots: how many panels, or for every position in the grid whether it has one.
    """
    taken = [True] * slots if isinstance(slots, int) else list(slots)
    count = len(taken)
    columns = min(count, columns)
    rows = -(-count // columns)
    left, right, bottom, top = margin
    width = left + columns * size[0] + (columns - 1) * gap[0] + right
    height = bottom + rows * size[1] + (rows - 1) * gap[1] + top
    figure = Figure(figsize=(width, height))
    panels = []
    for place in (place for place in range(count) if taken[place]):
        row, column = divmod(place, columns)
        x = left + column * (size[0] + gap[0])
        y = height - top - size[1] - row * (size[1] + gap[1])
        panels.append(figure.add_axes((x / width, y / height, size[0] / width, size[1] / height)))
    return figure, panels


def bare(axes: Axes, grid: Literal["both", "x", "y"] = "y") -> None:
    """Axes without box, with light lines along ``grid``."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis=grid, color="#e2e2e2", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=2.5, width=0.7, labelsize=TEXT - 0.5)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """Positions for labels: as close to ``wanted`` as can be (least squares), ``gap`` or more apart, within the limits.

    If they do not all fit between ``low`` and ``high``, the distance is kept rather than the limits.
    """
    if not len(wanted):
        return np.zeros(0)
    targets = np.asarray(wanted, dtype=np.float64)
    order = np.argsort(targets, kind="stable")
    steps = gap * np.arange(len(targets))
    # z[i] = y[i] - i * gap must not decrease: isotonic regression, and its bounded form is its clipped form.
    free = isotonic_regression(targets[order] - steps).x
    room = high - steps[-1]
    places = np.empty(len(targets))
    places[order] = np.clip(free, min(low, room), max(low, room)) + steps
    return places


def interval_line(axes: Axes, x: Sequence[float], rows: Sequence[Mapping[str, Any]], number: int) -> None:
    """A line through the means of rows at ``x``, with a bar from ``low`` to ``high`` where a row has an interval.

    ``number`` selects colour, marker and dashes, so that a strategy looks alike in all panels.
    """
    colour = PALETTE[number % len(PALETTE)]
    dash = DASHES[number // len(PALETTE) % len(DASHES)]
    for place, row in zip(x, rows, strict=True):
        if row["low"] is not None:
            axes.plot([place, place], [row["low"], row["high"]], color=colour, linewidth=1.0)
    means = [row["mean"] for row in rows]
    axes.plot(
        x, means, color=colour, linewidth=1.4, linestyle=dash, marker=MARKERS[number % len(MARKERS)], markersize=4
    )


def label_ends(
    axes: Axes, ends: Sequence[tuple[float, float, str, str]], *, height: float, x: float = 1.02, room: float = 0.12
) -> None:
    """Direct labels right of the axes, one per line.

    Args:
        ends: (x, y, text, colour) of each line's end, in data coordinates.
        height: of the axes, in inches.
        x: position of the labels, and ``room`` their distance from the axes' edge, as shares of the axes' width.
    """
    low, high = axes.get_ylim()
    gap = 1.3 * TEXT / 72 / height * (high - low)
    heights = spread([y for _, y, _, _ in ends], gap, low + gap / 2, high - gap / 2)
    over = axes.get_yaxis_transform()
    left = axes.get_xlim()[0]
    width = axes.get_xlim()[1] - left
    for (end, y, text, colour), place in zip(ends, heights, strict=True):
        start = (end - left) / width
        axes.plot([start, x + room - 0.02], [y, place], transform=over, color=colour, linewidth=0.6, clip_on=False)
        axes.text(x + room, place, text, transform=over, color=INK, va="center", fontsize=TEXT)


def shades(count: int) -> list[str]:
    """Light to dark blue, for ordered quantities such as buffer sizes; a single one is dark."""
    places = np.array([0.8]) if count == 1 else np.linspace(0.45, 0.95, count)
    return [_hex(value) for value in matplotlib.colormaps["Blues"](places)]


def timestamp_colours(count: int) -> list[str]:
    """One colour per timestamp, by lightness."""
    return [_hex(value) for value in matplotlib.colormaps[SEQUENCE](np.linspace(0.05, 0.95, max(count, 2)))][:count]


def _hex(colour: Sequence[float]) -> str:
    red, green, blue = colour[:3]
    return matplotlib.colors.to_hex((red, green, blue))
