"""python -m clstudy.tracking rebuild STUDY --to URI: write a study's MLflow runs again from its rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from clstudy.cli.command_line import command, flag, group, option
from clstudy.cli.entry_point import invoke
from clstudy.safe_text import shown_address
from clstudy.study.tracking_rebuild import Rebuilt
from clstudy.study.tracking_rebuild import export_runs as export_to
from clstudy.study.tracking_rebuild import rebuild as rebuild_runs
from clstudy.tracking.run_writers import RUN_WRITERS


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
    code = _left_out(rebuilt)
    if lost:
        print(f"MLflow did not take {lost} calls; run the same command again", file=sys.stderr)
    return 1 if lost else code


@command(
    "export-runs",
    help="Write the run of every trial of a study for another tool than MLflow, from its rows: parameters, metrics by "
    "timestamp, losses, pictures. `tensorboard` makes event files (tensorboard --logdir FOLDER), `wandb` offline runs "
    "(wandb sync FOLDER/wandb/offline-run-*); each needs its extra. Nothing is sent anywhere, and repeating it "
    "replaces what it wrote.",
    epilog="Exit code: 0 all written; 1 trials are unfinished; 2 wrong input, or the tool is not installed.",
)
@click.argument("study", type=click.Path(path_type=Path), help="a folder such as runs/hull_sizes")
@option("--to", "tool", required=True, type=click.Choice(tuple(RUN_WRITERS)), help="which tool")
@option("--out", required=True, type=click.Path(path_type=Path), help="the folder to write; `forget` does not know it")
@option("--data", help="data set or photo folder, for pictures of buffers, if it has moved")
@flag("--no-images", help="leave pictures of faces and buffers out")
def export_runs(study: Path, tool: str, out: Path, data: str | None, no_images: bool) -> int:
    """Write the runs, and print what was left out."""
    found = export_to(study, tool, out, data, images=not no_images)
    print(f"{found.finished} finished and {found.failed} failed trials written to {out}")
    return _left_out(found)


def _left_out(found: Rebuilt) -> int:
    """Print what is missing; returns the exit code."""
    for what, count in found.notes.items():
        print(f"left out {count} times: {what}")
    if found.unfinished:
        print(f"{len(found.unfinished)} trials are unfinished and have no run: {', '.join(found.unfinished[:5])}")
    return 1 if found.unfinished else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(tracking, arguments, "python -m clstudy.tracking")
