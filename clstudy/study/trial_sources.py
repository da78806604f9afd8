"""Sources of a study's trials, which give the next one whenever a worker is free (no torch, no Ray).

A list of trials is one source. A learning-rate search (``clstudy.study.search.rate_search``) is another: it derives the
next trial from the results of earlier ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from clstudy.settings.trial_spec import TrialSpec


class TrialSource(Protocol):
    """Decides what to run next. Called by one thread of the driver."""

    def next(self) -> TrialSpec | None:
        """The next trial to start; None: none right now."""

    def exhausted(self) -> bool:
        """Whether there will be no further trial (some may still be under way)."""

    def report(self, trial_id: str, t: int, objective: float) -> bool:
        """Take a trial's AIP after timestamp t (NaN if it has none); returning False stops the trial."""

    def finish(self, trial_id: str, objective: float | None) -> None:
        """Take the AIP that a trial ended with; None: its loss diverged, so its settings are bad."""

    def abandon(self, trial_id: str) -> None:
        """Take note of a trial that failed in a way that says nothing about its settings."""


class ListedTrials:
    """A plan's trials in their order."""

    def __init__(self, trials: Sequence[TrialSpec]):
        self._left = deque(trials)

    def next(self) -> TrialSpec | None:
        """The next listed trial."""
        return self._left.popleft() if self._left else None

    def exhausted(self) -> bool:
        """Whether all trials were handed out."""
        return not self._left

    def report(self, trial_id: str, t: int, objective: float) -> bool:
        """A listed trial always goes on: AIP and Forgetting need every timestamp."""
        return True

    def finish(self, trial_id: str, objective: float | None) -> None:
        """Does nothing: the list does not depend on results."""

    def abandon(self, trial_id: str) -> None:
        """Does nothing: the list does not depend on results."""
