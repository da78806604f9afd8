"""Runs a study from Python: the main job without any output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clstudy.cluster.main_job import Ending, MainJob, View
from clstudy.errors import UserError
from clstudy.study.preparation import PreparedStudy
from clstudy.study.run_options import RunOptions
from clstudy.study.study_results import StudyResults, open_study

if TYPE_CHECKING:
    pass


class _SilentView(View):
    """Shows nothing, and remembers the study's folder."""

    def plan(self, prepared: PreparedStudy) -> None:
        self.place = prepared.out


def run_study(space: str | Path, **options: Any) -> StudyResults:
    """Run or resume a study and return its results; the same as ``clstudy run --space SPACE``.

    Trials that failed or are missing are not an error: see ``complete`` and ``missing`` of the results.

    Args:
        space: packaged search space, or path of a YAML file.
        options: fields of ``clstudy.RunOptions``, e.g. ``identities="2"``, ``out="runs/first"``.

    Raises:
        UserError: anything about the input is wrong, or the run stopped (a budget, a full disk) before any result.
        StudyBusyError: another driver is at work on the study.
        KeyboardInterrupt: it was interrupted; the same call resumes from the finished stages.
        TypeError: an option that does not exist.
    """
    view = _SilentView()
    ending = MainJob(RunOptions(space=str(space), **options), view).run()
    if ending is Ending.INTERRUPTED:
        raise KeyboardInterrupt
    if ending is Ending.STOPPED:
        raise UserError(f"the study {view.place} stopped before its end ({ending.value}); call again to resume it")
    return open_study(view.place)
