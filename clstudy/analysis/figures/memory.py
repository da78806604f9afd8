"""The contents of buffers: photos of which timestamps over time, and their position among the latents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from scipy.spatial import ConvexHull, QhullError

from clstudy.analysis.figures.faces import file_part
from clstudy.analysis.figures.style import (
    INK,
    TEXT,
    Drawing,
    NothingToDrawError,
    bare,
    drawing,
    panel_grid,
    timestamp_colours,
)
from clstudy.analysis.matrix import Trial
from clstudy.analysis.report_data import Arm, ReportData
from clstudy.analysis.study_folder import StoredStage, anchor_latents

_COLUMNS = 3
_MOST_STRATEGIES = 4
_MOST_MOMENTS = 4
_NO_STAGES = "The study's folder does not hold the stages of its trials (stages/), which say what was stored."
_NO_BUFFER = "No strategy of this study stores photos."


def composition(material: ReportData) -> list[Drawing]:
    """How many stored photos of each earlier timestamp are trained with at t, mean over trials."""
    counts = {arm: stored for arm in _storing_arms(material) if len(stored := stored_counts(material, arm)) > 1}
    counts = {arm: stored for arm, stored in counts.items() if arm.buffer_size in material.shown_sizes}
    if not counts:
        raise NothingToDrawError("Buffers are empty at the first timestamp, and there is no second one.")
    size = max(len(stored) for stored in counts.values())
    colours = timestamp_colours(size)
    columns = _COLUMNS if len(material.shown_sizes) != 2 else 2
    panel = (1.7, 1.35)
    figure, axes = panel_grid(len(counts), columns, size=panel, gap=(0.45, 0.5), margin=(0.5, 0.35, 0.45, 0.35))
    for place, ((arm, stored), panel_axes) in enumerate(zip(counts.items(), axes, strict=True)):
        top = max(stored.sum(axis=1).max(), 1)
        for t in range(1, len(stored)):
            base = 0.0
            for k in np.flatnonzero(stored[t]):
                share = stored[t, k]
                panel_axes.bar(t, share, bottom=base, width=0.86, color=colours[k], edgecolor="white", linewidth=0.5)
                if share / top * panel[1] * 72 > TEXT and size <= 12:
                    shade = "white" if k < size / 2 else "black"
                    panel_axes.text(t, base + share / 2, str(k), ha="center", va="center", fontsize=6, color=shade)
                base += share
        panel_axes.set_xticks(range(1, size, 1 if size <= 10 else 2))
        panel_axes.set_xlim(0.4, size - 0.4)
        bare(panel_axes)
        panel_axes.set_title(arm.label, loc="left", fontsize=TEXT, fontweight="bold")
        if place % columns == 0:
            panel_axes.set_ylabel("stored photos")
        if place >= len(counts) - columns:
            panel_axes.set_xlabel("timestamp t")
    return [
        drawing(
            figure,
            name="buffer_composition",
            title="Which timestamps' photos are stored",
            caption="Stored photos (or stored anchors, for strategies that generate their replays) trained with at "
            "timestamp t, by the timestamp they come from (the number in the bar; dark is old); mean over identities "
            f"and seeds.{material.rate_note}",
            alt=f"Stacked bars over time, a panel for each of {', '.join(arm.label for arm in counts)}.",
        )
    ]


def stored_counts(material: ReportData, arm: Arm) -> np.ndarray:
    """Mean number of stored photos ``[T, T]``: at timestamp t (row), from timestamp k (column)."""
    found = []
    for trial, stages in material.stages.items():
        if (trial.strategy, trial.buffer_size) == arm:
            counts = np.zeros((len(stages), len(stages)))
            for note in stages:
                for k, count in Counter(timestamp for timestamp, _ in note.asked.stored).items():
                    counts[note.asked.t, k] = count
            found.append(counts)
    size = max((len(counts) for counts in found), default=0)
    total, trials = np.zeros((size, size)), np.zeros((size, 1))
    for counts in found:
        total[: len(counts), : len(counts)] += counts
        trials[: len(counts)] += 1
    return total / np.maximum(trials, 1)


@dataclass(frozen=True, kw_only=True)
class _Plane:
    """A person's anchors in their first two principal components.

    Attributes:
        flat: all of them ``[n, 2]``.
        share: of their variance.
        where: digest of a photo -> its place.
        timestamps: how many there are.
    """

    flat: np.ndarray
    share: float
    where: dict[str, np.ndarray]
    timestamps: int


def latents(material: ReportData) -> list[Drawing]:
    """Everybody's anchors in their first two principal components, with the stored ones and their hull, for every K.

    The first person at the focus size comes first; the others are drawn for a page to fold away.
    """
    storing = _storing_arms(material)
    focus = material.focus_size
    sizes = sorted({arm.buffer_size or 0 for arm in storing})
    drawings: list[Drawing] = []
    reasons: list[NothingToDrawError] = []
    for identity in sorted({trial.identity for trial in material.stages}):
        trials = {arm: trial for arm in storing if (trial := material.trial_of(arm, identity))}
        try:
            plane = _plane_of(material, identity, list(trials.values()))
        except NothingToDrawError as reason:
            reasons.append(reason)
            continue
        for size in sizes if drawings else sorted(sizes, key=lambda size: size != focus):
            chosen = _chosen([arm for arm in trials if arm.buffer_size == size])
            if chosen:
                stages = {arm: material.stages[trials[arm]] for arm in chosen}
                found = _latents_of(identity, size, stages, plane, material.rate_note)
                drawings.append(replace(found, folded=bool(drawings)))
    if not drawings:
        raise reasons[0]
    return drawings


def _plane_of(material: ReportData, identity: str, trials: Sequence[Trial]) -> _Plane:
    """A person's anchors, which are the same in all their trials."""
    if not trials:
        raise NothingToDrawError(f"No stages with stored photos of {identity} are in the study's folder.")
    last = material.stages[trials[0]][-1]
    parts = [anchor_latents(material.summary.study.folder, last, k) for k in range(len(last.asked.anchored))]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or len(parts) < 2:
        raise NothingToDrawError("The anchors of the photos are not in the study's folder (anchors/).")
    flat, share = principal_plane(np.concatenate(known))
    where = dict(zip([digest for digests in last.asked.anchored for digest in digests], flat, strict=True))
    return _Plane(flat=flat, share=share, where=where, timestamps=len(parts))


