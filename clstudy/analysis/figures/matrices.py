"""Result matrices R[t, k] as heat maps, averaged over identities."""

from __future__ import annotations

import matplotlib
import numpy as np

from clstudy.analysis.figures.style import SEQUENCE, TEXT, Drawing, NothingToDrawError, drawing, panel_grid
from clstudy.analysis.printed import decimals_of, panel_title
from clstudy.analysis.report_data import Arm, ReportData

_SIDE, _COLUMNS = 1.55, 3
_WRITTEN_UP_TO = 6
_MOST_DIGITS = 3
"""Largest number of timestamps at which every square still has room for its value."""


def heat_maps(material: ReportData) -> list[Drawing]:
    """R of every strategy at up to three buffer sizes under the main metric, on one colour scale."""
    panel = material.panel
    if panel is None:
        raise NothingToDrawError("No trial is in the numbers yet.")
    found = material.identity_values(panel, lambda r: r)
    arms = [arm for arm in found if arm.buffer_size in (None, *material.shown_sizes)]
    means = {arm: mean_matrix(list(found[arm].values())) for arm in arms}
    size = max(len(mean) for mean in means.values())
    if size < 2:
        raise NothingToDrawError("With one timestamp R is a single number: see the table.")
    every = np.concatenate([mean[np.isfinite(mean)] for mean in means.values()])
    # bright is good, whatever the metric's direction
    colours = matplotlib.colormaps[SEQUENCE if material.metrics[panel[1]].higher_is_better else f"{SEQUENCE}_r"]
    scale = matplotlib.colors.Normalize(float(every.min()), float(every.max()) or 1.0)
    slots = _slots(arms, material.shown_sizes)
    figure, axes = panel_grid(
        [arm is not None for arm in slots],
        _COLUMNS,
        size=(_SIDE, _SIDE),
        gap=(0.35, 0.5),
        margin=(0.5, 0.95, 0.45, 0.35),
    )
    width, height = figure.get_size_inches()
    drawn = [(place, arm) for place, arm in enumerate(slots) if arm is not None]
    for (place, arm), panel_axes in zip(drawn, axes, strict=True):
        mean = means[arm]
        image = panel_axes.pcolormesh(mean, cmap=colours, norm=scale, edgecolors="white", linewidth=0.6)
        panel_axes.set(xlim=(0, size), ylim=(size, 0), aspect="equal")
        ticks = range(0, size, 1 if size <= 10 else 5)
        panel_axes.set_xticks([k + 0.5 for k in ticks], [str(k) for k in ticks])
        panel_axes.set_yticks([t + 0.5 for t in ticks], [str(t) for t in ticks])
        panel_axes.tick_params(length=0, labelsize=TEXT - 1)
        for side in panel_axes.spines.values():
            side.set_visible(False)
        panel_axes.set_title(arm.label, loc="left", fontsize=TEXT, fontweight="bold")
        if place % _COLUMNS == 0:
            panel_axes.set_ylabel("trained up to t")
        if place + _COLUMNS >= len(slots) or slots[place + _COLUMNS] is None:
            panel_axes.set_xlabel("test photos of k", labelpad=1)
        if size <= _WRITTEN_UP_TO:
            digits = min(decimals_of(material.metrics, panel), _MOST_DIGITS)
            for t, k in np.argwhere(np.isfinite(mean)):
                shade = np.dot(colours(scale(mean[t, k]))[:3], (0.299, 0.587, 0.114))
                panel_axes.text(
                    k + 0.5, t + 0.5, f"{mean[t, k]:.{digits}f}".replace("0.", ".", 1), ha="center", va="center",
                    fontsize=5.5, color="black" if shade > 0.5 else "white",
                )  # fmt: skip
    bar = figure.add_axes((1 - 0.75 / width, 1 - (0.35 + _SIDE) / height, 0.12 / width, _SIDE / height))
    figure.colorbar(image, cax=bar).ax.tick_params(labelsize=TEXT - 1)
    word = "higher" if material.metrics[panel[1]].higher_is_better else "lower"
    left_out = [size for size in material.sizes if size not in material.shown_sizes]
    return [
        drawing(
            figure,
            name="result_matrices",
            title=f"Result matrices: {panel_title(material.metrics, panel)}",
            caption=f"R[t, k], mean over identities (and seeds): row t is the model after timestamp t, column k the "
            f"test photos of timestamp k; brighter is better ({word} values). A column that darkens downwards is being "
            f"forgotten.{_left_out(left_out)}{material.rate_note}",
            alt=f"Heat maps of R for {', '.join(arm.label for arm in arms)}.",
        )
    ]


def _slots(arms: list[Arm], sizes: tuple[int, ...]) -> list[Arm | None]:
    """Positions in the grid: strategies without a buffer first, then a row per strategy if there are several sizes."""
    flat: list[Arm | None] = [arm for arm in arms if arm.buffer_size is None]
    if len(sizes) < 2:
        return [*flat, *(arm for arm in arms if arm.buffer_size is not None)]
    flat += [None] * (-len(flat) % _COLUMNS)
    for name in dict.fromkeys(arm.strategy for arm in arms if arm.buffer_size is not None):
        row = [Arm(name, size) if Arm(name, size) in arms else None for size in sizes]
        flat += row + [None] * (_COLUMNS - len(row))
    return flat


def mean_matrix(matrices: list[np.ndarray]) -> np.ndarray:
    """Mean over identities ``[T, T]``; a cell averages the identities that have this many timestamps."""
    size = max(len(r) for r in matrices)
    padded = np.full((len(matrices), size, size), np.nan)
    for place, r in enumerate(matrices):
        padded[place, : len(r), : len(r)] = r
    there = np.isfinite(padded)
    total = np.where(there, padded, 0.0).sum(axis=0)
    mean: np.ndarray = np.divide(total, there.sum(axis=0), out=np.full((size, size), np.nan), where=there.any(axis=0))
    return mean


def _left_out(sizes: list[int]) -> str:
    return f" Not shown: K = {', '.join(map(str, sizes))}." if sizes else ""
