"""The report's section on MLflow: how to get from the page to the study's runs (no MLflow needed)."""

from __future__ import annotations

from pathlib import Path

from clstudy.analysis.pages.blocks import Code, Section, paragraph
from clstudy.tracking.addresses import LOCAL_SERVER, runs_page, tracked_at
from clstudy.tracking.run_contents import CHARTS_HINT


def tracking_sections(study: Path) -> list[Section]:
    """One section from ``tracked.json``; none if the study was never tracked or the file has other content."""
    tracked = tracked_at(study)
    if tracked is None:
        return []
    experiment, server = tracked
    page = runs_page(server or LOCAL_SERVER, experiment)
    blocks = []
    if server is None:
        command = "mlflow ui --backend-store-uri sqlite:///mlflow.db"
        blocks.append(paragraph("In the folder that holds the study's folder and mlflow.db, start ", Code(command)))
    blocks.append(
        paragraph(
            "The runs, a loss curve per timestamp among their metrics, are at ",
            Code(page),
            f" (the experiment's own address opens on an empty overview). To compare strategies: {CHARTS_HINT}.",
        )
    )
    return [Section(anchor="mlflow", title="Runs in MLflow", blocks=tuple(blocks))]
