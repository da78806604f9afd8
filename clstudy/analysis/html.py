"""A study's report as one HTML page that needs nothing else: no network, no script, no other file.

Everything that goes into the page passes through ``element``, which escapes all text that is not markup already; so a
study, a person or an error message may be called anything. Equal studies give equal bytes.
"""

from __future__ import annotations

import base64
import html
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from clstudy.analysis.answer import answer
from clstudy.analysis.claims import exploratory_notes, primary_notes
from clstudy.analysis.efficiency import ABOVE_UPPER, efficiency_table
from clstudy.analysis.figures import Drawing, Gallery
from clstudy.analysis.intervals import CONFIDENCE
from clstudy.analysis.limits import not_concluded
from clstudy.analysis.matrix import Cell
from clstudy.analysis.paper import PaperTable, paper_tables, shortfall
from clstudy.analysis.printed import (
    PRINTED_SCORES,
    better_when,
    decimals_of,
    mean_and_interval,
    number,
    printed_higher_is_better,
    printed_row,
    printed_value,
    score_title,
)
from clstudy.analysis.report_data import Arm, Material, panel_title
from clstudy.analysis.study_folder import settings, stage_seconds
from clstudy.analysis.summary import Column, Summary
from clstudy.analysis.tables import BEST, notes
from clstudy.images import opened_picture
from clstudy.records.sessions import Session, priced_hours, read_sessions
from clstudy.safe_text import printable, redacted
from clstudy.settings.profiles import Resources

_VOID = frozenset({"img", "meta", "link", "br"})
# Nothing may be loaded from anywhere, should a name ever get past the escaping.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SVG_UP_TO = 600_000
"""Bytes up to which a drawing is embedded as SVG; larger ones as a picture."""
_NARROWEST = 0.62
"""Below this share of its natural width a figure scrolls instead of shrinking: its text would be too small to read."""
_LARGER = 1.3
"""Most that a figure grows on a wide screen."""
_BEST = f"({BEST})"

SAME_BITS = (
    "The same kind of processor with the same versions gives the same bits. On another kind, sums are rounded in "
    "another order: with AVX2 instead of AVX-512 a smoke study's LPIPS moved by 0.0008 a photo on average."
)


class Markup(str):
    """Text that is HTML already."""


def element(name: str, /, *children: str | Markup, **attributes: str | None) -> Markup:
    """One HTML element; children that are not ``Markup``, and all attributes, are escaped. ``class_`` means class."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{said}>")
    inner = "".join(child if isinstance(child, Markup) else escaped(child) for child in children)
    return Markup(f"<{name}{said}>{inner}</{name}>")


def escaped(text: str) -> str:
    """Text as HTML shows it: tags, control characters and secrets do nothing."""
    return html.escape(printable(redacted(text)))


def joined(parts: Iterable[Markup]) -> Markup:
    """Several elements, one a line."""
    return Markup("\n".join(parts))


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page; ``anchor`` is its id, made of letters, digits and hyphens."""

    anchor: str
    title: str
    body: Markup


def study_page(material: Material, gallery: Gallery, extra: Sequence[Section] = ()) -> str:
    """The whole report; ``extra`` sections stand after the paired comparisons.

    Args:
        material: the study's numbers.
        gallery: its figures, and those that could not be drawn.
        extra: further sections, for instance of ``rows_section``.
    """
    summary = material.summary
    document = settings(summary.study.folder)
    sections = [
        main_section(material),
        figure_section(gallery),
        comparison_section(material),
        *extra,
        *efficiency_section(material),
        identity_section(material),
        missing_section(summary),
        settings_section(document),
        timing_section(material),
    ]
    header = element(
        "header",
        element("h1", summary.study.name),
        element("p", str(document.get("description") or ""), class_="soft"),
        element("div", *_answer(material), class_="answer"),
        _facts(material),
        _alerts(material, gallery),
        element(
            "nav",
            element("ul", *(element("li", element("a", s.title, href=f"#{s.anchor}")) for s in sections)),
            aria_label="Contents",
        ),
    )
    return page(f"{summary.study.name}: clstudy report", header, sections)


