"""What a study may claim: its primary comparison, how to read all others, and which differences are ruled out.

A study of four strategies, three sizes and five metrics prints a hundred intervals, and at 95% each about five of them
exclude 0 by chance alone. So a space may name one primary comparison before it runs (``clstudy.settings.claims``): that
family is tested with Holm's correction, everything else is called exploratory, with the number of marks that chance
alone would give. If it names smallest differences of interest, every comparison is tested against them
(``clstudy.analysis.statistics.equivalence``).

Source: Holm, Scand. J. Stat. 6(2), 1979.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pyarrow as pa

from clstudy.analysis.comparisons import Comparison, Family, compare, weigh
from clstudy.analysis.matrix import ScoreCell, ScoreValues
from clstudy.analysis.score_tables import CELL_FIELDS, INTERVAL_FIELDS, cell_order
from clstudy.analysis.statistics.equivalence import CANNOT_SAY, EXCEEDS, equivalence, paired_t
from clstudy.analysis.statistics.intervals import CONFIDENCE
from clstudy.analysis.statistics.paired import ALPHA, holm
from clstudy.analysis.statistics.sample_size import size_next_study
from clstudy.analysis.summary import Summary
from clstudy.seeding import derive_rng
from clstudy.settings.claims import BASELINE, Effect, Primary, Statement, lateness

_PAIR = [("baseline", pa.string()), ("baseline_size", pa.int64())]
PRIMARY_SCHEMA = pa.schema(
    CELL_FIELDS
    + _PAIR
    + INTERVAL_FIELDS
    + [(name, pa.float64()) for name in ("p_t", "p_t_holm", "p_sign_flip", "p_sign_flip_holm")]
    + [("verdict", pa.string()), ("before_results", pa.bool_())]
)
EQUIVALENCE_SCHEMA = pa.schema(
    CELL_FIELDS
    + _PAIR
    + [("effect", pa.string())]
    + [(name, pa.float64()) for name in ("margin", "mean", "low90", "high90", "p_not_below", "p_not_above")]
    + [("n_identities", pa.int64()), ("verdict", pa.string()), ("direction", pa.string()), ("note", pa.string())]
    + [("identities_needed", pa.int64()), ("identities_needed_cautious", pa.int64())]
)


@dataclass(frozen=True, kw_only=True)
class PrimaryAnswer:
    """A study's primary comparison with its numbers.

    Attributes:
        statement: what was claimed and when.
        family: its comparisons (one per buffer size and learning rate), with sign-flip p and Holm over them; without
            members if no trial of the pair has results.
        p_t: two-sided paired t test of each member (NaN: one identity), the p that belongs to the 95% interval.
        p_t_holm: the same with Holm's correction over the family.
        late: text stating that it was named or changed after results; empty if it was named before.
    """

    statement: Statement
    primary: Primary
    family: Family
    p_t: tuple[float, ...]
    p_t_holm: tuple[float, ...]
    late: str

    def verdict(self, place: int, alpha: float = ALPHA) -> str:
        """The result of a member after Holm's correction: "better", "worse", "not told apart" or "no test"."""
        p, comparison = self.p_t_holm[place], self.family.members[place].comparison
        if math.isnan(p):
            return "no test"
        if p > alpha:
            return "not told apart"
        return "better" if (comparison.difference.mean < 0) == comparison.negative_is_better else "worse"


@dataclass(frozen=True, kw_only=True)
class ChanceMarks:
    """Of ``shown`` exploratory differences with an interval, ``marked`` exclude 0, ``expected`` by chance alone."""

    shown: int
    marked: int
    expected: float


def primary_answer(summary: Summary) -> PrimaryAnswer | None:
    """The study's primary comparison, tested as one family; None if it names none."""
    statement = current_statement(summary)
    primary = statement.primary
    if primary is None:
        return None
    order = cell_order(summary.study)
    members = sorted(
        (
            one
            for one in compare(summary.values, [primary.between[1]], metrics=summary.study.metrics)
            if _covers(primary, one)
        ),
        key=lambda one: (order(one.cell), one.baseline_size or 0),
    )
    p_t = [paired_t(one.differences) for one in members]
    tested = iter(holm([p for p in p_t if not math.isnan(p)]).tolist())
    return PrimaryAnswer(
        statement=statement,
        primary=primary,
        family=weigh(members, rng=derive_rng(0, "analysis", "primary", *map(str, primary.between))),
        p_t=tuple(p_t),
        p_t_holm=tuple(p if math.isnan(p) else next(tested) for p in p_t),
        late=lateness(summary.study.claims),
    )


def chance_marks(summary: Summary, panel: tuple[str, str] | None = None) -> ChanceMarks:
    """How many exploratory differences are marked, and how many chance alone would mark: 5% of those shown.

    This expected number holds even if the differences depend on each other, as those of one study do.

    Args:
        panel: (protocol, metric); by default all.
    """
    rows = [
        row
        for row in summary.paired.to_pylist()
        if row["claim"] == "exploratory"
        and row["low"] is not None
        and panel in (None, (row["protocol"], row["metric"]))
    ]
    marked = sum(row["verdict"] in ("better", "worse") for row in rows)
    return ChanceMarks(shown=len(rows), marked=marked, expected=(1 - CONFIDENCE) * len(rows))


def main_panel(summary: Summary) -> tuple[str, str] | None:
    """The (protocol, metric) that claims are about: the primary comparison's, or else the first one of the tables."""
    primary = current_statement(summary).primary
    if primary is not None:
        return primary.protocol, primary.metric
    if not summary.scores.num_rows:
        return None
    return summary.scores["protocol"][0].as_py(), summary.scores["metric"][0].as_py()


