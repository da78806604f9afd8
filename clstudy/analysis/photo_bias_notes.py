"""Notes for the reader about photo noise in Forgetting (``clstudy.analysis.photo_bias``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from clstudy.analysis.printed import panel_title
from clstudy.settings.metric_facts import Metrics

SAID_FROM = 0.2
"""Share of a cell's Forgetting above which its estimated bias is mentioned in a note."""
_CELLS_NAMED = 6


def photo_bias_notes(scores: pa.Table, metrics: Metrics) -> list[str]:
    """One sentence for each metric with a cell whose Forgetting is estimated to be photo noise by more than a fifth.

    Args:
        scores: ``SCORES_SCHEMA``.
        metrics: facts of those in it.
    """
    said: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    rows = [row for row in scores.to_pylist() if row["photo_bias"] is not None]
    for row in rows:
        if row["photo_bias"] > SAID_FROM * abs(row["mean"]):
            said.setdefault((row["protocol"], row["metric"]), []).append(row)
    rates = len({row["learning_rate"] for row in rows}) > 1
    return [_sentence(panel_title(metrics, panel), found, rates) for panel, found in said.items()]


def _sentence(title: str, rows: list[Mapping[str, Any]], with_rate: bool) -> str:
    largest = sorted(rows, key=lambda row: -row["photo_bias"])[:_CELLS_NAMED]
    cells = [f"{_cell(row, with_rate)} (bias {row['photo_bias']:.2g}, value {row['mean']:.2g})" for row in largest]
    more = f" and {len(rows) - len(cells)} more" if len(rows) > len(cells) else ""
    return (
        f"Forgetting in {title}: photo noise, which its maximum picks up, is estimated to raise it by more than a "
        f"fifth of its value in {', '.join(cells)}{more}. Read −BWT there, which has no such bias; photo_bias in "
        "summary.csv holds every estimate."
    )


def _cell(row: Mapping[str, Any], with_rate: bool) -> str:
    size = "" if row["buffer_size"] is None else f" K = {row['buffer_size']}"
    label: str = row["strategy"] + size + (f" lr {row['learning_rate']:g}" if with_rate else "")
    return label
