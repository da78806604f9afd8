"""A study's results as figures (SVG and PNG); equal studies give equal bytes.

Every figure is a function ``(ReportData) -> list[Drawing]`` that raises ``NothingToDrawError`` with a sentence if
the study does not have the data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from clstudy.analysis.figures.age_strips import age_strips
from clstudy.analysis.figures.category_samples import category_samples
from clstudy.analysis.figures.curves import against_buffer_size, against_learning_rate, ap_over_time, timestamp_lines
from clstudy.analysis.figures.edits import edits
from clstudy.analysis.figures.faces import face_grids
from clstudy.analysis.figures.forest import COLOURS, differences, forest_plot, forest_plots
from clstudy.analysis.figures.horizons import against_bytes, against_timestamps
from clstudy.analysis.figures.improvement import improvements
from clstudy.analysis.figures.matrices import heat_maps
from clstudy.analysis.figures.memory import composition, latents
from clstudy.analysis.figures.strategies_over_time import strategies_over_time
from clstudy.analysis.figures.style import Drawing, NothingToDrawError, encode, quiet_text
from clstudy.analysis.figures.turntables import turntables
from clstudy.analysis.report_data import ReportData, gather
from clstudy.analysis.summary import Summary

__all__ = [
    "COLOURS", "FIGURES", "Drawing", "Gallery", "NothingToDrawError", "Skipped", "differences", "draw", "encode",
    "figures", "forest_plot", "quiet_text",
]  # fmt: skip

_LOG = logging.getLogger(__name__)

FIGURES: dict[str, Callable[[ReportData], list[Drawing]]] = {
    "Strategies over timestamps": strategies_over_time,
    "Differences to lower": forest_plots,
    "How often better": improvements,
    "Scores over timestamps": ap_over_time,
    "Scores against buffer size": against_buffer_size,
    "Scores against stored bytes": against_bytes,
    "Scores over the number of timestamps": against_timestamps,
    "Every timestamp's photos over time": timestamp_lines,
    "Result matrices": heat_maps,
    "Learning-rate response": against_learning_rate,
    "Buffer composition": composition,
    "Latents and hull": latents,
    "Faces": face_grids,
    "Turntables": turntables,
    "Edited faces": edits,
    "Generated categories": category_samples,
    "Ages": age_strips,
}
"""All figures in the order of the report."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A missing figure, and why; ``broken``: because of a bug in clstudy, not because data are missing."""

    title: str
    reason: str
    broken: bool = False


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """All figures of a study, and those that could not be drawn."""

    drawings: tuple[Drawing, ...]
    skipped: tuple[Skipped, ...]

    @property
    def files(self) -> dict[str, bytes]:
        """File name -> content."""
        return {f"{d.name}.{kind}": content for d in self.drawings for kind, content in d.files.items()}


def draw(material: ReportData) -> Gallery:
    """Draw what the study has data for. A figure that fails is logged and named; the others are still drawn."""
    drawings: list[Drawing] = []
    skipped: list[Skipped] = []
    for title, function in FIGURES.items():
        try:
            with quiet_text():
                drawings += function(material)
        except NothingToDrawError as reason:
            skipped.append(Skipped(title=title, reason=str(reason)))
        except Exception as error:
            # a report must not be lost for one figure; the page, the log and the exit code say that it is a bug
            _LOG.exception("the figure %r could not be drawn", title)
            said = f"Could not be drawn, which is a bug in clstudy: {type(error).__name__}: {error}"
            skipped.append(Skipped(title=title, reason=said, broken=True))
    return Gallery(drawings=tuple(drawings), skipped=tuple(skipped))


def figures(summary: Summary) -> dict[str, bytes]:
    """Return file name -> content of every figure that the study has data for."""
    return draw(gather(summary)).files
