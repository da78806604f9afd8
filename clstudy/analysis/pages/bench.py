"""The page of a benchmark's places, and the lines of its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clstudy.analysis.bench import BASELINE, Benchmark, Standing
from clstudy.analysis.comparisons import Evidence
from clstudy.analysis.pages.blocks import Section, paragraph, soft_paragraph, text_table
from clstudy.analysis.pages.render import render
from clstudy.analysis.printed import mean_and_interval
from clstudy.analysis.statistics.intervals import Interval

_DIGITS = 4
COLUMNS = ("place", "strategy", "AIP", "Forgetting", f"AIP minus {BASELINE}", f"Forgetting minus {BASELINE}", "source")
"""Heads of ``standing_lines``."""


def standing_lines(places: Sequence[Standing]) -> list[tuple[str, ...]]:
    """One line of texts for each strategy; an interval, and its p, are on lines of their own."""
    return [
        (
            "–" if one.rank is None else str(one.rank),
            one.strategy,
            _interval(one.aip),
            _interval(one.forgetting),
            _difference(one.to_baseline.get("aip")),
            _difference(one.to_baseline.get("forgetting")),
            "packaged" if one.origin is None else one.origin[:12],
        )
        for one in places
    ]


def against_lines(found: Mapping[str, Sequence[Evidence]], strategy: str) -> list[tuple[str, ...]]:
    """A strategy's differences to each other one: its name, in AIP, in Forgetting."""
    by_name: dict[str, dict[str, Evidence]] = {}
    for score, members in found.items():
        for one in members:
            if one.comparison.cell.strategy == strategy:
                by_name.setdefault(one.comparison.baseline, {})[score] = one
    return [(name, _difference(by.get("aip")), _difference(by.get("forgetting"))) for name, by in by_name.items()]


def board_page(benchmark: Benchmark, places: Sequence[Standing]) -> str:
    """The places as a page that needs nothing from elsewhere."""
    people = len(benchmark.reference.facts.data_digests)
    bounds = ", ".join(one.strategy for one in places if one.rank is None) or "none"
    section = Section(
        anchor="places",
        title="Places",
        blocks=(
            paragraph(
                f"Reconstruction LPIPS at K = {benchmark.buffer_size} on {people} people, lower is better: mean and "
                "95% interval over people, best AIP first. Places next to each other need not differ: read the "
                "differences, which are paired over the same people, photos and seeds."
            ),
            text_table("Places", COLUMNS, standing_lines(places)),
            soft_paragraph(
                f"The question fixed beforehand is the difference to {BASELINE}. p: sign flips, adjusted by Holm over "
                f"all strategies here. Without a place, as bounds: {bounds}. Processors may move a difference in its "
                "fourth decimal."
            ),
        ),
    )
    return render("board.html.j2", title=f"clstudy-bench {benchmark.name}", name=benchmark.name, sections=[section])


def _interval(value: Interval | None) -> str:
    return "–" if value is None else "\n".join(mean_and_interval(value.mean, value.low, value.high, _DIGITS))


def _difference(evidence: Evidence | None) -> str:
    if evidence is None:
        return "–"
    difference = evidence.comparison.difference
    text = "\n".join(mean_and_interval(difference.mean, difference.low, difference.high, _DIGITS, signed=True))
    return text if evidence.test is None else f"{text}\np = {evidence.p_holm:.2g}"