def page(title: str, header: Markup, sections: Sequence[Section]) -> str:
    """A complete document around a header and sections."""
    style = Markup(files("clstudy.analysis").joinpath("report.css").read_text(encoding="utf-8"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", title),
        element("style", style),
    )
    shown = [
        element(
            "section",
            element("h2", s.title, id=f"{s.anchor}-title"),
            s.body,
            id=s.anchor,
            aria_labelledby=f"{s.anchor}-title",
        )
        for s in sections
    ]
    footer = element("footer", "Made by clstudy from the study's rows (results/*.parquet) and study.yaml; python -m "
                     "clstudy.report rebuilds it. Tables and figures are also beside this page as files.")  # fmt: skip
    body = element("body", header, element("main", joined(shown)), footer)
    return f'<!doctype html>\n<html lang="en">\n{head}\n{body}\n</html>\n'


# --- sections -------------------------------------------------------------------------------------------------------


def rows_section(
    anchor: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> Section:
    """A section of one table of plain text and notes under it; the first column heads the rows.

    The place for statistics that are computed elsewhere: hand the section to ``study_page`` as ``extra``.
    """
    body = [data_table("", columns, rows)] if rows else []
    return Section(
        anchor=anchor, title=title, body=joined([*body, *(element("p", note, class_="soft") for note in notes)])
    )


def main_section(material: Material) -> Section:
    """The main table, and those of the other metrics and the paper's layout folded away."""
    summary = material.summary
    if material.panel is None:
        return Section(anchor="table", title="Scores", body=element("p", "No trial is in the numbers yet."))
    tables = {panel: score_table(material, panel) for panel in material.panels}
    said = [note for note in notes(summary) if note not in not_concluded(summary)]
    others = [
        element("details", element("summary", panel_title(panel)), table)
        for panel, table in tables.items()
        if panel != material.panel
    ]
    paper = [
        element("details", element("summary", f"As the paper prints it: {table.title}"), paper_table(table))
        for table in paper_tables(summary)
    ]
    body = joined([tables[material.panel], bullets(said), *others, *paper])
    return Section(anchor="table", title=panel_title(material.panel), body=body)


def paper_table(table: PaperTable) -> Markup:
    """A table in the paper's layout, published values in lines of their own."""
    body = []
    for title, rows in table.blocks:
        span = str(1 + len(table.heads))
        body.append(element("tr", element("th", title, colspan=span, scope="rowgroup", class_="block")))
        for row in rows:
            cells = [
                element(
                    "td",
                    " ".join(filter(None, (cell.value, cell.short, _BEST if cell.best else ""))),
                    element("small", cell.interval),
                    class_="better" if cell.best else None,
                )
                for cell in row.cells
            ]
            label = f"{row.label} (published)" if row.published else row.label
            body.append(element("tr", element("th", label, scope="row"), *cells))
    return _table(table.title, ["strategy", *table.heads], body)


def efficiency_section(material: Material) -> list[Section]:
    """What a memory gains over ``lower`` and what it costs, under the main metric; nothing without ``lower``."""
    rows = [
        row
        for row in efficiency_table(material.summary).to_pylist()
        if material.panel == (row["protocol"], row["metric"])
    ]
    if not rows or material.panel is None:
        return []
    digits = material.digits
    lines = []
    for row in rows:
        label = Arm(row["strategy"], row["buffer_size"]).label
        label += f", lr {row['learning_rate']:g}" if len(material.rates) > 1 else ""
        gain = (
            "–"
            if row["gain"] is None
            else " ".join(
                filter(None, mean_and_interval(row["gain"], row["gain_low"], row["gain_high"], digits, signed=True))
            )
        )
        gap = _ranged(row["gap_closed"], row["gap_low"], row["gap_high"], ".0%")
        costs = [_given(row["photos"], ".4g"), _given(row["megabytes"], ".2g"), _given(row["seconds"], ".0f")]
        lines.append([label, gain, gap, *costs])
    heads = ["strategy", "gain over lower", "gap to upper closed", "stored photos", "MB stored", "core-seconds"]
    exceeded = ABOVE_UPPER if any((row["gap_closed"] or 0) > 1 for row in rows) else ""
    said = (
        f"Final performance in {panel_title(material.panel)}; a positive gain is better. Gap closed: share of the gap "
        "between lower and upper, with Fieller's interval. Costs are means per trial; core-seconds count stages that "
        f"trials share in full.{exceeded} efficiency.md beside this page holds all metrics and the gain per photo, MB "
        "and second."
    )
    return [rows_section("efficiency", "Gain and cost", heads, lines, [said])]


def _ranged(value: float | None, low: float | None, high: float | None, form: str) -> str:
    between = "" if low is None or high is None else f" [{low:{form}}, {high:{form}}]"
    return _given(value, form) + between


def _given(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def score_table(material: Material, panel: tuple[str, str]) -> Markup:
    """Blocks AIP, Forgetting, −BWT, final performance; rows strategy, columns buffer size."""
    summary = material.summary
    rows = [row for row in summary.scores.to_pylist() if (row["protocol"], row["metric"]) == panel]
    found = {(r["score"], r["learning_rate"], r["strategy"], r["buffer_size"]): r for r in rows}
    columns = summary.study.columns
    body = []
    for score in PRINTED_SCORES:
        lines = []
        for rate in material.rates:
            names = dict.fromkeys(r["strategy"] for r in rows if (r["score"], r["learning_rate"]) == (score, rate))
            for name in names:
                flat = found.get((score, rate, name, None))
                cells = [(flat or found.get((score, rate, name, size)), size) for size in columns]
                texts = [_score_cell(row, summary, size) if row else element("td", "–") for row, size in cells]
                mark = " *" if name in summary.study.joint_strategies else ""
                label = f"{name}{mark}" + (f" lr {rate:g}" if len(material.rates) > 1 else "")
                lines.append(element("tr", element("th", label, scope="row"), *texts))
        if lines:
            direction = "higher" if printed_higher_is_better(score, panel[1]) else "lower"
            block = f"{score_title(score)} ({direction} is better)"
            span = str(1 + len(columns))
            body.append(element("tr", element("th", block, colspan=span, scope="rowgroup", class_="block")))
            body += lines
    heads = ["strategy", *("no buffer" if size is None else f"K = {size}" for size in columns)]
    return _table(f"{panel_title(panel)}: mean and {CONFIDENCE:.0%} interval over identities", heads, body)


def comparison_section(material: Material) -> Section:
    """Paired differences under the main metric, to every baseline that the study has."""
    rows = [
        row
        for row in material.summary.paired.to_pylist()
        if material.panel == (row["protocol"], row["metric"]) and row["score"] in PRINTED_SCORES
    ]
    if not rows:
        text = "No two strategies share an identity, so nothing can be compared."
        return Section(anchor="comparisons", title="Paired comparisons", body=element("p", text))
    parts = [
        element(
            "p",
            "Strategy minus baseline on the same identities and seeds; “better” or “worse” stands only where the "
            f"interval excludes 0. Nothing here is corrected for the number of comparisons ({len(rows)}).",
        ),
        *(element("p", note) for note in exploratory_notes(material.summary)),
    ]
    for score in PRINTED_SCORES:
        table = [row for row in rows if row["score"] == score]
        for baseline in dict.fromkeys(row["baseline"] for row in table):
            lines = [_paired_line(material, row) for row in table if row["baseline"] == baseline]
            title = f"{score_title(score)} minus {baseline}'s ({better_when(score, table[0]['metric'])} is better)"
            parts.append(
                element(
                    "details",
                    element("summary", title),
                    _table(title, ["strategy", "difference", "identities", "verdict"], lines),
                    open="open" if (score, baseline) == ("forgetting", "lower") else None,
                )
            )
    return Section(anchor="comparisons", title="Paired comparisons", body=joined(parts))


def figure_section(gallery: Gallery) -> Section:
    """All figures with captions, then what could not be drawn and why."""
    parts = [figure_element(drawing) for drawing in gallery.drawings]
    if gallery.skipped:
        parts.append(element("h3", "Not drawn"))
        parts.append(element("ul", *(element("li", f"{s.title}: {s.reason}") for s in gallery.skipped)))
    return Section(anchor="figures", title="Figures", body=joined(parts))


def identity_section(material: Material) -> Section:
    """One value per identity (mean over seeds) for every printed score under the main metric."""
    title = "Per identity"
    if material.panel is None:
        return Section(anchor="identities", title=title, body=element("p", "No trial is in the numbers yet."))
    identities = sorted(material.summary.study.identities)
    tables = []
    for score in PRINTED_SCORES:
        lines = []
        for rate in material.rates:
            for arm in _arms(material, rate):
                values = material.values.get(Cell(*material.panel, score, rate, *arm))
                if values:
                    means = [values.get(identity) for identity in identities]
                    texts = [
                        number(printed_value(score, float(np.mean(list(by.values())))), material.digits) if by else "–"
                        for by in means
                    ]
                    lines.append([arm.label + (f", lr {rate:g}" if len(material.rates) > 1 else ""), *texts])
        if lines:
            direction = "higher" if printed_higher_is_better(score, material.panel[1]) else "lower"
            caption = f"{score_title(score)}, {panel_title(material.panel)} ({direction} is better), mean over seeds"
            table = data_table(caption, ["strategy", *identities], lines)
            opened = "open" if score == "forgetting" else None
            tables.append(element("details", element("summary", score_title(score)), table, open=opened))
    return Section(anchor="identities", title=title, body=joined(tables))


def missing_section(summary: Summary) -> Section:
    """Trials that failed, were not run or lack cells."""
    title = "Failed and missing trials"
    parts = []
    if summary.missing:
        count = f"{len(summary.missing)} of {len(summary.study.trials)} trials are missing, in whole or in part."
        table = data_table("", ["trial", "why"], [[m.trial, m.reason] for m in summary.missing], long=True)
        parts += [element("p", count), table]
    else:
        parts.append(element("p", f"None: all {len(summary.study.trials)} trials of the plan are in the numbers."))
    if summary.left_out:
        parts.append(element("p", f"Not of this plan and left out: {', '.join(summary.left_out)}"))
    return Section(anchor="missing", title=title, body=joined(parts))


def settings_section(document: Mapping[str, Any]) -> Section:
    """Settings, versions and data digests of ``study.yaml`` (the trials themselves are in the file)."""
    plain = {
        key: value
        for key, value in document.items()
        if key not in ("trials", "description", "data_digests", "versions")
    }
    parts = [
        data_table(caption, ["name", "value"], flat, long=True)
        for caption, values in (
            ("Settings", plain),
            ("Versions", document.get("versions")),
            ("Digests of the photos, by identity", document.get("data_digests")),
        )
        if (flat := list(_flat(values)))
    ]
    same_bits = element("p", SAME_BITS, class_="soft")
    body = joined([same_bits, *parts]) if parts else element("p", "study.yaml holds none.")
    return Section(anchor="settings", title="Settings, versions, data digests", body=body)


def timing_section(material: Material) -> Section:
    """How long the stages took, of those whose timing is in the folder."""
    seconds = stage_seconds(material.summary.study.folder)
    if not seconds:
        body = element("p", "The study's folder has no timings.")
    else:
        total = sum(seconds)
        rows = [
            ["stages computed", str(len(seconds))],
            ["worker time in all", f"{total / 3600:.2f} h" if total >= 3600 else f"{total / 60:.1f} min"],
            ["median stage", f"{statistics.median(seconds):.1f} s"],
            ["shortest and longest stage", f"{min(seconds):.1f} s to {max(seconds):.1f} s"],
        ]
        body = data_table("Seconds of one worker per stage; stages that trials share count once", ["", "time"], rows)
    sessions = read_sessions(material.summary.study.folder)
    parts = [body, *([session_table(sessions)] if sessions else [])]
    return Section(anchor="timings", title="Timings", body=joined(parts))


def session_table(sessions: Sequence[Session]) -> Markup:
    """Every run of the study: what the plan expected of all its stages, and what those took that were computed."""
    rows = []
    for one in sessions:
        share = Resources(cpus=one.cpus, gpus=one.gpus)
        expected, taken = (
            priced_hours(share, seconds, one.price_per_hour)
            for seconds in (one.expected_worker_seconds, one.worker_seconds)
        )
        rows.append(
            [
                f"{one.began} UTC, {one.part}",
                f"{one.stages_planned} stages, {one.expected_seconds / 60:.1f} min, {expected}",
                f"{one.stages_computed} stages, {one.seconds / 60:.1f} min, {taken}",
                one.ended + (f"; {one.deaths} workers died" if one.deaths else ""),
            ]
        )
    title = "Runs of the study: the plan (at most so many stages) against what was computed"
    return data_table(title, ["began", "expected", "taken", "ended"], rows)


def _answer(material: Material) -> list[Markup]:
    """What a study was run for and what came of it, then its answer, one paragraph each."""
    said = [*primary_notes(material.summary, material.digits), *answer(material)]
    return [element("p", text) for text in said]


def comparison_page(materials: Mapping[str, Material]) -> str:
    """Main tables of several studies side by side: study name -> material."""
    sections = []
    for place, (name, material) in enumerate(materials.items()):
        table = main_section(material)
        body = joined([*_answer(material), element("h3", table.title), table.body])
        sections.append(Section(anchor=f"study-{place}", title=name, body=body))
    note = "Studies differ in more than their numbers (people, photos, settings): read each one's own report as well."
    header = element("header", element("h1", f"{len(materials)} studies"), element("p", note, class_="soft"))
    beside = element(
        "div",
        *(element("section", element("h2", s.title), s.body, id=s.anchor) for s in sections),
        class_="beside",
    )
    return page("clstudy studies", header, [Section(anchor="studies", title="Main tables", body=beside)])


# --- parts ----------------------------------------------------------------------------------------------------------


def data_table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, long: bool = False) -> Markup:
    """A table of plain text in a box that scrolls by itself; the first column heads the rows."""
    kind = "long" if long else None
    body = [element("tr", _row_head(row[0]), *(element("td", text, class_=kind) for text in row[1:])) for row in rows]
    return _table(caption, columns, body)


def _table(caption: str, columns: Sequence[str], body: Sequence[Markup]) -> Markup:
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in columns)))
    parts = [element("caption", element("span", caption))] if caption else []
    table = element("table", *parts, head, element("tbody", joined(body)))
    # a box that scrolls must be reachable with the keyboard and have a name
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=caption or columns[0])


