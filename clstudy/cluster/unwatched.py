"""Running a study from Python: the main job with nobody watching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clstudy.cluster.main_job import Ending, Finished, MainJob, Show
from clstudy.errors import UserError
from clstudy.settings.space_file import load_space
from clstudy.settings.trial_spec import Cell
from clstudy.storage.checksums import State
from clstudy.study.plan import Plan
from clstudy.study.preparation import Prepared, study_place
from clstudy.study.run_options import RunOptions
from clstudy.study.study_results import StudyResults, open_study

if TYPE_CHECKING:
    from clstudy.cluster.driver import Outcome


class Unwatched:
    """A view that shows nothing (``clstudy.cluster.main_job.View``)."""

    def busy(self, text: str) -> AbstractContextManager[object]:
        return nullcontext()

    def plan(self, prepared: Prepared) -> None:
        return

    def restored(self, trials: Mapping[State, Sequence[str]]) -> None:
        return

    def tracked_at(self, address: str) -> None:
        return

    def live(self, plan: Plan, workers: int) -> AbstractContextManager[Show]:
        return nullcontext(lambda snapshot: None)

    def note(self, text: str) -> None:
        return

    def ran(self, outcome: Outcome, prepared: Prepared) -> None:
        return

    def failed(self, failures: Mapping[str, str]) -> None:
        return

    def stopped(self, why: str, *, searching: bool, left: int) -> None:
        return

    def chosen(self, rates: Mapping[Cell, float]) -> None:
        return

    def piloted(self, outcome: Outcome | None) -> None:
        return

    def nothing_to_compute(self) -> None:
        return

    def finished(self, study: Finished) -> None:
        return


def run_study(space: str | Path, **options: Any) -> StudyResults:
    """Run a study, or go on with it, and return its results; the same as ``clstudy run --space SPACE``.

    Trials that failed or are missing are no error: ``complete`` and ``missing`` of the results say so.

    Args:
        space: packaged search space, or path of a YAML file.
        options: as ``clstudy.RunOptions`` names them, e.g. ``identities="2"``, ``out="runs/first"``.

    Raises:
        UserError: anything about the input is wrong, or the run stopped (a budget, a full disk) before any result.
        StudyBusyError: another driver is at work on the study.
        KeyboardInterrupt: it was interrupted; the same call goes on from the finished stages.
        TypeError: an option that does not exist.
    """
    asked = RunOptions(space=str(space), **options)
    ending = MainJob(asked, Unwatched()).run()
    if ending is Ending.INTERRUPTED:
        raise KeyboardInterrupt
    place = study_place(asked, load_space(asked.space).name)
    if ending is Ending.STOPPED:
        raise UserError(f"the study {place} stopped before its end ({ending.value}); the same call goes on")
    return open_study(place)
