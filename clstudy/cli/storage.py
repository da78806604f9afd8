"""python -m clstudy.storage copy SOURCE TARGET: copy studies between folders and object stores."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from clstudy.cli.command_line import FOLDER, group
from clstudy.cli.entry_point import invoke
from clstudy.errors import UserError
from clstudy.storage.patience import patiently
from clstudy.storage.places import first_line, open_place, require_writable
from clstudy.storage.trees import copy_tree


@group("storage", help="Copy studies between folders and object stores.")
def storage() -> None:
    """The group; its command is declared below."""


@storage.command(
    "copy",
    short_help="copy a study (or several) from one storage to another",
    help="Copy every file that the target lacks. Can be repeated; the copied study is complete once the command ends.",
    epilog="Exit code: 0 copied, 2 wrong input or a storage that cannot be used.",
)
@click.argument("source", type=FOLDER, help="folder or URI, e.g. s3://bucket/clstudy/hull_sizes")
@click.argument("target", type=FOLDER, help="folder or URI")
def copy(source: str, target: str) -> None:
    """Copy, and print how many files were copied."""
    try:
        here, there = open_place(source), open_place(target)
        if not here.is_dir():
            raise UserError(f"there is no folder {here}")
        require_writable(there)
        count = patiently(lambda: copy_tree(here, there), lambda text: print(text, file=sys.stderr))
    except OSError as error:
        raise UserError(first_line(error)) from error
    print(f"{count} files copied to {there}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(storage, arguments, "python -m clstudy.storage")
