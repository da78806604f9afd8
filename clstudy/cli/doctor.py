"""``python -m clstudy.doctor``: the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from clstudy.assets.model_files import find_files
from clstudy.cli.command_line import FOLDER, command, option
from clstudy.cli.entry_point import invoke
from clstudy.doctor.facts import FIX
from clstudy.doctor.sheet import Request, sheet
from clstudy.settings.named_profiles import named_profile
from clstudy.settings.profiles import PROFILES
from clstudy.storage.places import RemotePath, open_place
from clstudy.study.preflight import on_device
from clstudy.tracking.addresses import tracking_address


@command(
    "doctor",
    help="Check this machine, or with --address every node of a running cluster, before a study: versions, "
    "GPUs, weights, storage, MLflow, clocks, disks. Every line says pass, FIX with what to do, or note. Files "
    "written for the check are removed again.",
    epilog="MLFLOW_TRACKING_URI, if set, names the tracking server, as for clstudy.run. Exit code: 0 nothing to "
    "fix, 1 something to fix, 2 wrong input.",
)
@option("--address", help="address of a running Ray cluster, e.g. auto (default: this machine alone)")
@option("--storage", type=FOLDER, help="where studies will be stored: a folder or s3://bucket/folder (default: runs)")
@option(
    "--profile",
    default="embedded",
    shell_complete=lambda context, parameter, typed: [name for name in PROFILES if name.startswith(typed)],
    help="profile that will be run (default: embedded)",
)
@option(
    "--weights",
    multiple=True,
    metavar="FOLDER|ROLE=FILE",
    help="folder of weights that do not come with the package, as for clstudy.run (default: weights/)",
)
@option("--device", type=click.Choice(("cpu", "cuda")), help="compute on this device instead of the profile's")
def doctor(address: str | None, storage: str | None, profile: str, weights: tuple[str, ...], device: str | None) -> int:
    """Print the sheet; 0: nothing to fix, 1: something to fix, 2: wrong input."""
    code = 0
    for line in sheet(make_request(address, storage, profile, weights, device)):
        print(line, flush=True)
        code = max(code, int(line.kind == FIX))
    return code


def make_request(
    address: str | None, storage: str | None, profile: str, weights: Sequence[str], device: str | None
) -> Request:
    """The request that the options describe. Opens no file of a storage, because that may hang.

    Raises:
        UserError: a name, folder or storage does not exist.
    """
    chosen = on_device(named_profile(profile), device)
    opened = open_place(storage or "runs")
    place = opened if isinstance(opened, RemotePath) else opened.absolute()
    home = place if isinstance(place, Path) else Path("runs").absolute()
    return Request(
        profile=chosen,
        place=place,
        tracking_uri=tracking_address(home),
        files=find_files(chosen, list(weights)),
        weights=list(weights),
        address=address,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(doctor, arguments, "python -m clstudy.doctor")
