"""python -m clstudy.report STUDY [STUDY ...]: rebuild a study's report from its rows (needs neither torch nor Ray)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from clstudy.analysis.report import place_report, write_comparison
from clstudy.analysis.tables import to_terminal
from clstudy.cli.clean_output import CleanConsole
from clstudy.cli.entry_point import entry_point
from clstudy.errors import UserError
from clstudy.storage.places import Place, open_place

PLAIN_WIDTH = 100


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Report on every study; 0: all complete, 1: trials missing or failed or a part not drawn, 2: no study."""
    parser = argparse.ArgumentParser(
        prog="python -m clstudy.report",
        description="Rebuild the report of finished or unfinished studies from their rows: AIP, Forgetting and final "
        "performance with intervals, paired differences to er_rand and lower, figures. Prints the tables and writes "
        "STUDY/report/: index.html (one page with everything, needs no network), tables and figures (SVG, PNG). "
        "With several studies, comparison.html beside the first one's folder shows their main tables side by side.",
        epilog="Exit code: 0 every planned trial is in the tables, 1 trials are missing or failed or a part of the "
        "report could not be made, 2 bad folder.",
    )
    parser.add_argument(
        "studies",
        nargs="+",
        metavar="STUDY",
        help="a folder such as runs/hull_sizes, or s3://bucket/clstudy/hull_sizes",
    )
    studies = parser.parse_args(arguments).studies

    # A pipe has no width of its own: give it one that is readable and always the same.
    console = CleanConsole(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    code = 0
    reports = []
    first: Place | None = None
    for study in studies:
        try:
            place = open_place(study)
            report = place_report(place)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 2
            continue
        reports.append(report)
        first = first or place.resolve()
        summary = report.summary
        console.rule(summary.study.name)
        console.print(to_terminal(summary, console.width))
        console.print(f"Written: {place / 'report'} (index.html, tables, figures)", markup=False)
        for what in report.broken:
            print(f"error: {summary.study.name}: {what}", file=sys.stderr)
        code = max(code, 0 if summary.complete and not report.broken else 1)
    if len(reports) > 1 and first is not None:
        try:
            console.print(f"Written: {write_comparison(reports, first.parent)}", markup=False)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            code = max(code, 1)
    return code
