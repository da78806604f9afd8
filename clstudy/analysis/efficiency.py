"""Gain and cost of a memory: final performance above ``lower``'s, per stored photo, megabyte and second.

Costs come from the study's folders (``stages/``, ``learned/``, ``timings/``), so they are known only as long as those
exist; an unknown cost is null, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import load as load_arrays
from scipy.special import stdtrit

from clstudy.analysis.comparisons import paired_difference
from clstudy.analysis.matrix import ScoreCell, ScoreValues, Trial
from clstudy.analysis.score_tables import CELL_FIELDS, JOINT_NOTE, cell_order
from clstudy.analysis.scores import gap_closed
from clstudy.analysis.statistics.intervals import CONFIDENCE, NEW_IDENTITIES, THIS_IDENTITY, Interval
from clstudy.analysis.summary import Summary
from clstudy.records.results import result_keys, result_path
from clstudy.records.stage_record import StageRecord
from clstudy.settings.metric_facts import MetricFacts
from clstudy.storage.content_addressed_store import ANCHORS, STAGE_RECORD, StudyStore, ValueStore, is_key

LOWER, UPPER = "lower", "upper"
MEGABYTE = 1e6
ABOVE_UPPER = " A gap closed above 100% means: better at the end than upper, which is joint training and no true bound."
FROZEN = (
    " MB held frozen: the trained weights of the timestamp before, which generated replay and weight penalties look at "
    "while they train; stored photos are at equal bytes where MB stored is as large."
)
COSTS = ("photo", "megabyte", "second")
EFFICIENCY_SCHEMA = pa.schema(
    [field for field in CELL_FIELDS if field[0] != "score"]
    + [(name, pa.float64()) for name in ("gain", "gain_low", "gain_high", "gap_closed", "gap_low", "gap_high")]
    + [("n_identities", pa.int64()), ("n_seeds", pa.int64())]
    + [(name, pa.float64()) for name in ("photos", "megabytes", "frozen_megabytes", "seconds")]
    + [(f"{what}_per_{unit}", pa.float64()) for what in ("gain", "gap") for unit in COSTS]
    + [("population", pa.string()), ("note", pa.string())]
)


@dataclass(frozen=True, kw_only=True)
class StrategyCost:
    """What one trial stores and how long it takes; NaN if the study's folder no longer shows it.

    Attributes:
        photos: stored photos at the last timestamp (all training photos for joint training).
        megabytes: what is carried from one timestamp to the next besides the weights: stored photos as plain 8-bit
            RGB, the latents of the stored photos, and what a strategy learned (Fisher terms). In 10^6 bytes.
        frozen_megabytes: a second copy of the trained weights that the strategy's hooks look at while it trains
            (generated replay, weight penalties); it is the stage before, so nothing more is carried between timestamps.
            0 without hooks.
        seconds: core-seconds of all stages of the trial, shared ones in full: what it would take alone. Computing
            anchors and choosing photos are not included.
    """

    photos: float = math.nan
    megabytes: float = math.nan
    frozen_megabytes: float = math.nan
    seconds: float = math.nan


def trial_costs(folder: Path, trials: Iterable[Trial]) -> dict[str, StrategyCost]:
    """Costs of the trials that have results in a study folder."""
    store = StudyStore(folder)
    latent = _latent_bytes(store)
    costs = {}
    for trial in trials:
        keys = result_keys(result_path(folder, trial.trial))
        if keys:
            costs[trial.trial] = _cost(store, keys, trial.joint, latent)
    return costs


def gap_interval(
    final: Sequence[float], lower: Sequence[float], upper: Sequence[float], confidence: float = CONFIDENCE
) -> Interval | None:
    """Share of the mean gap between ``lower`` and ``upper`` that is closed, with Fieller's interval.

    The quotient of the means, not the mean of quotients: one identity with a tiny gap would dominate the latter. The
    interval holds every share p for which the values final - lower - p (upper - lower) have a t interval that includes
    0 (Fieller 1954, Journal of the Royal Statistical Society B 16). None if it is not finite because the gap itself is
    tiny or cannot be distinguished from 0.

    Args:
        final, lower, upper: one finite value per identity, each ``[n]``.

    Raises:
        ValueError: shapes differ, there is no value, or one is not finite.
    """
    x, low, up = (np.asarray(values, dtype=np.float64) for values in (final, lower, upper))
    if x.ndim != 1 or not x.size or not x.shape == low.shape == up.shape:
        raise ValueError(f"expected one value per identity in each, got shapes {x.shape}, {low.shape}, {up.shape}")
    if not np.isfinite([x, low, up]).all():
        raise ValueError("a value is not finite")
    share = float(gap_closed(x.mean(), low.mean(), up.mean()))
    if math.isnan(share):
        return None
    if x.size == 1:
        return Interval(mean=share, low=math.nan, high=math.nan, n=1, population=THIS_IDENTITY)
    closed, gap = x - low, up - low
    # p solves (mean(closed) - p mean(gap))^2 = t^2 var(closed - p gap) / n: a quadratic a p^2 - 2 b p + c = 0
    factor = float(stdtrit(x.size - 1, 0.5 + confidence / 2)) ** 2 / x.size
    spread = np.cov(closed, gap, ddof=1)
    a = gap.mean() ** 2 - factor * spread[1, 1]
    b = closed.mean() * gap.mean() - factor * spread[0, 1]
    c = closed.mean() ** 2 - factor * spread[0, 0]
    if a <= 0:
        return None
    root = math.sqrt(max(b * b - a * c, 0.0))
    return Interval(mean=share, low=(b - root) / a, high=(b + root) / a, n=x.size, population=NEW_IDENTITIES)


def efficiency_table(summary: Summary, costs: Mapping[str, StrategyCost] | None = None) -> pa.Table:
    """``EFFICIENCY_SCHEMA``: one row per metric, learning rate, strategy and buffer size; none without ``lower``.

    ``gain`` is the final performance over ``lower``'s on the same identities and seeds, signed so that positive is
    better. ``gap_closed`` (``gap_interval``) uses the identities and seeds that ``upper`` has, too. Costs are means
    over the cell's trials, null where one of them is not known; the per-cost columns divide by them as if they were
    exact.

    Args:
        costs: by trial; by default read from the study's folder.
    """
    study = summary.study
    known = trial_costs(study.folder, study.trials) if costs is None else costs
    names = {
        (trial.learning_rate, trial.strategy, trial.buffer_size, trial.identity, trial.seed): trial.trial
        for trial in study.trials
    }
    rows = []
    for cell in sorted(summary.values, key=cell_order(study)):
        lower = cell._replace(strategy=LOWER, buffer_size=None)
        if cell.score != "final" or lower not in summary.values:
            continue
        worth = _worth(summary.values, cell, lower, study.metrics[cell.metric], cell.strategy in study.joint_strategies)
        if worth is None:
            continue
        spent = [
            known.get(names[cell.learning_rate, cell.strategy, cell.buffer_size, identity, seed], StrategyCost())
            for identity, seeds in summary.values[cell].items()
            for seed in seeds
        ]
        rows.append(cell._asdict() | worth | _price(worth, spent))
    return pa.Table.from_pylist(rows, schema=EFFICIENCY_SCHEMA)


def _worth(
    values: ScoreValues, cell: ScoreCell, lower: ScoreCell, metric: MetricFacts, joint: bool
) -> dict[str, Any] | None:
    """Gain and gap closed of one cell; None if it shares no identity and seed with ``lower``."""
    paired = paired_difference(values[cell], values[lower])
    if paired is None:
        return None
    gain, n_seeds = paired
    sign = 1.0 if metric.higher_is_better else -1.0
    low, high = sorted((sign * gain.low, sign * gain.high))
    share, note = _gap(values, cell, lower, metric)
    if share is not None and share.mean > 1:
        note = "above 100%: better at the end than upper"
    worth = {
        "gain": _number(sign * gain.mean),
        "gain_low": _number(low),
        "gain_high": _number(high),
        "gap_closed": None if share is None else _number(share.mean),
        "gap_low": None if share is None else _number(share.low),
        "gap_high": None if share is None else _number(share.high),
        "n_identities": gain.n,
        "n_seeds": n_seeds,
        "population": gain.population,
        "note": "; ".join(filter(None, [JOINT_NOTE if joint else "", note])),
    }
    exact = {LOWER: ("gain_low", "gain_high", "gap_low", "gap_high"), UPPER: ("gap_low", "gap_high")}
    # 0 and 1 by definition: an interval of no width would look like a measurement
    return worth | dict.fromkeys(exact.get(cell.strategy, ()))


def _gap(values: ScoreValues, cell: ScoreCell, lower: ScoreCell, metric: MetricFacts) -> tuple[Interval | None, str]:
    upper = cell._replace(strategy=UPPER, buffer_size=None)
    if upper not in values:
        return None, "no gap without upper"
    mine: list[float] = []
    below: list[float] = []
    above: list[float] = []
    for identity in sorted(values[cell].keys() & values[lower].keys() & values[upper].keys()):
        seeds = values[cell][identity].keys() & values[lower][identity].keys() & values[upper][identity].keys()
        if seeds:
            for found, source in ((mine, cell), (below, lower), (above, upper)):
                found.append(fmean(values[source][identity][seed] for seed in sorted(seeds)))
    if not mine:
        return None, "no gap: no identity and seed has lower and upper, too"
    share = gap_interval(mine, below, above)
    if share is None:
        return None, "no gap: lower and upper cannot be told apart"
    if (fmean(above) > fmean(below)) != metric.higher_is_better:
        return None, "no gap: upper is worse than lower"
    return share, ""


def _price(worth: Mapping[str, Any], spent: Sequence[StrategyCost]) -> dict[str, float | None]:
    cost = {
        unit: _number(fmean(getattr(cost, f"{unit}s") for cost in spent))
        for unit in ("photo", "megabyte", "frozen_megabyte", "second")
    }
    each = {
        f"{what}_per_{unit}": worth[column] / amount if amount and worth[column] is not None else None
        for what, column in (("gain", "gain"), ("gap", "gap_closed"))
        for unit, amount in cost.items()
        if unit in COSTS
    }
    return {f"{unit}s": amount for unit, amount in cost.items()} | each


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value + 0.0  # -0.0 + 0.0 is 0.0


# --- costs from the study's folder --------------------------------------------------------------------------------


def _cost(store: StudyStore, keys: Sequence[str], joint: bool, latent: float) -> StrategyCost:
    seconds = math.fsum(_seconds(store, key) for key in keys)
    content = store.stages.file(keys[-1], STAGE_RECORD)  # checked: costs are unknown if the file was changed
    try:
        record = None if content is None else StageRecord.decode(content)
        asked = None if record is None else record.asked
    except ValueError:
        asked = None
    if record is None or asked is None:
        return StrategyCost(seconds=seconds)
    photos = sum(len(digests) for _, digests in asked.new) if joint else len(asked.replay)
    carried = photos * float(asked.image_size) ** 2 * 3
    # without stored items the size of a latent does not matter, known or not
    stored = max(photos, len(asked.supported))
    carried += stored * latent if stored else 0.0
    carried += _bytes(store.learned, asked.learned) if asked.learned else 0.0
    return StrategyCost(
        photos=float(photos),
        megabytes=carried / MEGABYTE,
        frozen_megabytes=_frozen(record) / MEGABYTE,
        seconds=seconds,
    )


def _frozen(record: StageRecord) -> float:
    """Bytes held frozen; records of versions that did not write it leave it unknown for strategies with hooks."""
    if record.frozen_bytes is not None:
        return float(record.frozen_bytes)
    return 0.0 if record.asked.support is None else math.nan


def _seconds(store: StudyStore, key: str) -> float:
    timing = store.timing(key)
    return math.nan if timing is None else timing.seconds


def _bytes(values: ValueStore, key: str) -> float:
    """Size of a stored value according to its marker."""
    size = values.size(key) if is_key(key) else None
    return math.nan if size is None else float(size)


def _latent_bytes(store: StudyStore) -> float:
    """Bytes of one anchor latent, from any complete anchors."""
    for key in sorted(store.anchors.sizes()):
        content = store.anchors.file(key, ANCHORS)
        if content is not None:
            train = load_arrays(content)["train"]
            return train.nbytes / len(train)
    return math.nan
