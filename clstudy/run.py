"""The main job: ``python -m clstudy.run --space hull_sizes``. Parse, plan, launch, summarise."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import rich
from rich.console import Console

import clstudy
from clstudy.analysis.tables import to_terminal
from clstudy.display import counted, duration, make_display, plan_lines
from clstudy.driver_lock import StudyBusyError, only_driver
from clstudy.errors import UserError
from clstudy.fold import Basis
from clstudy.identities.catalogue import DATA_SETS, open_data_set
from clstudy.identities.dataset import DataSet, Identity
from clstudy.mlflow_rebuild import complete_runs
from clstudy.plan import Plan, make_plan
from clstudy.precision import PRECISIONS
from clstudy.preflight import Equipment, equip, require_alignment
from clstudy.profiles import PROFILES, Profile
from clstudy.report import build_report, needed_by_reports
from clstudy.retention import POLICIES
from clstudy.searching import PART as SEARCH_PART
from clstudy.searching import (
    SearchSetup,
    chosen_rates,
    keep_search,
    rates_document,
    search_plan,
    set_up_search,
    uses_buffer_size,
)
from clstudy.sessions import Session, add_session, hours_unit, now, unit_hours
from clstudy.space import (
    Cell,
    Expansion,
    SearchSpace,
    TrialSpec,
    check_buffer_sizes,
    check_trial_count,
    expand,
    known_spaces,
    load_space,
    override,
)
from clstudy.stages import StudyStore
from clstudy.storage import Place, RemotePath, copy_tree, local_view, open_place, require_writable
from clstudy.strategies import STRATEGIES, make_strategy
from clstudy.study_file import write_study_file
from clstudy.tracking import MlflowWriter, artifact_folder, sqlite_uri

if TYPE_CHECKING:
    from clstudy.generators.base import GeneratorWeights
    from clstudy.study import Outcome

EXIT_CODES = """MLFLOW_TRACKING_URI, if set, names the tracking server instead of runs/mlflow.db.

