"""What a study may claim: its primary comparison, what the rest is worth, and which differences are ruled out.

A study of four strategies, three sizes and five metrics prints a hundred intervals, and at 95% each some five of them
exclude 0 by chance alone. So a space may name one primary comparison before it runs (``clstudy.settings.claims``): that
family is tested with Holm's correction, everything else is called exploratory, with the number of marks that chance
alone would give. "No difference seen" is not "no difference": for a smallest difference of interest, two one-sided t
tests say whether a larger one is ruled out.

Pure functions take one difference per identity, ``differences`` float ``[n]``, the unit of claims about new people.

Sources: Holm, Scand. J. Stat. 6(2), 1979; Schuirmann, J. Pharmacokinet. Biopharm. 15(6), 1987 (two one-sided tests);
Berger and Hsu, Stat. Sci. 11(4), 1996 (their 90% interval); Sasabuchi, Biometrika 67(2), 1980, and Hauschke et al.,
Stat. Med. 18(1), 1999 (a share of a mean that is itself estimated); Lakens, Soc. Psychol. Personal. Sci. 8(4), 2017.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import stdtr

from clstudy.analysis.comparisons import ALPHA, Comparison, Family, compare, holm, size_next_study, weigh
from clstudy.analysis.intervals import CONFIDENCE, identity_interval
from clstudy.analysis.matrix import Cell, ScoreValues
from clstudy.analysis.scores import SCORES
from clstudy.analysis.summary import CELL_FIELDS, INTERVAL_FIELDS, PANEL_TITLES, Summary, cell_order
from clstudy.seeding import derive_rng
from clstudy.settings.claims import BASELINE, Effect, Primary, Statement, lateness

RULES_OUT, CANNOT_SAY, EXCEEDS = "rules out", "cannot say", "exceeds"
EQUIVALENCE_CONFIDENCE = 1 - 2 * ALPHA
"""Two one-sided tests at ``ALPHA`` are the question whether this interval lies inside the margin."""

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
class Equivalence:
    """Whether differences are smaller than a margin.

    Attributes:
        margin: mean of the margins.
        low, high: 90% t interval of the mean difference (NaN for one identity).
        p_not_below: one-sided p of "the difference is +margin or more".
        p_not_above: one-sided p of "the difference is -margin or less".
        verdict: ``RULES_OUT``: both are rejected at 5%, so that the difference is smaller than the margin either way;
            ``EXCEEDS``: it is larger than the margin, one-sided 5%; ``CANNOT_SAY``: neither.
    """

    margin: float
    mean: float
    low: float
    high: float
    p_not_below: float
    p_not_above: float
    verdict: str


@dataclass(frozen=True, kw_only=True)
class PrimaryAnswer:
    """A study's primary comparison with its numbers.

    Attributes:
        statement: what was claimed and when.
        family: its comparisons (one per buffer size and learning rate), with sign-flip p and Holm over them; without
            members where no trial of the pair is in the numbers.
        p_t: two-sided paired t test of each member (NaN: one identity), the p that belongs to the 95% interval.
        p_t_holm: the same with Holm over the family.
        late: in words, how it was named after results; empty where it was named before.
    """

    statement: Statement
    primary: Primary
    family: Family
    p_t: tuple[float, ...]
    p_t_holm: tuple[float, ...]
    late: str

    def verdict(self, place: int, alpha: float = ALPHA) -> str:
        """What a member shows after Holm: "better", "worse", "not told apart" or "no test"."""
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


# --- numbers of one difference per identity -------------------------------------------------------------------------


def paired_t(differences: Sequence[float] | np.ndarray) -> float:
    """Two-sided p of the paired t test ``[n]``; NaN for one difference, and for equal ones that are not 0.

    Raises:
        ValueError: no differences, or one that is not finite.
    """
    differences = _checked(differences)
    below = _one_sided(differences, "less")
    if differences.size > 1 and _spread(differences) == 0 and differences.mean() != 0:
        return math.nan
    return below if math.isnan(below) else min(1.0, 2 * min(below, _one_sided(differences, "greater")))


def equivalence(
    differences: Sequence[float] | np.ndarray, margins: float | Sequence[float] | np.ndarray, *, alpha: float = ALPHA
) -> Equivalence:
    """Two one-sided t tests of differences ``[n]`` against a margin.

    Args:
        margins: one number for all, or one per identity ``[n]``: a share of each identity's own value of a reference.
            The tests are then of mean(difference -+ margin), which is exact for a share of the reference's mean
            although that mean is estimated from the same people.

    Raises:
        ValueError: no differences, other shapes, numbers that are not finite, margins whose mean is not above 0, or
            ``alpha`` outside (0, 0.5).
    """
    differences = _checked(differences)
    margins = np.broadcast_to(np.asarray(margins, dtype=np.float64), np.shape(margins) or differences.shape)
    if margins.shape != differences.shape or not np.isfinite(margins).all() or not margins.mean() > 0:
        raise ValueError(f"expected margins with a mean above 0 for {differences.size} differences, got {margins!r}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must lie in (0, 0.5), got {alpha}")
    interval = identity_interval(differences, 1 - 2 * alpha)
    below, above = differences - margins, differences + margins
    not_below, not_above = _one_sided(below, "less"), _one_sided(above, "greater")
    verdict = CANNOT_SAY
    if max(not_below, not_above) <= alpha:  # NaN (one identity) compares false, as it should
        verdict = RULES_OUT
    elif min(_one_sided(below, "greater"), _one_sided(above, "less")) <= alpha:
        verdict = EXCEEDS
    return Equivalence(
        margin=float(margins.mean()),
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        p_not_below=not_below,
        p_not_above=not_above,
        verdict=verdict,
    )


def _one_sided(values: np.ndarray, alternative: str) -> float:
    """p of "the mean is 0 or beyond" against "less" or "greater"; NaN for one value.

    Values without spread are their mean: p is 0 or 1 (1 at 0).
    """
    n, mean, spread = values.size, float(values.mean()), _spread(values)
    if n == 1:
        return math.nan
    sign = 1.0 if alternative == "less" else -1.0
    if spread == 0:
        return 0.0 if sign * mean < 0 else 1.0
    return float(stdtr(n - 1, sign * mean / (spread / math.sqrt(n))))


def _spread(values: np.ndarray) -> float:
    """Standard deviation; 0 where the values differ by rounding only."""
    if values.size < 2 or np.ptp(values) <= 8 * np.finfo(np.float64).eps * np.abs(values).max():
        return 0.0
    return float(values.std(ddof=1))


def _checked(differences: Sequence[float] | np.ndarray) -> np.ndarray:
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 1 or not differences.size or not np.isfinite(differences).all():
        raise ValueError(f"expected one finite difference per identity, shape [n], got {differences!r}")
    return differences


# --- a study's claims -----------------------------------------------------------------------------------------------


def primary_answer(summary: Summary) -> PrimaryAnswer | None:
    """The study's primary comparison, tested as one family; None where it names none."""
    statement = _current(summary)
    primary = statement.primary
    if primary is None:
        return None
    order = cell_order(summary.study)
    members = sorted(
        (one for one in compare(summary.values, [primary.between[1]]) if _covers(primary, one)),
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

    That mean holds whether or not the differences depend on each other, as those of one study do.

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
    """The (protocol, metric) that claims are about: the primary comparison's, else the first one of the tables."""
    primary = _current(summary).primary
    if primary is not None:
        return primary.protocol, primary.metric
    if not summary.scores.num_rows:
        return None
    return summary.scores["protocol"][0].as_py(), summary.scores["metric"][0].as_py()


def effects_of(summary: Summary) -> Mapping[str, Effect]:
    """Score -> smallest difference of interest, as the study claims it now."""
    effects = _current(summary).effects
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
    if (primary := _current(summary).primary) is not None:
        baselines |= dict.fromkeys([primary.between[1]])
    comparisons = sorted(
        (
            one
            for one in compare(summary.values, list(baselines))
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
    with suppress(ValueError):  # one identity, no spread, or so small a margin that no number of people finds it
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


def _reference(values: ScoreValues, one: Comparison, name: str) -> Cell | None:
    """The cell of strategy ``name`` that a comparison meets: at its size, else without one."""
    for size in dict.fromkeys([one.cell.buffer_size, one.baseline_size, None]):
        cell = one.cell._replace(strategy=name, buffer_size=size)
        if cell in values:
            return cell
    return None


def _current(summary: Summary) -> Statement:
    claims = summary.study.claims
    return claims[-1] if claims else Statement(primary=None, effects=None)


def _covers(primary: Primary, one: Comparison) -> bool:
    cell = one.cell
    return primary.covers((cell.protocol, cell.metric), cell.score, cell.strategy, one.baseline, cell.buffer_size)


def _head(one: Comparison) -> dict[str, Any]:
    return one.cell._asdict() | {"baseline": one.baseline, "baseline_size": one.baseline_size}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


# --- in words -------------------------------------------------------------------------------------------------------


def claim_notes(summary: Summary, decimals: int = 4) -> list[str]:
    """What is claimed and what is exploratory, in sentences for tables, terminal and page.

    Args:
        decimals: of the primary comparison's metric.
    """
    if not summary.scores.num_rows:
        return []
    said = primary_notes(summary, decimals)
    if not said and (late := lateness(summary.study.claims)):
        said.append(f"{late[0].upper()}{late[1:]}.")
    said += exploratory_notes(summary)
    if effects := effects_of(summary):
        said.append(_equivalence_note(equivalence_table(summary), effects))
    return said


def primary_notes(summary: Summary, decimals: int) -> list[str]:
    """The primary comparison and what came of it, in a sentence; none where the space names none."""
    answer = primary_answer(summary)
    if answer is None:
        return []
    primary, family = answer.primary, answer.family
    title = f"{SCORES[primary.score].title} ({_title((primary.protocol, primary.metric))})"
    what = f"{title} of {' minus '.join(primary.between)}"
    named = "named before anything was measured" if not answer.late else f"but {answer.late}: read it as exploratory"
    if not family.members:
        return [f"Primary comparison ({named}): {what}. No two trials of it are in the numbers yet."]
    corrected = f", Holm over the {len(family.members)}" if len(family.members) > 1 else ""
    found = "; ".join(_member_text(answer, place, decimals) for place in range(len(family.members)))
    return [f"Primary comparison ({named}): {what}{corrected}: {found}."]


def _member_text(answer: PrimaryAnswer, place: int, decimals: int) -> str:
    member = answer.family.members[place]
    one = member.comparison
    at = [] if one.cell.buffer_size is None else [f"K = {one.cell.buffer_size}"]
    if one.cell.learning_rate is not None:
        at += [f"lr {one.cell.learning_rate:g}"] * (
            len({m.comparison.cell.learning_rate for m in answer.family.members}) > 1
        )
    where = f"at {', '.join(at)} " if at else ""
    mean = f"{one.difference.mean:+.{decimals}f}"
    if member.test is None:
        return f"{where}{mean} in one identity, no test"
    limits = f"{one.difference.low:+.{decimals}f} to {one.difference.high:+.{decimals}f}"
    p = answer.p_t_holm[place]
    t = "no t test (no spread)" if math.isnan(p) else f"t test p = {p:.2g}"
    return (
        f"{where}{mean} ({CONFIDENCE:.0%} interval {limits}, n = {one.difference.n}; {t}, sign-flip p = "
        f"{member.p_holm:.2g}): {answer.verdict(place)}"
    )


def exploratory_notes(summary: Summary) -> list[str]:
    """One sentence: what is exploratory, and how many marks chance alone would give; none where nothing is shown."""
    everything = chance_marks(summary)
    if not everything.shown:
        return []
    why = (
        "All other comparisons are exploratory"
        if "primary" in summary.paired["claim"].to_pylist() or _is_primary_elsewhere(summary)
        else "No primary comparison was named before the study ran, so all are exploratory"
    )
    if len(set(zip(summary.paired["protocol"].to_pylist(), summary.paired["metric"].to_pylist(), strict=True))) == 1:
        return [f"{why}: {_marks_text(everything)}."]
    panel = (summary.paired["protocol"][0].as_py(), summary.paired["metric"][0].as_py())
    here = _marks_text(chance_marks(summary, panel), f" in {_title(panel)}")
    return [f"{why}: {here}; over all metrics {_marks_text(everything, short=True)}."]


def _is_primary_elsewhere(summary: Summary) -> bool:
    """Whether there is a primary comparison that the paired tables do not show (to another baseline)."""
    statement = _current(summary)
    return statement.primary is not None and statement.before_results


def _marks_text(marks: ChanceMarks, where: str = "", *, short: bool = False) -> str:
    if short:
        return f"about {marks.expected:.1f} of {marks.shown}, and {_are(marks.marked)}"
    return (
        f"of {marks.shown} paired differences{where} about {marks.expected:.1f} would be marked better or worse by "
        f"chance alone if no two strategies differed, and {_are(marks.marked)}"
    )


def _are(count: int) -> str:
    return "none is" if count == 0 else f"{count} {'is' if count == 1 else 'are'}"


def _equivalence_note(table: pa.Table, effects: Mapping[str, Effect]) -> str:
    listed = ", ".join(f"{SCORES[score].title} {effect.text}" for score, effect in effects.items())
    verdicts = table["verdict"].to_pylist()
    counts = ", ".join(
        f"{words} {verdicts.count(verdict)}"
        for verdict, words in ((RULES_OUT, "ruled out in"), (EXCEEDS, "exceeded in"), (CANNOT_SAY, "undecided in"))
    )
    return f"Smallest differences of interest ({listed}): {counts} of {len(verdicts)} comparisons (equivalence.csv)."


def _title(panel: tuple[str, str]) -> str:
    return PANEL_TITLES.get(panel, " ".join(panel).capitalize())