def effects_of(summary: Summary) -> Mapping[str, Effect]:
    """Score -> smallest difference of interest, as the study claims it now."""
    effects = current_statement(summary).effects
    return {} if effects is None else effects.by_score()


def differences_of_interest(summary: Summary) -> dict[tuple[str, str, str], float]:
    """(protocol, metric, score) -> smallest difference of interest in the score's unit; shares have none."""
    panel = main_panel(summary)
    if panel is None:
        return {}
    return {(*panel, score): one.absolute for score, one in effects_of(summary).items() if one.absolute is not None}


def primary_table(answer: PrimaryAnswer | None) -> pa.Table:
    """``PRIMARY_SCHEMA``, one row per comparison of the primary family."""
    rows = []
    for place, member in enumerate(answer.family.members if answer else ()):
        one = member.comparison
        assert answer is not None
        rows.append(
            _head(one)
            | {
                "mean": one.difference.mean,
                "low": _known(one.difference.low),
                "high": _known(one.difference.high),
                "n_identities": one.difference.n,
                "n_seeds": one.n_seeds,
                "p_t": _known(answer.p_t[place]),
                "p_t_holm": _known(answer.p_t_holm[place]),
                "p_sign_flip": None if member.test is None else member.test.p,
                "p_sign_flip_holm": _known(member.p_holm),
                "verdict": answer.verdict(place),
                "before_results": not answer.late,
            }
        )
    return pa.Table.from_pylist(rows, schema=PRIMARY_SCHEMA)


def equivalence_table(summary: Summary) -> pa.Table:
    """``EQUIVALENCE_SCHEMA``: every comparison of the claims' metric against the smallest difference of its score."""
    effects, panel = effects_of(summary), main_panel(summary)
    order = cell_order(summary.study)
    baselines = dict.fromkeys(["er_rand", "lower"])
    if (primary := current_statement(summary).primary) is not None:
        baselines |= dict.fromkeys([primary.between[1]])
    comparisons = sorted(
        (
            one
            for one in compare(summary.values, list(baselines), metrics=summary.study.metrics)
            if one.cell.score in effects and (one.cell.protocol, one.cell.metric) == panel
        ),
        key=lambda one: (order(one.cell), one.baseline, one.baseline_size or 0),
    )
    rows = [_equivalence_row(summary.values, one, effects[one.cell.score]) for one in comparisons]
    return pa.Table.from_pylist(rows, schema=EQUIVALENCE_SCHEMA)


def _equivalence_row(values: ScoreValues, one: Comparison, effect: Effect) -> dict[str, Any]:
    row = _head(one) | {"effect": effect.text, "mean": one.difference.mean, "n_identities": one.difference.n}
    try:
        found = equivalence(one.differences, _margins(values, one, effect))
    except ValueError as error:
        return row | {"verdict": CANNOT_SAY, "note": str(error)}
    needed: tuple[int | None, int | None] = (None, None)
    with suppress(ValueError):  # one identity, no spread, or a margin too small to be found with any number of people
        needed = size_next_study(one.differences, difference=found.margin).for_difference or needed
    for_strategy = (found.mean < 0) == one.negative_is_better
    return row | {
        "margin": found.margin,
        "low90": _known(found.low),
        "high90": _known(found.high),
        "p_not_below": _known(found.p_not_below),
        "p_not_above": _known(found.p_not_above),
        "verdict": found.verdict,
        "direction": ("better" if for_strategy else "worse") if found.verdict == EXCEEDS else None,
        "note": "one identity: no test" if found.verdict == CANNOT_SAY and math.isnan(found.low) else "",
        "identities_needed": needed[0],
        "identities_needed_cautious": needed[1],
    }


def _margins(values: ScoreValues, one: Comparison, effect: Effect) -> float | list[float]:
    """The margin of a comparison: the number, or the share of each identity's value of the reference.

    Raises:
        ValueError: the reference has no value for one of the identities, or is 0 or less on average.
    """
    if effect.absolute is not None:
        return effect.absolute
    assert effect.share is not None
    name = one.baseline if effect.reference == BASELINE else effect.reference
    cell = _reference(values, one, name)
    if cell is None or not set(one.identities) <= values[cell].keys():
        raise ValueError(f"{name} has no {one.cell.score} for all identities of this comparison")
    means = [fmean(values[cell][identity].values()) for identity in one.identities]
    if fmean(means) <= 0:
        raise ValueError(f"a share of {name}'s {one.cell.score} is no difference: its mean is {fmean(means):.3g}")
    return [effect.share * mean for mean in means]


def _reference(values: ScoreValues, one: Comparison, name: str) -> ScoreCell | None:
    """The cell of strategy ``name`` that a comparison uses: the one with its size, or else the one without a size."""
    for size in dict.fromkeys([one.cell.buffer_size, one.baseline_size, None]):
        cell = one.cell._replace(strategy=name, buffer_size=size)
        if cell in values:
            return cell
    return None


def current_statement(summary: Summary) -> Statement:
    """What a study claims now; an empty statement if it claims nothing."""
    claims = summary.study.claims
    return claims[-1] if claims else Statement(primary=None, effects=None)


def _covers(primary: Primary, one: Comparison) -> bool:
    cell = one.cell
    return primary.covers((cell.protocol, cell.metric), cell.score, cell.strategy, one.baseline, cell.buffer_size)


def _head(one: Comparison) -> dict[str, Any]:
    return one.cell._asdict() | {"baseline": one.baseline, "baseline_size": one.baseline_size}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
