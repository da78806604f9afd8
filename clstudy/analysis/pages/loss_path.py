"""The report's section on the loss path, if ``python -m clstudy.loss_path`` was run on the study."""

from __future__ import annotations

from pathlib import Path

from clstudy.analysis.loss_path_figures import loss_path_drawings
from clstudy.analysis.loss_path_numbers import path_curves, read_loss_path, strategy_numbers
from clstudy.analysis.pages.blocks import Section, paragraph, soft_paragraph
from clstudy.analysis.pages.pictures import picture
from clstudy.errors import UserError


def loss_path_sections(study: Path) -> list[Section]:
    """One section from ``report/loss_path.parquet``, or instructions to create that file."""
    title = "Loss path"
    try:
        rows = read_loss_path(study)
    except UserError as error:
        return [Section(anchor="loss-path", title=title, blocks=(paragraph(str(error)),))]
    if rows is None:
        text = (
            f"Not computed: `python -m clstudy.loss_path runs/{study.name}` (or the path of this page's study, the "
            "folder above report/) follows the loss along the straight lines between the weights of two stages. It "
            "needs the stored weights and says first what it costs."
        )
        return [Section(anchor="loss-path", title=title, blocks=(soft_paragraph(text),))]
    curves = path_curves(rows)
    drawings = loss_path_drawings(curves, strategy_numbers(curves))
    return [Section(anchor="loss-path", title=title, blocks=tuple(map(picture, drawings)))]
