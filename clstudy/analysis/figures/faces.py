"""Shows test photos and their reconstructions, the images behind the scores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from clstudy.analysis.figures.style import (
    INK,
    TEXT,
    Drawing,
    NothingToDrawError,
    drawing,
    encode,
    gif,
    panel_grid,
)
from clstudy.analysis.matrix import Trial
from clstudy.analysis.printed import number, panel_title
from clstudy.analysis.report_data import Arm, ReportData
from clstudy.analysis.study_folder import StoredStage, stage_faces
from clstudy.images import decode_png

_CELL = 0.62
_MOST_PIXELS = 3_000_000
_SIDES = (256, 128, 64)
_SHOWN = 3
_FRAME_MS = 700
_PHOTO = "test photo"
_MADE = {
    "class_gan": "an image generated of its category",
    "ageing": "what a photo of another age becomes at this one's age",
}
"""Workload -> what is below a test photo, if that is not its reconstruction."""
_CHOSEN = (
    " Of all people these are the best, the median and the worst by their final score, averaged over strategies and "
    "timestamps."
)
_WORST = " The person with the worst final score, on whom forgetting is seen most easily: not a typical one."


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A person whose faces are shown, with rank, number of people and final score."""

    identity: str
    place: str
    people: int
    score: str

    def __str__(self) -> str:
        if self.people == 1:
            return f"the only person: {self.score}"
        return f"{self.place} of {self.people} people: {self.score}"


def face_grids(material: ReportData) -> list[Drawing]:
    """Each strategy's reconstructions for the best, the median and the worst person, and for the worst one over t.

    Simply taking the first people would not show the study's range: an average may hide people with lost faces.
    """
    if not material.stages:
        raise NothingToDrawError(
            "The study's folder does not hold the stages of its trials (stages/), nor their faces."
        )
    shown = shown_people(material)
    if not shown:
        raise NothingToDrawError("No person with stages in the study's folder has all values of the main metric.")
    drawings = [_final_grid(material, person) for person in shown] + [_oldest_grid(material, shown[-1])]
    found = [drawing for drawing in drawings if drawing is not None]
    if not found:
        raise NothingToDrawError("No stage in the study's folder has its pictures of faces (faces.png).")
    return found


