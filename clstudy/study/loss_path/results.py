"""Rows, numbers and figures of a loss path in the study's report folder."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from clstudy.analysis.loss_path_figures import loss_path_drawings
from clstudy.analysis.loss_path_numbers import FILE as LOSS_PATH
from clstudy.analysis.loss_path_numbers import path_curves, strategy_numbers
from clstudy.analysis.tables import to_csv
from clstudy.errors import UserError
from clstudy.records.results import parquet_bytes
from clstudy.storage.checksums import write_checked
from clstudy.storage.places import write_atomically


def write_results(study: Path, rows: pa.Table, tolerance: float) -> tuple[pa.Table, list[Path]]:
    """Write rows, numbers and figures into ``STUDY/report/``; returns the numbers per strategy and the files.

    Raises:
        UserError: they cannot be written.
    """
    curves = path_curves(rows, tolerance)
    numbers = strategy_numbers(curves)
    files = {
        "loss_path.csv": to_csv(numbers).encode(),
        **{
            f"{one.name}.{kind}": content
            for one in loss_path_drawings(curves, numbers)
            for kind, content in one.files.items()
        },
    }
    folder = study / "report"
    try:
        write_checked(folder / LOSS_PATH, parquet_bytes(rows))
        for name, content in files.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}") from error
    return numbers, [folder / name for name in (LOSS_PATH, *files)]
