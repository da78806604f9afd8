"""The main job: ``python -m clstudy.run --space hull_sizes``. Plan, search, launch, summarise."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from clstudy.analysis.answer import answer
from clstudy.analysis.report import Report, build_report, needed_by_reports
from clstudy.analysis.tables import to_terminal
from clstudy.cli.clean_output import CleanConsole
from clstudy.cli.display import counted, duration, make_display, plan_lines, print_plan, why_restored
from clstudy.cli.entry_point import entry_point
from clstudy.cli.run_options import BUSY, INCOMPLETE, INTERRUPTED_CODE, OK, STOPPED, WRONG_INPUT, build_parser
from clstudy.errors import UserError
from clstudy.identities.catalogue import DATA_SETS
from clstudy.records.results import restore_results
from clstudy.records.sessions import Session, add_session, now, priced_hours
from clstudy.records.study_document import write_failures
from clstudy.safe_text import shown_address
from clstudy.settings.overrides import setting_words
from clstudy.settings.packaged_spaces import known_spaces
from clstudy.settings.profiles import PROFILES
from clstudy.settings.space_file import load_space
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.storage.driver_lock import StudyBusyError, only_driver
from clstudy.storage.file_modes import current_mask, mask_of, open_to_others
from clstudy.storage.places import Place
from clstudy.storage.trees import copy_tree, local_view
from clstudy.strategies import STRATEGIES
from clstudy.study.plan import Plan
from clstudy.study.preparation import Prepared, drift_lines, expected_workers, planned, prepare
from clstudy.study.search.search_setup import PART as SEARCH_PART
from clstudy.study.search.search_setup import keep_search, rates_document
from clstudy.study.study_file import statements, write_study_file
from clstudy.study.tracking_rebuild import complete_runs
from clstudy.tracking.addresses import (
    LOCAL_SERVER,
    artifact_folder,
    keep_address,
    runs_page,
    server_address,
    tracking_address,
)
from clstudy.tracking.local_database import database_file, local_database
from clstudy.tracking.run_contents import CHARTS_HINT
from clstudy.tracking.writer import MlflowWriter

if TYPE_CHECKING:
    from clstudy.cluster.driver import Outcome


_MOST_NAMED = 5
"""Trials that one line names."""


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


def require_budget(plan: Plan, args: argparse.Namespace) -> None:
    """Refuse a plan that will not fit into the budget and was not confirmed.

    Raises:
        UserError: it needs more hours than given, and there is no --yes.
    """
    hours = args.budget_hours
    if hours is not None and plan.seconds / 3600 > hours and not args.yes:
        raise UserError(
            f"the plan needs about {duration(plan.seconds)} (from {plan.estimate_from}), --budget-hours is {hours:g}; "
            "shorten the space (--identities, --seeds), raise the budget, or begin all the same with --yes: it stops "
            "cleanly at the limit, and the same command goes on from there"
        )


def compute(prepared: Prepared, args: argparse.Namespace, console: Console, *, pilot: bool = False) -> Outcome | None:
    """Run what the plan has left, of the search or of the reported trials; None where it was interrupted twice."""
    if args.address is None:
        # Before Ray is imported, which reads it then: on one machine all of Ray's ports are bound to localhost (Ray
        # does so by itself on the systems that the variable is named after).
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    from clstudy.cluster.driver import run_study
    from clstudy.cluster.study_settings import StudySettings  # Ray and torch only from here on

    plan, profile = prepared.plan, prepared.profile
    search = prepared.searching
    settings = StudySettings(
        space=prepared.space,
        basis=prepared.basis,
        data=prepared.people,
        out=prepared.out,
        tracking_uri=tracking_address(prepared.home),
        experiment=prepared.space.name + ("" if search is None else " (search)"),
        part="results" if search is None else SEARCH_PART,
        files=prepared.equipment.files,
        weights=prepared.weights,
        address=args.address,
        max_concurrent=1 if pilot else args.max_concurrent,
        keep_weights=prepared.keep_weights,
        budget_seconds=None if args.budget_hours is None else args.budget_hours * 3600,
        most_stages=1 if pilot else None,
        images=prepared.images,
    )
    if search is None:
        write_settings(prepared)
    began, outcome = now(), None
    display = make_display(plan, expected_workers(profile, args), console)
    with suppress(KeyboardInterrupt), display as show:
        outcome = run_study(
            settings,
            plan,
            show,
            source=None if search is None else search.source,
            say=lambda text: console.print(f"[yellow]note[/yellow] {text}", soft_wrap=True),
        )
    if outcome is None:
        return None
    if search is None:
        write_failures(prepared.out, outcome.failures)
    add_session(
        prepared.out,
        Session(
            began=began,
            part="pilot" if pilot else "trials" if search is None else "search of learning rates",
            ended=outcome.stopped or "finished",
            stages_planned=plan.stages_to_run,
            stages_computed=outcome.stages_computed,
            stages_reused=outcome.stages_reused,
            stages_repeated=outcome.stages_repeated,
            expected_seconds=plan.seconds,
            seconds=outcome.seconds,
            expected_worker_seconds=plan.worker_seconds,
            worker_seconds=outcome.worker_seconds,
            gpus=profile.resources.gpus,
            cpus=profile.resources.cpus,
            price_per_hour=args.price_per_hour,
            deaths=outcome.worker_deaths,
            weights_dropped=outcome.weights_dropped,
        ),
    )
    return outcome


def with_restored_results(prepared: Prepared, args: argparse.Namespace, console: Console) -> Prepared:
    """Write results that are missing, damaged or without a checksum from their stages; returns what is left to do."""
    plan = prepared.plan
    wanted = {spec: plan.chains[spec.trial_id].keys for spec in plan.trials if spec.trial_id in plan.restorable}
    if not wanted:
        return prepared
    by_reason: dict[str, list[str]] = {}
    for trial in restore_results(StudyStore(prepared.out), prepared.out, wanted):
        by_reason.setdefault(why_restored(plan.restorable[trial]), []).append(trial)
    for why, trials in by_reason.items():
        more = len(trials) - _MOST_NAMED
        named = ", ".join(trials[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        console.print(
            f"[yellow]rebuilt[/yellow] {counted(len(trials), 'result file', 'result files')} from finished stages "
            f"({why}): {named}",
            soft_wrap=True,
            highlight=False,
        )
    return planned(prepared, args)


def write_settings(prepared: Prepared) -> None:
    """Write ``study.yaml``."""
    rates = None if prepared.rates is None else rates_document(prepared.rates)
    write_study_file(prepared.out, prepared.space, prepared.basis, prepared.data, prepared.plan, rates)


def search(prepared: Prepared, args: argparse.Namespace, console: Console) -> Prepared | int:
    """Search the learning rates; returns the study at the chosen rates, or the exit code where it did not get there."""
    assert prepared.search is not None
    outcome = compute(prepared, args, console)
    keep_search(prepared.search, prepared.out)
    if outcome is None:
        console.print("[bold]interrupted[/bold]: run the same command to go on with the search")
        return INTERRUPTED_CODE
    say_outcome(outcome, prepared, args, console)
    if not prepared.search.source.complete():
        say_failures(outcome.failures, console)
        why = outcome.stopped or "some trials failed for a reason that says nothing about their rate"
        console.print(f"[bold]{why}[/bold]: the search is not over; run the same command to go on", soft_wrap=True)
        if outcome.stopped == "interrupted":
            return INTERRUPTED_CODE
        return STOPPED if outcome.stopped else INCOMPLETE
    again = planned(prepared, args)
    for cell, rate in (again.rates or {}).items():
        console.print(f"chosen   {cell.label}: learning rate {rate:g}", highlight=False)
    return again


def say_outcome(outcome: Outcome, prepared: Prepared, args: argparse.Namespace, console: Console) -> None:
    """How a run went, in a few lines."""
    cost = priced_hours(prepared.profile.resources, outcome.worker_seconds, args.price_per_hour)
    console.print(
        f"{outcome.stages_computed} stages computed, {outcome.stages_reused} reused, "
        f"{outcome.seconds / 60:.1f} minutes, {cost} "
        f"(expected: {prepared.plan.seconds / 60:.1f} minutes for at most {prepared.plan.stages_to_run} stages)",
        highlight=False,
        soft_wrap=True,
    )
    if outcome.worker_deaths:
        console.print(f"{counted(outcome.worker_deaths, 'worker', 'workers')} died under way; nothing was lost")
    for note in outcome.notes:
        console.print(f"[yellow]note[/yellow] {note}", soft_wrap=True, highlight=False)
    if outcome.undelivered:
        console.print(
            f"[yellow]{outcome.undelivered} MLflow calls were not delivered; the rows are safe[/yellow], and the next "
            "run of this command, or `python -m clstudy.tracking rebuild`, brings MLflow up to date",
            soft_wrap=True,
        )


def say_failures(failures: Mapping[str, str], console: Console) -> None:
    """A line for every trial that failed."""
    for trial, message in failures.items():
        console.print(f"[red]failed[/red] {trial}: {message}", soft_wrap=True, highlight=False)


def pilot(prepared: Prepared, args: argparse.Namespace, console: Console) -> int:
    """Compute one stage and print the plan again."""
    if not (prepared.plan.to_run or prepared.plan.open_trials):
        console.print("every trial is finished already; a pilot has nothing to measure")
        return OK
    outcome = compute(prepared, args, console, pilot=True)
    if outcome is None or outcome.stopped == "interrupted":
        return INTERRUPTED_CODE
    say_failures(outcome.failures, console)
    if outcome.failures:
        return INCOMPLETE
    console.print(f"pilot: one stage in {outcome.worker_seconds:.1f} s; run without --pilot to go on from it")
    show_plan(planned(prepared, args), args, console)
    return OK


def launch(prepared: Prepared, args: argparse.Namespace, console: Console) -> int:
    """Run the study, print the table, return the exit code."""
    tracking_uri = tracking_address(prepared.home)
    shown = shown_address(tracking_uri)
    ui = shown if server_address(tracking_uri) else f"mlflow ui --backend-store-uri {shown}"
    writer = MlflowWriter(
        tracking_uri, prepared.space.name, artifact_location=artifact_folder(prepared.out, tracking_uri)
    )
    failures: Mapping[str, str] = {}
    if prepared.plan.to_run:
        console.print(f"live in MLflow: {ui}", soft_wrap=True, highlight=False)
        outcome = compute(prepared, args, console)
        if outcome is None:
            console.print("[bold]interrupted[/bold]: run the same command to go on from the finished stages")
            return INTERRUPTED_CODE
        failures = outcome.failures
        say_outcome(outcome, prepared, args, console)
        left = len({spec.trial_id for spec in prepared.plan.to_run} - outcome.finished - set(failures))
        if outcome.stopped and left:
            console.print(
                f"[bold]{outcome.stopped}[/bold]: {counted(left, 'trial is', 'trials are')} not finished; run the same "
                "command to go on",
                soft_wrap=True,
            )
            return INTERRUPTED_CODE if outcome.stopped == "interrupted" else STOPPED
    else:
        write_settings(prepared)
        console.print("every trial is finished already; nothing to compute")
    experiment = writer.experiment_id()
    keep_address(prepared.out, tracking_uri, experiment)
    with local_view(prepared.out, needed_by_reports) as folder:
        report = build_report(folder)
        if folder != prepared.out:
            copy_tree(folder / "report", prepared.out / "report", replace=True)
        update_tracking(prepared, folder, writer, console)
    summary = report.summary
    for label, place in (
        ("report", prepared.out / "report" / "index.html"),
        ("rows", prepared.out / "results"),
        ("tables", prepared.out / "report"),
        ("settings", prepared.out / "study.yaml"),
    ):
        console.print(f"{label:<9} {place}", soft_wrap=True, highlight=False)
    console.print(f"MLflow    {ui}", soft_wrap=True, highlight=False)
    page = runs_page(server_address(tracking_uri) or LOCAL_SERVER, experiment)
    console.print(f"          {page} ({CHARTS_HINT})", soft_wrap=True, highlight=False)
    say_failures(failures, console)
    for what in report.broken:
        console.print(f"[red]report[/red] {what}", soft_wrap=True, highlight=False)
    say_numbers(report, console, everything=args.tables)
    return OK if summary.complete and not report.broken else INCOMPLETE


def say_numbers(report: Report, console: Console, *, everything: bool) -> None:
    """The end of a run, so that it is what a terminal still shows: the main table, then the answer.

    With ``everything`` (``--tables``) all tables and their notes come first.
    """
    console.print()
    console.print(to_terminal(report.summary, console.width, everything=everything))
    for sentence in answer(report.material):
        console.print(Text(sentence, style="bold"))
    if not everything:
        console.print("All tables and their notes: --tables, or the report.", style="dim", highlight=False)


def update_tracking(prepared: Prepared, folder: Path, writer: MlflowWriter, console: Console) -> None:
    """Bring MLflow up to date with the rows and attach the report; a server that is down costs only that.

    Runs can lack their end where a driver was killed before everything was delivered: Parquet is the truth.
    """
    try:
        told = complete_runs(folder, writer, data=str(prepared.data.root), images=prepared.images)
    except UserError as error:
        console.print(f"[yellow]note[/yellow] {error}", soft_wrap=True, highlight=False)
    else:
        if told:
            console.print(f"{counted(told, 'run', 'runs')} in MLflow completed from the rows")
    if prepared.images:
        writer.attach_report(folder / "report")
    tracking_uri = tracking_address(prepared.home)
    if writer.flush() or (local_database(tracking_uri) is not None and database_file(tracking_uri) is None):
        console.print(
            "[yellow]MLflow did not take everything; the report is in the study's folder, and `python -m "
            "clstudy.tracking rebuild` writes all runs again[/yellow]",
            soft_wrap=True,
        )


def show_plan(prepared: Prepared, args: argparse.Namespace, console: Console) -> None:
    """Print the plan."""
    # what a search measures are validation photos, not results
    measured = 0 if prepared.searching is not None else prepared.plan.stages_done
    lines = plan_lines(
        prepared.plan,
        prepared.sentence,
        prepared.profile,
        prepared.people,
        prepared.equipment.left_out,
        workers=expected_workers(prepared.profile, args),
        keep_weights=prepared.keep_weights,
        price=args.price_per_hour,
        claims=statements(prepared.out, prepared.space, measured),
        drift=drift_lines(prepared) if prepared.plan.stages_to_run else (),
        changed=setting_words(prepared.space.settings),
    )
    print_plan(lines, console)


def say_open_folder(out: Place, console: Console) -> None:
    """Say so where a study's folder can be read by others although its new files cannot: it was made before."""
    mode = open_to_others(out) if isinstance(out, Path) else ""
    if mode and current_mask() & 0o077 == 0o077:
        console.print(
            f"[yellow]note[/yellow] {out} is open to other users (mode {mode}); what is written now is not. "
            f"`chmod -R go-rwx {shlex.quote(str(out))}` closes the rest, --files group or shared leaves it open",
            soft_wrap=True,
        )


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
        prepared = prepare(args, console)
        show_plan(prepared, args, console)
        if args.dry_run:
            return OK
        require_budget(prepared.plan, args)
        say_open_folder(prepared.out, console)
        with only_driver(prepared.out):
            prepared = with_restored_results(prepared, args, console)
            if args.pilot:
                return pilot(prepared, args, console)
            if prepared.searching is not None:
                found = search(prepared, args, console)
                if isinstance(found, int):
                    return found
                prepared = found
                show_plan(prepared, args, console)
            return launch(prepared, args, console)
    except StudyBusyError as error:
        print(f"clstudy: {error}", file=sys.stderr)
        return BUSY
    except KeyboardInterrupt:
        print("clstudy: interrupted before anything was started", file=sys.stderr)
        return INTERRUPTED_CODE
    except UserError as error:
        print(f"clstudy: {error}", file=sys.stderr)
        return WRONG_INPUT
