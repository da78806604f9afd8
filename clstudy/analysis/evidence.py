"""What a study's paired differences are worth: effect sizes, tests, other intervals, the size of the next study.

The primary interval is Student's t over identities (``clstudy.analysis.summary``). Here is what stands beside it
(docs/statistics.md says why): exact sign-flip p with Holm's correction over each block of a table, the effect size, the
probability of improvement, the smallest difference a study of this size can find, and two bootstraps as a check.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clstudy.analysis.comparisons import (
    Comparison,
    Evidence,
    compare,
    compare_sizes,
    families,
    identity_images,
    size_next_study,
    weigh,
)
from clstudy.analysis.intervals import Interval, bootstrap_t, cluster_bootstrap
from clstudy.analysis.matrix import Cell, read_rows
from clstudy.analysis.scores import SCORES, MissingCellsError
from clstudy.analysis.summary import CELL_FIELDS, INTERVAL_FIELDS, Summary
from clstudy.analysis.tables import to_csv, to_parquet
from clstudy.metrics.directions import HIGHER_IS_BETTER
from clstudy.seeding import derive_rng

CHECKED_SCORES = ("aip", "forgetting")
"""Scores whose intervals are computed in the other ways too."""

_COMPARED = [("compared", pa.string()), ("baseline", pa.string()), ("baseline_size", pa.int64())]
_NUMBERS = [(name, pa.float64()) for name in ("effect_size", "effect_low", "effect_high", "p_sign_flip", "p_holm")]
EVIDENCE_SCHEMA = pa.schema(
    CELL_FIELDS
    + _COMPARED
    + INTERVAL_FIELDS
    + _NUMBERS
    + [(name, pa.float64()) for name in ("improvement", "improvement_low", "improvement_high", "detectable")]
    + [("identities_needed", pa.int64()), ("identities_needed_cautious", pa.int64())]
)
SENSITIVITY_SCHEMA = pa.schema(
    CELL_FIELDS
    + _COMPARED
    + [("method", pa.string()), ("mean", pa.float64()), ("low", pa.float64()), ("high", pa.float64())]
    + [("population", pa.string()), ("note", pa.string())]
)


@dataclass(frozen=True, kw_only=True)
class StudyEvidence:
    """Two tidy tables and what p-values can say in each block.

    Attributes:
        evidence: ``EVIDENCE_SCHEMA``, one row per comparison; ``compared`` is "strategies" (to a baseline at the same
            buffer size) or "buffer sizes" (the larger minus the smaller). Null where a number does not exist.
        sensitivity: ``SENSITIVITY_SCHEMA``, the intervals of the study's first metric by every method.
        statements: (protocol, metric, score, learning rate, compared) -> what can be concluded from p-values there.
    """

    evidence: pa.Table
    sensitivity: pa.Table
    statements: Mapping[tuple[str, str, str, float | None, str], str]


def judge(summary: Summary, of_interest: Mapping[tuple[str, str, str], float] | None = None) -> StudyEvidence:
    """Weigh every paired difference of a study. Equal studies give equal tables: the bootstraps' seeds are fixed.

    Args:
        of_interest: (protocol, metric, score) -> smallest difference that would matter, in the score's unit. The next
            study is sized for it; without one, for the observed difference, and that only where its interval excludes
            0: a difference that was not shown says nothing about how many people would show it.
    """
    of_interest = of_interest or {}
    rows: list[dict[str, Any]] = []
    statements = {}
    place = _places(summary)
    for compared, comparisons in (
        ("strategies", compare(summary.values)),
        ("buffer sizes", compare_sizes(summary.values)),
    ):
        for key, members in families(sorted(comparisons, key=place)).items():
            family = weigh(members, rng=derive_rng(0, "analysis", "sign flips", *map(str, key)))
            statements[(*key, compared)] = family.statement
            rows += [_evidence_row(one, compared, of_interest.get(key[:3])) for one in family.members]
    return StudyEvidence(
        evidence=pa.Table.from_pylist(rows, schema=EVIDENCE_SCHEMA),
        sensitivity=pa.Table.from_pylist(list(_sensitivity(summary)), schema=SENSITIVITY_SCHEMA),
        statements=statements,
    )


def evidence_files(found: StudyEvidence) -> dict[str, bytes]:
    """File name -> content of the tables."""
    return {
        "evidence.csv": to_csv(found.evidence).encode(),
        "evidence.parquet": to_parquet(found.evidence),
        "sensitivity.csv": to_csv(found.sensitivity).encode(),
    }


def _evidence_row(one: Evidence, compared: str, of_interest: float | None) -> dict[str, Any]:
    comparison = one.comparison
    improvement = one.improvement
    return (
        _head(comparison, compared)
        | {
            "mean": comparison.difference.mean,
            "low": _known(comparison.difference.low),
            "high": _known(comparison.difference.high),
            "n_identities": comparison.difference.n,
            "n_seeds": comparison.n_seeds,
            "effect_size": _known(one.effect.g),
            "effect_low": _known(one.effect.low),
            "effect_high": _known(one.effect.high),
            "p_sign_flip": None if one.test is None else one.test.p,
            "p_holm": _known(one.p_holm),
            "improvement": _known(improvement.mean),
            "improvement_low": _known(improvement.low),
            "improvement_high": _known(improvement.high),
        }
        | _next_study(comparison, of_interest)
    )


def _next_study(comparison: Comparison, of_interest: float | None) -> dict[str, Any]:
    """What this study could find, and the people needed for the difference of interest, or for the one it has shown."""
    shown = abs(comparison.difference.mean) if comparison.verdict in ("better", "worse") else None
    wanted = shown if of_interest is None else of_interest
    found: dict[str, Any] = {"detectable": None, "identities_needed": None, "identities_needed_cautious": None}
    with suppress(ValueError):  # one identity, or no spread at all: nothing to size a study from
        found["detectable"] = size_next_study(comparison.differences, scale=comparison.scale).detectable
        # or a difference so small that no number of people finds it
        needed = size_next_study(comparison.differences, scale=comparison.scale, difference=wanted).for_difference
        if needed is not None:
            found["identities_needed"], found["identities_needed_cautious"] = needed
    return found


def _sensitivity(summary: Summary) -> Iterable[dict[str, Any]]:
    panel = next(((cell["protocol"], cell["metric"]) for cell in summary.scores.to_pylist()), None)
    if panel is None:
        return
    comparisons = [one for one in compare(summary.values) if (one.cell.protocol, one.cell.metric) == panel]
    rows = None
    for key, members in families(sorted(comparisons, key=_places(summary))).items():
        if key[2] not in CHECKED_SCORES:
            continue
        if rows is None:
            rows = _rows_of(summary, panel)
        yield from _checked(summary, rows, members)


def _rows_of(summary: Summary, panel: tuple[str, str]) -> pa.Table:
    places = [summary.study.folder / "results" / f"{trial.trial}.parquet" for trial in summary.study.trials]
    where = (pc.field("protocol") == panel[0]) & (pc.field("metric") == panel[1])
    return read_rows([place for place in places if place.is_file()], where=where)


def _checked(summary: Summary, rows: pa.Table, members: list[Comparison]) -> Iterable[dict[str, Any]]:
    """Every member's interval by all methods; why one is missing stands in ``note``."""
    cells = list(dict.fromkeys(label for one in members for label in _labels(one, summary)))
    identities = identity_images(rows, cells, summary.study.timestamps)
    first = members[0].cell
    higher = HIGHER_IS_BETTER[first.metric]
    resampled: dict[str, Any] = {}
    for new in (True, False):
        name = "cluster bootstrap, new identities" if new else "cluster bootstrap, these identities"
        rng = derive_rng(0, "analysis", "cluster bootstrap", first.protocol, first.metric)
        try:
            resampled[name] = cluster_bootstrap(
                identities, lambda r: SCORES[first.score].compute(r, higher), rng, new_identities=new
            )
        except (ValueError, MissingCellsError) as error:
            resampled[name] = str(error)
    for one in members:
        head = _head(one, "strategies")
        yield head | _interval_row("Student t (primary)", one.difference)
        try:
            rng = derive_rng(0, "analysis", "bootstrap-t", *map(str, one.cell), one.baseline)
            boot = bootstrap_t(one.differences, rng)
            note = f"{boot.dropped} of {boot.resamples} resamples without spread left out" if boot.dropped else ""
            yield head | _interval_row("bootstrap-t", boot, note)
        except ValueError as error:
            yield head | {"method": "bootstrap-t", "note": str(error)}
        strategy, baseline = _labels(one, summary)
        for name, found in resampled.items():
            if isinstance(found, str):
                yield head | {"method": name, "note": found}
            else:
                yield head | _interval_row(name, found.interval(strategy, baseline))


