"""The command line of the main job: ``python -m clstudy.run --space hull_sizes``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from clstudy.cli.clean_output import CleanConsole
from clstudy.cli.command_line import command, verbatim
from clstudy.cli.entry_point import INTERRUPTED, invoke, say_error
from clstudy.cli.notification import notify, notify_words
from clstudy.cli.run_options import EXIT_CODES, run_options, with_run_options
from clstudy.storage.driver_lock import StudyBusyError
from clstudy.storage.file_modes import mask_of
from clstudy.study.run_options import RunOptions

if TYPE_CHECKING:
    from clstudy.cluster.main_job import Ending

OK, INCOMPLETE, STOPPED, BUSY = 0, 1, 3, 4


def print_choices(console: Console) -> None:
    """Print everything that a user may name, one per line."""
    from clstudy.identities.catalogue import DATA_SETS
    from clstudy.settings.packaged_spaces import known_spaces
    from clstudy.settings.profiles import PROFILES
    from clstudy.settings.space_file import load_space
    from clstudy.strategies import STRATEGIES

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


@command(
    "run",
    help="Run a study: all trials of a search space, in parallel, resumable, with a table at the end.",
    epilog=verbatim(EXIT_CODES),
)
@with_run_options
def run(**typed: Any) -> int:
    """Run a study, or list the choices; returns the exit code."""
    console = CleanConsole()
    try:
        if typed["files"]:
            os.umask(mask_of(typed["files"]))
        if typed["list"]:
            print_choices(console)
            return OK
        return run_study(typed, console)
    except StudyBusyError as error:
        say_error(error)
        return BUSY
    except KeyboardInterrupt:
        say_error("interrupted before anything was started")
        return INTERRUPTED


def run_study(typed: dict[str, Any], console: Console) -> int:
    """Run a study with these options; returns the exit code.

    Raises:
        UserError: anything about the input is wrong; nothing was started.
    """
    # seconds to import: help and completion need none of it
    from clstudy.study.variants import studies_of

    told = typed["notify_command"]
    command = None if told is None else notify_words(told)
    options = run_options(typed)
    code = run_variants(studies_of(options), console, everything=typed["tables"])
    if not options.dry_run and (problem := notify(command, options.out or options.space, code)):
        say_error(problem)
    return code


def run_variants(studies: Sequence[RunOptions], console: Console, *, everything: bool) -> int:
    """Run one study after the other, and compare them in the end; returns the exit code.

    Trials that failed do not keep the next study from running; a limit, a full disk or Ctrl-C do.

    Raises:
        UserError: as ``run_study``.
    """
    from clstudy.analysis.report import write_comparison
    from clstudy.cli.report import print_comparison
    from clstudy.cli.run_view import PrintedRun
    from clstudy.cluster.main_job import Ending, MainJob

    code, finished = OK, []
    for options in studies:
        if len(studies) > 1:
            console.rule(str(options.variant))
        view = PrintedRun(console, options, everything=everything)
        ending = MainJob(options, view).run()
        code = max(code, exit_code(ending))
        if ending not in (Ending.FINISHED, Ending.INCOMPLETE):
            return code
        if view.study is not None:  # neither a plan alone nor a pilot
            finished.append(view.study)
    if len(finished) > 1:
        comparison = write_comparison([study.report for study in finished], finished[0].place.resolve().parent)
        print_comparison(console, comparison)
    return code


def exit_code(ending: Ending) -> int:
    """The exit code of a run that ended so."""
    from clstudy.cluster.main_job import Ending

    return {
        Ending.FINISHED: OK,
        Ending.INCOMPLETE: INCOMPLETE,
        Ending.STOPPED: STOPPED,
        Ending.INTERRUPTED: INTERRUPTED,
    }[ending]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(run, arguments, "python -m clstudy.run")
