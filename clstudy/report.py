"""python -m clstudy.report STUDY [STUDY ...]: rebuild a study's tables from its rows (needs neither torch nor Ray)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from clstudy.analysis.figures import figures
from clstudy.analysis.tables import Summary, summarise, to_csv, to_markdown, to_terminal
from clstudy.errors import UserError

PLAIN_WIDTH = 100


def write_report(study_dir: Path | str) -> Summary:
    """Summarise a study and write ``report/{summary.csv,paired.csv,tables.md,*.svg,*.png}`` into its folder.

    Raises:
        UserError: the folder is no study, its results cannot be read, or the report cannot be written.
    """
    summary = summarise(study_dir)
    folder = Path(study_dir) / "report"
    files = {
        "summary.csv": to_csv(summary.scores).encode(),
        "paired.csv": to_csv(summary.paired).encode(),
        "tables.md": to_markdown(summary).encode(),
        **figures(summary),
    }
    try:
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise UserError(f"the report cannot be written: {error}") from error
    return summary


def main(arguments: Sequence[str] | None = None) -> int:
    """Report on every study; 0: all complete, 1: trials are missing or failed, 2: a folder is no study."""
    parser = argparse.ArgumentParser(
        prog="python -m clstudy.report",
        description="Rebuild the tables of finished or unfinished studies from their rows and print them: AIP, "
        "Forgetting and final performance with intervals, and paired differences to er_rand and lower. "
        "Writes summary.csv, paired.csv, tables.md and figures of the differences to lower (SVG, PNG) into "
        "STUDY/report/.",
        epilog="Exit code: 0 every planned trial is in the tables, 1 trials are missing or failed, 2 bad folder.",
    )
    parser.add_argument("studies", nargs="+", metavar="STUDY", type=Path, help="a folder such as runs/hull_sizes")
    studies = parser.parse_args(arguments).studies

    # A pipe has no width of its own: give it one that is readable and always the same.
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    code = 0
    for study in studies:
        try:
            summary = write_report(study)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 2
            continue
        console.rule(summary.study.name)
        console.print(to_terminal(summary, console.width))
        console.print(f"Written: {study / 'report'} (tables.md, summary.csv, paired.csv, figures)", markup=False)
        code = max(code, 0 if summary.complete else 1)
    return code


if __name__ == "__main__":
    sys.exit(main())