exit codes:
  0    every trial finished
  1    some trials failed or are missing; the tables say which
  2    the input is wrong; nothing was started
  3    stopped at the budget, or because the disk stayed full; run the same command to go on
  4    another driver is at work on the same study; nothing was started
  130  interrupted (Ctrl-C: the stages in flight are finished first; twice: at once); run the same command to go on"""

OK, INCOMPLETE, WRONG_INPUT, STOPPED, BUSY, INTERRUPTED_CODE = 0, 1, 2, 3, 4, 130


@dataclass(frozen=True)
class Prepared:
    """Everything checked and planned, before the first expensive second."""

    space: SearchSpace
    profile: Profile
    equipment: Equipment
    weights: GeneratorWeights | None
    data: DataSet
    expansion: Expansion | None
    """None while the search for learning rates is not over."""
    search: SearchSetup | None
    rates: Mapping[Cell, float] | None
    basis: Basis
    out: Place
    home: Path
    """Local folder for what is not the study's own: packaged data sets, the local tracking database."""
    plan: Plan
    keep_weights: str
    images: bool

    @property
    def searching(self) -> SearchSetup | None:
        """The search, while it is not over."""
        return self.search if self.expansion is None else None

    @property
    def people(self) -> DataSet:
        """Whose trials run now: the reported people, or those that a search is judged by."""
        return self.data if self.searching is None else self.searching.people

    @property
    def sentence(self) -> str:
        """What runs now, in words."""
        if self.expansion is not None:
            return self.expansion.sentence
        assert self.search is not None
        return self.search.sentence()


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m clstudy.run",
        description="Run a study: all trials of a search space, in parallel, resumable, with a table at the end.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--space", help="packaged search space (see --list) or path of a YAML file")
    parser.add_argument("--data", help="data set (see --list) or photo folder, instead of the space's")
    parser.add_argument("--identities", help="how many identities, or their names separated by commas")
    parser.add_argument("--seeds", help="trial seeds separated by commas, e.g. 0,1,2")
    parser.add_argument("--timestamps", type=int, help="timestamps per identity (default: the profile's)")
    parser.add_argument("--profile", help="profile instead of the space's (see --list)")
    parser.add_argument(
        "--weights",
        action="append",
        metavar="FOLDER|ROLE=FILE",
        help="where weights from outside the package are (default: weights/); again for single files, e.g. "
        "generator=ffhq.pkl; only for profiles that take any",
    )
    parser.add_argument("--without", metavar="METRICS", help="metrics to leave out, separated by commas")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="compute there instead of where the profile says")
    parser.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        help="; ".join(f"{name}: {mode.description}" for name, mode in PRECISIONS.items())
        + " (default: the profile's)",
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the synthesis network")
    parser.add_argument(
        "--recompute", action="store_true", help="keep less memory and compute activations again: the same numbers"
    )
    parser.add_argument(
        "--storage",
        help="where studies lie: a folder (shared by all nodes of a cluster) or s3://bucket/folder; this "
        "one goes to <storage>/<space name> (default: runs)",
    )
    parser.add_argument("--out", help="the study's own folder or URI, instead of <storage>/<space name>")
    parser.add_argument(
        "--keep-weights",
        choices=POLICIES,
        help="which stages' weights stay when no planned trial builds on them any "
        "more: only those of t = 0 and of last stages, or all (default: the space's, else last)",
    )
    parser.add_argument(
        "--mlflow-images",
        choices=("on", "off"),
        help="faces and buffers, and the report, in MLflow (default: the profile's)",
    )
    parser.add_argument(
        "--budget-hours",
        type=float,
        metavar="H",
        help="wall-clock hours: a plan that needs more is refused, or with "
        "--yes begun and stopped cleanly at the limit",
    )
    parser.add_argument(
        "--price-per-hour",
        type=float,
        metavar="P",
        help="of one GPU (of one core, where trials want no GPU): the plan and the report say what it comes to",
    )
    parser.add_argument(
        "--pilot",
        action="store_true",
        help="compute one stage only (it is kept), then print the plan again with what it took",
    )
    parser.add_argument("--max-concurrent", type=int, help="trials at a time (default: as many as fit)")
    parser.add_argument("--address", help="address of a running Ray cluster, e.g. auto (default: this machine)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--yes", action="store_true", help="start a study of any size")
    parser.add_argument("--list", action="store_true", help="list spaces, strategies, profiles and data sets")
    parser.add_argument("--version", action="version", version=f"clstudy {clstudy.__version__}")
    return parser


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


def prepare(args: argparse.Namespace, console: Console) -> Prepared:
    """Check everything and make the plan.

    Raises:
        UserError: anything about the input is wrong.
    """
    if args.space is None:
        raise UserError("no search space given; use --space hull_sizes, or --list to see what there is")
    require_sane_numbers(args)
    space = override(
        load_space(args.space), identities=args.identities, seeds=args.seeds, profile=args.profile, data=args.data
    )
    for name in space.grid.strategy:
        make_strategy(name)  # refuses what does not exist before anything else is done
    equipment = equip(
        with_compute(PROFILES[space.profile](), args),
        weights=args.weights or [],
        device=args.device,
        without=[name for name in (args.without or "").split(",") if name],
        data=space.data,
        address=args.address,
    )
    profile, weights = read_generator(equipment, console)
    out = study_place(args, space.name)
    home = out.parent if isinstance(out, Path) else Path("runs")
    data = open_study_data(space, profile, args.timestamps, home / "data", console)
    require_alignment(data.root, profile)
    names = [identity.name for identity in data.identities]
    basis = Basis(profile, equipment.generator_digest, equipment.metric_files)
    search = rates = None
    if space.search is not None:
        everybody = open_named_too(space, names, data, profile, args.timestamps, home / "data", console)
        search = set_up_search(space, everybody, names, basis, out, home, look_only=args.dry_run)
        check_trial_count(search.trials, yes=args.yes)
        check_cells(search.cells, [*data.identities, *search.people.identities])
        rates = chosen_rates(search)
    keep, workers = args.keep_weights or space.weights, local_workers(profile, args)
    expansion = None
    if search is None or rates is not None:
        expansion = expand(space, names, uses_buffer_size, rates)
        check_trial_count(len(expansion.trials), yes=args.yes)
        data = data.select(list(dict.fromkeys(spec.identity for spec in expansion.trials)))
        check_buffer_sizes(expansion.trials, training_photos(data.identities))
        plan = plan_of(expansion.trials, data, basis, out, workers, keep)
    else:
        assert search is not None
        plan = search_plan(search, basis, StudyStore(out), out, workers)
    return Prepared(
        space=space,
        profile=profile,
        equipment=equipment,
        weights=weights,
        data=data,
        expansion=expansion,
        search=search,
        rates=rates,
        basis=basis,
        out=out,
        home=home,
        plan=plan,
        keep_weights=keep,
        images=profile.log_images if args.mlflow_images is None else args.mlflow_images == "on",
    )


