"""Shows what each strategy's 3D generator looks like in the end: one latent from several sides, with its depth."""

from __future__ import annotations

import numpy as np

from clstudy.analysis.figures.faces import (
    Shown,
    cell_side,
    file_part,
    focus_trials,
    grid_drawing,
    label_columns,
    resized,
    shown_people,
)
from clstudy.analysis.figures.style import Drawing, drawing, gif, panel_grid
from clstudy.analysis.report_data import ReportData
from clstudy.analysis.study_folder import stage_turntable
from clstudy.images import decode_png
from clstudy.settings.profile_sections import TURNTABLE_YAWS

_FRAME_MS = 250

Sides = np.ndarray
"""Images and depths, uint8 ``[2, 5, s, s, 3]``."""


def turntables(material: ReportData) -> list[Drawing]:
    """Of the same people as the faces: a strip per strategy with all sides, and the same as an animation.

    Nothing for a study of 2D generators.
    """
    drawings: list[Drawing] = []
    for person in shown_people(material) if material.stages else []:
        sides = {
            arm.label: found
            for arm, trial in focus_trials(material, person.identity).items()
            if (found := stage_turntable(material.stages[trial][-1])) is not None
        }
        if sides:
            drawings += [_strip(sides, person), _animation(sides, person)]
    return drawings


def _strip(sides: dict[str, Sides], person: Shown) -> Drawing:
    rows = [(label if kind == 0 else "depth", list(pair[kind])) for label, pair in sides.items() for kind in (0, 1)]
    return grid_drawing(
        rows,
        [f"{yaw}°" for yaw in TURNTABLE_YAWS],
        name=f"turntable_{file_part(person.identity)}",
        title=f"{person.identity} ({person}): the last model from five sides",
        caption=_CAPTION,
        alt=f"{person.identity} from {', '.join(f'{yaw}' for yaw in TURNTABLE_YAWS)} degrees by {', '.join(sides)}.",
    )


_CAPTION = (
    "One latent, that of the last timestamp's first test photo under the pretrained generator, seen from five sides "
    "(degrees of yaw) by each strategy's model after the last timestamp, with its depth: near is bright."
)


def _animation(sides: dict[str, Sides], person: Shown) -> Drawing:
    """Strategies side by side, images above depths, turning to and fro."""
    order = [*range(len(TURNTABLE_YAWS)), *range(len(TURNTABLE_YAWS) - 2, 0, -1)]
    side = cell_side(2 * len(sides), next(iter(sides.values()))[0].shape[1])
    pictures = {index: _frame(sides, index, side) for index in set(order)}
    front = pictures[len(TURNTABLE_YAWS) // 2][0]
    return Drawing(
        name=f"{front.name}_{file_part(person.identity)}",
        title=f"{person.identity} ({person}): the last model, turning",
        caption=_CAPTION,
        alt=f"{person.identity} turning to and fro, by {', '.join(sides)}.",
        files={**front.files, "gif": gif([pictures[index][1] for index in order], _FRAME_MS)},
        figure=front.figure,
        photographic=True,
        moving=True,
    )


def _frame(sides: dict[str, Sides], index: int, side: int) -> tuple[Drawing, np.ndarray]:
    """One side as a drawing, and its pixels uint8 ``[h, w, 3]``."""
    figure, axes = panel_grid(1, 1, size=(1.2 * len(sides), 2.4), gap=(0.0, 0.0), margin=(0.1, 0.1, 0.08, 0.25))
    rows = [
        np.concatenate([resized(pictures[kind][index], side) for pictures in sides.values()], axis=1) for kind in (0, 1)
    ]
    axes[0].imshow(np.concatenate(rows), interpolation="none", aspect="auto", extent=(0, len(sides), 0, 2))
    axes[0].set(yticks=[])
    label_columns(axes[0], list(sides))
    made = drawing(figure, name="turning", title="", caption="", alt="", photographic=True)
    return made, decode_png(made.files["png"])
