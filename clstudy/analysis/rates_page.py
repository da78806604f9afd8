"""The report's section on the search for learning rates, where a study had one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from clstudy.analysis.html import Section, data_table, element, joined

_COLUMN_TYPES = {"buffer_size": pa.int64(), "learning_rate": pa.float64(), "objective": pa.float64()}


def rate_sections(study: Path) -> list[Section]:
    """One section from ``search/proposals.csv``; none where the learning rates were given."""
    path = study / "search" / "proposals.csv"
    if not path.is_file():
        return []
    options = pyarrow.csv.ConvertOptions(column_types=_COLUMN_TYPES)
    cells: dict[tuple[str, int | None], list[Mapping[str, Any]]] = {}
    for row in pyarrow.csv.read_csv(path, convert_options=options).to_pylist():
        cells.setdefault((row["strategy"], row["buffer_size"]), []).append(row)
    told = [
        element(
            "p",
            "Every cell has its own learning rate: TPE, judged by AIP (reconstruction LPIPS; final performance for "
            "joint training) on validation photos, never on test photos. Lower is better. `optuna-dashboard "
            "sqlite:///…/search/optuna.db` shows every proposal.",
            class_="soft",
        ),
        data_table(
            "Learning rate chosen for every cell",
            ["cell", "chosen", "objective", "tried", "from", "to", "diverged", "stopped"],
            [_line(strategy, size, rows) for (strategy, size), rows in cells.items()],
        ),
    ]
    return [Section(anchor="learning-rates", title="Learning rates", body=joined(told))]


def _line(strategy: str, size: int | None, rows: list[Mapping[str, Any]]) -> list[str]:
    rates = [row["learning_rate"] for row in rows if row["learning_rate"] is not None]
    finished = [row for row in rows if row["state"] == "finished" and not math.isnan(row["objective"])]
    best = min(finished, key=lambda row: (row["objective"], row["proposal"]), default=None)
    return [
        strategy if size is None else f"{strategy}, K = {size}",
        "–" if best is None else f"{best['learning_rate']:g}",
        "–" if best is None else f"{best['objective']:.4f}",
        str(len(rows)),
        f"{min(rates, default=math.nan):g}",
        f"{max(rates, default=math.nan):g}",
        *(str(sum(row["state"] == state for row in rows)) for state in ("diverged", "stopped")),
    ]
