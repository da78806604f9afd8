"""The main job, from the command line or from Python: check and plan, search for learning rates, compute, report.

A :class:`View` decides what is shown on the way; the command line has one that prints. Ray and torch are imported only
where something is computed, so that a plan takes seconds.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clstudy.analysis.report import Report, reported
from clstudy.errors import UserError
from clstudy.records.failures import write_failures
from clstudy.records.results import restore_results
from clstudy.records.sessions import Session, add_session, now
from clstudy.settings.trial_spec import GridCell
from clstudy.storage.checksums import State
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.storage.driver_lock import only_driver
from clstudy.storage.places import Place
from clstudy.study.plan import Plan
from clstudy.study.preparation import PreparedStudy, expected_workers, planned, prepare
from clstudy.study.requirements import require_budget
from clstudy.study.run_options import RunOptions
from clstudy.study.search.search_setup import PART as SEARCH_PART
from clstudy.study.search.search_setup import keep_search
from clstudy.study.study_file import write_study_file
from clstudy.study.tracking_rebuild import complete_runs
from clstudy.tracking.addresses import artifact_folder, keep_address, tracking_address
from clstudy.tracking.local_database import database_file, local_database
from clstudy.tracking.writer import MlflowWriter

if TYPE_CHECKING:
    from clstudy.cluster.driver import Outcome

Show = Callable[[Mapping[str, Any]], None]
"""Takes a snapshot of the coordinator."""

_UNRELATED_FAILURES = "some trials failed for a reason that says nothing about their rate"


class Ending(enum.Enum):
    """How a run ended."""

    FINISHED = "every trial is finished"
    INCOMPLETE = "trials failed or are missing"
    STOPPED = "stopped at the budget, or at a full disk"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The outcome of a study that ran to its end: its report, failed trials, and its address in MLflow.

    ``completed_runs``: number of runs brought up to date in MLflow from the rows. ``tracking_trouble``: why that was
    not possible, or empty. ``tracked``: whether MLflow accepted everything.
    """

    place: Place
    report: Report
    failures: Mapping[str, str]
    tracking_uri: str
    experiment_id: str | None
    completed_runs: int
    tracking_trouble: str
    tracked: bool


class View:
    """Receives the events of a run. This one shows nothing; subclasses override what they show."""

    def busy(self, text: str) -> AbstractContextManager[object]:
        """Return a context to hold open while something takes a moment."""
        return nullcontext()

    def plan(self, prepared: PreparedStudy) -> None:
        """Called with what will run."""

    def starting(self, prepared: PreparedStudy) -> None:
        """Called before anything is written."""

    def restored(self, trials: Mapping[State, Sequence[str]]) -> None:
        """Called with the trials whose result files were rebuilt from finished stages, by what was wrong with them."""

    def tracked_at(self, address: str) -> None:
        """Called with the address at which MLflow shows the study while it runs."""

    def live(self, plan: Plan, workers: int) -> AbstractContextManager[Show]:
        """Return a context to hold open while trials are computed; it yields a receiver of snapshots."""
        return nullcontext(lambda snapshot: None)

    def note(self, text: str) -> None:
        """Called with something to know that is not an error."""

    def ran(self, outcome: Outcome, prepared: PreparedStudy) -> None:
        """Called with the outcome once the trials have run."""

    def failed(self, failures: Mapping[str, str]) -> None:
        """Called with the trials that failed, each with its reason."""

    def stopped(self, why: str, *, searching: bool, left: int) -> None:
        """Called if the run stopped before its end; ``left`` trials are not finished (0: not counted)."""

    def chosen(self, rates: Mapping[GridCell, float]) -> None:
        """Called with the chosen rates when the search is over."""

    def piloted(self, outcome: Outcome | None) -> None:
        """Called after a pilot, which computed one stage; None: there was none left to compute."""

    def nothing_to_compute(self) -> None:
        """Called if every trial was finished before."""

    def finished(self, study: Finished) -> None:
        """Called when report and tables are written."""


