"""python -m clstudy.loss_path STUDY: the loss along the straight lines between the stages of finished trials."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
from rich.progress import Progress
from rich.table import Table

from clstudy.analysis.loss_path_numbers import SPANS, TOLERANCE
from clstudy.cli.clean_output import CleanConsole
from clstudy.cli.command_line import Several, command, flag, option
from clstudy.cli.entry_point import invoke
from clstudy.errors import UserError
from clstudy.records.study_record import read_complete_record
from clstudy.storage.places import require_writable
from clstudy.study.loss_path.cost import dropped_stages, measure_cost, require_weights
from clstudy.study.loss_path.lines import choose_trials, lines_of, tasks
from clstudy.study.loss_path.losses import Networks, compute_losses, path_rows
from clstudy.study.loss_path.reopening import reopen
from clstudy.study.loss_path.results import write_results
from clstudy.study.stored_study import stored_trials


def numbers_table(numbers: pa.Table, span: str) -> Table:
    """Means per strategy and group for one span, for the terminal."""
    table = Table(title=f"Loss path {SPANS[span]}: means over identities", title_justify="left", box=None)
    for column in ("strategy", "group"):
        table.add_column(column)
    columns = [(photos, measure) for photos in ("old", "new") for measure in ("barrier", "plateau", "change")]
    for photos, measure in columns:
        table.add_column(f"{photos} {measure}", justify="right")
    cells: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    rates = len(set(numbers["learning_rate"].to_pylist())) > 1
    for row in numbers.to_pylist():
        if row["span"] != span:
            continue
        size = "" if row["buffer_size"] is None else f" K={row['buffer_size']}"
        label = f"{row['strategy']}{size}" + (f" lr={row['learning_rate']:g}" if rates else "")
        cells.setdefault((label, row["group"]), {})[row["photos"], row["measure"]] = row["mean"]
    for (label, group), values in cells.items():
        shown = [f"{values[column]:.2f}" if column[1] == "plateau" else f"{values[column]:.4f}" for column in columns]
        table.add_row(label, group, *shown)
    return table


@command(
    "loss-path",
    help="Loss along the straight lines between the stages of finished trials (t-1 to t, and t = 0 to the "
    "last), moving all parameters, weights only, or biases only (parameters named *.bias; noise strengths count as "
    "weights; all other parameters stay as at the start). LPIPS + MSE on the test photos of earlier timestamps and "
    "of the path's end, at their fixed starting latents. Prints the expected cost, then writes loss_path.parquet "
    "(one row per trial, path, group, alpha and test timestamp), loss_path.csv (barrier, hill, plateau and change "
    "per strategy) and figures into STUDY/report/. Barrier: the most the loss rises above the straight line "
    "between its ends; hill: above its larger end; plateau: the share of the path, from its start, on which it "
    "stays within --tolerance of its range; change: end minus start.",
    epilog="Exit code: 0 done, 2 wrong input, or stages that are needed are not stored any more.",
)
@click.argument("study", type=click.Path(path_type=Path), help="a folder such as runs/hull_sizes")
@option(
    "--trials", cls=Several, multiple=True, metavar="TRIAL", help="names or patterns like '*-lower-*' (default: all)"
)
@option("--points", type=int, default=11, help="points on a line, ends included (default: 11)")
@option(
    "--tolerance",
    type=float,
    default=TOLERANCE,
    help=f"of a plateau, share of the loss's range (default: {TOLERANCE:g})",
)
@option("--weights", multiple=True, metavar="FOLDER|ROLE=FILE", help="as in python -m clstudy.run")
@option("--data", help="data set or photo folder of the study, if it has moved")
@option("--device", type=click.Choice(("cpu", "cuda")), help="compute on this device instead of the profile's")
@flag("--dry-run", help="print the cost and stop")
def loss_path(
    study: Path,
    *,
    trials: tuple[str, ...],
    points: int,
    tolerance: float,
    weights: tuple[str, ...],
    data: str | None,
    device: str | None,
    dry_run: bool,
) -> None:
    """Check the input, print the cost, compute and write.

    Raises:
        UserError: anything about the input is wrong.
    """
    console = CleanConsole(width=None if sys.stdout.isatty() else 120, highlight=False)
    if points < 2:
        raise UserError(f"--points is {points}; expected at least 2, the two ends")
    if not 0 < tolerance < 1:
        raise UserError(f"--tolerance is {tolerance:g}; expected a share of the loss's range, between 0 and 1")
    chosen = choose_trials(stored_trials(read_complete_record(study)), trials or None)
    if not dry_run:
        remedy = "mend its permissions, or take a copy of the study"
        require_writable(study / "report", "the report's folder", remedy)
    lines, notes = lines_of(study, chosen)
    alphas = [float(alpha) for alpha in np.linspace(0.0, 1.0, points)]
    todo = tasks(lines, alphas)
    opened = reopen(study, weights=list(weights), data=data, device=device)
    people = {identity.name: identity for identity in opened.data.identities}
    requests = opened.requests(list({line.spec.trial_id: line.spec for line in lines}.values()))
    networks = Networks(opened.runner, requests)
    keys = [key for line in lines for key in (line.start_key, line.end_key)]
    require_weights(opened.runner, requests, lines)
    again = dropped_stages(opened.runner, requests, keys)
    cost = measure_cost(networks, opened.runner, people, todo, again)
    for note in (*notes, *opened.notes):
        console.print(f"note: {note}", soft_wrap=True)
    console.print(f"{len(lines)} paths of {len({line.spec.trial_id for line in lines})} trials, {points} points each")
    console.print(cost.sentence(), soft_wrap=True)
    if dry_run:
        return
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("forward passes", total=cost.passes)
        losses = compute_losses(networks, opened.runner, people, todo, lambda: progress.advance(bar))
    numbers, files = write_results(study, path_rows(lines, alphas, losses), tolerance)
    for span in SPANS:
        if span in numbers["span"].to_pylist():
            console.print(numbers_table(numbers, span))
    console.print(f"Written: {study / 'report'} ({', '.join(file.name for file in files)})", soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(loss_path, arguments, "python -m clstudy.loss_path")
