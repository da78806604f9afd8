"""The paper's layout: strategies in blocks of one buffer size, AIP and Forgetting side by side; as Markdown and LaTeX.

The paper has no −BWT; it is printed beside Forgetting because Forgetting's max picks up photo noise.

LPIPS and ID are multiplied by ten, as the paper prints them. ``upper`` has no AIP: its final performance is shown in
that column, as in the paper, and marked as such. Published values get a line of their own under ours, in the columns
"as published" if a study has them (``--as-published``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clstudy.analysis.printed import mean_and_interval, printed_higher_is_better, printed_row, score_title
from clstudy.analysis.published import published_value
from clstudy.analysis.score_tables import CELL_FIELDS, Column
from clstudy.analysis.summary import Summary
from clstudy.safe_text import one_line, redacted
from clstudy.settings.metric_facts import as_published, packaged_metrics

PAPER_SCORES = ("aip", "forgetting", "bwt")
MISSING, NONE = "missing", "–"


@dataclass(frozen=True, kw_only=True)
class PrintedMetric:
    """How the paper prints a metric: name, factor, and decimals, ours and the paper's."""

    title: str
    factor: float
    decimals: int
    published_decimals: int


_LPIPS = PrintedMetric(title="LPIPS ×10", factor=10, decimals=3, published_decimals=2)
_ID = PrintedMetric(title="ID ×10", factor=10, decimals=3, published_decimals=2)
_FID = PrintedMetric(title="FID", factor=1, decimals=1, published_decimals=1)


def _with_twin(metric: str, style: PrintedMetric) -> dict[str, PrintedMetric]:
    """A metric and, next to it, the same one computed as by the scripts."""
    return {metric: style, as_published()[metric]: replace(style, title=f"{style.title} as published")}


PAPER_METRICS: dict[str, dict[str, PrintedMetric]] = {
    "reconstruction": _with_twin("lpips", _LPIPS) | _with_twin("id", _ID),
    "synthesis": {"fid": _FID} | _with_twin("id", _ID),
}
"""protocol -> metric, in the paper's order of columns; those that a study does not have are left out."""


@dataclass(frozen=True, kw_only=True)
class PaperCell:
    """A number as printed: ``value``, ``interval`` ("" if there is none), ``short`` ("n=4": rests on fewer)."""

    value: str
    interval: str = ""
    short: str = ""
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One line: ours, or the published one of the same strategy; ``joint``: a line of joint training."""

    label: str
    cells: tuple[PaperCell, ...]
    published: bool = False
    joint: bool = False


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One protocol at one learning rate.

    Attributes:
        columns: (score, metric) of every column; ``heads`` their titles with an arrow towards better.
        blocks: (title, rows): without a buffer, K = 3, …, joint training.
        joint: whether it has a line of joint training (its AIP column holds the final performance).
    """

    title: str
    columns: tuple[tuple[str, str], ...]
    heads: tuple[str, ...]
    blocks: tuple[tuple[str, tuple[PaperRow, ...]], ...]
    joint: bool


def paper_tables(summary: Summary) -> list[PaperTable]:
    """A table per protocol and learning rate that has one of the paper's metrics, in the paper's order."""
    found = {tuple(row[name] for name, _ in CELL_FIELDS): row for row in summary.scores.to_pylist()}
    rates = sorted({key[3] for key in found})
    tables = []
    for protocol, metrics in PAPER_METRICS.items():
        there = [metric for metric in metrics if any(key[:2] == (protocol, metric) for key in found)]
        scores = [score for score in PAPER_SCORES if any(key[0] == protocol and key[2] == score for key in found)]
        if not scores and there:
            scores = ["aip"]  # joint training alone
        columns = tuple((score, metric) for score in scores for metric in there)
        for rate in rates if columns else ():
            title = f"{protocol.capitalize()}, learning rate {rate:g}" if len(rates) > 1 else protocol.capitalize()
            blocks = _blocks(summary, found, protocol, columns, rate)
            tables.append(
                PaperTable(
                    title=title,
                    columns=columns,
                    heads=tuple(_head(protocol, *column) for column in columns),
                    blocks=blocks,
                    joint=any(row.joint for _, rows in blocks for row in rows),
                )
            )
    return tables


