"""python -m clstudy.report STUDY [STUDY ...]: rebuild a study's report from its rows (needs neither torch nor Ray)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from clstudy.analysis.pages.between import score_tables, shared_sentences
from clstudy.analysis.report import Comparison, place_report, write_comparison
from clstudy.analysis.tables import to_terminal
from clstudy.cli.clean_output import CleanConsole
from clstudy.cli.command_line import FOLDER, command
from clstudy.cli.entry_point import WRONG_INPUT, invoke, say_error
from clstudy.errors import UserError
from clstudy.storage.places import Place, open_place

PLAIN_WIDTH = 100
_EXIT_CODES = (
    "Exit code: 0 every planned trial is in the tables, 1 trials are missing or failed or a part of the report could "
    "not be made, 2 bad folder."
)
_STUDY = "a folder such as runs/hull_sizes, or s3://bucket/clstudy/hull_sizes"


@command(
    "report",
    help="Rebuild the report of finished or unfinished studies from their rows: AIP, Forgetting and final "
    "performance with intervals, paired differences to er_rand and lower, figures. Prints the tables and writes "
    "STUDY/report/: index.html (one page with everything, needs no network), tables and figures (SVG, PNG). "
    "With several studies, comparison.html beside the first one's folder shows their main tables side by side.",
    epilog=_EXIT_CODES,
)
@click.argument("studies", nargs=-1, required=True, type=FOLDER, metavar="STUDY...", help=_STUDY)
def report(studies: tuple[str, ...]) -> int:
    """Report on every study; 0: all complete, 1: trials missing or failed, or a part not drawn, 2: no study."""
    return write_reports(studies)


@command(
    "compare",
    help="Set studies against the first one: what is not the same in them (settings, photos, code, processor), paired "
    "differences on the people of both, and their main tables. Prints it and writes comparison.html and comparison.csv "
    "beside the first one's folder. Their reports are rebuilt from their rows, as `clstudy report` does.",
    epilog=_EXIT_CODES,
)
@click.argument("studies", nargs=-1, required=True, type=FOLDER, metavar="STUDY STUDY...", help=_STUDY)
def compare(studies: tuple[str, ...]) -> int:
    """As ``report``, for two studies or more."""
    if len(studies) < 2:
        raise click.UsageError("expected two studies or more", click.get_current_context())
    return write_reports(studies)


def write_reports(studies: Sequence[str]) -> int:
    """Write each study's report and, for several studies, the comparison; print the tables; returns the exit code."""
    console = plain_console()
    code = 0
    reports = []
    first: Place | None = None
    for study in studies:
        try:
            place = open_place(study)
            written = place_report(place)
        except UserError as error:
            say_error(error)
            code = WRONG_INPUT
            continue
        reports.append(written)
        first = first or place.resolve()
        summary = written.summary
        console.rule(summary.study.name)
        console.print(to_terminal(summary, console.width))
        console.print(f"Written: {place / 'report'} (index.html, tables, figures)", markup=False)
        for what in written.broken:
            say_error(f"{summary.study.name}: {what}")
        code = max(code, 0 if summary.complete and not written.broken else 1)
    if len(reports) > 1 and first is not None:
        try:
            comparison = write_comparison(reports, first.parent)
            print_comparison(console, comparison)
        except UserError as error:
            say_error(error)
            code = max(code, 1)
    return code


def plain_console() -> CleanConsole:
    """A console for tables. A pipe has no width of its own: it gets one that is readable and always the same."""
    return CleanConsole(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)


def print_table(console: Console, title: str, heads: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """A table of texts under a title."""
    grid = RichTable(title=title, title_justify="left", box=SIMPLE_HEAD)
    for head in heads:
        grid.add_column(head)
    for line in lines:
        grid.add_row(*line)
    console.print(grid)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """What is not the same, and the paired differences under every two studies' first metric."""
    console.rule("comparison")
    if comparison.differences:
        console.print(f"Not the same: {', '.join(one.what for one in comparison.differences)}", markup=False)
    for (first, second), (shared, cells) in comparison.pairs.items():
        for sentence in shared_sentences(first, second, shared):
            console.print(sentence, markup=False)
        if not cells:
            continue
        for table in score_tables(cells[0].cell[:2], cells, first, second, comparison.metrics):
            lines = (
                (row.label, *(f"{cell.text} {cell.small or ''}".strip() for cell in row.cells)) for row in table.rows
            )
            print_table(console, table.caption, table.columns, lines)
    console.print(f"Written: {comparison.path} (and comparison.csv, with every metric)", markup=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(report, arguments, "python -m clstudy.report")
