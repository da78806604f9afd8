"""Computes other intervals of the same paired differences, to show how much a conclusion depends on Student's t.

Besides the primary interval there are, from the same one value per identity, the inverted sign-flip test or (from
``BOOTSTRAP_T_FROM`` identities on) bootstrap-t, and the cluster bootstrap, which starts from the photos. All of them
use the identities and seeds that the two cells of the comparison share, counted in ``n_identities`` and ``n_seeds``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clstudy.analysis.comparisons import Comparison, compare, families
from clstudy.analysis.image_values import identity_images
from clstudy.analysis.matrix import ScoreCell, read_rows
from clstudy.analysis.score_tables import CELL_FIELDS, INTERVAL_FIELDS
from clstudy.analysis.scores import SCORES, missing_cells
from clstudy.analysis.statistics.intervals import (
    BOOTSTRAP_T_FROM,
    CONFIDENCE,
    BootstrapInterval,
    ExactInterval,
    Interval,
    bootstrap_t,
    cluster_bootstrap,
    sign_flip_interval,
)
from clstudy.analysis.summary import Summary
from clstudy.seeding import derive_rng
from clstudy.settings.metric_facts import Metrics

CHECKED_SCORES = ("aip", "forgetting")
"""Scores with intervals by the other methods too."""
PRIMARY, SIGN_FLIPS, BOOTSTRAP_T = "Student t (primary)", "sign flips, inverted", "bootstrap-t"
NEW_CLUSTERS, THESE_CLUSTERS = "cluster bootstrap, new identities", "cluster bootstrap, these identities"

SENSITIVITY_SCHEMA = pa.schema(
    CELL_FIELDS
    + [("compared", pa.string()), ("baseline", pa.string()), ("baseline_size", pa.int64()), ("method", pa.string())]
    + INTERVAL_FIELDS
    + [("confidence", pa.float64()), ("population", pa.string()), ("left_out", pa.string()), ("note", pa.string())]
)

_Pair = tuple[ScoreCell, ScoreCell]
_Support = tuple[tuple[str, tuple[int, ...]], ...]
"""Identities with their seeds, sorted."""


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Input of the cluster bootstrap: the panel's rows, which trials are complete, and which are not."""

    rows: pa.Table
    whole: Collection[str]
    incomplete: Mapping[tuple[float | None, str, int | None], Sequence[str]]
    timestamps: int | Mapping[str, int] | None


def sensitivity_table(summary: Summary, place: Callable[[Comparison], Any]) -> pa.Table:
    """Intervals of the study's first metric by every method: ``SENSITIVITY_SCHEMA``.

    A row per comparison of strategies and method. ``confidence`` is that of the interval (95%, except for inverted sign
    flips of few identities), ``left_out`` names trials of the two cells that lack measurements and are used by no
    method, ``note`` gives the reason for a missing interval or for what was dropped.

    Args:
        place: sort key of comparisons.
    """
    panel = next(((cell["protocol"], cell["metric"]) for cell in summary.scores.to_pylist()), None)
    found: list[dict[str, Any]] = []
    if panel is not None:
        comparisons = [
            one
            for one in compare(summary.values, metrics=summary.study.metrics)
            if (one.cell.protocol, one.cell.metric) == panel and one.cell.score in CHECKED_SCORES
        ]
        if comparisons:
            read = _read(summary, panel)
            for members in families(sorted(comparisons, key=place)).values():
                found += _checked(summary, read, members)
    return pa.Table.from_pylist(found, schema=SENSITIVITY_SCHEMA)


def comparison_cells(one: Comparison, summary: Summary) -> _Pair:
    """The two cells of a comparison as named in the scores (without a size if the strategy has none)."""
    baseline = one.cell._replace(strategy=one.baseline, buffer_size=one.baseline_size)
    first, second = (
        cell if cell in summary.values else cell._replace(buffer_size=None) for cell in (one.cell, baseline)
    )
    return first, second


def comparison_fields(one: Comparison, compared: str) -> dict[str, Any]:
    """The columns that identify the comparison of a row."""
    return one.cell._asdict() | {"compared": compared, "baseline": one.baseline, "baseline_size": one.baseline_size}


def _read(summary: Summary, panel: tuple[str, str]) -> _Rows:
    where = (pc.field("protocol") == panel[0]) & (pc.field("metric") == panel[1])
    whole: set[str] = set()
    incomplete: dict[tuple[float | None, str, int | None], list[str]] = {}
    for matrix in summary.matrices:
        spec = matrix.trial
        if (matrix.protocol, matrix.metric) != panel:
            continue
        if missing_cells(matrix.r, spec.joint):
            incomplete.setdefault((spec.learning_rate, spec.strategy, spec.buffer_size), []).append(spec.trial)
        else:
            whole.add(spec.trial)
    return _Rows(
        rows=read_rows(list(summary.files.values()), where=where),
        whole=whole,
        incomplete=incomplete,
        timestamps=summary.study.timestamps,
    )


