"""The tidy tables of scores and paired differences, their columns and order, and which cells are best.

Rows come from scores per trial (``clstudy.analysis.matrix.ScoreValues``); equal scores give equal tables.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any, NamedTuple

import pyarrow as pa

from clstudy.analysis.comparisons import BASELINES, compare, paired_difference
from clstudy.analysis.matrix import ScoreCell, ScoreValues
from clstudy.analysis.printed import PRINTED_SCORES
from clstudy.analysis.published import Setting, published_value
from clstudy.analysis.scores import SCORES
from clstudy.analysis.statistics.intervals import Interval, identity_interval
from clstudy.analysis.study_plan import Study
from clstudy.settings.claims import primary_before_results
from clstudy.settings.metric_facts import PROTOCOLS, MetricFacts, Metrics

JOINT_NOTE = "final (joint training; not a continual learner)"
UNBUFFERED_NOTE = "no buffer: the same trials in every buffer-size column"
MAIN_SCORES = ("aip", "forgetting", "final")
CELL_FIELDS = [
    ("protocol", pa.string()),
    ("metric", pa.string()),
    ("score", pa.string()),
    ("learning_rate", pa.float64()),
    ("strategy", pa.string()),
    ("buffer_size", pa.int64()),
]
INTERVAL_FIELDS = [
    ("mean", pa.float64()),
    ("low", pa.float64()),
    ("high", pa.float64()),
    ("n_identities", pa.int64()),
    ("n_seeds", pa.int64()),
]
SCORES_SCHEMA = pa.schema(
    CELL_FIELDS
    + INTERVAL_FIELDS
    + [("n_trials", pa.int64()), ("n_planned", pa.int64()), ("population", pa.string()), ("note", pa.string())]
    + [("published", pa.float64()), ("photo_bias", pa.float64())]
)
PAIRED_SCHEMA = pa.schema(
    CELL_FIELDS
    + [("baseline", pa.string())]
    + INTERVAL_FIELDS
    + [("better_when", pa.string()), ("verdict", pa.string()), ("population", pa.string()), ("claim", pa.string())]
)


class Column(NamedTuple):
    """One column of one block of a table: the cells that compete for "best"."""

    protocol: str
    metric: str
    score: str
    learning_rate: float | None
    buffer_size: int | None


def best_in_columns(study: Study, values: ScoreValues) -> dict[Column, str]:
    """The strategies that are shown to be best: the paired interval to *every* other one in their column excludes 0.

    Joint training does not compete, strategies without a buffer compete in every column. No correction for the number
    of comparisons is needed: for a wrong mark, the interval to the truly best strategy (or, if two are equally good, to
    the other one) must exclude 0, which has a probability of at most 5% for a single 95% interval.
    """
    fields: dict[
        tuple[str, str, str, float | None], dict[tuple[str, int | None], Mapping[str, Mapping[int, float]]]
    ] = {}
    joint = study.joint_strategies
    for cell, found in values.items():
        if cell.score in MAIN_SCORES and cell.strategy not in joint:
            block = fields.setdefault((cell.protocol, cell.metric, cell.score, cell.learning_rate), {})
            block[cell.strategy, cell.buffer_size] = found
    best = {}
    for head, block in fields.items():
        sign = 1.0 if SCORES[head[2]].direction(study.metrics[head[1]].higher_is_better) else -1.0
        for size in study.columns:
            rivals = {name: found for (name, at), found in block.items() if at in (None, size)}
            means = {name: sign * fmean(_identity_means(found)) for name, found in rivals.items()}
            first = max(means, key=means.__getitem__, default=None)
            if first is not None and _beats_all(first, rivals, sign):
                best[Column(*head, size)] = first
    return best


def _beats_all(name: str, rivals: Mapping[str, Mapping[str, Mapping[int, float]]], sign: float) -> bool:
    others = [found for other, found in rivals.items() if other != name]
    for other in others:
        paired = paired_difference(rivals[name], other)
        # NaN (one identity) compares false, as intended
        if paired is None or not (sign * paired[0].low > 0 and sign * paired[0].high > 0):
            return False
    return bool(others)


def scores_table(study: Study, values: ScoreValues, setting: Setting | None, biases: ScoreValues) -> pa.Table:
    """``SCORES_SCHEMA``: every cell of ``values`` with its interval over identities, in the order of the tables."""
    planned = Counter((trial.learning_rate, trial.strategy, trial.buffer_size) for trial in study.trials)
    joint = study.joint_strategies
    measured = {cell.metric for cell in values}
    rows = []
    for cell in sorted(values, key=cell_order(study)):
        identities = values[cell]
        seeds = [len(by_seed) for by_seed in identities.values()]
        means = _identity_means(identities)
        place = (cell.protocol, cell.metric, cell.score, cell.strategy, cell.buffer_size)
        unbuffered = UNBUFFERED_NOTE if cell.buffer_size is None else ""
        rows.append(
            cell._asdict()
            | interval_fields(identity_interval(means), min(seeds))
            | {
                "n_trials": sum(seeds),
                "n_planned": planned[cell.learning_rate, cell.strategy, cell.buffer_size],
                "note": JOINT_NOTE if cell.strategy in joint else unbuffered,
                "published": published_value(setting, place, cell.learning_rate, measured),
                "photo_bias": _mean_bias(biases.get(cell)),
            }
        )
    return pa.Table.from_pylist(rows, schema=SCORES_SCHEMA)


def paired_table(study: Study, values: ScoreValues) -> pa.Table:
    """``PAIRED_SCHEMA``: every comparison with a baseline, in the order of the tables."""
    order = cell_order(study)
    primary = primary_before_results(study.claims)
    comparisons = sorted(
        compare(values, scores=PRINTED_SCORES, metrics=study.metrics),
        key=lambda c: (order(c.cell), BASELINES.index(c.baseline)),
    )
    rows = [
        c.cell._asdict()
        | interval_fields(c.difference, c.n_seeds)
        | {
            "baseline": c.baseline,
            "better_when": "negative" if c.negative_is_better else "positive",
            "verdict": c.verdict,
            "claim": "primary"
            if primary is not None
            and primary.covers(
                (c.cell.protocol, c.cell.metric), c.cell.score, c.cell.strategy, c.baseline, c.cell.buffer_size
            )
            else "exploratory",
        }
        for c in comparisons
    ]
    return pa.Table.from_pylist(rows, schema=PAIRED_SCHEMA)


def _mean_bias(identities: Mapping[str, Mapping[int, float]] | None) -> float | None:
    """The mean over seeds, then identities, as for a cell's mean; None if the bias of any of its trials is unknown."""
    mean = math.nan if identities is None else fmean(_identity_means(identities))
    return None if math.isnan(mean) else mean