def _row_head(label: str) -> Markup:
    # "K = 3" must not be torn apart where a phone wraps the label
    return element("th", label.replace(" = ", "\u00a0=\u00a0"), scope="row")


def figure_element(drawing: Drawing) -> Markup:
    kind, content, width = embedded(drawing)
    source = f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
    style = f"max-width:{round(width * _LARGER)}px;min-width:{min(width, round(width * _NARROWEST))}px"
    image = element("img", src=source, alt=drawing.alt, style=style)
    frame = element("div", image, class_="frame", tabindex="0", role="region", aria_label=f"Figure: {drawing.title}")
    caption = element("figcaption", f"{drawing.caption} Files: {drawing.name}.svg, {drawing.name}.png.")
    return element("figure", element("h3", drawing.title), frame, caption, id=f"figure-{drawing.name}")


def embedded(drawing: Drawing) -> tuple[str, bytes, int]:
    """A drawing as the page holds it: media type, bytes, natural width in CSS pixels.

    Lines and text stay SVG; photos, and drawings with very many elements, become WebP.
    """
    with opened_picture(drawing.files["png"], ("PNG",)) as image:
        width = round(image.width * 96 / drawing.dpi)
        if not drawing.photographic and len(drawing.files["svg"]) <= _SVG_UP_TO:
            return "image/svg+xml", drawing.files["svg"], width
        sink = io.BytesIO()
        image.convert("RGB").save(sink, "WEBP", quality=86, method=4)
    return "image/webp", sink.getvalue(), width