def _chosen(arms: list[Arm]) -> list[Arm]:
    """The few arms that a figure has room for, in the plan's order; er_rand and er_hull go before others."""
    first = sorted(arms, key=lambda arm: (arm.strategy not in ("er_rand", "er_hull"), arms.index(arm)))
    return sorted(first[:_MOST_STRATEGIES], key=arms.index)


def _latents_of(
    identity: str, size: int, stages: Mapping[Arm, Sequence[StoredStage]], plane: _Plane, rate_note: str
) -> Drawing:
    """One person's anchors, and what arms of one buffer size stored of them at several timestamps."""
    moments = _spread_out(range(1, plane.timestamps), _MOST_MOMENTS)
    figure, axes = panel_grid(
        len(stages) * len(moments), len(moments), size=(1.6, 1.6), gap=(0.12, 0.12), margin=(0.4, 0.2, 0.2, 0.35)
    )
    colours = timestamp_colours(plane.timestamps)
    low, high = plane.flat.min(axis=0), plane.flat.max(axis=0)
    pad = 0.08 * float((high - low).max())
    for place, panel_axes in enumerate(axes):
        arm, t = list(stages)[place // len(moments)], moments[place % len(moments)]
        _scatter(panel_axes, stages[arm][t], plane.where, colours)
        panel_axes.set(xlim=(low[0] - pad, high[0] + pad), ylim=(low[1] - pad, high[1] + pad), xticks=[], yticks=[])
        if place % len(moments) == 0:
            panel_axes.set_ylabel(arm.label, fontsize=TEXT, fontweight="bold")
        if place < len(moments):
            panel_axes.set_title(f"t = {t}", loc="left", fontsize=TEXT)
    return drawing(
        figure,
        name=f"latents_{file_part(identity)}_K{size}",
        title=f"Latents, hull and stored photos of {identity}, K = {size}",
        caption=f"Every dot is the anchor of a training photo of an earlier timestamp, coloured by timestamp (dark "
        f"is old, its number stands below); ringed ones are stored at t, the outline is the projection of their "
        f"convex hull, crosses are the new photos of t. First two principal components of this person's anchors "
        f"({plane.share:.0%} of their variance), so distances in the other dimensions are not seen.{rate_note}",
        alt=f"Scatter plots at t = {', '.join(map(str, moments))} for {', '.join(arm.label for arm in stages)}.",
    )


def _scatter(axes: Axes, stage: StoredStage, where: dict[str, np.ndarray], colours: list[str]) -> None:
    stored = {digest for _, digest in stage.asked.stored}
    for k, digests in enumerate(stage.asked.anchored):
        points = np.array([where[digest] for digest in digests])
        if k == stage.asked.t:
            axes.scatter(points[:, 0], points[:, 1], marker="x", s=12, linewidths=0.7, color="#8a8a8a")
            continue
        axes.scatter(points[:, 0], points[:, 1], s=9, color=colours[k], linewidths=0)
        axes.annotate(
            str(k), tuple(points.mean(axis=0)), xytext=(-7, -9), textcoords="offset points", fontsize=TEXT, color=INK
        )
    kept = np.array([where[digest] for digest in sorted(stored) if digest in where])
    if len(kept):
        axes.scatter(kept[:, 0], kept[:, 1], s=42, facecolors="none", edgecolors="#D55E00", linewidths=1.3)
        outline = hull_outline(kept)
        axes.fill(*outline.T, facecolor="#D55E00", alpha=0.10, edgecolor="none")
        axes.plot(*np.vstack([outline, outline[:1]]).T, color="#D55E00", linewidth=1.0)


def principal_plane(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Project ``[n, d]`` on the first two principal components: ``[n, 2]`` and their share of the variance.

    The sign of a component is arbitrary: its coordinate of largest size is made positive, for equal pictures
    everywhere.
    """
    centred = points - points.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    plane = centred @ axes.T
    plane = np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
    total = float((singular**2).sum())
    return plane, float((singular[:2] ** 2).sum()) / total if total else 1.0


def hull_outline(points: np.ndarray) -> np.ndarray:
    """Corners of the convex hull of ``[n, 2]`` in order; points on a line (or fewer than 3) give its ends."""
    if len(points) >= 3:
        try:
            corners: np.ndarray = points[ConvexHull(points).vertices]
            return corners
        except QhullError:
            pass
    along = points @ (points[np.abs(points - points[0]).sum(axis=1).argmax()] - points[0])
    return points[[int(along.argmin()), int(along.argmax())]]


def _storing_arms(material: ReportData) -> list[Arm]:
    if not material.stages:
        raise NothingToDrawError(_NO_STAGES)
    storing = {
        Arm(trial.strategy, trial.buffer_size)
        for trial, stages in material.stages.items()
        if any(stage.asked.stored for stage in stages)
    }
    arms = [arm for arm in material.arms if arm in storing]
    if not arms:
        raise NothingToDrawError(_NO_BUFFER)
    return arms


def _spread_out(moments: range, most: int) -> list[int]:
    """All values, or ``most`` of them, evenly spread and with both ends."""
    places = np.linspace(0, len(moments) - 1, min(most, len(moments))).round().astype(int)
    return [moments[int(place)] for place in places]