def _head(protocol: str, score: str, metric: str) -> str:
    arrow = "↑" if printed_higher_is_better(score, packaged_metrics()[metric]) else "↓"
    return f"{PAPER_METRICS[protocol][metric].title} {arrow}"


def _blocks(
    summary: Summary,
    found: Mapping[tuple[Any, ...], Mapping[str, Any]],
    protocol: str,
    columns: Sequence[tuple[str, str]],
    rate: float,
) -> tuple[tuple[str, tuple[PaperRow, ...]], ...]:
    planned = {(trial.strategy, trial.buffer_size) for trial in summary.study.trials if trial.learning_rate == rate}
    order = summary.study.strategies
    joint = summary.study.joint_strategies
    plain = [name for name in order if (name, None) in planned and name not in joint]
    together = [name for name in order if (name, None) in planned and name in joint]
    sections: list[tuple[str, list[str], int | None]] = [("no buffer", plain, None)]
    sections += [(f"K = {k}", [name for name in order if (name, k) in planned], k) for k in summary.study.buffer_sizes]
    sections.append(("joint training", together, None))
    measured = {metric for _, metric in columns}
    blocks = []
    for title, names, size in sections:
        rows: list[PaperRow] = []
        for name in names:
            ours = tuple(_cell(summary, found, protocol, column, rate, name, size) for column in columns)
            rows.append(PaperRow(label=name, cells=ours, joint=name in joint))
            theirs = tuple(_published(summary, protocol, column, rate, name, size, measured) for column in columns)
            if any(cell.value != NONE for cell in theirs):
                rows.append(PaperRow(label=name, cells=theirs, published=True, joint=name in joint))
        if rows:
            blocks.append((title, tuple(rows)))
    return tuple(blocks)


def _score(summary: Summary, strategy: str, score: str) -> str | None:
    """The score that is printed in a column: joint training has its final performance under AIP."""
    if strategy not in summary.study.joint_strategies:
        return score
    return "final" if score == "aip" else None


def _cell(
    summary: Summary,
    found: Mapping[tuple[Any, ...], Mapping[str, Any]],
    protocol: str,
    column: tuple[str, str],
    rate: float,
    strategy: str,
    size: int | None,
) -> PaperCell:
    score, metric = _score(summary, strategy, column[0]), column[1]
    if score is None:
        return PaperCell(value=NONE)
    row = found.get((protocol, metric, score, rate, strategy, size))
    if row is None:
        return PaperCell(value=MISSING)
    style = PAPER_METRICS[protocol][metric]

    printed = printed_row(row)
    low, high = (None if printed[end] is None else printed[end] * style.factor for end in ("low", "high"))
    value, interval = mean_and_interval(printed["mean"] * style.factor, low, high, style.decimals)
    # a strategy without a buffer is in every column, so it is marked only if it is best in all of them
    sizes = summary.study.columns if size is None else (size,)
    return PaperCell(
        value=value,
        interval=interval,
        short=shortfall(row, summary),
        best=all(summary.best.get(Column(protocol, metric, score, rate, at)) == strategy for at in sizes),
    )


def _published(
    summary: Summary,
    protocol: str,
    column: tuple[str, str],
    rate: float,
    strategy: str,
    size: int | None,
    measured: Collection[str],
) -> PaperCell:
    score, metric = _score(summary, strategy, column[0]), column[1]
    value = score and published_value(summary.setting, (protocol, metric, score, strategy, size), rate, measured)
    if value is None or isinstance(value, str):
        return PaperCell(value=NONE)
    style = PAPER_METRICS[protocol][metric]
    return PaperCell(value=f"{value * style.factor:.{style.published_decimals}f}")


def shortfall(row: Mapping[str, Any], summary: Summary) -> str:
    """What a row of the scores table lacks: "n=4" or "7/8 trials"; "" if it is complete."""
    if row["n_identities"] < len(summary.study.identities):
        return f"n={row['n_identities']}"
    return f"{row['n_trials']}/{row['n_planned']} trials" if row["n_trials"] < row["n_planned"] else ""


