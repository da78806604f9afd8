"""``clstudy ui``: MLflow's own pages for the runs, in a browser."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from clstudy.cli.command_line import FOLDER, command, option
from clstudy.cli.entry_point import invoke
from clstudy.errors import UserError
from clstudy.storage.places import open_place
from clstudy.tracking.addresses import runs_page, server_address, tracked_at, tracking_address
from clstudy.tracking.local_database import local_database
from clstudy.tracking.run_contents import CHARTS_HINT


@command(
    "ui",
    help="Start MLflow's pages for the runs of a study, on this machine only: `mlflow ui` with the database "
    "beside the study. Prints the page that lists its runs. Where MLFLOW_TRACKING_URI names a server, that page is "
    "printed and nothing is started.",
    epilog="Exit code: mlflow's own (Ctrl-C ends it), or 2 if there is no database.",
)
@click.argument(
    "study", type=FOLDER, default="runs", required=False, help="a study's folder, or the folder that holds studies"
)
@option("--port", type=click.IntRange(1, 65535), default=5000, help="port of the pages (default: 5000)")
def ui(study: str, port: int) -> None:
    """Replace this process by ``mlflow ui``."""
    uri = tracking_of(study)
    server = server_address(uri)
    tracked = tracked_at(open_place(study))
    page = runs_page(server or f"http://127.0.0.1:{port}", None if tracked is None else tracked[0])
    if server is not None:
        print(f"the runs are at {page}")
        return
    file = local_database(uri)
    if file is not None and not file.is_file():
        raise UserError(f"there is no database {file}; give a study's folder, such as runs/hull_sizes")
    print(f"the runs are at {page} ({CHARTS_HINT}), as soon as MLflow has started; Ctrl-C ends it")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *_mlflow(uri, port)])


def tracking_of(study: str) -> str:
    """The tracking address of a study's runs.

    Args:
        study: its folder, or the folder that holds studies and ``mlflow.db``.

    Raises:
        UserError: there is no such folder.
    """
    place = open_place(study)
    if not isinstance(place, Path):  # runs of a study in an object store are tracked here
        return tracking_address(Path("runs").absolute())
    if not place.is_dir():
        raise UserError(f"there is no folder {place}")
    home = place.absolute()
    return tracking_address(home if (home / "mlflow.db").exists() else home.parent)


def _mlflow(uri: str, port: int) -> list[str]:
    """Arguments of the Python process that runs MLflow."""
    return ["-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(ui, arguments, "clstudy ui")
