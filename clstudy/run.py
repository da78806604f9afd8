"""The main job: ``python -m clstudy.run --space hull_sizes``. Parse, plan, launch, summarise."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import rich
from rich.console import Console

import clstudy
from clstudy.analysis.tables import to_terminal
from clstudy.display import make_display, plan_lines
from clstudy.errors import UserError
from clstudy.fold import Basis
from clstudy.identities.catalogue import DATA_SETS, open_data_set
from clstudy.identities.dataset import DataSet
from clstudy.plan import Plan, make_plan
from clstudy.precision import PRECISIONS
from clstudy.preflight import Equipment, equip, require_alignment
from clstudy.profiles import PROFILES, Profile
from clstudy.report import build_report
from clstudy.space import (
    Expansion,
    SearchSpace,
    check_buffer_sizes,
    check_trial_count,
    expand,
    known_spaces,
    load_space,
    override,
)
from clstudy.stages import StudyStore
from clstudy.strategies import STRATEGIES, make_strategy, strategy_class
from clstudy.study_file import write_study_file
from clstudy.tracking import MlflowWriter, artifact_folder, sqlite_uri

if TYPE_CHECKING:
    from clstudy.generators.base import GeneratorWeights

EXIT_CODES = """MLFLOW_TRACKING_URI, if set, names the tracking server instead of runs/mlflow.db.

exit codes:
  0    every trial finished
  1    some trials failed or are missing; the tables say which
  2    the input is wrong; nothing was started
  130  interrupted; run the same command again to go on"""


@dataclass(frozen=True)
class Prepared:
    """Everything checked and planned, before the first expensive second."""

    space: SearchSpace
    profile: Profile
    equipment: Equipment
    weights: GeneratorWeights | None
    data: DataSet
    expansion: Expansion
    basis: Basis
    out: Path
    plan: Plan


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
    parser.add_argument("--out", type=Path, help="study folder (default: runs/<space name>)")
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
    for option, value in (("--max-concurrent", args.max_concurrent), ("--timestamps", args.timestamps)):
        if value is not None and value < 1:
            raise UserError(f"{option} is {value}; expected at least 1")
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
    out = args.out or Path("runs") / space.name
    data = open_study_data(space, profile, args.timestamps, out.parent / "data", console)
    require_alignment(data.root, profile)
    names = [identity.name for identity in data.identities]
    expansion = expand(space, names, lambda strategy: strategy_class(strategy).uses_buffer_size)
    check_trial_count(len(expansion.trials), yes=args.yes)
    data = data.select(list(dict.fromkeys(spec.identity for spec in expansion.trials)))
    check_buffer_sizes(
        expansion.trials,
        {one.name: sum(len(timestamp.train) for timestamp in one.timestamps) for one in data.identities},
    )
    basis = Basis(profile, equipment.generator_digest, equipment.metric_files)
    plan = make_plan(
        expansion.trials,
        {identity.name: identity for identity in data.identities},
        basis,
        StudyStore(out),
        out,
        workers=local_workers(profile, args),
    )
    return Prepared(space, profile, equipment, weights, data, expansion, basis, out, plan)


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


def launch(prepared: Prepared, args: argparse.Namespace, console: Console) -> int:
    """Run the study, print the table, return the exit code."""
    tracking_uri = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(prepared.out.parent / "mlflow.db")
    ui = f"mlflow ui --backend-store-uri {tracking_uri}"
    failures: Mapping[str, str] = {}
    if prepared.plan.to_run:
        from clstudy.study import StudySettings, run_study  # Ray and torch only from here on

        console.print(f"live in MLflow: [bold]{ui}[/bold]", soft_wrap=True, highlight=False)
        settings = StudySettings(
            space=prepared.space,
            basis=prepared.basis,
            data=prepared.data,
            out=prepared.out,
            tracking_uri=tracking_uri,
            files=prepared.equipment.files,
            weights=prepared.weights,
            address=args.address,
            max_concurrent=args.max_concurrent,
        )
        outcome = None
        display = make_display(prepared.plan, local_workers(prepared.profile, args), console)
        with suppress(KeyboardInterrupt), display as show:
            outcome = run_study(settings, prepared.plan, show)
        if outcome is None or outcome.unfinished:
            left = len(outcome.unfinished) if outcome else len(prepared.plan.to_run)
            console.print(f"[bold]interrupted[/bold]: {left} trials are not finished; run the same command to go on")
            return 130
        failures = outcome.failures
        console.print(
            f"{outcome.stages_computed} stages computed, {outcome.stages_reused} reused, "
            f"{outcome.seconds / 60:.1f} minutes",
            highlight=False,
        )
        for note in outcome.notes:
            console.print(f"[yellow]note[/yellow] {note}", soft_wrap=True, highlight=False)
        if outcome.undelivered:
            console.print(f"[yellow]{outcome.undelivered} MLflow calls were not delivered; the rows are safe[/yellow]")
    else:
        write_study_file(prepared.out, prepared.space, prepared.basis, prepared.data, prepared.plan)
        console.print("every trial is finished already; nothing to compute")
    report = build_report(prepared.out)
    summary = report.summary
    attach_report(prepared, tracking_uri, console)
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
    return 0 if summary.complete and not report.broken else 1


def attach_report(prepared: Prepared, tracking_uri: str, console: Console) -> None:
    """Put the report into the study's experiment; a tracking server that is down costs only that."""
    folder = artifact_folder(prepared.out, tracking_uri)
    writer = MlflowWriter(tracking_uri, prepared.space.name, artifact_location=folder)
    writer.attach_report(prepared.out / "report")
    if writer.flush():
        console.print("[yellow]the report was not attached in MLflow; it is in the study's folder[/yellow]")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = build_parser().parse_args(argv)
    console = rich.get_console()
    try:
        if args.list:
            print_choices(console)
            return 0
        prepared = prepare(args, console)
        for line in plan_lines(
            prepared.plan, prepared.expansion.sentence, prepared.profile, prepared.data, prepared.equipment.left_out
        ):
            console.print(line, soft_wrap=True, highlight=False)
        if args.dry_run:
            return 0
        return launch(prepared, args, console)
    except UserError as error:
        print(f"clstudy: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
