"""What the main job can be told: ``python -m clstudy.run --help`` (no torch, no Ray)."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING

import clstudy
from clstudy.cluster.main_job import Ending
from clstudy.settings.overrides import SECTIONS
from clstudy.settings.precision import PRECISIONS
from clstudy.storage.file_modes import DEFAULT, MODES, VARIABLE
from clstudy.study.retention import POLICIES
from clstudy.study.run_options import RunOptions

if TYPE_CHECKING:
    pass

EXIT_CODES = """MLFLOW_TRACKING_URI, if set, names the tracking server instead of runs/mlflow.db.

exit codes:
  0    every trial finished
  1    some trials failed or are missing; the tables say which
  2    the input is wrong; nothing was started
  3    stopped at the budget, or because the disk stayed full; run the same command to go on
  4    another driver is at work on the same study; nothing was started
  130  interrupted (Ctrl-C: the stages in flight are finished first; twice: at once); run the same command to go on"""

OK, INCOMPLETE, WRONG_INPUT, STOPPED, BUSY, INTERRUPTED_CODE = 0, 1, 2, 3, 4, 130
EXIT_CODE_OF = {
    Ending.FINISHED: OK,
    Ending.INCOMPLETE: INCOMPLETE,
    Ending.STOPPED: STOPPED,
    Ending.INTERRUPTED: INTERRUPTED_CODE,
}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m clstudy.run",
        description="Run a study: all trials of a search space, in parallel, resumable, with a table at the end.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--space", help="packaged search space (see --list) or path of a YAML file")
    parser.add_argument("--data", help="data set (see --list) or photo folder, instead of the space's")
    parser.add_argument("--identities", help="how many identities, or their names separated by commas")
    parser.add_argument("--seeds", help="trial seeds separated by commas, e.g. 0,1,2")
    parser.add_argument("--timestamps", type=int, help="timestamps per identity (default: the profile's)")
    parser.add_argument("--profile", help="profile instead of the space's (see --list)")
    parser.add_argument(
        "--weights",
        action="append",
        metavar="FOLDER|ROLE=FILE",
        help="where weights from outside the package are (default: weights/); again for single files, e.g. "
        "generator=ffhq.pkl; only for profiles that take any",
    )
    parser.add_argument(
        "--set",
        action="append",
        metavar="SECTION.NAME=VALUE",
        help="a setting of the profile, again for more, e.g. inversion.latent_space=w_plus; sections: "
        f"{', '.join(SECTIONS)} (all names and values: clstudy/settings/profiles.py)",
    )
    parser.add_argument("--without", metavar="METRICS", help="metrics to leave out, separated by commas")
    parser.add_argument(
        "--as-published",
        action="store_true",
        help="score lpips, id, psnr and dists a second time, the way the paper's scripts do (stretched JPEG images, "
        "rounded values, ID of whole images), for numbers on the published scale; they stand beside the ordinary ones",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="compute there instead of where the profile says")
    parser.add_argument(
        "--gpu-share",
        type=float,
        metavar="F",
        help="of a GPU per trial, e.g. 0.5 for two trials on one (default: the profile's); changes no number",
    )
    parser.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        help="; ".join(f"{name}: {mode.description}" for name, mode in PRECISIONS.items())
        + " (default: the profile's)",
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the synthesis network")
    parser.add_argument(
        "--recompute", action="store_true", help="keep less memory and compute activations again: the same numbers"
    )
    parser.add_argument(
        "--storage",
        help="where studies lie: a folder (shared by all nodes of a cluster) or s3://bucket/folder; this "
        "one goes to <storage>/<space name> (default: runs)",
    )
    parser.add_argument("--out", help="the study's own folder or URI, instead of <storage>/<space name>")
    parser.add_argument(
        "--files",
        choices=tuple(MODES),
        help="who may read what is written: private (only you), group (your group, too), shared (as the shell's umask "
        f"says); default: {VARIABLE} of the environment, else {DEFAULT}. Other commands take the variable",
    )
    parser.add_argument(
        "--keep-weights",
        choices=POLICIES,
        help="which stages' weights stay when no planned trial builds on them any "
        "more: only those of t = 0 and of last stages, or all (default: the space's, else last)",
    )
    parser.add_argument(
        "--mlflow-images",
        choices=("on", "off"),
        help="faces and buffers, and the report, in MLflow (default: the profile's)",
    )
    parser.add_argument(
        "--budget-hours",
        type=float,
        metavar="H",
        help="wall-clock hours: a plan that needs more is refused, or with "
        "--yes begun and stopped cleanly at the limit",
    )
    parser.add_argument(
        "--price-per-hour",
        type=float,
        metavar="P",
        help="of one GPU (of one core, where trials want no GPU): the plan and the report say what it comes to",
    )
    parser.add_argument(
        "--pilot",
        action="store_true",
        help="compute one stage only (it is kept), then print the plan again with what it took",
    )
    parser.add_argument("--max-concurrent", type=int, help="trials at a time (default: as many as fit)")
    parser.add_argument("--address", help="address of a running Ray cluster, e.g. auto (default: this machine)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop; nothing is made")
    parser.add_argument(
        "--tables", action="store_true", help="print all tables at the end, not only the main one (the report has all)"
    )
    parser.add_argument("--yes", action="store_true", help="start a study of any size, also beyond its budget")
    parser.add_argument("--list", action="store_true", help="list spaces, strategies, profiles and data sets")
    parser.add_argument("--version", action="version", version=f"clstudy {clstudy.__version__}")
    return parser


def run_options(args: argparse.Namespace) -> RunOptions:
    """What was typed as options of a run.

    Raises:
        UserError: as ``RunOptions``.
    """
    typed = vars(args)
    known = {field.name for field in fields(RunOptions)}
    same = {name: value for name, value in typed.items() if name in known and not isinstance(value, list)}
    return RunOptions(
        **same
        | {
            "space": args.space or "",
            "weights": tuple(args.weights or ()),
            "settings": tuple(args.set or ()),
            "without": tuple(name for name in (args.without or "").split(",") if name),
            "mlflow_images": None if args.mlflow_images is None else args.mlflow_images == "on",
        }
    )