def _checked(summary: Summary, read: _Rows, members: Sequence[Comparison]) -> Iterator[dict[str, Any]]:
    """Every member's interval by all methods."""
    pairs = {one: comparison_cells(one, summary) for one in members}
    resampled = _bootstraps(summary, read, list(dict.fromkeys(pairs.values())))
    for one, pair in pairs.items():
        names = sorted(name for cell in pair for name in read.incomplete.get(_arm(cell), ()))
        head = comparison_fields(one, "strategies") | {"left_out": ", ".join(names)}
        head |= {"n_identities": one.difference.n, "n_seeds": one.n_seeds}
        yield head | _interval_row(PRIMARY, one.difference)
        yield head | _second_opinion(one)
        for method, found in resampled[pair].items():
            yield head | ({"method": method, "note": found} if isinstance(found, str) else _interval_row(method, found))


def _second_opinion(one: Comparison) -> dict[str, Any]:
    """An interval that does not assume normal differences: sign flips if they are few, otherwise bootstrap-t."""
    method = SIGN_FLIPS if len(one.differences) < BOOTSTRAP_T_FROM else BOOTSTRAP_T
    try:
        if method == SIGN_FLIPS:
            exact = sign_flip_interval(one.differences)
            short = f"{exact.n} identities cannot attain {CONFIDENCE:.0%}: this interval holds {exact.confidence:.2%}"
            return _interval_row(method, exact, short if exact.confidence < CONFIDENCE else "")
        rng = derive_rng(0, "analysis", "bootstrap-t", *map(str, one.cell), one.baseline)
        boot = bootstrap_t(one.differences, rng)
        note = f"{boot.dropped} of {boot.resamples} resamples of near-duplicates left out" if boot.dropped else ""
        return _interval_row(method, boot, note)
    except ValueError as error:
        return {"method": method, "note": str(error)}


def _bootstraps(
    summary: Summary, read: _Rows, pairs: Sequence[_Pair]
) -> dict[_Pair, dict[str, BootstrapInterval | str]]:
    """Pair -> method -> interval, or the reason for not having one.

    Pairs with the same identities and seeds share one bootstrap (all of them, in a complete study); no pair loses an
    identity because of a gap in another pair. Draws depend on identities, seeds and photos, so the two cells of a pair,
    and the scores of one study, are resampled alike.
    """
    groups: dict[_Support, list[_Pair]] = {}
    for pair in pairs:
        groups.setdefault(_support(summary, pair), []).append(pair)
    found: dict[_Pair, dict[str, BootstrapInterval | str]] = {pair: {} for pair in pairs}
    for group in groups.values():
        for method in (NEW_CLUSTERS, THESE_CLUSTERS):
            for pair, interval in _bootstrap(read, group, method, summary.study.metrics).items():
                found[pair][method] = interval
    return found


def _bootstrap(
    read: _Rows, pairs: Sequence[_Pair], method: str, metrics: Metrics
) -> dict[_Pair, BootstrapInterval | str]:
    cells = list(dict.fromkeys(cell for pair in pairs for cell in pair))
    first = cells[0]
    higher = metrics[first.metric].higher_is_better
    rng = derive_rng(0, "analysis", "cluster bootstrap", first.protocol, first.metric)
    try:
        people = identity_images(read.rows, cells, read.timestamps, trials=read.whole)
        score = SCORES[first.score].compute
        boot = cluster_bootstrap(people, lambda r: score(r, higher), rng, new_identities=method == NEW_CLUSTERS)
    except ValueError as error:  # too few identities, or trials that were not measured on the same photos
        return dict.fromkeys(pairs, str(error))
    return {pair: boot.interval(*pair) for pair in pairs}


def _support(summary: Summary, pair: _Pair) -> _Support:
    first, second = (summary.values[cell] for cell in pair)
    common = {name: tuple(sorted(first[name].keys() & second[name].keys())) for name in first.keys() & second.keys()}
    return tuple((name, seeds) for name, seeds in sorted(common.items()) if seeds)


def _arm(cell: ScoreCell) -> tuple[float | None, str, int | None]:
    return cell.learning_rate, cell.strategy, cell.buffer_size


def _interval_row(method: str, interval: Interval, note: str = "") -> dict[str, Any]:
    confidence = interval.confidence if isinstance(interval, ExactInterval) else CONFIDENCE
    return {
        "method": method,
        "mean": interval.mean,
        "low": _known(interval.low),
        "high": _known(interval.high),
        "n_identities": interval.n,
        "confidence": None if math.isnan(interval.low) else confidence,
        "population": interval.population,
        "note": note,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
