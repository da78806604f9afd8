"""The report's section on the search for learning rates, if the study had one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from clstudy.analysis.pages.blocks import Section, paragraph, soft_paragraph, text_table
from clstudy.analysis.printed import panel_title
from clstudy.analysis.study_plan import Study
from clstudy.errors import UserError
from clstudy.storage.checksums import State, read_checked

_COLUMN_TYPES = {
    "strategy": pa.string(),
    "buffer_size": pa.int64(),
    "proposal": pa.int64(),
    "learning_rate": pa.float64(),
    "objective": pa.float64(),
    "state": pa.string(),
}
_COLUMNS = list(_COLUMN_TYPES)


@dataclass(frozen=True)
class _Judged:
    """The objective of the search. ``sign`` turns the stored value, which a search minimises, into the printed one."""

    title: str
    better: str
    sign: int

    @classmethod
    def of(cls, study: Study) -> _Judged:
        """The objective of a study's workload."""
        panels = {
            f"{protocol}_{name}": (protocol, name)
            for name, facts in study.metrics.items()
            for protocol in facts.protocols
        }
        panel = panels.get(study.objective)
        if panel is None:  # a record written by hand
            return cls(title=study.objective, better="Lower is better", sign=1)
        higher = study.metrics[panel[1]].higher_is_better
        title = panel_title(study.metrics, panel)
        return cls(
            title=title[0].lower() + title[1:],
            better="Higher is better" if higher else "Lower is better",
            sign=-1 if higher else 1,
        )


def rate_sections(study: Study) -> list[Section]:
    """One section from ``search/proposals.csv``; none if the learning rates were given."""
    try:
        rows = _proposals(study.folder / "search" / "proposals.csv")
    except UserError as error:
        return [Section(anchor="learning-rates", title="Learning rates", blocks=(paragraph(str(error)),))]
    if not rows:
        return []
    cells: dict[tuple[str, int | None], list[Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["strategy"], row["buffer_size"]), []).append(row)
    judged = _Judged.of(study)
    blocks = (
        soft_paragraph(
            f"Every cell has its own learning rate: TPE, judged by AIP ({judged.title}; final performance for "
            f"joint training) on validation photos, never on test photos. {judged.better}. `optuna-dashboard "
            "sqlite:///…/search/optuna.db` shows every proposal.",
        ),
        text_table(
            "Learning rate chosen for every cell",
            ["cell", "chosen", "objective", "tried", "from", "to", "diverged", "stopped"],
            [_line(strategy, size, rows, judged) for (strategy, size), rows in cells.items()],
        ),
    )
    return [Section(anchor="learning-rates", title="Learning rates", blocks=blocks)]


def _proposals(path: Path) -> list[Mapping[str, Any]]:
    """All proposals; empty if there was no search.

    Raises:
        UserError: the file is damaged.
    """
    remedy = "the next run of the study writes it again from search/optuna.db."
    try:
        state, content = read_checked(path)
        if state is State.ABSENT:
            return []
        if state is State.DAMAGED:
            raise UserError(f"{path} does not match its checksum; {remedy}")
        options = pyarrow.csv.ConvertOptions(column_types=_COLUMN_TYPES, include_columns=_COLUMNS)
        table = pyarrow.csv.read_csv(pa.BufferReader(content), convert_options=options)
        rows: list[Mapping[str, Any]] = table.to_pylist()
        return rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())[:200]}); {remedy}") from error


def _line(strategy: str, size: int | None, rows: list[Mapping[str, Any]], judged: _Judged) -> list[str]:
    rates = [row["learning_rate"] for row in rows if row["learning_rate"] is not None]
    finished = [row for row in rows if row["state"] == "finished" and not math.isnan(row["objective"])]
    best = min(finished, key=lambda row: (row["objective"], row["proposal"]), default=None)
    return [
        strategy if size is None else f"{strategy}, K = {size}",
        "–" if best is None else f"{best['learning_rate']:g}",
        "–" if best is None else f"{judged.sign * best['objective']:.4f}",
        str(len(rows)),
        f"{min(rates, default=math.nan):g}",
        f"{max(rates, default=math.nan):g}",
        *(str(sum(row["state"] == state for row in rows)) for state in ("diverged", "stopped")),
    ]
