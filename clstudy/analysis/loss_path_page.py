"""The report's section on the loss path, where ``python -m clstudy.loss_path`` has been run on the study."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from clstudy.analysis.html import Section, element, figure_element, joined
from clstudy.analysis.loss_path_figures import loss_path_drawings
from clstudy.analysis.loss_path_numbers import path_curves, strategy_numbers


def loss_path_sections(study: Path) -> list[Section]:
    """One section from ``report/loss_path.parquet``, or how to get it."""
    path = study / "report" / "loss_path.parquet"
    if not path.is_file():
        text = (
            f"Not computed: `python -m clstudy.loss_path runs/{study.name}` (or the path of this page's study, the "
            "folder above report/) follows the loss along the straight lines between the weights of two stages. It "
            "needs the stored weights and says first what it costs."
        )
        return [Section(anchor="loss-path", title="Loss path", body=element("p", text, class_="soft"))]
    curves = path_curves(pq.read_table(path))
    drawings = loss_path_drawings(curves, strategy_numbers(curves))
    return [
        Section(anchor="loss-path", title="Loss path", body=joined(figure_element(drawing) for drawing in drawings))
    ]
