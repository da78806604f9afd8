"""Evidence for a study's paired differences: effect sizes, tests, other intervals, size of the next study.

The primary interval is Student's t over identities (``clstudy.analysis.summary``). This module adds (docs/statistics.md
explains why): exact sign-flip p with Holm's correction over each block of a table, the effect size, the probability of
improvement, the smallest difference a study of this size can find, and other intervals as a check
(``clstudy.analysis.sensitivity``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pyarrow as pa

from clstudy.analysis.comparisons import (
    Comparison,
    Evidence,
    compare,
    compare_sizes,
    families,
    paired_differences,
    weigh,
)
from clstudy.analysis.score_tables import CELL_FIELDS, INTERVAL_FIELDS
from clstudy.analysis.sensitivity import comparison_cells, comparison_fields, sensitivity_table
from clstudy.analysis.statistics.sample_size import size_next_study
from clstudy.analysis.summary import Summary
from clstudy.analysis.tables import to_csv, to_parquet
from clstudy.seeding import derive_rng

_COMPARED = [("compared", pa.string()), ("baseline", pa.string()), ("baseline_size", pa.int64())]
_NUMBERS = [(name, pa.float64()) for name in ("effect_size", "effect_low", "effect_high", "p_sign_flip", "p_holm")]
EVIDENCE_SCHEMA = pa.schema(
    CELL_FIELDS
    + _COMPARED
    + INTERVAL_FIELDS
    + _NUMBERS
    + [(name, pa.float64()) for name in ("improvement", "improvement_low", "improvement_high", "detectable")]
    + [("identities_needed", pa.int64()), ("identities_needed_cautious", pa.int64())]
    + [("photo_bias", pa.float64())]
)


@dataclass(frozen=True, kw_only=True)
class StudyEvidence:
    """Two tidy tables, and what can be concluded from p-values in each block.

    Attributes:
        evidence: ``EVIDENCE_SCHEMA``, one row per comparison; ``compared`` is "strategies" (to a baseline at the same
            buffer size) or "buffer sizes" (the larger minus the smaller). ``photo_bias``: how much of the
            difference of Forgetting is estimated to be photo noise. Null where a number does not exist.
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
            study is sized for it; without one, for the observed difference, but only if its interval excludes 0: a
            difference that was not shown cannot tell how many people would show it.
    """
    of_interest = of_interest or {}
    rows: list[dict[str, Any]] = []
    statements = {}
    place = _places(summary)
    for compared, comparisons in (
        ("strategies", compare(summary.values, metrics=summary.study.metrics)),
        ("buffer sizes", compare_sizes(summary.values, metrics=summary.study.metrics)),
    ):
        for key, members in families(sorted(comparisons, key=place)).items():
            family = weigh(members, rng=derive_rng(0, "analysis", "sign flips", *map(str, key)))
            statements[(*key, compared)] = family.statement
            rows += [
                _evidence_row(one, compared, of_interest.get(key[:3]))
                | {"photo_bias": _photo_bias(one.comparison, summary)}
                for one in family.members
            ]
    return StudyEvidence(
        evidence=pa.Table.from_pylist(rows, schema=EVIDENCE_SCHEMA),
        sensitivity=sensitivity_table(summary, place),
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
        comparison_fields(comparison, compared)
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


def _photo_bias(one: Comparison, summary: Summary) -> float | None:
    """The difference of the two cells' biases, on the same identities and seeds as their scores."""
    first, second = (summary.photo_biases.get(cell, {}) for cell in comparison_cells(one, summary))
    differences, _ = paired_differences(first, second)
    return _known(fmean(differences.values())) if differences else None


def _next_study(comparison: Comparison, of_interest: float | None) -> dict[str, Any]:
    """What this study could detect, and the number of people needed for the difference of interest or the one shown."""
    shown = abs(comparison.difference.mean) if comparison.verdict in ("better", "worse") else None
    wanted = shown if of_interest is None else of_interest
    found: dict[str, Any] = {"detectable": None, "identities_needed": None, "identities_needed_cautious": None}
    with suppress(ValueError):  # one identity, or no spread at all: a study cannot be sized
        found["detectable"] = size_next_study(comparison.differences, scale=comparison.scale).detectable
        # or a difference too small to be found with any number of people
        needed = size_next_study(comparison.differences, scale=comparison.scale, difference=wanted).for_difference
        if needed is not None:
            found["identities_needed"], found["identities_needed_cautious"] = needed
    return found


def _places(summary: Summary) -> Callable[[Comparison], tuple[Any, ...]]:
    """Sort key of comparisons: the order of the score table, then the baseline."""
    order: dict[tuple[Any, ...], int] = {}
    for place, row in enumerate(summary.scores.to_pylist()):
        order[tuple(row[name] for name, _ in CELL_FIELDS)] = place

    def place_of(one: Comparison) -> tuple[Any, ...]:
        place = order.get(one.cell, order.get(one.cell._replace(buffer_size=None), len(order)))
        return place, one.cell.buffer_size or 0, one.baseline, one.baseline_size or 0

    return place_of


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