class MainJob:
    """One run of a study.

    Raises (``run``):
        UserError: anything about the input is wrong; nothing was started.
        StudyBusyError: another driver is at work on the study.
    """

    def __init__(self, options: RunOptions, view: View):
        self._options = options
        self._view = view

    def run(self) -> Ending:
        """Plan, search, compute, report."""
        options = self._options
        prepared = prepare(options, self._view.busy)
        self._view.plan(prepared)
        if options.dry_run:
            return Ending.FINISHED
        require_budget(prepared.plan, options)
        self._view.starting(prepared)
        with only_driver(prepared.out):
            prepared = self._with_restored_results(prepared)
            if options.pilot:
                return self._pilot(prepared)
            if prepared.searching is not None:
                found = self._search(prepared)
                if isinstance(found, Ending):
                    return found
                prepared = found
                self._view.plan(prepared)
            return self._launch(prepared)

    def _with_restored_results(self, prepared: PreparedStudy) -> PreparedStudy:
        """Rebuild results that are missing, damaged or without a checksum; returns the study with what is left."""
        plan = prepared.plan
        wanted = {spec: plan.chains[spec.trial_id].keys for spec in plan.trials if spec.trial_id in plan.restorable}
        if not wanted:
            return prepared
        by_state: dict[State, list[str]] = {}
        for trial in restore_results(StudyStore(prepared.out), prepared.out, wanted):
            by_state.setdefault(plan.restorable[trial], []).append(trial)
        self._view.restored(by_state)
        return planned(prepared, self._options)

    def _pilot(self, prepared: PreparedStudy) -> Ending:
        """Compute one stage and show the plan again."""
        if not (prepared.plan.to_run or prepared.plan.open_trials):
            self._view.piloted(None)
            return Ending.FINISHED
        outcome = self._compute(prepared, pilot=True)
        if outcome is None or outcome.stopped == "interrupted":
            return Ending.INTERRUPTED
        self._view.failed(outcome.failures)
        if outcome.failures:
            return Ending.INCOMPLETE
        self._view.piloted(outcome)
        self._view.plan(planned(prepared, self._options))
        return Ending.FINISHED

    def _search(self, prepared: PreparedStudy) -> PreparedStudy | Ending:
        """Search for learning rates; returns the study at the chosen rates, or how the run ended before that."""
        assert prepared.search is not None
        outcome = self._compute(prepared)
        keep_search(prepared.search, prepared.out)
        if outcome is None:
            self._view.stopped("interrupted", searching=True, left=0)
            return Ending.INTERRUPTED
        self._view.ran(outcome, prepared)
        if not prepared.search.source.complete():
            self._view.failed(outcome.failures)
            self._view.stopped(outcome.stopped or _UNRELATED_FAILURES, searching=True, left=0)
            if outcome.stopped == "interrupted":
                return Ending.INTERRUPTED
            return Ending.STOPPED if outcome.stopped else Ending.INCOMPLETE
        again = planned(prepared, self._options)
        self._view.chosen(again.rates or {})
        return again

    def _launch(self, prepared: PreparedStudy) -> Ending:
        """Compute what is left, then report."""
        uri = tracking_address(prepared.home)
        writer = MlflowWriter(uri, prepared.space.name, artifact_location=artifact_folder(prepared.out, uri))
        failures: Mapping[str, str] = {}
        if prepared.plan.to_run:
            self._view.tracked_at(uri)
            outcome = self._compute(prepared)
            if outcome is None:
                self._view.stopped("interrupted", searching=False, left=0)
                return Ending.INTERRUPTED
            failures = outcome.failures
            self._view.ran(outcome, prepared)
            left = len({spec.trial_id for spec in prepared.plan.to_run} - outcome.finished - set(failures))
            if outcome.stopped and left:
                self._view.stopped(outcome.stopped, searching=False, left=left)
                return Ending.INTERRUPTED if outcome.stopped == "interrupted" else Ending.STOPPED
        else:
            write_settings(prepared)
            self._view.nothing_to_compute()
        study = self._report(prepared, writer, failures)
        self._view.finished(study)
        whole = study.report.summary.complete and not study.report.broken
        return Ending.FINISHED if whole else Ending.INCOMPLETE

    def _report(self, prepared: PreparedStudy, writer: MlflowWriter, failures: Mapping[str, str]) -> Finished:
        """Write the report, and bring MLflow up to date with the rows; if its server is down, only the latter fails."""
        uri, experiment = tracking_address(prepared.home), writer.experiment_id()
        keep_address(prepared.out, uri, experiment)
        completed, trouble = 0, ""
        with reported(prepared.out) as (folder, report):
            try:
                # runs may be incomplete if a driver was killed before everything was delivered
                completed = complete_runs(folder, writer, data=str(prepared.data.root), images=prepared.images)
            except UserError as error:
                trouble = str(error)
            if prepared.images:
                writer.attach_report(folder / "report")
            lost = writer.flush() or (local_database(uri) is not None and database_file(uri) is None)
        return Finished(
            place=prepared.out,
            report=report,
            failures=failures,
            tracking_uri=uri,
            experiment_id=experiment,
            completed_runs=completed,
            tracking_trouble=trouble,
            tracked=not lost,
        )

    def _compute(self, prepared: PreparedStudy, *, pilot: bool = False) -> Outcome | None:
        """Run what the plan has left of the search or of the reported trials; None if interrupted twice."""
        options = self._options
        if options.address is None:
            # Ray reads this on import. On one machine it binds all of Ray's ports to localhost, which Ray does by
            # default only on the systems that the variable is named after.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        from clstudy.cluster.driver import run_study  # Ray and torch only from here on
        from clstudy.cluster.study_settings import StudySettings

        plan, search = prepared.plan, prepared.searching
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
            address=options.address,
            max_concurrent=1 if pilot else options.max_concurrent,
            keep_weights=prepared.keep_weights,
            others=prepared.others,
            budget_seconds=None if options.budget_hours is None else options.budget_hours * 3600,
            most_stages=1 if pilot else None,
            images=prepared.images,
        )
        if search is None:
            write_settings(prepared)
        began, outcome = now(), None
        display = self._view.live(plan, expected_workers(prepared.profile, options))
        with suppress(KeyboardInterrupt), display as show:
            source = None if search is None else search.source
            outcome = run_study(settings, plan, show, source=source, say=self._view.note)
        if outcome is None:
            return None
        if search is None:
            write_failures(prepared.out, outcome.failures)
        part = "pilot" if pilot else "trials" if search is None else "search of learning rates"
        add_session(prepared.out, session_of(outcome, prepared, part=part, began=began, price=options.price_per_hour))
        return outcome


def write_settings(prepared: PreparedStudy) -> None:
    """Write ``study.yaml``."""
    write_study_file(prepared.out, prepared.space, prepared.basis, prepared.data, prepared.plan, prepared.rates)


def session_of(outcome: Outcome, prepared: PreparedStudy, *, part: str, began: str, price: float | None) -> Session:
    """The record of a run, for the study's list of sessions."""
    plan, resources = prepared.plan, prepared.profile.resources
    return Session(
        began=began,
        part=part,
        ended=outcome.stopped or "finished",
        stages_planned=plan.stages_to_run,
        stages_computed=outcome.stages_computed,
        stages_reused=outcome.stages_reused,
        stages_repeated=outcome.stages_repeated,
        expected_seconds=plan.seconds,
        seconds=outcome.seconds,
        expected_worker_seconds=plan.worker_seconds,
        worker_seconds=outcome.worker_seconds,
        gpus=resources.gpus,
        cpus=resources.cpus,
        price_per_hour=price,
        deaths=outcome.worker_deaths,
        weights_dropped=outcome.weights_dropped,
    )
