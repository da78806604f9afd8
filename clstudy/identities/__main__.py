"""``python -m clstudy.identities check PATH``: is this folder of photos ready for a study?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clstudy.errors import UserError
from clstudy.identities.check import LAYOUT, inspect_folder

_CHECK_HELP = f"""\
Reads every photo of a data folder and lists every problem at once: unreadable image, wrong mode or size,
empty timestamp, missing train or test set, the same photo twice (train and test, or two timestamps of one
person), no identity, no timestamp.

Expected layout:  PATH/{LAYOUT}
Timestamps are taken in sorted name order, so number them with leading zeros (t00, t01, ...).
"""

_EXIT_CODES = "exit code: 0 the folder is fine, 1 it has problems, 2 the path is not a folder"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clstudy.identities", description="Look after the photo folders that a study reads."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="list every problem of a photo folder",
        description=_CHECK_HELP,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("path", type=Path, metavar="PATH", help="folder that holds one folder per identity")
    check.add_argument(
        "--size",
        type=_positive,
        default=64,
        metavar="PIXELS",
        help="width and height every photo must have (default: %(default)s, the embedded profile)",
    )
    return parser


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of pixels")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(arguments)
    try:
        inspection = inspect_folder(args.path, image_size=args.size)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    identities, timestamps, photos = inspection.counts()
    held = f"identities: {identities}, timestamps: {timestamps}, readable photos: {photos}"
    if inspection.problems:
        print(f"{args.path}: {len(inspection.problems)} problem(s) ({held})")
        for problem in inspection.problems:
            print(f"  - {problem}")
        return 1
    print(f"{args.path}: fine ({held})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
