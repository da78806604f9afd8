"""The proposals of one cell, one after another: runs their trials, decides them, and checks what is stored."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial, TrialState

from clstudy.settings.space import RateRange
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.content_addressed_store import digest_of
from clstudy.study.search.halving import HalvingPruner

RATE = "learning_rate"
"""The one parameter of a proposal."""
OUTCOME = "clstudy.outcome"
"""Attribute of a decided proposal; its value is one of the words below."""
_OBJECTIVES = "clstudy.objectives"
_DIGEST = "clstudy.sha256"
FINISHED, DIVERGED, STOPPED, RUNNING = "finished", "diverged", "stopped", "running"


@dataclass
class Proposal:
    """One rate of one cell, while its trials run.

    ``waiting``: trials not handed out yet. ``reports``: trial id -> timestamp -> objective so far. ``ends``: trial id
    -> objective, None for a failed trial. ``judged``: steps with a stored value. ``passed``: steps it went on from.
    """

    trial: optuna.Trial
    specs: tuple[TrialSpec, ...]
    waiting: deque[TrialSpec]
    reports: dict[str, dict[int, float]]
    judged: set[int]
    passed: set[int]
    ends: dict[str, float | None] = field(default_factory=dict)
    over: bool = False

    def reached(self, trial_id: str) -> int:
        """The last timestamp that a trial has reported; -1 if none."""
        return max(self.reports[trial_id], default=-1)


class Lane:
    """The proposals of one cell, one after another. Any number of a proposal's trials may run at a time."""

    def __init__(
        self,
        study: optuna.Study,
        rates: RateRange,
        timestamps: int,
        specs_at: Callable[[float], tuple[TrialSpec, ...]],
        halving: HalvingPruner | None,
    ):
        self._study = study
        self._rates = rates
        self._timestamps = timestamps
        self._specs_at = specs_at
        self._halving = halving
        self._open: Proposal | None = None
        self._abandoned = False
        self.decided = sum(one.state.is_finished() for one in self.proposals())
        """Number of proposals that are finished, stopped or diverged."""

    def proposals(self) -> list[FrozenTrial]:
        """All proposals so far, in order (those beyond ``trials`` are left out if an earlier search tried more)."""
        return self._study.get_trials(deepcopy=False)[: self._rates.trials]

    def require_sane(self) -> None:
        """Check the stored data of decided proposals: damaged data must not choose a rate.

        Raises:
            ValueError: it holds something that no search writes.
        """
        for place, one in enumerate(self.proposals()):
            rate = one.params.get(RATE)
            if one.number != place:
                raise ValueError(f"proposal {one.number} stands in the place of proposal {place}")
            if rate is not None and not (math.isfinite(rate) and rate > 0):
                raise ValueError(f"proposal {one.number} has the learning rate {rate}")
            if not one.state.is_finished():
                continue
            outcome, ends = one.user_attrs[OUTCOME], one.user_attrs[_OBJECTIVES]
            if (one.state == TrialState.COMPLETE) != (outcome == FINISHED):
                raise ValueError(f"proposal {one.number} is {one.state.name.lower()} and {outcome}")
            if one.state == TrialState.COMPLETE and one.value != _mean(list(ends.values())):
                raise ValueError(f"the objective of proposal {one.number} is not the mean of its trials'")
            written = one.user_attrs.get(_DIGEST)  # earlier versions wrote none
            if written is not None and written != _digest(one.number, rate, outcome, ends):
                raise ValueError(f"proposal {one.number} has changed since it was written")

    def has_more(self) -> bool:
        """Whether a trial is left to hand out, now or later."""
        if self._abandoned:
            return False
        return self.decided + (self._open is not None) < self._rates.trials or bool(self._open and self._open.waiting)

    def take(self) -> tuple[TrialSpec, Proposal] | None:
        """The next trial to start, or None if there is none now."""
        if not self.has_more():
            return None
        if self._open is None:
            self._open = self._next_proposal()
        return (self._open.waiting.popleft(), self._open) if self._open.waiting else None

    def _next_proposal(self) -> Proposal:
        """The unfinished proposal that a kill left behind, or a new one."""
        left = [one for one in self.proposals() if not one.state.is_finished()]
        # Optuna has no public way to resume a running trial of an earlier process
        trial = optuna.Trial(self._study, left[0]._trial_id) if left else self._study.ask()
        # a kill may have come before the trial got its rate: then the same rate is proposed now
        rate = trial.suggest_float(RATE, self._rates.low, self._rates.high, log=self._rates.log)
        specs = self._specs_at(rate)
        judged = set(left[0].intermediate_values) if left else set()
        return Proposal(
            trial=trial,
            specs=specs,
            waiting=deque(specs),
            reports={spec.trial_id: {} for spec in specs},
            judged=judged,
            passed={step for step in judged if step < max(judged)},
        )

    def abandon(self) -> None:
        """Hand out nothing more in this process."""
        self._abandoned = True

    def settle(self, proposal: Proposal) -> None:
        """Decide a proposal if its trials have reported enough.

        The decision must not depend on the order of their reports. So a rung is judged once all trials have
        reached it; and with rungs a failure waits until the other trials have come as far as the failed one, because
        a rung up to there would have stopped them all.
        """
        names = [spec.trial_id for spec in proposal.specs]
        if self._halving is not None and self._is_stopped(proposal, self._halving):
            self._tell(proposal, STOPPED)
            return
        failed = [name for name in names if name in proposal.ends and proposal.ends[name] is None]
        if failed:
            needed = -1 if self._halving is None else min(map(proposal.reached, failed))
            if all(name in proposal.ends or proposal.reached(name) >= needed for name in names):
                self._tell(proposal, DIVERGED)
        elif len(proposal.ends) == len(names):
            self._tell(proposal, FINISHED)

    def _is_stopped(self, proposal: Proposal, halving: HalvingPruner) -> bool:
        reports = list(proposal.reports.values())
        for t in range(self._timestamps - 1):  # what has seen the last timestamp is finished, not stopped
            step = t + 1
            if not all(t in report for report in reports):
                return False
            if not halving.is_rung(step) or step in proposal.passed:
                continue
            if step not in proposal.judged:
                proposal.trial.report(_mean([report[t] for report in reports]), step)
                proposal.judged.add(step)
            if proposal.trial.should_prune():
                return True
            proposal.passed.add(step)
        return False

    def _tell(self, proposal: Proposal, outcome: str) -> None:
        ends = {name: end for name, end in sorted(proposal.ends.items()) if end is not None}
        proposal.trial.set_user_attr(OUTCOME, outcome)
        proposal.trial.set_user_attr(_OBJECTIVES, ends)
        number, rate = proposal.trial.number, proposal.trial.params[RATE]
        proposal.trial.set_user_attr(_DIGEST, _digest(number, rate, outcome, ends))
        if outcome == FINISHED:
            self._study.tell(proposal.trial, _mean(list(ends.values())))
        else:
            # A diverged rate is reported as "pruned" too: TPE ranks pruned trials below all complete ones, so it moves
            # away from the rate. It leaves "failed" ones out of its model, and would propose their neighbours again; an
            # invented objective would appear in every plot and mean as if it had been measured.
            self._study.tell(proposal.trial, state=TrialState.PRUNED)
        proposal.over = True
        proposal.waiting.clear()
        self._open = None
        self.decided += 1


def _digest(number: int, rate: float | None, outcome: str, ends: Mapping[str, float]) -> str:
    """Checksum of a decided proposal: SQLite only notices damage to its own structure."""
    return digest_of({"number": number, "rate": rate, "outcome": outcome, "objectives": dict(ends)})


def _mean(values: Sequence[float]) -> float:
    """Mean that does not depend on the order of the values."""
    return math.fsum(values) / len(values)