def shown_people(material: ReportData) -> list[Shown]:
    """The best, the median and the worst person by the main metric, in this order; everybody if there are fewer.

    A person's score is the mean of the last row of R over the strategies that the figure shows (those that all people
    have, so that nobody looks better because a bad strategy has not finished). Among equal scores the first name counts
    as better; of two people in the middle the better one is the median.
    """
    if material.panel is None:
        return []
    metric = material.panel[1]
    values = material.identity_values(material.panel, lambda r: r[-1].mean())
    there = {trial.identity for trial in material.stages}
    by_arm = [
        {name: float(score) for name, score in values[arm].items() if name in there}
        for arm in material.focus_arms
        if arm in values
    ]
    people = set().union(*by_arm)
    shared = [scores for scores in by_arm if scores.keys() == people]
    means = {name: np.mean([scores[name] for scores in shared or by_arm if name in scores]) for name in people}
    sign = -1 if material.metrics[metric].higher_is_better else 1
    ranked = sorted(people, key=lambda name: (sign * means[name], name))
    last = len(ranked) - 1
    title = panel_title(material.metrics, material.panel)
    places = {0: "best", last // 2: "median", last: "worst"} if last > 1 else {0: "best", last: "worst"}
    return [
        Shown(
            identity=ranked[index],
            place=place,
            people=len(ranked),
            score=f"{title} {number(float(means[ranked[index]]), material.digits)}",
        )
        for index, place in sorted(places.items())
        if index <= last
    ]


def focus_trials(material: ReportData, identity: str) -> dict[Arm, Trial]:
    """A person's trials of the strategies that figures show."""
    found = {arm: material.trial_of(arm, identity) for arm in material.focus_arms}
    return {arm: trial for arm, trial in found.items() if trial is not None}


def _final_grid(material: ReportData, person: Shown) -> Drawing | None:
    rows: dict[str, list[np.ndarray]] = {}
    for arm, trial in focus_trials(material, person.identity).items():
        faces = stage_faces(material.stages[trial][-1])
        if faces is not None:
            rows.setdefault(_PHOTO, list(faces[0]))
            rows[arm.label] = list(faces[1])
    if not rows:
        return None
    count = len(rows[_PHOTO])
    return grid_drawing(
        list(rows.items()),
        [f"k = {k}" for k in range(count)],
        name=f"faces_{file_part(person.identity)}",
        title=f"{person.identity} ({person}): every timestamp in the end",
        caption=f"Top: one test photo of each timestamp k. Below: {made_of(material)} by each strategy's model after "
        f"the last timestamp; what was forgotten is furthest from the photo."
        f"{_CHOSEN if person.people > _SHOWN else ''}{material.rate_note}",
        alt=f"{person.identity} ({person}): {count} test photos, and under each {made_of(material)} by "
        f"{', '.join(list(rows)[1:])}.",
    )


def _oldest_grid(material: ReportData, person: Shown) -> Drawing | None:
    rows: dict[str, list[np.ndarray]] = {}
    for arm, trial in focus_trials(material, person.identity).items():
        if arm.strategy in material.summary.study.joint_strategies:
            continue
        over_time = oldest_photo(material.stages[trial])
        if over_time is not None and len(over_time[1]) > 1:
            rows.setdefault(_PHOTO, over_time[0])
            rows[arm.label] = over_time[1]
    if not rows:
        return None
    moments = len(rows[_PHOTO])
    grid = grid_drawing(
        list(rows.items()),
        [f"t = {t}" for t in range(moments)],
        name=f"oldest_face_{file_part(person.identity)}",
        title=f"{person.identity} ({person}): the oldest timestamp's photo over time",
        caption=f"Top: a test photo of timestamp 0. Below: {made_of(material)} after training on timestamp t; the GIF "
        "shows the same, one timestamp after the other."
        f"{_WORST if person.people > 1 else ''}",
        alt=f"{person.identity} ({person}): a test photo and {made_of(material)} after t = 0 to {moments - 1} by "
        f"{', '.join(list(rows)[1:])}.",
        first=True,
    )
    return replace(grid, files={**grid.files, "gif": gif(_frames(rows), _FRAME_MS)})


def _frames(rows: Mapping[str, Sequence[np.ndarray]]) -> list[np.ndarray]:
    """The rows of a grid side by side, one picture ``[h, w, 3]`` for each column."""
    return [_frame({label: faces[t] for label, faces in rows.items()}, t) for t in range(len(rows[_PHOTO]))]


def _frame(faces: Mapping[str, np.ndarray], t: int) -> np.ndarray:
    figure, axes = panel_grid(1, 1, size=(1.3 * len(faces), 1.3), gap=(0.0, 0.0), margin=(0.1, 0.1, 0.3, 0.25))
    side = cell_side(len(faces), max(map(len, faces.values())))
    strip = np.concatenate([resized(face, side) for face in faces.values()], axis=1)
    axes[0].imshow(strip, interpolation="none", aspect="auto", extent=(0, len(faces), 0, 1))
    axes[0].set(yticks=[])
    label_columns(axes[0], list(faces))
    axes[0].set_xlabel(f"after t = {t}", fontsize=TEXT, color=INK)
    return decode_png(encode(figure, "png"))


def oldest_photo(stages: Sequence[StoredStage]) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """The first test photo of timestamp 0, and what each stage made of it: ``[s, s, 3]`` per stage each.

    None if a stage has no pictures of faces in the study's folder.
    """
    faces = [stage_faces(stage) for stage in stages]
    there = [pair for pair in faces if pair is not None]
    if not there or len(there) < len(faces):
        return None
    return [photos[0] for photos, _ in there], [made[0] for _, made in there]


def made_of(material: ReportData) -> str:
    """What a model makes of a test photo, for captions."""
    return _MADE.get(material.summary.study.workload, "its reconstruction")


def grid_drawing(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]],
    columns: Sequence[str],
    *,
    name: str,
    title: str,
    caption: str,
    alt: str,
    first: bool = False,
) -> Drawing:
    """Rows of square pictures uint8 ``[s, s, 3]`` with their labels, under the labels of the columns."""
    side = cell_side(len(rows) * len(columns), max(len(face) for _, faces in rows for face in faces))
    labels = 0.4 + 0.068 * max(len(label) for label, _ in rows)
    figure, axes = panel_grid(
        len(rows), 1, size=(_CELL * len(columns), _CELL), gap=(0.0, 0.03), margin=(labels, 0.1, 0.08, 0.25)
    )
    for place, ((label, faces), panel_axes) in enumerate(zip(rows, axes, strict=True)):
        strip = np.concatenate([resized(face, side) for face in faces], axis=1)
        panel_axes.imshow(strip, interpolation="none", aspect="auto", extent=(0, len(faces), 0, 1))
        panel_axes.set(yticks=[], xlim=(0, len(columns)), ylim=(0, 1))
        label_columns(panel_axes, columns if place == 0 else [])
        panel_axes.text(
            -0.06, 0.5, label, ha="right", va="center", fontsize=TEXT, color=INK,
            fontweight="bold" if label == _PHOTO else "normal",
        )  # fmt: skip
    return drawing(figure, name=name, title=title, caption=caption, alt=alt, photographic=True, first=first)


def label_columns(axes: Axes, columns: Sequence[str]) -> None:
    """Labels above columns of width 1, and no frame."""
    axes.set_xticks([i + 0.5 for i in range(len(columns))], columns)
    axes.tick_params(length=0, labelsize=TEXT, labeltop=bool(columns), labelbottom=False, pad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)


def cell_side(cells: int, native: int) -> int:
    """Pixels per face: the native size, or the largest of ``_SIDES`` that keeps a grid small enough to embed."""
    fitting = [side for side in (native, *_SIDES) if side <= min(native, _SIDES[0]) and cells * side**2 <= _MOST_PIXELS]
    return max(fitting, default=min(native, _SIDES[-1]))


def resized(face: np.ndarray, side: int) -> np.ndarray:
    """The face ``[side, side, 3]``."""
    if face.shape[0] == side:
        return face
    return np.asarray(Image.fromarray(face).resize((side, side), Image.Resampling.LANCZOS))


def file_part(name: str) -> str:
    """Part of a file name that is unique to each person: if characters are replaced, a digest of the name is added."""
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)[:80]
    return safe if safe == name else f"{safe}_{hashlib.sha256(name.encode()).hexdigest()[:6]}"