def training_photos(people: Iterable[Identity]) -> dict[str, int]:
    """Training photos of each person over all timestamps."""
    return {one.name: sum(len(timestamp.train) for timestamp in one.timestamps) for one in people}


def check_cells(cells: Sequence[Cell], people: Sequence[Identity]) -> None:
    """Refuse buffers larger than all photos of a person, before any rate is known.

    Raises:
        UserError: as ``check_buffer_sizes``.
    """
    nominal = [
        TrialSpec(identity=one.name, strategy=cell.strategy, buffer_size=cell.buffer_size, learning_rate=1.0, seed=0)
        for cell in cells
        for one in people
    ]
    check_buffer_sizes(nominal, training_photos(people))


def open_named_too(
    space: SearchSpace,
    reported: Sequence[str],
    data: DataSet,
    profile: Profile,
    timestamps: int | None,
    cache: Path,
    console: Console,
) -> DataSet:
    """The reported people and those whom ``search.validation`` names."""
    assert space.search is not None
    if isinstance(space.search.validation, str):
        return data
    everybody = [*reported, *(name for name in space.search.validation if name not in reported)]
    grid = space.grid.model_copy(update={"identity": tuple(everybody)})
    return open_study_data(space.model_copy(update={"grid": grid}), profile, timestamps, cache, console)


def require_sane_numbers(args: argparse.Namespace) -> None:
    """Refuse counts below 1, and hours and prices that are none.

    Raises:
        UserError: names the option.
    """
    for option, count in (("--max-concurrent", args.max_concurrent), ("--timestamps", args.timestamps)):
        if count is not None and count < 1:
            raise UserError(f"{option} is {count}; expected at least 1")
    for option, number in (("--budget-hours", args.budget_hours), ("--price-per-hour", args.price_per_hour)):
        if number is not None and not (math.isfinite(number) and number > 0):
            raise UserError(f"{option} is {number}; expected a number above 0")


def study_place(args: argparse.Namespace, name: str) -> Place:
    """Where the study lies.

    Raises:
        UserError: both --out and --storage are given, or a storage that cannot be used.
    """
    if args.out and args.storage:
        raise UserError("--out and --storage are both given; --storage FOLDER puts the study into FOLDER/<space name>")
    out = open_place(args.out) if args.out else open_place(args.storage or "runs") / name
    if isinstance(out, RemotePath) and not args.dry_run:
        require_writable(out)
    return out


def plan_of(
    trials: Sequence[TrialSpec], data: DataSet, basis: Basis, out: Place, workers: int, keep_weights: str
) -> Plan:
    """The plan of some trials of a study."""
    people = {identity.name: identity for identity in data.identities}
    return make_plan(trials, people, basis, StudyStore(out), out, workers=workers, weights=keep_weights)


def with_compute(profile: Profile, args: argparse.Namespace) -> Profile:
    """The profile with the precision, compilation and recomputing of the command line, where it names them."""
    compute = profile.compute
    return replace(
        profile,
        compute=replace(
            compute,
            precision=args.precision or compute.precision,
            compile=args.compile or compute.compile,
            recompute=args.recompute or compute.recompute,
        ),
    )