def _facts(material: Material) -> Markup:
    study = material.summary.study
    counts = [
        (len(study.identities), "identity", "identities"),
        (len(study.strategies), "strategy", "strategies"),
        (len({trial.seed for trial in study.trials}), "seed", "seeds"),
    ]
    facts = [element("li", element("strong", str(n)), one if n == 1 else more) for n, one, more in counts]
    if study.buffer_sizes:
        facts.append(element("li", element("strong", ", ".join(map(str, study.buffer_sizes))), "stored photos (K)"))
    done = len(study.trials) - len(material.summary.missing)
    facts.append(element("li", element("strong", f"{done}/{len(study.trials)}"), "trials in the numbers"))
    return element("ul", *facts, class_="facts")


def _alerts(material: Material, gallery: Gallery) -> Markup:
    """What cannot be concluded, and what of this page is missing, before anything is read."""
    summary = material.summary
    said = not_concluded(summary)
    if summary.missing:
        said.append(f"{len(summary.missing)} of {len(summary.study.trials)} trials are missing, in whole or in part.")
    said += [f"{broken.title}: {broken.reason}" for broken in gallery.skipped if broken.broken]
    if not said:
        return Markup("")
    return element(
        "div", element("strong", "What this study cannot show"), bullets(said), class_="warning", role="note"
    )


