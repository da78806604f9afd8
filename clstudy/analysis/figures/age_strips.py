"""Shows a person at many ages, as each strategy's model makes them, before and after it has learned other ages."""

from __future__ import annotations

import numpy as np

from clstudy.analysis.figures.faces import file_part, focus_trials, grid_drawing, shown_people
from clstudy.analysis.figures.style import Drawing
from clstudy.analysis.report_data import ReportData
from clstudy.analysis.study_folder import stage_age_strip
from clstudy.settings.profile_sections import STRIP_AGES


def age_strips(material: ReportData) -> list[Drawing]:
    """Of the same people as the faces; nothing for a study in which nobody is aged."""
    drawings = []
    for person in shown_people(material) if material.stages else []:
        rows: list[tuple[str, list[np.ndarray]]] = []
        last = 0
        for arm, trial in focus_trials(material, person.identity).items():
            stages = material.stages[trial]
            after = stage_age_strip(stages[-1])
            if after is None:
                continue
            if not rows:
                rows += [("true", list(after[0])), ("prior", list(after[1]))]
            last = stages[-1].asked.t
            # joint training has no model of timestamp 0 alone
            before = stage_age_strip(stages[0]) if last and stages[0].asked.t == 0 else None
            if before is not None:
                rows.append((f"{arm.label}, t = 0", list(before[2])))
            rows.append((f"{arm.label}, t = {last}", list(after[2])))
        if rows:
            drawings.append(
                grid_drawing(
                    rows,
                    [str(age) for age in STRIP_AGES],
                    name=f"ages_{file_part(person.identity)}",
                    title=f"{person.identity} ({person}): at {STRIP_AGES[0]} to {STRIP_AGES[-1]} years",
                    caption="A test photo of timestamp 0 aged to the years above, by the age prior alone and by each "
                    "strategy's model after timestamp 0 and after the last one. The true faces are grey where they are "
                    "not known.",
                    alt=f"{person.identity} at {len(STRIP_AGES)} ages by {', '.join(label for label, _ in rows)}.",
                )
            )
    return drawings