def _identity_means(identities: Mapping[str, Mapping[int, float]]) -> list[float]:
    """Mean over seeds per identity, in the identities' order by name."""
    return [fmean(identities[identity].values()) for identity in sorted(identities)]


def interval_fields(interval: Interval, n_seeds: int) -> dict[str, Any]:
    """The columns ``INTERVAL_FIELDS`` and ``population`` of a row; NaN as null."""
    return {
        "mean": interval.mean,
        "low": None if math.isnan(interval.low) else interval.low,
        "high": None if math.isnan(interval.high) else interval.high,
        "n_identities": interval.n,
        "n_seeds": n_seeds,
        "population": interval.population,
    }


def ordered_panels(metrics: Metrics) -> list[tuple[str, str]]:
    """Every (protocol, metric) in the order of the tables, of which the first is the study's main one.

    Reconstruction comes first, then synthesis, then a workload's own protocols; within a protocol, metrics keep their
    order; metrics computed as by the published scripts come after all others, in the order of the ordinary metrics.
    """
    places = list(metrics)
    protocols = list(dict.fromkeys([*PROTOCOLS, *(one for facts in metrics.values() for one in facts.protocols)]))

    def key(panel: tuple[str, MetricFacts]) -> tuple[bool, int, int]:
        protocol, facts = panel
        return facts.twin_of is not None, protocols.index(protocol), places.index(facts.twin_of or facts.name)

    there = [(protocol, facts) for facts in metrics.values() for protocol in facts.protocols]
    return [(protocol, facts.name) for protocol, facts in sorted(there, key=key)]


def cell_order(study: Study) -> Callable[[ScoreCell], tuple[Any, ...]]:
    """Sort key of cells: panels as in ``ordered_panels`` (others after them), then the order of the tables."""
    panels, scores, strategies = ordered_panels(study.metrics), list(SCORES), study.strategies

    def key(cell: ScoreCell) -> tuple[Any, ...]:
        panel = (cell.protocol, cell.metric)
        size = -1 if cell.buffer_size is None else cell.buffer_size
        place = panels.index(panel) if panel in panels else len(panels)
        return place, panel, scores.index(cell.score), cell.learning_rate, strategies.index(cell.strategy), size

    return key
