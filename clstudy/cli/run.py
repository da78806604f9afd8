"""The command line of the main job: ``python -m clstudy.run --space hull_sizes``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rich.console import Console

from clstudy.cli.clean_output import CleanConsole
from clstudy.cli.entry_point import entry_point
from clstudy.cli.run_options import BUSY, EXIT_CODE_OF, INTERRUPTED_CODE, OK, WRONG_INPUT, build_parser, run_options
from clstudy.cli.run_view import PrintedRun
from clstudy.cluster.main_job import MainJob
from clstudy.errors import UserError
from clstudy.identities.catalogue import DATA_SETS
from clstudy.settings.packaged_spaces import known_spaces
from clstudy.settings.profiles import PROFILES
from clstudy.settings.space_file import load_space
from clstudy.storage.driver_lock import StudyBusyError
from clstudy.storage.file_modes import mask_of
from clstudy.strategies import STRATEGIES


def print_choices(console: Console) -> None:
    """Everything a user may name, one line each."""
    sections = {
        "spaces": [(name, load_space(path).description) for name, path in known_spaces().items()],
        "strategies": [(name, strategy.description) for name, strategy in STRATEGIES.items()],
        "profiles": [(name, make().description) for name, make in PROFILES.items()],
        "data sets": [(name, entry.description) for name, entry in DATA_SETS.items()],
    }
    for title, entries in sections.items():
        console.print(f"[bold]{title}[/bold]")
        for name, text in entries:
            console.print(f"  {name:<16} {' '.join(text.split())}", soft_wrap=True, highlight=False)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = build_parser().parse_args(argv)
    console = CleanConsole()
    try:
        if args.files:
            os.umask(mask_of(args.files))
        if args.list:
            print_choices(console)
            return OK
        options = run_options(args)
        view = PrintedRun(console, options, everything=args.tables)
        ending = MainJob(options, view).run(on_start=lambda prepared: view.open_folder(prepared.out))
    except StudyBusyError as error:
        print(f"clstudy: {error}", file=sys.stderr)
        return BUSY
    except KeyboardInterrupt:
        print("clstudy: interrupted before anything was started", file=sys.stderr)
        return INTERRUPTED_CODE
    except UserError as error:
        print(f"clstudy: {error}", file=sys.stderr)
        return WRONG_INPUT
    return EXIT_CODE_OF[ending]
