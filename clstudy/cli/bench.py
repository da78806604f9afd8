"""``clstudy bench``: a strategy of one's own on clstudy-bench, set against all that are known there."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import yaml
from click.core import ParameterSource
from rich.console import Console

from clstudy.analysis.bench import (
    BASELINE,
    BENCHMARKS,
    Benchmark,
    Standing,
    against_all,
    complaints,
    entry_of,
    standings,
)
from clstudy.analysis.pages.bench import COLUMNS, against_lines, board_page, standing_lines
from clstudy.analysis.report import needed_by_reports
from clstudy.cli.command_line import FOLDER, completing, group, option, verbatim
from clstudy.cli.entry_point import invoke, say_error
from clstudy.cli.report import plain_console, print_table
from clstudy.cli.run import OK, exit_code, run
from clstudy.cli.run_options import run_options
from clstudy.errors import UserError
from clstudy.records.bench_entry import Entry, read_entry, write_entry
from clstudy.settings.packaged_spaces import known_spaces
from clstudy.storage.places import first_line, open_place, write_atomically
from clstudy.storage.trees import local_view
from clstudy.strategies.lookup import make_strategy

_CHANGE_NOTHING = (
    "storage", "out", "files", "mlflow_images", "budget_hours", "price_per_hour", "max_concurrent", "address",
    "dry_run", "yes", "keep_weights", "alone",
)  # fmt: skip
"""Options of ``clstudy run`` that may be typed: no number depends on them."""

_EPILOG = """
clstudy bench run my_strategies:MostTypical
clstudy bench board my_entry.parquet their_entry.parquet --out board.html

What else is typed after `run` goes to `clstudy run` (--storage, --address, --max-concurrent, --dry-run, …).
Exit code: 0 done, 1 trials are missing or an entry does not hold, 2 wrong input; of `run` also those of `clstudy run`.
"""

_FILE = click.Path(path_type=Path, dir_okay=False)


@group(
    "bench", help="A strategy of your own against all others, on fixed people and settings.", epilog=verbatim(_EPILOG)
)
def bench() -> None:
    """The group; each command is declared below."""


_version = option(
    "--benchmark",
    default="v1",
    show_default=True,
    shell_complete=completing(lambda: BENCHMARKS),
    help="which one, or module:NAME for one of your own",
)


@bench.command(
    "run",
    help="Compute what is new of a strategy, print its place and its differences to all others, and write its entry.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("strategy", help="as in a search space: a packaged one, or module:Class")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF RUN]...")
@_version
@option("--entry", "file", type=_FILE, help="the file to write (default: STRATEGY.parquet)")
def bench_run(strategy: str, words: tuple[str, ...], benchmark: str, file: Path | None) -> int:
    """Run the benchmark's space with one strategy; returns the exit code."""
    # seconds to import: help and completion need none of it
    from clstudy.cli.run_view import PrintedRun
    from clstudy.cluster.main_job import Ending, MainJob

    chosen = BENCHMARKS[benchmark]
    make_strategy(strategy)  # refused before anything is read or written
    if strategy in chosen.reference.facts.strategies:
        raise UserError(f"{strategy} is in the benchmark already: clstudy bench board shows it")
    console = plain_console()
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "space.yaml"
        space.write_text(_space_with(chosen, strategy))
        options = run_options(_typed(words, space))
        view = PrintedRun(console, options)
        ending = MainJob(options, view).run()
    if ending is not Ending.FINISHED or view.study is None:
        return exit_code(ending)
    with local_view(view.study.place, needed_by_reports) as study:
        entry = entry_of(study, chosen)
    place = file or Path(f"{_safe(strategy)}.parquet")
    write_entry(place, entry)
    code = _verified(entry, chosen)
    if code == OK:
        _print_places(console, chosen, standings(chosen, [entry]))
        _print_against(console, chosen, entry)
    console.print(f"Written: {place}", markup=False)
    return code