# --- Markdown -----------------------------------------------------------------------------------------------------


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; bars and line breaks in the texts are escaped."""

    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(text.split()).replace("|", "\\|") for text in texts) + " |"

    return [line(head), "|---" * len(head) + "|", *(line(row) for row in rows)]


def paper_markdown(table: PaperTable) -> list[str]:
    """Lines of one table, without a heading."""
    columns = zip(table.columns, table.heads, strict=True)
    head = ["", "strategy", *(f"{score_title(score)} {title}" for (score, _), title in columns)]
    rows = []
    for title, block in table.blocks:
        for place, row in enumerate(block):
            label = f"*{row.label}, published*" if row.published else row.label + _mark(row)
            rows.append([title if place == 0 else "", label, *map(_markdown_cell, row.cells)])
    return markdown_table(head, rows)


def _mark(row: PaperRow) -> str:
    return " \\*" if row.joint else ""


def _markdown_cell(cell: PaperCell) -> str:
    text = " ".join(filter(None, [cell.value, cell.short, cell.interval]))
    return f"**{text}**" if cell.best else text


# --- LaTeX --------------------------------------------------------------------------------------------------------

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # at the start of a line, \\ would take it for its argument
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


def escape_latex(text: str) -> str:
    """Text for LaTeX: special characters escaped, line breaks as blanks."""
    return "".join(_SPECIAL.get(sign, sign) for sign in redacted(one_line(text)))


def paper_latex(summary: Summary, notes: Sequence[str]) -> str:
    """The paper's tables as LaTeX, each in its ``table`` with caption, label and notes; needs the package booktabs."""
    tables = paper_tables(summary)
    said = [escape_latex(note) for note in notes]
    lines = [
        f"% {one_line(summary.study.name)}: made by python -m clstudy.report; needs \\usepackage{{booktabs}}",
        *(f"% {note}" for note in said if not tables),
    ]
    for number, table in enumerate(tables, start=1):
        lines += ["", *_latex_table(summary, table, number, said)]
    return "\n".join(lines) + "\n"


def _latex_table(summary: Summary, table: PaperTable, number: int, notes: Sequence[str]) -> list[str]:
    spans, rules, first = [], [], 2
    for score in dict.fromkeys(score for score, _ in table.columns):
        width = sum(column[0] == score for column in table.columns)
        spans.append(f"\\multicolumn{{{width}}}{{c}}{{{escape_latex(score_title(score))}}}")
        rules.append(f"\\cmidrule(lr){{{first}-{first + width - 1}}}")
        first += width
    lines = [
        "\\begin{table}",
        "\\centering\\small",
        f"\\caption{{{escape_latex(f'{summary.study.name}: {table.title}')}}}",
        f"\\label{{tab:clstudy-{number}}}",
        f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        "\\toprule",
        " & ".join(["", *spans]).lstrip() + " \\\\",
        " ".join(rules),
        " & ".join(["strategy", *map(escape_latex, table.heads)]) + " \\\\",
    ]
    for title, rows in table.blocks:
        lines += ["\\midrule", f"\\multicolumn{{{len(table.columns) + 1}}}{{l}}{{{_latex_block(title)}}} \\\\"]
        for row in rows:
            label = escape_latex(row.label)
            if row.published:
                label = f"\\quad\\textit{{{label}, published}}"
            elif row.joint:
                label += "$^{*}$"
            lines.append(" & ".join([label, *map(_latex_cell, row.cells)]) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    lines += (
        ["\\par\\medskip", "\\begin{minipage}{\\linewidth}\\footnotesize"] + [*notes, "\\end{minipage}"]
        if notes
        else []
    )
    return [*lines, "\\end{table}"]


def _latex_block(title: str) -> str:
    return f"$K = {title.removeprefix('K = ')}$" if title.startswith("K = ") else f"\\textit{{{escape_latex(title)}}}"


def _latex_cell(cell: PaperCell) -> str:
    if cell.value in (MISSING, NONE):
        return escape_latex(cell.value)
    value = f"$\\mathbf{{{cell.value}}}$" if cell.best else f"${cell.value}$"
    short = f" ({escape_latex(cell.short)})" if cell.short else ""
    # braces keep \\ from reading a following [ as its argument, and limit the font size
    return value + short + (f" {{\\scriptsize ${cell.interval}$}}" if cell.interval else "")
