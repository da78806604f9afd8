"""The sections of a comparison page with what sets studies apart: settings, and paired differences on common people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clstudy.analysis.between_studies import Between, Difference, Shared
from clstudy.analysis.figures import Drawing
from clstudy.analysis.pages.blocks import Block, Folded, Section, Table, TableCell, TableRow, paragraph
from clstudy.analysis.pages.pictures import picture
from clstudy.analysis.printed import (
    better_when,
    decimals_of,
    mean_and_interval,
    number,
    panel_title,
    printed_row,
    printed_value,
    score_title,
)
from clstudy.settings.metric_facts import Metrics

Pairs = Mapping[tuple[str, str], tuple[Shared, Sequence[Between]]]
"""Names of two studies -> who is in both, and their cells."""
_LONGEST = 80


def differing_section(names: Sequence[str], differences: Sequence[Difference]) -> Section:
    """Everything that the studies did otherwise."""
    title = "What is not the same"
    if not differences:
        text = "Settings, photos, code, packages and arithmetic are the same in all of them."
        return Section(anchor="differing", title=title, blocks=(paragraph(text),))
    rows = tuple(
        TableRow(label=one.what, cells=tuple(TableCell(text=_shortened(value), kind="long") for value in one.values))
        for one in differences
    )
    table = Table(caption="From each study's study.yaml", columns=("setting", *names), rows=rows)
    return Section(anchor="differing", title=title, blocks=(table,))


def between_sections(pairs: Pairs, metrics: Metrics, drawings: Mapping[tuple[str, str], Drawing]) -> list[Section]:
    """A section for every two studies: their figure, a table for every score of their first metric, the others folded.

    Args:
        pairs: whom and what each two have in common.
        metrics: of all of them.
        drawings: those that two studies have; their files are beside the page.
    """
    sections = []
    for place, ((first, second), (shared, cells)) in enumerate(pairs.items()):
        blocks: list[Block] = [paragraph(sentence) for sentence in shared_sentences(first, second, shared)]
        if (first, second) in drawings:
            blocks.append(picture(drawings[first, second]))
        panels = list(dict.fromkeys((one.cell.protocol, one.cell.metric) for one in cells))
        for number_of_panel, panel in enumerate(panels):
            tables = score_tables(panel, cells, first, second, metrics)
            if number_of_panel == 0:
                blocks += tables
            else:
                blocks.append(Folded(title=panel_title(metrics, panel), blocks=tuple(tables)))
        if not cells:
            blocks.append(paragraph("They have no strategy, buffer size and learning rate in common on these people."))
        sections.append(Section(anchor=f"between-{place}", title=f"{second} minus {first}", blocks=tuple(blocks)))
    return sections


def shared_sentences(first: str, second: str, shared: Shared) -> list[str]:
    """Who is compared, in words."""
    said = []
    if shared.people:
        photos = "all" if shared.test_photos == 1 else f"{shared.test_photos:.0%}"
        said.append(
            f"{second} minus {first} on the {len(shared.people)} people of both (paired, the same seeds), who share "
            f"{photos} of their test photos. Intervals are 95% Student t over people; nothing is corrected for the "
            "number of comparisons."
        )
    else:
        said.append(f"{first} and {second} have no person in common: nothing can be paired.")
    if shared.other_people:
        said.append(
            f"Left out: {', '.join(shared.other_people)}, who are other people in {second} than in {first} (another "
            "data set or seed, and no test photo in common)."
        )
    return said


def score_tables(
    panel: tuple[str, str], cells: Sequence[Between], first: str, second: str, metrics: Metrics
) -> list[Table]:
    """A table for every score of one metric; cells of others are left out."""
    digits, facts = decimals_of(metrics, panel), metrics.get(panel[1])
    own = [one for one in cells if one.cell[:2] == panel]
    tables = []
    for score in dict.fromkeys(one.cell.score for one in own):
        better = "" if facts is None else f" ({better_when(score, facts)} is better)"
        rows = tuple(_row(one, digits) for one in own if one.cell.score == score)
        title = f"{panel_title(metrics, panel)}, {score_title(score)}: {second} minus {first}{better}"
        tables.append(Table(caption=title, columns=("strategy", first, second, "difference", "people"), rows=rows))
    return tables


def _row(one: Between, digits: int) -> TableRow:
    score, found = one.cell.score, one.difference
    interval = {"low": found.low, "high": found.high} if found.n > 1 else {"low": None, "high": None}
    shown = printed_row({"score": score, "mean": found.mean, **interval})
    mean, limits = mean_and_interval(
        shown["mean"], shown["low"], shown["high"], digits, signed=True, missing="no interval"
    )
    return TableRow(
        label=one.label,
        cells=(
            TableCell(text=number(printed_value(score, one.first), digits)),
            TableCell(text=number(printed_value(score, one.second), digits)),
            TableCell(text=mean, small=limits),
            TableCell(text=str(one.n_identities)),
        ),
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