def read_generator(equipment: Equipment, console: Console) -> tuple[Profile, GeneratorWeights | None]:
    """Read a generator that comes from a file: a wrong one must be refused now, and photos have its size.

    A packaged one is known to be good, and reading it is left to the study (the plan needs no torch).
    """
    profile = equipment.profile
    if profile.weights is not None:
        return profile, None
    from clstudy.generators import load_generators
    from clstudy.generators.base import GENERATORS

    load_generators()
    kind = GENERATORS[profile.generator]
    with console.status("reading the generator …"):
        weights = kind.read(equipment.files)
    return replace(profile, data=replace(profile.data, image_size=kind.image_size(weights, profile))), weights


def open_study_data(
    space: SearchSpace, profile: Profile, timestamps: int | None, cache: Path, console: Console
) -> DataSet:
    """Open (and on first use make) the data set a space asks for."""
    wanted = space.grid.identity
    settings = profile.data
    with console.status("reading photos (a packaged data set is made on first use) …"):
        return open_data_set(
            space.data or settings.name,
            identities=wanted if isinstance(wanted, int) else None,
            names=None if isinstance(wanted, int) else wanted,
            timestamps=timestamps or settings.timestamps,
            train=settings.train,
            test=settings.test,
            data_seed=settings.data_seed,
            cache=cache,
            image_size=settings.image_size,
        )


def local_workers(profile: Profile, args: argparse.Namespace) -> int:
    """Trials at a time on this machine, for the estimate (a cluster's size is known only once connected)."""
    fits = max(1, int((os.cpu_count() or 1) / profile.resources.cpus)) if profile.resources.cpus else 1
    return min(fits, args.max_concurrent or fits)


