"""A study's claims in sentences, for tables, terminal and page: its primary comparison, and how to read the others."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pyarrow as pa

from clstudy.analysis.claims import (
    ChanceMarks,
    PrimaryAnswer,
    chance_marks,
    current_statement,
    effects_of,
    equivalence_table,
    primary_answer,
)
from clstudy.analysis.printed import panel_title
from clstudy.analysis.scores import SCORES
from clstudy.analysis.statistics.equivalence import CANNOT_SAY, EXCEEDS, RULES_OUT
from clstudy.analysis.statistics.intervals import CONFIDENCE
from clstudy.analysis.summary import Summary
from clstudy.settings.claims import Effect, lateness


def claim_notes(summary: Summary, decimals: int = 4) -> list[str]:
    """Sentences for tables, terminal and page on what is claimed and what is exploratory.

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
    """A sentence on the primary comparison and its result; none if the space names none."""
    answer = primary_answer(summary)
    if answer is None:
        return []
    primary, family = answer.primary, answer.family
    titles = " and ".join(SCORES[score].title for score in primary.scores)
    title = f"{titles} ({panel_title(summary.study.metrics, (primary.protocol, primary.metric))})"
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
    if len(answer.primary.scores) > 1:
        where = f"{SCORES[one.cell.score].title} {where}"
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
    """One sentence on what is exploratory, and how many marks chance alone would give; none if nothing is shown."""
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
    here = _marks_text(chance_marks(summary, panel), f" in {panel_title(summary.study.metrics, panel)}")
    return [f"{why}: {here}; over all metrics {_marks_text(everything, short=True)}."]


def _is_primary_elsewhere(summary: Summary) -> bool:
    """Whether there is a primary comparison that the paired tables do not show (to another baseline)."""
    statement = current_statement(summary)
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