@bench.command(
    "verify", help="Whether entries hold: the benchmark's settings and photos, every cell, the common beginning."
)
@click.argument("files", nargs=-1, required=True, type=_FILE, metavar="FILE...", help="what `bench run` wrote")
@_version
def verify(files: tuple[Path, ...], benchmark: str) -> int:
    """Check entries; returns the exit code."""
    code = OK
    for file in files:
        entry = read_entry(file)
        held = _verified(entry, BENCHMARKS[benchmark], str(file))
        code = max(code, held)
        if held == OK:
            facts = entry.facts
            print(f"{file}: {', '.join(facts.strategies)} · sha256 {entry.digest[:12]} · {entry.cells.num_rows} cells")
    return code


@bench.command("board", help="Everybody's place, and the page of it.")
@click.argument("files", nargs=-1, type=_FILE, metavar="[FILE]...", help="entries beside those that come with it")
@_version
@option("--out", type=_FILE, help="write the page to this file")
def board(files: tuple[Path, ...], benchmark: str, out: Path | None) -> int:
    """Print the places; returns the exit code."""
    chosen = BENCHMARKS[benchmark]
    entries = [read_entry(file) for file in files]
    code = max((_verified(entry, chosen, str(file)) for entry, file in zip(entries, files, strict=True)), default=OK)
    if code != OK:
        return code
    console = plain_console()
    places = standings(chosen, entries)
    _print_places(console, chosen, places)
    if out is not None:
        try:
            write_atomically(out, board_page(chosen, places).encode())
        except OSError as error:
            raise UserError(f"{out} cannot be written ({first_line(error)}); name another file with --out") from error
        console.print(f"Written: {out}", markup=False)
    return OK


@bench.command("entry", help="Make an entry of a study that ran the benchmark's space with several strategies.")
@click.argument("study", type=FOLDER, help="its folder")
@_version
@option("--out", type=_FILE, required=True, help="the file to write")
def entry_command(study: str, benchmark: str, out: Path) -> None:
    """Write it."""
    with local_view(open_place(study), needed_by_reports) as folder:
        entry = entry_of(folder, BENCHMARKS[benchmark])
    write_entry(out, entry)
    print(f"wrote {out}: {', '.join(entry.facts.strategies)}")


def _space_with(benchmark: Benchmark, strategy: str) -> str:
    """The benchmark's space with this strategy alone, as YAML."""
    file = known_spaces().get(benchmark.space, Path(benchmark.space))
    document = yaml.safe_load(file.read_text())
    document["name"] = f"{document['name']}_{_safe(strategy)}"
    document["grid"]["strategy"] = [strategy]
    return yaml.safe_dump(document, sort_keys=False)


def _safe(strategy: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", strategy).strip("_.-")[:60] or "strategy"


def _typed(words: Sequence[str], space: Path) -> dict[str, object]:
    """Options of ``clstudy run``, none of which may change the task."""
    with run.make_context("clstudy bench run", ["--space", str(space), *words]) as context:
        for name in context.params:
            typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
            expected = str(space) if name == "space" else None
            if typed and name not in _CHANGE_NOTHING and context.params[name] != expected:
                raise UserError(
                    f"{_spelled(name)} would make another task of the benchmark; expected only options that change no "
                    f"number: {', '.join(map(_spelled, _CHANGE_NOTHING))}"
                )
        return dict(context.params)


def _spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _verified(entry: Entry, benchmark: Benchmark, file: str = "the entry") -> int:
    found = complaints(entry, benchmark)
    for sentence in found:
        say_error(f"{file}: {sentence}")
    return 1 if found else OK


def _print_places(console: Console, benchmark: Benchmark, places: Sequence[Standing]) -> None:
    title = f"clstudy-bench {benchmark.name}: reconstruction LPIPS at K = {benchmark.buffer_size}, lower is better"
    # whose source it is has no room on a terminal; `verify` and the page say it
    print_table(console, title, COLUMNS[:-1], [line[:-1] for line in standing_lines(places)])


def _print_against(console: Console, benchmark: Benchmark, entry: Entry) -> None:
    heads = ("against", "AIP", "Forgetting")
    found = against_all(benchmark, entry)
    for strategy in entry.facts.strategies:
        lines = against_lines(found, strategy)
        print_table(console, f"{strategy} minus each of them, the same people, photos and seeds", heads, lines)
    console.print(f"The question fixed beforehand is the difference to {BASELINE}; all others are exploratory.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(bench, arguments, "python -m clstudy bench")
