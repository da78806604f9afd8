"""python -m clstudy.tracking rebuild STUDY --to URI: write a study's MLflow runs again from its rows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clstudy.cli.entry_point import entry_point
from clstudy.errors import UserError
from clstudy.safe_text import shown_address
from clstudy.study.tracking_rebuild import rebuild


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m clstudy.tracking",
        description="MLflow is a view of a study's Parquet rows; this writes it again.",
    )
    command = parser.add_subparsers(dest="command", required=True).add_parser(
        "rebuild",
        help="write all runs of a study into an MLflow database or server",
        description="Write every trial of a study as the run it was (parameters, tags, metrics by timestamp, pictures) "
        "and the report into one more run named 'report'. Repeating it changes nothing. Failed trials become failed "
        "runs without metrics; trials that are neither finished nor failed have no rows, and get no run.",
        epilog="Exit code: 0 all written; 1 trials are unfinished, or MLflow did not take everything; 2 wrong input.",
    )
    command.add_argument("study", type=Path, metavar="STUDY", help="a folder such as runs/hull_sizes")
    command.add_argument("--to", required=True, metavar="URI", help="sqlite:///runs/mlflow.db or http://server:5000")
    command.add_argument("--data", help="data set or photo folder, for pictures of buffers, where it is not found")
    return parser


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = build_parser().parse_args(arguments)
    try:
        told, lost = rebuild(args.study, args.to, args.data)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{told.finished} finished and {told.failed} failed trials written to {shown_address(args.to)}")
    for what, count in told.notes.items():
        print(f"left out {count} times: {what}")
    if told.unfinished:
        print(f"{len(told.unfinished)} trials are unfinished and have no run: {', '.join(told.unfinished[:5])}")
    if lost:
        print(f"MLflow did not take {lost} calls; run the same command again", file=sys.stderr)
    return 1 if told.unfinished or lost else 0
