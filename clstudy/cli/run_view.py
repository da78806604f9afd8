"""What the main job prints: plan, progress, a summary of the run, the main table and the answer."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from clstudy.analysis.answer import answer
from clstudy.analysis.report import Report
from clstudy.analysis.tables import to_terminal
from clstudy.cli.display import counted, make_display, plan_lines, print_plan, why_restored
from clstudy.cluster.main_job import Finished, Show, View
from clstudy.records.sessions import priced_hours
from clstudy.safe_text import shown_address
from clstudy.settings.overrides import setting_words
from clstudy.settings.trial_spec import GridCell
from clstudy.storage.checksums import State
from clstudy.storage.file_modes import current_mask, open_to_others
from clstudy.storage.places import Place
from clstudy.study.known_headroom import headroom_lines
from clstudy.study.plan import Plan
from clstudy.study.preparation import PreparedStudy, drift_lines, expected_workers
from clstudy.study.run_options import RunOptions
from clstudy.study.study_file import statements
from clstudy.tracking.addresses import LOCAL_SERVER, runs_page, server_address
from clstudy.tracking.run_contents import CHARTS_HINT

if TYPE_CHECKING:
    from clstudy.cluster.driver import Outcome

_MOST_NAMED = 5
"""Most trials that one line names."""


class PrintedRun(View):
    """A run on a console (``clstudy.cluster.main_job.View``).

    Args:
        options: the run's.
        everything: print all tables at the end, not only the main one.
    """

    study: Finished | None = None
    """The study that this run finished."""

    def __init__(self, console: Console, options: RunOptions, *, everything: bool = False):
        self._console = console
        self._options = options
        self._everything = everything

    def busy(self, text: str) -> AbstractContextManager[object]:
        """Show that something is under way while it lasts."""
        return self._console.status(text)

    def plan(self, prepared: PreparedStudy) -> None:
        """Print the plan in a few lines."""
        # what a search measures are validation photos, not results
        measured = 0 if prepared.searching is not None else prepared.plan.stages_done
        lines = plan_lines(
            prepared.plan,
            prepared.sentence,
            prepared.profile,
            prepared.people,
            prepared.equipment.left_out,
            workers=expected_workers(prepared.profile, self._options),
            keep_weights=prepared.keep_weights,
            price=self._options.price_per_hour,
            claims=statements(prepared.out, prepared.space, measured),
            drift=drift_lines(prepared) if prepared.plan.stages_to_run else (),
            changed=setting_words(prepared.space.settings),
            headroom=headroom_lines(prepared),
        )
        print_plan(lines, self._console)

    def starting(self, prepared: PreparedStudy) -> None:
        """Print what a user should know about the study's folder before anything is written to it."""
        self.open_folder(prepared.out)

    def open_folder(self, out: Place) -> None:
        """Warn if other users can read the study's folder (made by an earlier run) but not what is written now."""
        mode = open_to_others(out) if isinstance(out, Path) else ""
        if mode and current_mask() & 0o077 == 0o077:
            self.note(
                f"{out} is open to other users (mode {mode}); what is written now is not. "
                f"`chmod -R go-rwx {shlex.quote(str(out))}` closes the rest, --files group or shared leaves it open"
            )

    def restored(self, trials: Mapping[State, Sequence[str]]) -> None:
        """Print a line for each reason to rebuild results."""
        for state, names in trials.items():
            more = len(names) - _MOST_NAMED
            named = ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
            self._say(
                f"[yellow]rebuilt[/yellow] {counted(len(names), 'result file', 'result files')} from finished stages "
                f"({why_restored(state)}): {named}"
            )

    def tracked_at(self, address: str) -> None:
        """Where to watch the run meanwhile."""
        self._say(f"live in MLflow: {_page_command(address)}")

    def live(self, plan: Plan, workers: int) -> AbstractContextManager[Show]:
        """Show progress: live on a terminal, elsewhere an occasional line."""
        return make_display(plan, workers, self._console)

    def note(self, text: str) -> None:
        """Print a note."""
        self._say(f"[yellow]note[/yellow] {text}")

    def ran(self, outcome: Outcome, prepared: PreparedStudy) -> None:
        """Summarise the run in a few lines."""
        resources, plan = prepared.profile.resources, prepared.plan
        cost = priced_hours(resources, outcome.worker_seconds, self._options.price_per_hour)
        self._say(
            f"{outcome.stages_computed} stages computed, {outcome.stages_reused} reused, "
            f"{outcome.seconds / 60:.1f} minutes, {cost} "
            f"(expected: {plan.seconds / 60:.1f} minutes for at most {plan.stages_to_run} stages)"
        )
        if outcome.worker_deaths:
            self._say(f"{counted(outcome.worker_deaths, 'worker', 'workers')} died under way; nothing was lost")
        for note in outcome.notes:
            self.note(note)
        if outcome.undelivered:
            self._say(
                f"[yellow]{outcome.undelivered} MLflow calls were not delivered; the rows are safe[/yellow], and the "
                "next run of this command, or `python -m clstudy.tracking rebuild`, brings MLflow up to date"
            )

    def failed(self, failures: Mapping[str, str]) -> None:
        """Print a line for every failed trial."""
        for trial, message in failures.items():
            self._say(f"[red]failed[/red] {trial}: {message}")

    def stopped(self, why: str, *, searching: bool, left: int) -> None:
        """Say why the run stopped, and how to go on."""
        if searching:
            self._say(f"[bold]{why}[/bold]: the search is not over; run the same command to go on")
        elif not left:
            self._say(f"[bold]{why}[/bold]: run the same command to go on from the finished stages")
        else:
            self._say(
                f"[bold]{why}[/bold]: {counted(left, 'trial is', 'trials are')} not finished; run the same command to "
                "go on"
            )

    def chosen(self, rates: Mapping[GridCell, float]) -> None:
        """Print a line for each chosen learning rate."""
        for cell, rate in rates.items():
            self._say(f"chosen   {cell.label}: learning rate {rate:g}")

    def piloted(self, outcome: Outcome | None) -> None:
        """Print how long the stage took."""
        if outcome is None:
            self._say("every trial is finished already; a pilot has nothing to measure")
        else:
            self._say(f"pilot: one stage in {outcome.worker_seconds:.1f} s; run without --pilot to go on from it")

    def nothing_to_compute(self) -> None:
        """Say that nothing is left to compute, before the report is written."""
        self._say("every trial is finished already; nothing to compute")

    def finished(self, study: Finished) -> None:
        """Print where everything is and, last so that a terminal still shows them, the main table and the answer."""
        self.study = study
        if study.tracking_trouble:
            self.note(study.tracking_trouble)
        elif study.completed_runs:
            self._say(f"{counted(study.completed_runs, 'run', 'runs')} in MLflow completed from the rows")
        if not study.tracked:
            self._say(
                "[yellow]MLflow did not take everything; the report is in the study's folder, and `python -m "
                "clstudy.tracking rebuild` writes all runs again[/yellow]"
            )
        for label, place in (
            ("report", study.place / "report" / "index.html"),
            ("rows", study.place / "results"),
            ("tables", study.place / "report"),
            ("settings", study.place / "study.yaml"),
        ):
            self._say(f"{label:<9} {place}")
        uri = study.tracking_uri
        self._say(f"MLflow    {_page_command(uri)}")
        self._say(f"          {runs_page(server_address(uri) or LOCAL_SERVER, study.experiment_id)} ({CHARTS_HINT})")
        self.failed(study.failures)
        for what in study.report.broken:
            self._say(f"[red]report[/red] {what}")
        self._numbers(study.report)

    def _numbers(self, report: Report) -> None:
        console = self._console
        console.print()
        console.print(to_terminal(report.summary, console.width, everything=self._everything))
        for sentence in answer(report.material):
            console.print(Text(sentence, style="bold"))
        if not self._everything:
            console.print("All tables and their notes: --tables, or the report.", style="dim", highlight=False)

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)


def _page_command(tracking_uri: str) -> str:
    """How to open MLflow's pages: the server's address, or the command that starts one."""
    shown = shown_address(tracking_uri)
    return shown if server_address(tracking_uri) else f"mlflow ui --backend-store-uri {shown}"
