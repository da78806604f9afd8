"""Shows what editing along a semantic direction does to the oldest photo's face, before and after forgetting."""

from __future__ import annotations

import numpy as np

from clstudy.analysis.figures.faces import file_part, focus_trials, grid_drawing, shown_people
from clstudy.analysis.figures.style import Drawing
from clstudy.analysis.report_data import ReportData
from clstudy.analysis.study_folder import stage_edits, stage_faces


def edits(material: ReportData) -> list[Drawing]:
    """Of the same people as the faces; nothing for a study in which no face is edited."""
    drawings = []
    for person in shown_people(material) if material.stages else []:
        rows, last = [], 0
        for arm, trial in focus_trials(material, person.identity).items():
            stages = material.stages[trial]
            faces, after = stage_faces(stages[-1]), stage_edits(stages[-1])
            if faces is None or after is None:
                continue
            photo = faces[0, 0]
            # joint training has no model of timestamp 0 alone
            before = stage_edits(stages[0]) if stages[0].asked.t == 0 else None
            first = np.full((2, *photo.shape), 255, np.uint8) if before is None else before[:, 0]
            rows.append((arm.label, [photo, *first, *after[:, 0]]))
            last = stages[-1].asked.t
        if rows:
            drawings.append(
                grid_drawing(
                    rows,
                    ["photo", "t = 0", "edited", f"t = {last}", "edited"],
                    name=f"edits_{file_part(person.identity)}",
                    title=f"{person.identity} ({person}): the oldest face edited, before and after",
                    caption="A test photo of timestamp 0, its reconstruction by each strategy's model after timestamp "
                    "0 and after the last one, and beside each the same latent moved along the study's semantic "
                    "direction (views.edit).",
                    alt=f"The oldest face of {person.identity} edited at t = 0 and t = {last}, by "
                    f"{', '.join(label for label, _ in rows)}.",
                )
            )
    return drawings
