"""``clstudy status STUDY``: what a study has done and what it is doing, from a second shell."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import click
from rich.live import Live
from rich.text import Text

from clstudy.cli.clean_output import CleanConsole
from clstudy.cli.command_line import FOLDER, command, option
from clstudy.cli.entry_point import invoke
from clstudy.errors import UserError
from clstudy.records.progress import Progress, read_progress
from clstudy.records.sessions import duration
from clstudy.storage.file_lock import holder
from clstudy.storage.places import Place, first_line, open_place

_MOST_FAILED = 5


@command(
    "status",
    help="Say what a study has done and what it is doing: whether a driver is at work, trials and stages done, the "
    "newest stages, earlier runs, and about how long is left. Reads the study's folder (or object store) and "
    "changes nothing; works from any machine that sees it.",
    epilog="Exit code: 0 done, 2 no study. With --watch it ends when no driver is at work any more.",
)
@click.argument("study", type=FOLDER, help="a folder such as runs/hull_sizes, or s3://bucket/clstudy/hull_sizes")
@option(
    "--watch",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="print it again every so many seconds, as long as a driver is at work",
)
def status(study: str, watch: float | None) -> None:
    """Print it once, or again and again."""
    place = open_place(study)
    progress = _read(place)
    if watch is None or not progress.driver:
        print("\n".join(status_lines(progress, time.time())))
        return
    console = CleanConsole(highlight=False)
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                text = "\n".join(status_lines(progress, time.time()))
                if sys.stdout.isatty():
                    live.update(Text(text), refresh=True)
                else:
                    print(text + "\n", flush=True)
                if not progress.driver:
                    return
                time.sleep(watch)
                progress = _read(place)
    except KeyboardInterrupt:
        return


def _read(place: Place) -> Progress:
    try:
        return read_progress(place)
    except OSError as error:
        raise UserError(f"the storage {place} cannot be used: {first_line(error)}") from error


def status_lines(progress: Progress, now: float) -> list[str]:
    """The lines to print; ``now`` is Unix time."""
    at_work, planned = bool(progress.driver), progress.planned
    lines = [f"driver    {holder(progress.driver) if at_work else 'none is at work'}"]
    if planned is None:
        lines.append("trials    no study.yaml yet: photos are prepared, or learning rates are searched")
        lines.append(f"stages    {progress.stages}")
    else:
        counts = f"{progress.finished} of {len(planned.trials)} finished"
        counts += f", {len(progress.failed)} failed" if progress.failed else ""
        lines.append(f"trials    {counts}, {progress.open_trials} to go")
        stages = f"{progress.stages}"
        if progress.open_trials and planned.stages is not None:
            stages += f" of at most {planned.stages} (trials that keep the same photos share stages)"
        lines.append(f"stages    {stages}")
    if progress.seconds_left is not None:
        how = "at the pace of this run" if at_work else "of one worker's time; run the same command to go on"
        lines.append(f"left      about {duration(progress.seconds_left)} {how}")
    for place, stage in enumerate(progress.newest):
        took = "" if stage.seconds is None else f", took {duration(stage.seconds)}"
        ago = duration(max(now - stage.written, 0.0))
        lines.append(f"{'newest' if not place else '':<9} {ago} ago: {stage.what or 'a stage'}{took}")
    for place, session in enumerate(progress.sessions):
        lines.append(
            f"{'runs' if not place else '':<9} {session.began} UTC, {session.part}: {session.ended}, "
            f"{session.stages_computed} stages computed in {duration(session.seconds)}"
        )
    for place, (trial, why) in enumerate(list(progress.failed.items())[:_MOST_FAILED]):
        lines.append(f"{'failed' if not place else '':<9} {trial}: {why}")
    if (more := len(progress.failed) - _MOST_FAILED) > 0:
        lines.append(f"          and {more} more (failures.json)")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(status, arguments, "clstudy status")
