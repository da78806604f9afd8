"""Where a study's trials come from, one after the other, as workers become free (no torch, no Ray).

A list of trials is one source; a learning-rate search (``clstudy.study.search.rate_search``), which makes the next
trial from the results of earlier ones, is another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from clstudy.settings.trial_spec import TrialSpec


class TrialSource(Protocol):
    """Says what to run next. Called by one thread of the driver."""

    def next(self) -> TrialSpec | None:
        """The next trial to start; None: nothing right now."""

    def exhausted(self) -> bool:
        """Whether no trial will ever come again (those under way may still be)."""

    def report(self, trial_id: str, t: int, objective: float) -> bool:
        """AIP of a trial after timestamp t (NaN where it has none); False stops the trial."""

    def finish(self, trial_id: str, objective: float | None) -> None:
        """A trial ended with this AIP; None: its loss diverged, so that its settings are bad."""

    def abandon(self, trial_id: str) -> None:
        """A trial broke in a way that says nothing about its settings."""


class ListedTrials:
    """A plan's trials in their order."""

    def __init__(self, trials: Sequence[TrialSpec]):
        self._left = deque(trials)

    def next(self) -> TrialSpec | None:
        """The next one."""
        return self._left.popleft() if self._left else None

    def exhausted(self) -> bool:
        """Whether all were handed out."""
        return not self._left

    def report(self, trial_id: str, t: int, objective: float) -> bool:
        """A listed trial always goes on: AIP and Forgetting need every timestamp."""
        return True

    def finish(self, trial_id: str, objective: float | None) -> None:
        """Nothing follows from it."""

    def abandon(self, trial_id: str) -> None:
        """Nor from this."""
