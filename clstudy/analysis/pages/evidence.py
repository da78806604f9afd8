"""The sections of the HTML report with the evidence for differences (``clstudy.analysis.evidence``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clstudy.analysis.evidence import StudyEvidence
from clstudy.analysis.pages.blocks import Block, Folded, Section, paragraph, soft_paragraph, text_table
from clstudy.analysis.printed import digits_for, mean_and_interval
from clstudy.analysis.report_data import ReportData
from clstudy.analysis.scores import SCORES
from clstudy.analysis.sensitivity import BOOTSTRAP_T, CHECKED_SCORES
from clstudy.analysis.statistics.intervals import CONFIDENCE

_OPEN = "forgetting"
_COLUMNS = (
    "comparison",
    "difference [95%]",
    "effect size g [95%]",
    "sign-flip p",
    "Holm p",
    "P(new person improves) [95%]",
    "smallest difference this study finds",
    "people to find this one",
)
_NOTES = (
    "Difference: strategy minus baseline, paired on people and seeds, Student t. Effect size: that difference in units "
    "of its spread over people (Hedges). The smallest difference is found with 80% power at two-sided 5%; the people "
    "needed are computed from the spread seen here and, after the slash, from a cautious one (n values say little "
    "about a spread); a difference whose interval includes 0 has no such number, because it was not shown: look at the "
    "smallest difference found instead.",
)


def evidence_sections(material: ReportData, found: StudyEvidence) -> list[Section]:
    """For the study's main metric: the evidence for differences in AIP and Forgetting, and their other intervals.

    One section of tables that fold away; Forgetting's is open.
    """
    panel = material.panel
    if panel is None:
        return []
    with_rate = len(set(found.evidence["learning_rate"].to_pylist())) > 1
    parts = []
    for score in CHECKED_SCORES:
        rows = [row for row in found.evidence.to_pylist() if _of(row, panel, score)]
        if not rows:
            continue
        title = SCORES[score].title
        said = dict.fromkeys(
            f"{compared.capitalize()}: {text}"
            for (protocol, metric, name, _, compared), text in found.statements.items()
            if (protocol, metric, name) == (*panel, score)
        )
        cells = [_evidence_cells(row, material.digits, with_rate) for row in rows]
        parts.append(_folded(f"{title}: what the differences are worth", _COLUMNS, cells, said, opened=score == _OPEN))
        checks = [row for row in found.sensitivity.to_pylist() if _of(row, panel, score)]
        columns, lines = _check_rows(checks, material.digits, with_rate)
        parts.append(_folded(f"{title}: the same differences by other intervals", columns, lines, _check_notes(checks)))
    if not parts:
        return []
    blocks: tuple[Block, ...] = (*parts, *map(soft_paragraph, _NOTES))
    return [Section(anchor="evidence", title="What the differences are worth", blocks=blocks)]


def _folded(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], said: Iterable[str], *, opened: bool = False
) -> Folded:
    return Folded(title=title, blocks=(*map(paragraph, said), text_table("", columns, rows, name=title)), opened=opened)


def _of(row: Mapping[str, Any], panel: tuple[str, str], score: str) -> bool:
    return (row["protocol"], row["metric"], row["score"]) == (*panel, score)


def _comparison(row: Mapping[str, Any], with_rate: bool) -> str:
    def arm(name: str, size: int | None) -> str:
        return name if size is None else f"{name}, K = {size}"

    text = f"{arm(row['strategy'], row['buffer_size'])} minus {arm(row['baseline'], row['baseline_size'])}"
    return text + (f", lr {row['learning_rate']:g}" if with_rate else "")


def _evidence_cells(row: Mapping[str, Any], digits: int, with_rate: bool) -> list[str]:
    needed = row["identities_needed"]
    return [
        _comparison(row, with_rate),
        " ".join(mean_and_interval(row["mean"], row["low"], row["high"], digits, signed=True, missing="–")),
        _ranged(row, "effect_size", "effect_low", "effect_high", "+.1f"),
        _number(row["p_sign_flip"], ".3f"),
        _number(row["p_holm"], ".3f"),
        _ranged(row, "improvement", "improvement_low", "improvement_high", ".2f"),
        _number(row["detectable"], f".{digits_for(row['detectable'], row['detectable'], digits)}f"),
        "–" if needed is None else f"{needed:,} / {row['identities_needed_cautious']:,}",
    ]


def _check_rows(rows: list[Mapping[str, Any]], digits: int, with_rate: bool) -> tuple[list[str], list[list[str]]]:
    """Heads and lines: one line per comparison, one column per method."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        name = _comparison(row, with_rate)
        line = lines.setdefault(name, {"people": str(row["n_identities"]), "seeds": str(row["n_seeds"])})
        held = row["confidence"]
        level = "" if held is None or held >= CONFIDENCE else f" ({held:.2%})"
        line[row["method"]] = (
            "–"
            if row["low"] is None
            else mean_and_interval(row["mean"], row["low"], row["high"], digits, signed=True)[1] + level
        )
    columns = ["people", "seeds", *methods]
    return ["comparison", *columns], [[name, *(line.get(c, "–") for c in columns)] for name, line in lines.items()]


def _check_notes(rows: list[Mapping[str, Any]]) -> list[str]:
    """Each remark once, with the number of comparisons that it concerns; then the trials that are left out."""
    about: dict[str, int] = {}
    for row in rows:
        if row["note"]:
            dropped = "some resamples of near-duplicates left out"
            kind = dropped if row["method"] == BOOTSTRAP_T and row["low"] is not None else row["note"]
            text = f"{row['method']}: {kind}"
            about[text] = about.get(text, 0) + 1
    said = [f"{text} ({count} of the comparisons)." for text, count in about.items()]
    names = sorted({name for row in rows if row["left_out"] for name in row["left_out"].split(", ")})
    return said + ([f"Incomplete, and in none of these intervals: {', '.join(names)}."] if names else [])


def _ranged(row: Mapping[str, Any], middle: str, low: str, high: str, form: str) -> str:
    between = "–" if row[low] is None else f"[{row[low]:{form}}, {row[high]:{form}}]"
    return f"{_number(row[middle], form)} {between}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