def bullets(texts: Iterable[str]) -> Markup:
    """A list of sentences."""
    return element("ul", *(element("li", text) for text in texts), class_="soft")


def _score_cell(row: Mapping[str, Any], summary: Summary, size: int | None) -> Markup:
    mean, interval = _numbers(row)
    column = Column(row["protocol"], row["metric"], row["score"], row["learning_rate"], size)
    best = summary.best.get(column) == row["strategy"]
    text = " ".join(filter(None, (mean, shortfall(row, summary), _BEST if best else "")))
    return element("td", text, element("small", interval), class_="better" if best else None)


def _paired_line(material: Material, row: Mapping[str, Any]) -> Markup:
    mean, interval = _numbers(row, signed=True)
    label = Arm(row["strategy"], row["buffer_size"]).label
    label += f", lr {row['learning_rate']:g}" if len(material.rates) > 1 else ""
    verdict = row["verdict"] if row["verdict"] in ("better", "worse") else None
    return element(
        "tr",
        _row_head(label),
        element("td", mean, element("small", interval)),
        element("td", str(row["n_identities"])),
        element("td", row["verdict"] + (" (primary)" if row["claim"] == "primary" else ""), class_=verdict),
    )


def _numbers(row: Mapping[str, Any], *, signed: bool = False) -> tuple[str, str]:
    row = printed_row(row)
    digits = decimals_of(row["metric"])
    return mean_and_interval(row["mean"], row["low"], row["high"], digits, signed=signed, missing="no interval")


def _arms(material: Material, rate: float | None) -> list[Arm]:
    rows = [row for row in material.summary.scores.to_pylist() if row["learning_rate"] == rate]
    return list(dict.fromkeys(Arm(row["strategy"], row["buffer_size"]) for row in rows if row["score"] == "final"))


def _flat(values: Any, before: str = "") -> Iterable[tuple[str, str]]:
    """Nested settings as (dotted name, text)."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _flat(value, f"{before}.{key}" if before else str(key))
    elif isinstance(values, list | tuple):
        yield before, ", ".join(map(str, values)) or "none"
    elif values is not None or before:
        yield before, "none" if values is None else str(values)
