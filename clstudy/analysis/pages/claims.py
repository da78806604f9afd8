"""The sections of the HTML report on what was claimed beforehand and which differences are ruled out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from clstudy.analysis.claim_notes import claim_notes
from clstudy.analysis.claims import (
    PrimaryAnswer,
    effects_of,
    equivalence_table,
    main_panel,
    primary_answer,
    primary_table,
)
from clstudy.analysis.pages.blocks import Block, Bullets, Section, paragraph, soft_paragraph, text_table
from clstudy.analysis.printed import decimals_of, panel_title
from clstudy.analysis.report_data import ReportData
from clstudy.analysis.scores import SCORES
from clstudy.analysis.statistics.equivalence import CANNOT_SAY, EXCEEDS
from clstudy.analysis.summary import Summary
from clstudy.analysis.tables import to_csv
from clstudy.settings.claims import Statement, in_words

_PRIMARY_COLUMNS = ("comparison", "difference [95%]", "identities", "t test p (Holm)", "sign-flip p (Holm)", "verdict")
_EQUIVALENCE_COLUMNS = (
    "comparison",
    "smallest difference of interest",
    "difference [90%]",
    "verdict",
    "people to find it",
)
_EQUIVALENCE_NOTE = (
    "Two one-sided t tests at 5%, paired on people and seeds, not corrected for their number. “Rules out”: a "
    "difference as large as the smallest of interest, either way, is rejected. “Exceeds”: the difference is larger "
    "than that, one-sided 5%. “Cannot say”: neither, which is what a small study mostly says. A share is of the mean "
    "of the named strategy, estimated from the same people (the test allows for that). People to find it: with 80% "
    "power at two-sided 5%, from the spread seen here and, after the slash, from a cautious one."
)


def claim_sections(material: ReportData) -> list[Section]:
    """What was claimed beforehand with its result, and the equivalence tests if the space requests them.

    Empty if the study never claimed anything: a note under the tables already says that everything is exploratory.
    """
    summary = material.summary
    if material.panel is None or not summary.study.claims:
        return []
    answer = primary_answer(summary)
    decimals = decimals_of(material.metrics, main_panel(summary))
    blocks: list[Block] = [Bullets(tuple(claim_notes(summary, decimals)), soft=True)]
    if answer is not None and answer.family.members:
        blocks.append(text_table("The primary family", _PRIMARY_COLUMNS, _primary_lines(answer, decimals)))
        blocks.append(soft_paragraph(answer.family.statement))
    if len(summary.study.claims) > 1:
        blocks.append(paragraph("What the study's space claimed, in order:"))
        blocks.append(Bullets(tuple(map(_statement_text, summary.study.claims)), soft=True))
    sections = [Section(anchor="claims", title="Primary comparison and exploration", blocks=tuple(blocks))]
    if effects_of(summary):
        sections.append(_equivalence_section(summary, decimals))
    return sections


def claim_files(summary: Summary) -> dict[str, bytes]:
    """File name -> content; without rows if the study claims nothing, so that an older claim is overwritten."""
    return {
        "primary.csv": to_csv(primary_table(primary_answer(summary))).encode(),
        "equivalence.csv": to_csv(equivalence_table(summary)).encode(),
    }


def _primary_lines(answer: PrimaryAnswer, decimals: int) -> list[list[str]]:
    several = len(answer.primary.scores) > 1
    return [
        [
            (f"{SCORES[row['score']].title}: " if several else "") + _pair(row),
            _ranged(row["mean"], row["low"], row["high"], decimals),
            str(row["n_identities"]),
            _number(row["p_t_holm"], ".3g"),
            _number(row["p_sign_flip_holm"], ".3g"),
            row["verdict"] + ("" if row["before_results"] else " (named after results)"),
        ]
        for row in primary_table(answer).to_pylist()
    ]


def _equivalence_section(summary: Summary, decimals: int) -> Section:
    table: pa.Table = equivalence_table(summary)
    panel = main_panel(summary)
    blocks: list[Block] = []
    for score, effect in effects_of(summary).items():
        rows = [row for row in table.to_pylist() if row["score"] == score]
        if rows:
            title = f"{SCORES[score].title}: {effect.text}" + (
                f" ({panel_title(summary.study.metrics, panel)})" if panel else ""
            )
            lines = [_equivalence_line(row, decimals) for row in rows]
            notes = dict.fromkeys(row["note"] for row in rows if row["note"])
            blocks.append(text_table(title, _EQUIVALENCE_COLUMNS, lines))
            blocks += [soft_paragraph(f"{note[0].upper()}{note[1:]}.") for note in notes]
    blocks.append(soft_paragraph(_EQUIVALENCE_NOTE))
    return Section(anchor="equivalence", title="Which differences are ruled out", blocks=tuple(blocks))


def _equivalence_line(row: Mapping[str, Any], decimals: int) -> list[str]:
    effect, margin, needed = row["effect"], row["margin"], row["identities_needed"]
    shown = effect if margin is None or "%" not in effect else f"{effect} ({margin:.2g})"
    verdict = row["verdict"] if row["verdict"] == CANNOT_SAY else f"{row['verdict']} {effect}"
    return [
        _pair(row),
        shown,
        _ranged(row["mean"], row["low90"], row["high90"], decimals),
        f"{verdict} ({row['direction']})" if row["verdict"] == EXCEEDS else verdict,
        "–" if needed is None else f"{needed:,} / {row['identities_needed_cautious']:,}",
    ]


def _statement_text(statement: Statement) -> str:
    claimed = in_words(statement.primary) if statement.primary else "no primary comparison"
    if statement.effects is not None and (effects := statement.effects.by_score()):
        claimed += "; effects: " + ", ".join(f"{score} {effect.text}" for score, effect in effects.items())
    when = (
        "before anything was measured"
        if statement.before_results
        else f"with {statement.finished_trials} trials finished and {statement.measured_stages} stages measured"
    )
    return f"{when}: {claimed}"


def _pair(row: Mapping[str, Any]) -> str:
    def arm(name: str, size: int | None) -> str:
        return name if size is None else f"{name}, K = {size}"

    rate = "" if row["learning_rate"] is None else f", lr {row['learning_rate']:g}"
    return f"{arm(row['strategy'], row['buffer_size'])} minus {arm(row['baseline'], row['baseline_size'])}{rate}"


def _ranged(mean: float, low: float | None, high: float | None, decimals: int) -> str:
    between = " –" if low is None or high is None else f" [{low:+.{decimals}f}, {high:+.{decimals}f}]"
    return f"{mean:+.{decimals}f}{between}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