def _places(summary: Summary) -> Callable[[Comparison], tuple[Any, ...]]:
    """Sort key of comparisons: the order of the score table, then the baseline."""
    order: dict[tuple[Any, ...], int] = {}
    for place, row in enumerate(summary.scores.to_pylist()):
        order[tuple(row[name] for name, _ in CELL_FIELDS)] = place

    def place_of(one: Comparison) -> tuple[Any, ...]:
        place = order.get(one.cell, order.get(one.cell._replace(buffer_size=None), len(order)))
        return place, one.cell.buffer_size or 0, one.baseline, one.baseline_size or 0

    return place_of


def _labels(one: Comparison, summary: Summary) -> tuple[Cell, Cell]:
    """The two cells of a comparison as they are called in the scores (without a size where the strategy has none)."""
    baseline = one.cell._replace(strategy=one.baseline, buffer_size=one.baseline_size)
    first, second = (
        cell if cell in summary.values else cell._replace(buffer_size=None) for cell in (one.cell, baseline)
    )
    return first, second


def _interval_row(method: str, interval: Interval, note: str = "") -> dict[str, Any]:
    return {
        "method": method,
        "mean": interval.mean,
        "low": _known(interval.low),
        "high": _known(interval.high),
        "population": interval.population,
        "note": note,
    }


def _head(one: Comparison, compared: str) -> dict[str, Any]:
    return one.cell._asdict() | {"compared": compared, "baseline": one.baseline, "baseline_size": one.baseline_size}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
