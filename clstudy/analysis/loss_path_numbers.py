"""Describes the loss between two stages by numbers: barrier, hill and plateau (numpy and pyarrow, no torch).

The curves come from ``python -m clstudy.loss_path``. After *Plateau in Monotonic Linear Interpolation* (arXiv
2210.01019), which studies the straight line between two sets of weights, also for weights and biases separately.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clstudy.analysis.statistics.intervals import identity_interval
from clstudy.errors import UserError
from clstudy.records.rows import TRIAL_FIELDS
from clstudy.storage.checksums import State, read_checked
from clstudy.storage.places import Place

FILE = "loss_path.parquet"
"""File beside a report into which ``python -m clstudy.loss_path`` writes its rows."""
GROUPS = {"all": "all parameters", "weights": "weights only", "biases": "biases only"}
"""The parameters that move along the line; all others keep their values from the start."""
SPANS = {"step": "from each stage to the next (t-1 to t)", "whole": "from t = 0 to the last stage"}
PHOTOS = {"old": "test photos of earlier timestamps", "new": "test photos of the timestamp the path ends at"}
MEASURES = ("barrier", "hill", "plateau", "change")
TOLERANCE = 0.1
"""Share of the curve's range: a loss this close to its start still belongs to the plateau."""

_TRIAL = [
    *TRIAL_FIELDS,
    ("from_timestamp", pa.int64()),
    ("to_timestamp", pa.int64()),
    ("group", pa.string()),
]
PATH_SCHEMA = pa.schema([*_TRIAL, ("alpha", pa.float64()), ("test_timestamp", pa.int64()), ("loss", pa.float64())])
"""One row per trial, path, group, point on the line and test timestamp; ``loss`` is a mean over its test photos."""
CURVE_SCHEMA = pa.schema(
    [
        *_TRIAL,
        ("span", pa.string()),
        ("photos", pa.string()),
        ("losses", pa.list_(pa.float64())),
        *((name, pa.float64()) for name in MEASURES),
    ]
)
"""One row per trial, path, span, group and kind of photos, with the curve over alpha and its numbers."""
STRATEGY_SCHEMA = pa.schema(
    [
        ("strategy", pa.string()),
        ("buffer_size", pa.int64()),
        ("learning_rate", pa.float64()),
        ("span", pa.string()),
        ("photos", pa.string()),
        ("group", pa.string()),
        ("measure", pa.string()),
        ("mean", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("identities", pa.int64()),
    ]
)
"""Means over identities with Student-t intervals; ``low`` and ``high`` are null for a single identity."""


def barrier_height(losses: Sequence[float] | np.ndarray) -> np.ndarray:
    """How far the loss rises above the straight line between its two ends, ``losses [..., n]`` -> ``[...]``, >= 0.

    max over alpha of L(alpha) - ((1 - alpha) L(0) + alpha L(1)) on n evenly spaced points from 0 to 1 (Entezari et al.,
    arXiv 2110.06296, definition 2.2; with equal ends it is the error barrier of Frankle et al., 1912.05671). A
    plateau counts as a barrier too, since a loss that stays high lies above the line: see :func:`hill_height`.

    Raises:
        ValueError: fewer than 2 points, or a loss that is not finite.
    """
    losses = _curves(losses)
    alpha = np.linspace(0.0, 1.0, losses.shape[-1])
    line = (1 - alpha) * losses[..., :1] + alpha * losses[..., -1:]
    above = losses - line
    above[..., [0, -1]] = 0.0  # the ends lie on the line, whatever the rounding
    barrier: np.ndarray = above.max(axis=-1)
    return barrier


def hill_height(losses: Sequence[float] | np.ndarray) -> np.ndarray:
    """How far the loss rises above its larger end, ``losses [..., n]`` -> ``[...]``, >= 0.

    0 wherever the path is monotonic (the question of monotonic linear interpolation, Goodfellow et al., 1412.6544).

    Raises:
        ValueError: as :func:`barrier_height`.
    """
    losses = _curves(losses)
    hill: np.ndarray = losses.max(axis=-1) - np.maximum(losses[..., 0], losses[..., -1])
    return hill


def plateau_length(losses: Sequence[float] | np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Share of the path, from its start, on which the loss stays near its start, ``losses [..., n]`` -> ``[...]``.

    Near means |L(alpha) - L(0)| <= ``tolerance`` * (largest - smallest loss of the path); between two points the loss
    is interpolated linearly. So a straight path has the length ``tolerance``, a step at the very end nearly 1, and a
    constant path 1. In [0, 1]; the unit of the loss does not matter.

    Raises:
        ValueError: as :func:`barrier_height`, or a tolerance outside (0, 1).
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}, expected a number between 0 and 1 (a share of the path's range)")
    losses = _curves(losses)
    places = losses.shape[-1]
    allowed = tolerance * np.ptp(losses, axis=-1)[..., None]
    away = losses - losses[..., :1]
    left = np.abs(away) > allowed
    first = left.argmax(axis=-1)[..., None]  # the first point beyond; 0 if there is none
    before = np.maximum(first - 1, 0)
    near, far = np.take_along_axis(away, before, -1), np.take_along_axis(away, first, -1)
    share = (np.sign(far) * allowed - near) / np.where(far == near, 1.0, far - near)
    length = (before + share) / (places - 1)
    return np.where(left.any(axis=-1), length[..., 0], 1.0)


def _curves(losses: Sequence[float] | np.ndarray) -> np.ndarray:
    curves = np.asarray(losses, dtype=np.float64)
    if curves.ndim == 0 or curves.shape[-1] < 2 or not np.isfinite(curves).all():
        raise ValueError(f"expected finite losses at 2 places or more, shape [..., n], got {curves!r}")
    return curves


def path_curves(rows: pa.Table, tolerance: float = TOLERANCE) -> pa.Table:
    """Rows of ``PATH_SCHEMA`` -> ``CURVE_SCHEMA``: means over old test timestamps (with equal weights), and new ones.

    A path belongs to the span "step" (t-1 to t), "whole" (0 to the trial's last stage), or, with two timestamps, both.
    """
    losses: dict[tuple[Any, ...], dict[str, dict[float, list[float]]]] = {}
    last: dict[str, int] = {}
    names = [name for name, _ in _TRIAL]
    for row in rows.to_pylist():
        kind = "new" if row["test_timestamp"] == row["to_timestamp"] else "old"
        path = losses.setdefault(tuple(row[name] for name in names), {})
        path.setdefault(kind, {}).setdefault(row["alpha"], []).append(row["loss"])
        last[row["trial"]] = max(last.get(row["trial"], 0), row["to_timestamp"])
    found = []
    for key, kinds in losses.items():
        head = dict(zip(names, key, strict=True))
        start, end = head["from_timestamp"], head["to_timestamp"]
        spans = {"step": end == start + 1, "whole": start == 0 and end == last[head["trial"]]}
        for kind, by_alpha in kinds.items():
            curve = np.array([np.mean(by_alpha[alpha]) for alpha in sorted(by_alpha)])
            measured = {
                "losses": curve.tolist(),
                "barrier": float(barrier_height(curve)),
                "hill": float(hill_height(curve)),
                "plateau": float(plateau_length(curve, tolerance)),
                "change": float(curve[-1] - curve[0]),
            }
            found += [{**head, "span": span, "photos": kind, **measured} for span, holds in spans.items() if holds]
    return pa.Table.from_pylist(found, CURVE_SCHEMA)


def strategy_numbers(curves: pa.Table) -> pa.Table:
    """``CURVE_SCHEMA`` -> ``STRATEGY_SCHEMA``: means over the paths of a trial, its seeds, then the identities."""
    head = ("strategy", "buffer_size", "learning_rate", "span", "photos", "group")
    values: dict[tuple[Any, ...], dict[str, dict[str, dict[int, list[float]]]]] = {}
    for row in curves.to_pylist():
        cell = values.setdefault(tuple(row[name] for name in head), {})
        for name in MEASURES:
            people = cell.setdefault(name, {})
            people.setdefault(row["identity"], {}).setdefault(row["seed"], []).append(row[name])
    found = []
    for key, cell in values.items():
        for name, people in cell.items():
            interval = identity_interval([_mean_of_means(seeds) for seeds in people.values()])
            low, high = (None, None) if np.isnan(interval.low) else (interval.low, interval.high)
            numbers = {"mean": interval.mean, "low": low, "high": high, "identities": interval.n}
            found.append({**dict(zip(head, key, strict=True)), "measure": name, **numbers})
    return pa.Table.from_pylist(found, STRATEGY_SCHEMA)


def mean_curves(curves: pa.Table) -> dict[tuple[Any, ...], np.ndarray]:
    """(strategy, buffer size, learning rate, span, photos, group) -> curve ``[n]``, averaged as in the numbers."""
    found: dict[tuple[Any, ...], dict[str, dict[int, list[list[float]]]]] = {}
    for row in curves.to_pylist():
        key = tuple(row[name] for name in ("strategy", "buffer_size", "learning_rate", "span", "photos", "group"))
        people = found.setdefault(key, {})
        people.setdefault(row["identity"], {}).setdefault(row["seed"], []).append(row["losses"])
    return {
        key: np.mean(
            [np.mean([np.mean(paths, axis=0) for paths in seeds.values()], axis=0) for seeds in people.values()], axis=0
        )
        for key, people in found.items()
    }


def _mean_of_means(seeds: Mapping[int, Sequence[float]]) -> float:
    return float(np.mean([np.mean(paths) for paths in seeds.values()]))


def read_loss_path(study: Place) -> pa.Table | None:
    """The rows that ``clstudy.loss_path`` wrote (``PATH_SCHEMA``); None if it has not been run.

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
