"""python -m clstudy.storage copy SOURCE TARGET: copy studies between folders and object stores."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from clstudy.cli.entry_point import entry_point
from clstudy.errors import UserError
from clstudy.storage.patience import patiently
from clstudy.storage.places import first_line, open_place, require_writable
from clstudy.storage.trees import copy_tree


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m clstudy.storage", description="Copy studies between folders and object stores."
    )
    command = parser.add_subparsers(dest="command", required=True).add_parser(
        "copy",
        help="copy a study (or several) from one storage to another",
        description="Copy every file that the target lacks. Can be repeated; a copied study is whole once it ends.",
        epilog="Exit code: 0 copied, 2 wrong input or a storage that cannot be used.",
    )
    command.add_argument("source", help="folder or URI, e.g. s3://bucket/clstudy/hull_sizes")
    command.add_argument("target", help="folder or URI")
    args = parser.parse_args(arguments)
    try:
        source, target = open_place(args.source), open_place(args.target)
        if not source.is_dir():
            raise UserError(f"there is no folder {source}")
        require_writable(target)
        count = patiently(lambda: copy_tree(source, target), lambda text: print(text, file=sys.stderr))
    except (UserError, OSError) as error:
        print(f"error: {first_line(error)}", file=sys.stderr)
        return 2
    print(f"{count} files copied to {target}")
    return 0
