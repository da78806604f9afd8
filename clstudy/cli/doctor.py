"""``python -m clstudy.doctor``: the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clstudy.assets.model_files import find_files
from clstudy.cli.entry_point import entry_point
from clstudy.doctor.facts import FIX
from clstudy.doctor.sheet import Request, sheet
from clstudy.errors import UserError
from clstudy.settings.profiles import PROFILES
from clstudy.storage.places import RemotePath, open_place
from clstudy.study.preflight import on_device
from clstudy.tracking.addresses import tracking_address


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m clstudy.doctor",
        description="Check this machine, or with --address every node of a running cluster, before a study: versions, "
        "GPUs, weights, storage, MLflow, clocks, disks. Every line says pass, FIX with what to do, or note. What is "
        "written for the check is removed again.",
        epilog="MLFLOW_TRACKING_URI, if set, names the tracking server, as for clstudy.run. Exit code: 0 nothing to "
        "fix, 1 something to fix, 2 wrong input.",
    )
    parser.add_argument("--address", help="address of a running Ray cluster, e.g. auto (default: this machine alone)")
    parser.add_argument("--storage", help="where studies will lie: a folder or s3://bucket/folder (default: runs)")
    parser.add_argument("--profile", default="embedded", help="profile to be run (default: embedded)")
    parser.add_argument(
        "--weights",
        action="append",
        metavar="FOLDER|ROLE=FILE",
        help="where weights from outside the package are, as for clstudy.run (default: weights/)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="compute there instead of where the profile says")
    return parser


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the sheet; 0: nothing to fix, 1: something to fix, 2: wrong input."""
    args = build_parser().parse_args(arguments)
    code = 0
    try:
        for line in sheet(make_request(args)):
            print(line, flush=True)
            code = max(code, int(line.kind == FIX))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return code


def make_request(args: argparse.Namespace) -> Request:
    """What the command line asks for; opens no file of a storage, which may hang.

    Raises:
        UserError: a name or a place that does not exist.
    """
    profile = on_device(PROFILES[args.profile](), args.device)
    storage = open_place(args.storage or "runs")
    place = storage if isinstance(storage, RemotePath) else storage.absolute()
    home = place if isinstance(place, Path) else Path("runs").absolute()
    weights = args.weights or []
    return Request(
        profile=profile,
        place=place,
        tracking_uri=tracking_address(home),
        files=find_files(profile, weights),
        weights=weights,
        address=args.address,
    )
