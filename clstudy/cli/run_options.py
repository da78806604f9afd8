"""The options of the main job, as ``python -m clstudy.run --help`` lists them (no torch, no Ray)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import click

from clstudy.cli.command_line import FOLDER, Decorator, completing, flag, option
from clstudy.settings.named_profiles import section_names
from clstudy.settings.packaged_spaces import known_spaces
from clstudy.settings.precision import PRECISIONS
from clstudy.settings.profiles import PROFILES, Profile
from clstudy.storage.file_modes import DEFAULT, MODES, VARIABLE
from clstudy.study.retention import POLICIES
from clstudy.study.run_options import RunOptions

EXIT_CODES = """MLFLOW_TRACKING_URI, if set, names the tracking server instead of runs/mlflow.db.

exit codes:
  0    every trial finished
  1    some trials failed or are missing; the tables say which
  2    the input is wrong; nothing was started
  3    stopped at the budget, or because the disk stayed full; run the same command to go on
  4    another driver is at work on the same study; nothing was started
  130  interrupted (Ctrl-C: the stages in flight are finished first; twice: at once); run the same command to go on"""


_OPTIONS: tuple[Decorator, ...] = (
    option(
        "--space",
        shell_complete=completing(known_spaces),
        help="packaged search space (see --list) or path of a YAML file",
    ),
    option("--data", help="data set (see --list) or photo folder, instead of the space's"),
    option("--identities", help="how many identities, or their names separated by commas"),
    option("--seeds", help="trial seeds separated by commas, e.g. 0,1,2"),
    option("--timestamps", type=int, help="timestamps per identity (default: the profile's)"),
    option(
        "--profile", shell_complete=completing(lambda: PROFILES), help="profile instead of the space's (see --list)"
    ),
    option(
        "--weights",
        multiple=True,
        metavar="FOLDER|ROLE=FILE",
        help="folder of weights that do not come with the package (default: weights/); repeat it for single files, "
        "e.g. generator=ffhq.pkl; only for profiles that need any",
    ),
    option(
        "--set",
        multiple=True,
        metavar="SECTION.NAME=VALUE",
        help="a setting of the profile, e.g. inversion.latent_space=w_plus; repeat it for more; sections: "
        f"{', '.join(section_names(Profile))} (all names and values: clstudy/settings/profiles.py)",
    ),
    option("--without", metavar="METRICS", help="metrics to leave out, separated by commas"),
    flag(
        "--as-published",
        help="score lpips, id, psnr and dists a second time, the way the paper's scripts do (stretched JPEG images, "
        "rounded values, ID of whole images), for numbers on the published scale, in addition to the ordinary ones",
    ),
    option("--device", type=click.Choice(("cpu", "cuda")), help="compute on this device instead of the profile's"),
    option(
        "--gpu-share",
        type=float,
        metavar="F",
        help="share of a GPU per trial, e.g. 0.5 for two trials on one (default: the profile's); changes no number",
    ),
    option(
        "--precision",
        type=click.Choice(tuple(PRECISIONS)),
        help="; ".join(f"{name}: {mode.description}" for name, mode in PRECISIONS.items())
        + " (default: the profile's)",
    ),
    flag("--compile", help="compile the synthesis network with torch.compile"),
    flag(
        "--activation-checkpointing",
        "--recompute",
        help="save memory by recomputing activations; the numbers are the same",
    ),
    option(
        "--storage",
        type=FOLDER,
        help="where studies are kept: a folder (shared by all nodes of a cluster) or s3://bucket/folder; "
        "this one goes to <storage>/<space name> (default: runs)",
    ),
    option("--out", type=FOLDER, help="the study's own folder or URI, instead of <storage>/<space name>"),
    option(
        "--files",
        type=click.Choice(tuple(MODES)),
        help="who may read what is written: private (only you), group (your group, too), shared (as the shell's umask "
        f"says); default: {VARIABLE} of the environment, else {DEFAULT}. Other commands take the variable",
    ),
    option(
        "--keep-weights",
        type=click.Choice(POLICIES),
        help="which stages' weights are kept when no planned trial builds on them "
        "any more: last (only those of t = 0 and of last stages) or all (default: the space's, otherwise last)",
    ),
    flag(
        "--alone",
        help="compute everything anew: take no finished stage over from other studies in the same storage (those with "
        "the same key, from the same kind of processor)",
    ),
    option(
        "--mlflow-images",
        type=click.Choice(("on", "off")),
        help="whether MLflow gets pictures of faces and buffers, and the report (default: the profile's)",
    ),
    option(
        "--budget-hours",
        type=float,
        metavar="H",
        help="limit in wall-clock hours: a plan that needs more is refused or, with "
        "--yes, begun and stopped cleanly at the limit",
    ),
    option(
        "--price-per-hour",
        type=float,
        metavar="P",
        help="price of one GPU per hour (of one core, if trials use no GPU), for the costs in plan and report",
    ),
    flag("--pilot", help="compute one stage only (it is kept), then print the plan again with the time it took"),
    option("--max-concurrent", type=int, help="trials at a time (default: as many as fit)"),
    option("--address", help="address of a running Ray cluster, e.g. auto (default: this machine)"),
    flag("--dry-run", help="print the plan and stop; nothing is written"),
    option("--variant", help="only this variant of a space that has some (default: all, and then a comparison)"),
    option("--notify-command", help="at the end, run this with one more word: what became of the study"),
    flag("--tables", help="print all tables at the end, not only the main one (the report has all)"),
    flag("--yes", help="start a study of any size, even beyond its budget"),
    flag("--list", help="list spaces, strategies, profiles and data sets"),
)


def with_run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Declare the options of the main job on a command's function."""
    for declare in reversed(_OPTIONS):
        function = declare(function)
    return function


def run_options(typed: Mapping[str, Any]) -> RunOptions:
    """The typed options as ``RunOptions``.

    Raises:
        UserError: as ``RunOptions``.
    """
    known = {field.name for field in fields(RunOptions)}
    same = {name: value for name, value in typed.items() if name in known and not isinstance(value, tuple)}
    images = typed["mlflow_images"]
    return RunOptions(
        **same
        | {
            "space": typed["space"] or "",
            "weights": typed["weights"],
            "settings": typed["set"],
            "without": tuple(name for name in (typed["without"] or "").split(",") if name),
            "mlflow_images": None if images is None else images == "on",
        }
    )