def tracking_address(prepared: Prepared) -> str:
    """The tracking server of the environment, or a database beside the study."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(prepared.home / "mlflow.db")


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
    from clstudy.study import StudySettings, run_study, write_failures  # Ray and torch only from here on

    plan, profile = prepared.plan, prepared.profile
    search = prepared.searching
    settings = StudySettings(
        space=prepared.space,
        basis=prepared.basis,
        data=prepared.people,
        out=prepared.out,
        tracking_uri=tracking_address(prepared),
        experiment=prepared.space.name + ("" if search is None else "-search"),
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
    display = make_display(plan, local_workers(profile, args), console)
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
        for trial, message in outcome.failures.items():
            console.print(f"[red]failed[/red] {trial}: {message}", soft_wrap=True, highlight=False)
        why = outcome.stopped or "some trials failed for a reason that says nothing about their rate"
        console.print(f"[bold]{why}[/bold]: the search is not over; run the same command to go on", soft_wrap=True)
        if outcome.stopped == "interrupted":
            return INTERRUPTED_CODE
        return STOPPED if outcome.stopped else INCOMPLETE
    again = prepare(args, console)
    for cell, rate in (again.rates or {}).items():
        console.print(f"chosen   {cell.label}: learning rate {rate:g}", highlight=False)
    return again


def say_outcome(outcome: Outcome, prepared: Prepared, args: argparse.Namespace, console: Console) -> None:
    """How a run went, in a few lines."""
    share = prepared.profile.resources
    hours = unit_hours(share, outcome.worker_seconds)
    paid = "" if args.price_per_hour is None else f", {hours * args.price_per_hour:.2f} at {args.price_per_hour:g} each"
    console.print(
        f"{outcome.stages_computed} stages computed, {outcome.stages_reused} reused, "
        f"{outcome.seconds / 60:.1f} minutes, {hours:.2f} {hours_unit(share)}{paid} "
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


def pilot(prepared: Prepared, args: argparse.Namespace, console: Console) -> int:
    """Compute one stage and print the plan again."""
    if not (prepared.plan.to_run or prepared.plan.open_trials):
        console.print("every trial is finished already; a pilot has nothing to measure")
        return OK
    outcome = compute(prepared, args, console, pilot=True)
    if outcome is None or outcome.stopped == "interrupted":
        return INTERRUPTED_CODE
    for trial, message in outcome.failures.items():
        console.print(f"[red]failed[/red] {trial}: {message}", soft_wrap=True, highlight=False)
    if outcome.failures:
        return INCOMPLETE
    console.print(f"pilot: one stage in {outcome.worker_seconds:.1f} s; run without --pilot to go on from it")
    show_plan(prepare(args, console), args, console)
    return OK


def launch(prepared: Prepared, args: argparse.Namespace, console: Console) -> int:
    """Run the study, print the table, return the exit code."""
    tracking_uri = tracking_address(prepared)
    ui = f"mlflow ui --backend-store-uri {tracking_uri}"
    failures: Mapping[str, str] = {}
    if prepared.plan.to_run:
        console.print(f"live in MLflow: [bold]{ui}[/bold]", soft_wrap=True, highlight=False)
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
    with local_view(prepared.out, needed_by_reports) as folder:
        report = build_report(folder)
        if folder != prepared.out:
            copy_tree(folder / "report", prepared.out / "report", replace=True)
        update_tracking(prepared, folder, tracking_uri, console)
    summary = report.summary
    console.print(to_terminal(summary, console.width))
    for label, place in (
        ("report", prepared.out / "report" / "index.html"),
        ("rows", prepared.out / "results"),
        ("tables", prepared.out / "report"),
        ("settings", prepared.out / "study.yaml"),
    ):
        console.print(f"{label:<9} {place}", soft_wrap=True, highlight=False)
    console.print(f"MLflow    {ui}", soft_wrap=True, highlight=False)
    for trial, message in failures.items():
        console.print(f"[red]failed[/red] {trial}: {message}", soft_wrap=True, highlight=False)
    for what in report.broken:
        console.print(f"[red]report[/red] {what}", soft_wrap=True, highlight=False)
    return OK if summary.complete and not report.broken else INCOMPLETE


def update_tracking(prepared: Prepared, folder: Path, tracking_uri: str, console: Console) -> None:
    """Bring MLflow up to date with the rows and attach the report; a server that is down costs only that.

    Runs can lack their end where a driver was killed before everything was delivered: Parquet is the truth.
    """
    writer = MlflowWriter(
        tracking_uri, prepared.space.name, artifact_location=artifact_folder(prepared.out, tracking_uri)
    )
    try:
        told = complete_runs(folder, writer, data=str(prepared.data.root), images=prepared.images)
    except UserError as error:
        console.print(f"[yellow]note[/yellow] {error}", soft_wrap=True, highlight=False)
    else:
        if told:
            console.print(f"{counted(told, 'run', 'runs')} in MLflow completed from the rows")
    if prepared.images:
        writer.attach_report(folder / "report")
    if writer.flush():
        console.print(
            "[yellow]MLflow did not take everything; the report is in the study's folder, and `python -m "
            "clstudy.tracking rebuild` writes all runs again[/yellow]",
            soft_wrap=True,
        )


def show_plan(prepared: Prepared, args: argparse.Namespace, console: Console) -> None:
    """Print the plan."""
    for line in plan_lines(
        prepared.plan,
        prepared.sentence,
        prepared.profile,
        prepared.people,
        prepared.equipment.left_out,
        keep_weights=prepared.keep_weights,
        price=args.price_per_hour,
    ):
        console.print(line, soft_wrap=True, highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = build_parser().parse_args(argv)
    console = rich.get_console()
    try:
        if args.list:
            print_choices(console)
            return OK
        prepared = prepare(args, console)
        show_plan(prepared, args, console)
        if args.dry_run:
            return OK
        require_budget(prepared.plan, args)
        with only_driver(prepared.out):
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
    except UserError as error:
        print(f"clstudy: {error}", file=sys.stderr)
        return WRONG_INPUT


if __name__ == "__main__":
    sys.exit(main())
