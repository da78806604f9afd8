"""Shows what each strategy's class-conditional GAN generates of every category in the end."""

from __future__ import annotations

import numpy as np

from clstudy.analysis.figures.faces import file_part, focus_trials, grid_drawing
from clstudy.analysis.figures.style import Drawing
from clstudy.analysis.report_data import ReportData
from clstudy.analysis.study_folder import stage_samples

_OF_CATEGORY = 3
"""Images of each category that are shown."""


def category_samples(material: ReportData) -> list[Drawing]:
    """One grid for each of the first orders; nothing for a study that generates no categories."""
    drawings = []
    people = sorted({trial.identity for trial in material.stages})
    for identity in people[:2]:
        rows: list[tuple[str, list[np.ndarray]]] = []
        for arm, trial in focus_trials(material, identity).items():
            found = stage_samples(material.stages[trial][-1])
            if found is not None:
                rows.append((arm.label, [image for row in found for image in row[:_OF_CATEGORY]]))
        if rows:
            count = max(len(images) for _, images in rows) // _OF_CATEGORY
            middle = _OF_CATEGORY // 2
            columns = [f"k = {place // _OF_CATEGORY}" if place % _OF_CATEGORY == middle else ""
                       for place in range(count * _OF_CATEGORY)]  # fmt: skip
            drawings.append(
                grid_drawing(
                    rows,
                    columns,
                    name=f"samples_{file_part(identity)}",
                    title=f"{identity}: generated images of every category in the end",
                    caption="Images that each strategy's model generates of the category of timestamp k after the last "
                    "timestamp, from the same latents for every strategy.",
                    alt=f"Generated images of {count} categories of {identity}, by "
                    f"{', '.join(label for label, _ in rows)}.",
                )
            )
    return drawings
