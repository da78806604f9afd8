"""Scores of a trial that is still running, for the tracking page (numpy and pyarrow only)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from clstudy.analysis.scores import average_incremental_performance, backward_transfer, forgetting
from clstudy.settings.metric_facts import Metrics


def cell_means(stages: Sequence[pa.Table]) -> dict[tuple[str, str], dict[tuple[int, int], float]]:
    """(protocol, metric) -> {(t, k): mean over images} of the stages so far."""
    grouped = (
        pa.concat_tables(stages)
        .group_by(["protocol", "metric", "train_timestamp", "test_timestamp"])
        .aggregate([("value", "mean")])
    )
    found: dict[tuple[str, str], dict[tuple[int, int], float]] = {}
    for row in grouped.to_pylist():
        cells = found.setdefault((row["protocol"], row["metric"]), {})
        cells[row["train_timestamp"], row["test_timestamp"]] = row["value_mean"]
    return found


def running_metrics(stages: Sequence[pa.Table], t: int, known: Metrics) -> dict[str, float]:
    """Metrics of one trial after timestamp t, by MLflow name.

    ``ap/…`` AP_t, ``r/…/kNN`` the row R[t, k], and, where the trial has all rows up to t (not for ``upper``),
    ``aip/…`` and from t = 1 ``forgetting/…`` and ``minus_bwt/…`` (−BWT, in the direction of Forgetting and free of
    its bias) computed as if t were the last timestamp.

    Args:
        known: facts of the metrics in the rows.
    """
    metrics: dict[str, float] = {}
    for (protocol, metric), cells in sorted(cell_means(stages).items()):
        label = f"{protocol}_{metric}"
        row = [cells[t, k] for k in range(t + 1)]
        metrics[f"ap/{label}"] = float(np.mean(row))
        for k, value in enumerate(row):
            metrics[f"r/{label}/k{k:02d}"] = value
        if any((s, s) not in cells for s in range(t + 1)):
            continue
        matrix = np.full((t + 1, t + 1), np.nan)
        for (s, k), value in cells.items():
            matrix[s, k] = value
        better = known[metric].higher_is_better
        metrics[f"aip/{label}"] = float(average_incremental_performance(matrix, better))
        if t > 0:
            metrics[f"forgetting/{label}"] = float(forgetting(matrix, better))
            metrics[f"minus_bwt/{label}"] = -float(backward_transfer(matrix, better))
    return metrics
