"""Estimates how much of a trial's Forgetting is photo noise, since its maximum picks the timestamp that chance favours.

R[t, k] is a mean over few photos, so the maximum over t in Forgetting is too high on average, most of all where nothing
is forgotten; backward transfer has no maximum and no such bias. The estimate is cross-fitted: for every photo the
maximum is chosen on the *other* photos of its test timestamp and evaluated on this one, so that choice and evaluation
do not share their noise. Forgetting minus the average of these is the bias: on average exactly if all timestamps are
equally good; too large (by no more than what is lost by choosing on one photo fewer) if one is better, so that the
Forgetting of infinitely many photos lies between Forgetting - bias and Forgetting.

Leaving one photo out was chosen over halves, bootstrap and jackknife by ``benchmarks/coverage.py``; docs/statistics.md
quotes it. Source of the idea: Stone, Cross-Validatory Choice and Assessment, J. R. Stat. Soc. B 36(2), 1974.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from clstudy.analysis.matrix import ResultMatrix, ScoreCell, ScoreValues, codes, read_rows
from clstudy.analysis.scores import SCORES, missing_cells
from clstudy.records.rows import RESULT_SCHEMA
from clstudy.settings.metric_facts import Metrics

_NAMES = ("trial", "protocol", "metric", "image")
_COLUMNS = [*_NAMES, "train_timestamp", "test_timestamp", "value"]
_ENCODED = pa.schema(
    [pa.field(f.name, pa.dictionary(pa.int32(), pa.string())) if f.name in _NAMES else f for f in RESULT_SCHEMA]
)


def photo_bias(values: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """Estimated bias of Forgetting from single images; ``[..., T, T, images] -> [...]``, T at least 2.

    Args:
        values: after training on t, image i of test timestamp k; NaN above the diagonal and beyond the images of k.
            Image i of k is the same photo at every t.

    Returns:
        In the metric's unit, 0 or more on average. NaN if a test timestamp that needs a maximum has only one image,
        because none is left to choose on.
    """
    size = values.shape[-3]
    signed = values if higher_is_better else -values
    biases = []
    for k in range(size - 1):
        seen = signed[..., k : size - 1, k, :]  # [..., candidates, images]
        there = np.isfinite(seen[..., :1, :])
        count = np.maximum(there.sum(axis=-1, keepdims=True), 1)
        total = np.where(there, seen, 0.0).sum(axis=-1, keepdims=True)
        best = np.argmax(np.where(there, total - seen, -np.inf), axis=-2, keepdims=True)  # on the other images
        fair = np.where(there, np.take_along_axis(seen, best, axis=-2), 0.0).sum(axis=-1) / count[..., 0]
        bias = (total / count).max(axis=(-2, -1)) - fair[..., 0]
        unknown = ~there[..., 0, 0] | (count[..., 0, 0] < 2) & (seen.shape[-2] > 1)
        biases.append(np.where(unknown, np.nan, bias))
    mean: np.ndarray = np.mean(biases, axis=0)
    return mean


def trial_photo_biases(files: Sequence[Path], matrices: Sequence[ResultMatrix], metrics: Metrics) -> ScoreValues:
    """The bias of every trial that has a Forgetting score: cell -> identity -> seed -> bias, NaN if it is not known.

    Args:
        files: result files of (at least) these trials.
        matrices: R of trials; those that lack cells, joint training and T = 1 have no Forgetting and are skipped.
    """
    score = SCORES["forgetting"]
    wanted = {
        (one.trial.trial, one.protocol, one.metric): one
        for one in matrices
        if len(one.r) >= score.at_least and not one.trial.joint and not missing_cells(one.r, joint=False)
    }
    if not wanted:
        return {}
    rows = read_rows(files, _COLUMNS, schema=_ENCODED)
    columns = [codes(rows[name]) for name in _NAMES]
    trial, protocol, metric, image = (index for _, index in columns)
    names = [found for found, _ in columns[:3]]
    t, k = rows["train_timestamp"].to_numpy(), rows["test_timestamp"].to_numpy()
    value = rows["value"].to_numpy()

    # Rows in the order group (trial, protocol, metric), t, k, image; a photo's place is its rank in its cell.
    size = int(t.max()) + 1
    group = (trial * len(names[1]) + protocol) * len(names[2]) + metric
    cell = (group * size + t) * size + k
    order = np.argsort(cell * len(columns[3][0]) + image)
    cell, group, image, value, t, k = (array[order] for array in (cell, group, image, value, t, k))
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    rank = np.arange(len(cell)) - np.repeat(first, np.diff(first, append=len(cell)))
    starts = np.searchsorted(group, np.arange(len(names[0]) * len(names[1]) * len(names[2]) + 1))
    stacks: dict[tuple[str, tuple[int, ...]], list[tuple[ResultMatrix, np.ndarray]]] = {}
    for number in np.flatnonzero(np.diff(starts)):
        place, m = divmod(int(number), len(names[2]))
        i, p = divmod(place, len(names[1]))
        matrix = wanted.get((names[0][i], names[1][p], names[2][m]))
        if matrix is None:
            continue
        its = slice(starts[number], starts[number + 1])
        shape = (len(matrix.r), len(matrix.r), int(rank[its].max()) + 1)
        values, photos = np.full(shape, np.nan), np.full(shape, -1)
        values[t[its], k[its], rank[its]] = value[its]
        photos[t[its], k[its], rank[its]] = image[its]
        if (np.tri(shape[0], dtype=bool)[..., None] & (photos != photos[-1])).any():
            values[:] = np.nan  # other photos at another t: leaving one out is not possible
        stacks.setdefault((matrix.metric, shape), []).append((matrix, values))
    found: ScoreValues = {}
    for (kind, _), stack in stacks.items():
        biases = photo_bias(np.stack([values for _, values in stack]), metrics[kind].higher_is_better)
        for (one, _), bias in zip(stack, biases.tolist(), strict=True):
            spec = one.trial
            key = ScoreCell(one.protocol, one.metric, score.name, spec.learning_rate, spec.strategy, spec.buffer_size)
            found.setdefault(key, {}).setdefault(spec.identity, {})[spec.seed] = bias
    return found
