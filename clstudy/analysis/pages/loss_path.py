"""The report's section on the loss path, where ``python -m clstudy.loss_path`` has been run on the study."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clstudy.analysis.loss_path_figures import loss_path_drawings
from clstudy.analysis.loss_path_numbers import PATH_SCHEMA, path_curves, strategy_numbers
from clstudy.analysis.pages.blocks import Section, paragraph, soft_paragraph
from clstudy.analysis.pages.pictures import picture
from clstudy.errors import UserError
from clstudy.storage.checksums import State, read_checked

FILE = "loss_path.parquet"


def loss_path_sections(study: Path) -> list[Section]:
    """One section from ``report/loss_path.parquet``, or how to get it."""
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


def read_loss_path(study: Path) -> pa.Table | None:
    """The rows that ``clstudy.loss_path`` left (``PATH_SCHEMA``), None where it has not been run.

    Raises:
        UserError: they are damaged.
    """
    path = study / "report" / FILE
    remedy = f"`python -m clstudy.loss_path {study.name}` makes it again"
    try:
        state, content = read_checked(path)
        if state is State.ABSENT:
            return None
        if state is State.DAMAGED:
            raise UserError(f"{path} does not match its checksum; {remedy}.")
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())[:200]}); {remedy}.") from error
    if table.schema.names != PATH_SCHEMA.names or table.schema.types != PATH_SCHEMA.types:
        raise UserError(f"{path} has other columns than a loss path; {remedy}.")
    return table
