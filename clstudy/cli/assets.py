"""python -m clstudy.assets: rebuild the packaged weights from their sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from clstudy.assets.build import (
    _HERE,
    build_dcgan,
    build_lpips,
    build_onnx,
    take_ages,
    take_benchmark,
    take_pretrained,
    take_pretrained_3d,
    take_virtual_people,
    write_manifest,
)
from clstudy.cli.command_line import command, option
from clstudy.cli.entry_point import invoke
from clstudy.storage.places import require_writable


@command("assets", help="Rebuild the packaged weights from their sources.")
@option("--work", type=click.Path(path_type=Path), help="rebuild the third-party files; folder for the downloads")
@option(
    "--pretrained",
    type=click.Path(path_type=Path),
    help="import weights from this output folder of clstudy.generators.pretraining train",
)
@option(
    "--ages",
    type=click.Path(path_type=Path),
    help="import weights from this output folder of clstudy.generators.pretraining train-ages and train-age-prior",
)
@option(
    "--pretrained-3d",
    type=click.Path(path_type=Path),
    help="import weights from this output folder of clstudy.generators.pretraining train-3d",
)
@option(
    "--virtual-people",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="import the file that clstudy.identities.virtual.build wrote",
)
@option(
    "--benchmark",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="import the file that `clstudy bench entry` wrote of the reference's study",
)
def assets(
    work: Path | None,
    pretrained: Path | None,
    pretrained_3d: Path | None,
    ages: Path | None,
    virtual_people: Path | None,
    benchmark: Path | None,
) -> None:
    """Write the files, then the manifest."""
    if not any((work, pretrained, pretrained_3d, ages, virtual_people, benchmark)):
        raise click.UsageError(
            "nothing to do; give --work, --pretrained, --pretrained-3d, --ages, --virtual-people or --benchmark",
            click.get_current_context(),
        )
    require_writable(_HERE, "the package's folder", "work in a clone of your own (`pip install -e`)")
    files: list[Path] = []
    if work is not None:
        require_writable(work, "the folder for the downloads", "name another one with --work")
        work.mkdir(parents=True, exist_ok=True)
        files += [build_lpips(work), build_dcgan(work), *build_onnx(work)]
    if pretrained is not None:
        files.append(take_pretrained(pretrained))
    if ages is not None:
        files += take_ages(ages)
    if pretrained_3d is not None:
        files.append(take_pretrained_3d(pretrained_3d))
    if virtual_people is not None:
        files.append(take_virtual_people(virtual_people))
    if benchmark is not None:
        files.append(take_benchmark(benchmark))
    write_manifest(files)
    for file in files:
        print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(assets, arguments, "python -m clstudy.assets")
