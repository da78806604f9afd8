"""python -m clstudy.tracking rebuild STUDY --to URI: write a study's MLflow runs again from its rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from clstudy.cli.command_line import group, option
from clstudy.cli.entry_point import invoke
from clstudy.safe_text import shown_address
from clstudy.study.tracking_rebuild import rebuild as rebuild_runs


@group("tracking", help="MLflow is a view of a study's Parquet rows; this writes that view again.")
def tracking() -> None:
    """The group; its command is declared below."""


@tracking.command(
    "rebuild",
    short_help="write all runs of a study into an MLflow database or server",
    help="Write the run of every trial of a study (parameters, tags, metrics by timestamp, pictures) "
    "and the report into one more run named 'report'. Repeating it changes nothing. Failed trials become failed "
    "runs without metrics; trials that are neither finished nor failed have no rows, and get no run.",
    epilog="Exit code: 0 all written; 1 trials are unfinished, or MLflow did not take everything; 2 wrong input.",
)
@click.argument("study", type=click.Path(path_type=Path), help="a folder such as runs/hull_sizes")
@option("--to", required=True, metavar="URI", help="sqlite:///runs/mlflow.db or http://server:5000")
@option("--data", help="data set or photo folder, for pictures of buffers, if it has moved")
def rebuild(study: Path, to: str, data: str | None) -> int:
    """Write the runs, and print what was left out."""
    rebuilt, lost = rebuild_runs(study, to, data)
    print(f"{rebuilt.finished} finished and {rebuilt.failed} failed trials written to {shown_address(to)}")
    for what, count in rebuilt.notes.items():
        print(f"left out {count} times: {what}")
    if rebuilt.unfinished:
        print(f"{len(rebuilt.unfinished)} trials are unfinished and have no run: {', '.join(rebuilt.unfinished[:5])}")
    if lost:
        print(f"MLflow did not take {lost} calls; run the same command again", file=sys.stderr)
    return 1 if rebuilt.unfinished or lost else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(tracking, arguments, "python -m clstudy.tracking")
