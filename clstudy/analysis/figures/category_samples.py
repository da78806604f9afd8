"""Shows what each strategy's class-conditional GAN generates of every category in the end."""

from __future__ import annotations

from clstudy.analysis.figures.faces import file_part, focus_trials, grid_drawing, shown_people
from clstudy.analysis.figures.style import Drawing
from clstudy.analysis.report_data import ReportData
from clstudy.analysis.study_folder import stage_samples

_OF_CATEGORY = 3
"""Images of each category that are shown; odd, so that the label stands above the middle one."""


def category_samples(material: ReportData) -> list[Drawing]:
    """Of the same orders as the faces; nothing for a study that generates no categories."""
    drawings = []
    for person in shown_people(material) if material.stages else []:
        identity = person.identity
        samples = {
            arm.label: found[:, :_OF_CATEGORY]
            for arm, trial in focus_trials(material, identity).items()
            if (found := stage_samples(material.stages[trial][-1])) is not None
        }
        if samples:
            count = len(next(iter(samples.values())))
            rows = [(label, list(found.reshape(-1, *found.shape[2:]))) for label, found in samples.items()]
            beside = [""] * (_OF_CATEGORY // 2)
            columns = [label for k in range(count) for label in (*beside, f"k = {k}", *beside)]
            drawings.append(
                grid_drawing(
                    rows,
                    columns,
                    name=f"samples_{file_part(identity)}",
                    title=f"{identity} ({person}): generated images of every category in the end",
                    caption="Images that each strategy's model generates of the category of timestamp k after the last "
                    "timestamp, from the same latents for every strategy.",
                    alt=f"Generated images of {count} categories of {identity}, by {', '.join(samples)}.",
                )
            )
    return drawings
