"""The search for learning rates: which rate to try next in every cell, and which was best.

One Optuna study per cell (strategy x buffer size), all in one storage that ``optuna-dashboard`` opens. A *proposal* is
one rate of one cell: as many trials as there are validation people and seeds, its objective their mean. Within a cell
proposals come strictly one after another (workers are kept busy by cells, people and seeds), and each follows from
the study's seed, the cell, its number and the objectives before it. So the answer depends neither on the number of
workers nor on the order in which trials end; and a search that was killed at any point goes on as if it had not been.

Knows neither Ray nor torch nor photos: whoever runs the trials asks :meth:`RateSearch.next` and tells what came out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count, product
from typing import Any

import optuna
import pyarrow as pa
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from clstudy.errors import UserError
from clstudy.seeding import derive_seed
from clstudy.settings.space import RateRange
from clstudy.settings.trial_spec import Cell, TrialSpec, refuse_equal_ids
from clstudy.storage.values import digest_of

SPREAD = 7
"""Proposals of a cell that are spread evenly over the range, at its eighths, before TPE takes over.

Equal for all cells, which then share the first stage at these rates. With Optuna's default, ten random proposals, a
search of 20 is worse than a grid of 20; like this it is better (``benchmarks/rate_search.py``)."""

CANDIDATES = 8
"""Rates that TPE draws to choose one from. Of many (Optuna: 24) it chooses one further from the best rates, where in
one dimension little is left to find (same benchmark; 3 to 9 spread proposals and 8 or 12 candidates do about as well).
"""

DIGITS = 4
"""Significant digits of a proposed rate: trial ids print six, and more would be no different rate."""

HALVING_FACTOR = 2
"""One proposal in so many passes a rung."""

FIRST_RUNG = 2
"""Timestamps a proposal has seen at the first rung: after one, nothing can be forgotten yet."""

PROPOSALS_SCHEMA = pa.schema(
    [
        ("strategy", pa.string()),
        ("buffer_size", pa.int64()),
        ("proposal", pa.int64()),
        ("learning_rate", pa.float64()),
        ("objective", pa.float64()),
        ("state", pa.string()),
    ]
)
"""One row per proposal. ``state``: finished, diverged, stopped (by ASHA) or running; ``objective`` is NaN unless
finished."""

_RATE = "learning_rate"
_SETTINGS = "clstudy.settings"
_OUTCOME = "clstudy.outcome"
_OBJECTIVES = "clstudy.objectives"
_DIGEST = "clstudy.sha256"
FINISHED, DIVERGED, STOPPED, RUNNING = "finished", "diverged", "stopped", "running"


# --- which rate comes next -------------------------------------------------------------------------------------------


def spread_position(number: int) -> float:
    """Place in (0, 1) of the n-th proposal: halves, then quarters, then eighths (van der Corput's sequence)."""
    position, share, rest = 0.0, 0.5, number + 1
    while rest:
        position += share * (rest & 1)
        rest >>= 1
        share /= 2
    return position


def nearest_free_rate(rate: float, low: float, high: float, used: frozenset[float]) -> float:
    """Return the rate of ``DIGITS`` digits in [low, high] nearest to the given one that was not used yet.

    The range must hold more such rates than were used (``clstudy.settings.space.MIN_RANGE`` sees to it).
    """
    unit = 10.0 ** (math.floor(math.log10(rate)) - DIGITS + 1)
    steps: Iterator[float] = chain.from_iterable((rate + k * unit, rate - k * unit) for k in count())
    return next(near for near in map(_short, steps) if low <= near <= high and near not in used)


def _short(rate: float) -> float:
    return float(f"{rate:.{DIGITS - 1}e}")


class CellSampler(BaseSampler):
    """Proposes the rates of one cell: ``SPREAD`` fixed ones, then TPE.

    Holds no state: the TPE sampler is made anew for every proposal, with a seed of its own. Optuna calls it whenever
    a trial of the cell's study has no rate yet.
    """

    def __init__(self, seed: int, cell: Cell):
        self._stream = (seed, cell.strategy, cell.buffer_size or 0)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None: there is one parameter."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """None: there is one parameter."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> float:
        """Return the rate of proposal ``trial.number``, different from all before it."""
        assert isinstance(param_distribution, FloatDistribution)
        low, high = param_distribution.low, param_distribution.high
        if trial.number < SPREAD:
            place = spread_position(trial.number)
            rate = low * (high / low) ** place if param_distribution.log else low + (high - low) * place
        else:
            tpe = TPESampler(
                n_startup_trials=0,
                n_ei_candidates=CANDIDATES,
                constant_liar=False,
                seed=derive_seed("learning rate search", *self._stream, trial.number) % 2**32,
            )
            rate = float(tpe.sample_independent(study, trial, param_name, param_distribution))
        earlier = study.get_trials(deepcopy=False)
        used = frozenset(one.params[param_name] for one in earlier if param_name in one.params)
        return nearest_free_rate(rate, low, high, used)


class HalvingPruner(BasePruner):
    """Asynchronous successive halving (ASHA, Li et al., MLSys 2020) of proposals that come one after another.

    Decides as ``optuna.pruners.SuccessiveHalvingPruner`` does, but from the stored intermediate values alone. Optuna's
    notes a passed rung in the storage before the caller can store what follows from it, and a kill between the two
    would change the decision. Proposals of the spread are never stopped: TPE learns most from finished ones.
    """

    def __init__(self, first: int = FIRST_RUNG, factor: int = HALVING_FACTOR, spared: int = SPREAD):
        self._first, self._factor, self._spared = first, factor, spared

    def is_rung(self, step: int) -> bool:
        """Whether a proposal is judged after so many timestamps: first, first x factor, first x factor^2, …"""
        rung = self._first
        while rung < step:
            rung *= self._factor
        return rung == step

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the proposal stops after its last reported step (called through ``trial.should_prune()``)."""
        step = trial.last_step
        if step is None or not self.is_rung(step) or trial.number < self._spared:
            return False
        values = sorted(
            one.intermediate_values[step]
            for one in study.get_trials(deepcopy=False)
            if one.number <= trial.number and step in one.intermediate_values
        )
        passing = max(len(values) // self._factor, 1)
        return trial.intermediate_values[step] > values[passing - 1]


# --- one cell --------------------------------------------------------------------------------------------------------


@dataclass
class _Proposal:
    """One rate of one cell while its trials run.

    ``waiting``: trials not handed out yet. ``reports``: trial id -> timestamp -> objective so far. ``ends``: trial id
    -> objective, None for a failed trial. ``judged``: steps whose value is stored. ``passed``: those it went on from.
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
        """The last timestamp a trial has reported; -1: none."""
        return max(self.reports[trial_id], default=-1)


class _Lane:
    """The proposals of one cell, one after another."""

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
        self._open: _Proposal | None = None
        self._abandoned = False
        self.decided = sum(one.state.is_finished() for one in self.proposals())
        """Proposals that are finished, stopped or diverged."""

    def proposals(self) -> list[FrozenTrial]:
        """All proposals so far, in order (without those beyond ``trials``, if an earlier search tried more)."""
        return self._study.get_trials(deepcopy=False)[: self._rates.trials]

    def require_sane(self) -> None:
        """Check what the storage says of proposals that are decided: a damaged one must not choose a rate.

        Raises:
            ValueError: something that no search has written.
        """
        for place, one in enumerate(self.proposals()):
            rate = one.params.get(_RATE)
            if one.number != place:
                raise ValueError(f"proposal {one.number} stands in the place of proposal {place}")
            if rate is not None and not (math.isfinite(rate) and rate > 0):
                raise ValueError(f"proposal {one.number} has the learning rate {rate}")
            if not one.state.is_finished():
                continue
            outcome, ends = one.user_attrs[_OUTCOME], one.user_attrs[_OBJECTIVES]
            if (one.state == TrialState.COMPLETE) != (outcome == FINISHED):
                raise ValueError(f"proposal {one.number} is {one.state.name.lower()} and {outcome}")
            if one.state == TrialState.COMPLETE and one.value != _mean(list(ends.values())):
                raise ValueError(f"the objective of proposal {one.number} is not the mean of its trials'")
            written = one.user_attrs.get(_DIGEST)  # earlier versions wrote none
            if written is not None and written != _digest(one.number, rate, outcome, ends):
                raise ValueError(f"proposal {one.number} is not as it was written")

    def has_more(self) -> bool:
        """Whether a trial is left to be handed out, now or later."""
        if self._abandoned:
            return False
        return self.decided + (self._open is not None) < self._rates.trials or bool(self._open and self._open.waiting)

    def take(self) -> tuple[TrialSpec, _Proposal] | None:
        """The next trial to start, if there is one now."""
        if not self.has_more():
            return None
        if self._open is None:
            self._open = self._next_proposal()
        return (self._open.waiting.popleft(), self._open) if self._open.waiting else None

    def _next_proposal(self) -> _Proposal:
        """The unfinished proposal that a kill left behind, or a new one."""
        left = [one for one in self.proposals() if not one.state.is_finished()]
        # Optuna has no public way to take up a running trial of an earlier process
        trial = optuna.Trial(self._study, left[0]._trial_id) if left else self._study.ask()
        # a kill may have come between the trial and its rate: then it is proposed now, and is the same
        rate = trial.suggest_float(_RATE, self._rates.low, self._rates.high, log=self._rates.log)
        specs = self._specs_at(rate)
        judged = set(left[0].intermediate_values) if left else set()
        return _Proposal(
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

    def settle(self, proposal: _Proposal) -> None:
        """Decide a proposal if what its trials have told is enough.

        The decision must not depend on the order in which they told it. So a rung is judged once all trials have
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

    def _is_stopped(self, proposal: _Proposal, halving: HalvingPruner) -> bool:
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

    def _tell(self, proposal: _Proposal, outcome: str) -> None:
        ends = {name: end for name, end in sorted(proposal.ends.items()) if end is not None}
        proposal.trial.set_user_attr(_OUTCOME, outcome)
        proposal.trial.set_user_attr(_OBJECTIVES, ends)
        number, rate = proposal.trial.number, proposal.trial.params[_RATE]
        proposal.trial.set_user_attr(_DIGEST, _digest(number, rate, outcome, ends))
        if outcome == FINISHED:
            self._study.tell(proposal.trial, _mean(list(ends.values())))
        else:
            # A diverged rate is told as "pruned" too: TPE ranks pruned trials below all complete ones, so it turns away
            # from the rate. "Failed" ones it leaves out of its model, and it would propose their neighbours again; an
            # invented objective would stand in every plot and mean as if it had been measured.
            self._study.tell(proposal.trial, state=TrialState.PRUNED)
        proposal.over = True
        proposal.waiting.clear()
        self._open = None
        self.decided += 1


def _digest(number: int, rate: float | None, outcome: str, ends: Mapping[str, float]) -> str:
    """Checksum of what is decided of a proposal: SQLite notices damage to its structure only."""
    return digest_of({"number": number, "rate": rate, "outcome": outcome, "objectives": dict(ends)})


def _mean(values: Sequence[float]) -> float:
    """Mean that does not depend on the order of the values."""
    return math.fsum(values) / len(values)


# --- the search ------------------------------------------------------------------------------------------------------


class RateSearch:
    """The trial source of a search for learning rates: proposals cell by cell.

    Use it from one thread of one process; others may read the storage meanwhile. To resume, make it again with the
    same arguments: finished proposals are not tried again, unfinished ones are handed out again at the same rate
    (their finished stages are stored, so this is cheap). ``rates.trials`` may have grown since.

    Args:
        cells: strategy x buffer size; one rate is chosen for each.
        identities: names of the validation people.
        seeds: trial seeds.
        rates: the range, and how many proposals a cell makes.
        storage: ``sqlite:///…`` (or whatever URL Optuna's RDBStorage takes); an Optuna storage object is used as it is.
        study_name: of the search space; a cell's Optuna study is called ``<study_name>: er_rand K=3``.
        seed: of the proposals.
        asha: stop proposals that fall behind (:class:`HalvingPruner`).
        timestamps: of every validation person.
        basis: digest of whatever else the objective depends on (profile, photos, numerics). A storage filled under
            another basis is refused, because objectives of both would be compared.

    Raises:
        UserError: the storage cannot be opened, or holds a search with other settings.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        identities: Sequence[str],
        seeds: Sequence[int],
        rates: RateRange,
        *,
        storage: str | BaseStorage,
        study_name: str,
        seed: int,
        asha: bool,
        timestamps: int,
        basis: str = "",
    ):
        if not (cells and identities and seeds):
            raise ValueError("a search needs at least one cell, one validation person and one seed")
        self._rates = rates
        self._owners: dict[str, tuple[_Lane, _Proposal]] = {}
        settings = {
            "identities": sorted(identities),
            "seeds": sorted(seeds),
            "low": rates.low,
            "high": rates.high,
            "log": rates.log,
            "seed": seed,
            "asha": asha,
            "timestamps": timestamps,
            "basis": basis,
        }
        opened = _open_storage(storage) if isinstance(storage, str) else storage
        halving = HalvingPruner() if asha else None
        self._lanes: dict[Cell, _Lane] = {}
        for cell in cells:
            specs_at = partial(_trials_at, cell, tuple(identities), tuple(seeds))
            refuse_equal_ids(specs_at(rates.low))
            name = f"{study_name}: {cell.label}"
            try:
                study = _open_study(opened, name, CellSampler(seed, cell), halving or NopPruner(), settings)
                lane = _Lane(study, rates, timestamps, specs_at, halving)
                lane.require_sane()
            except UserError:
                raise
            except Exception as error:  # a damaged database fails in SQLite, SQLAlchemy, Optuna or JSON, anywhere
                if not isinstance(storage, str):  # the caller's own storage, and the caller's own errors
                    raise
                raise _damaged(str(storage), error) from error
            self._lanes[cell] = lane

    def next(self) -> TrialSpec | None:
        """The next trial to start; None: nothing right now (or ever again, see :meth:`exhausted`)."""
        # The cell that is furthest behind. All people of its proposal come before the next cell, so that workers begin
        # with different people instead of waiting for the first stage that all cells share.
        for lane in sorted(self._lanes.values(), key=lambda lane: lane.decided):
            taken = lane.take()
            if taken is not None:
                spec, proposal = taken
                self._owners[spec.trial_id] = lane, proposal
                return spec
        return None

    def exhausted(self) -> bool:
        """Whether no trial will ever come again (those handed out may still be running)."""
        return not any(lane.has_more() for lane in self._lanes.values())

    def complete(self) -> bool:
        """Whether every proposal of every cell is decided, so that there is an answer."""
        return all(lane.decided == self._rates.trials for lane in self._lanes.values())

    def report(self, trial_id: str, t: int, objective: float) -> bool:
        """Tell a trial's objective (AIP) over the timestamps 0..t; False: stop this trial.

        Every timestamp must be told, also one whose stage was read from the store. An objective that is not finite
        counts as divergence. A stopped trial need not be finished.

        Raises:
            KeyError: no such trial was handed out.
        """
        if not math.isfinite(objective):
            self.finish(trial_id, None)
            return False
        lane, proposal = self._owners[trial_id]
        if not proposal.over:
            proposal.reports[trial_id][t] = objective
            lane.settle(proposal)
        return not proposal.over

    def finish(self, trial_id: str, objective: float | None) -> None:
        """Tell a trial's objective (AIP) at its end; None: the model diverged.

        One diverged trial makes its rate bad for the cell, whatever the others got: a rate must work for everybody.
        A trial whose rate was decided meanwhile is not counted.

        Raises:
            KeyError: no such trial was handed out.
        """
        lane, proposal = self._owners[trial_id]
        if not proposal.over and trial_id not in proposal.ends:
            usable = objective is not None and math.isfinite(objective)
            proposal.ends[trial_id] = objective if usable else None
            lane.settle(proposal)

    def abandon(self, trial_id: str) -> None:
        """Tell that a trial broke in a way that says nothing about its rate (no memory, a lost node).

        Nothing is stored. Its cell starts no more trials in this process; a resumed search hands this one out again.

        Raises:
            KeyError: no such trial was handed out.
        """
        lane, proposal = self._owners[trial_id]
        if not proposal.over:
            lane.abandon()

    def best(self) -> Mapping[Cell, float]:
        """The rate with the lowest objective, by cell.

        Raises:
            UserError: a cell whose proposals all diverged, or whose search is not over.
        """
        return {cell: self._best(cell, lane) for cell, lane in self._lanes.items()}

    def _best(self, cell: Cell, lane: _Lane) -> float:
        if lane.decided < self._rates.trials:
            raise UserError(
                f"the learning rate search of {cell.label} is not finished ({lane.decided} of {self._rates.trials} "
                "rates tried); run the same command again to go on"
            )
        finished = [one for one in lane.proposals() if one.state == TrialState.COMPLETE]
        if not finished:
            raise UserError(
                f"all {lane.decided} learning rates tried for {cell.label} between {self._rates.low:g} and "
                f"{self._rates.high:g} diverged; lower the range"
            )
        return float(min(finished, key=lambda one: (one.value, one.number)).params[_RATE])

    def table(self) -> pa.Table:
        """All proposals so far, cell by cell, in ``PROPOSALS_SCHEMA``."""
        rows = [
            {
                "strategy": cell.strategy,
                "buffer_size": cell.buffer_size,
                "proposal": one.number,
                "learning_rate": one.params.get(_RATE, math.nan),
                # Optuna gives a pruned trial its last intermediate value
                "objective": one.value if one.state == TrialState.COMPLETE else math.nan,
                "state": one.user_attrs.get(_OUTCOME, DIVERGED) if one.state.is_finished() else RUNNING,
            }
            for cell, lane in self._lanes.items()
            for one in lane.proposals()
        ]
        return pa.Table.from_pylist(rows, schema=PROPOSALS_SCHEMA)


def _trials_at(cell: Cell, identities: tuple[str, ...], seeds: tuple[int, ...], rate: float) -> tuple[TrialSpec, ...]:
    """The trials of one proposal."""
    return tuple(
        TrialSpec(
            identity=identity,
            strategy=cell.strategy,
            buffer_size=cell.buffer_size,
            learning_rate=rate,
            seed=seed,
        )
        for seed, identity in product(seeds, identities)
    )


# --- the storage -----------------------------------------------------------------------------------------------------


def _open_storage(url: str) -> RDBStorage:
    # a dashboard that reads holds a SQLite file for moments only; the default gives up after 5 s
    waiting = {"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else {}
    try:
        return RDBStorage(url, engine_kwargs=waiting)
    except Exception as error:  # SQLAlchemy's, Alembic's and Optuna's own, of many kinds
        raise _damaged(url, error) from error


def _damaged(url: str, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return UserError(
        f"{url} cannot be opened as an Optuna storage ({reason}); expected the file of an earlier search, or none in a "
        "folder that exists. Move the file away and run the same command again: the search proposes the same rates, "
        "and their finished stages are used again"
    )


def _open_study(
    storage: BaseStorage, name: str, sampler: BaseSampler, pruner: BasePruner, settings: Mapping[str, Any]
) -> optuna.Study:
    """Open or create the study of one cell.

    Raises:
        UserError: it exists with other settings.
    """
    with _quiet():
        study = optuna.create_study(
            storage=storage, study_name=name, sampler=sampler, pruner=pruner, direction="minimize", load_if_exists=True
        )
    found = study.user_attrs.get(_SETTINGS)
    if found is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(_SETTINGS, dict(settings))
    elif found != settings:
        there = found or {}
        differing = "; ".join(
            f"{key} {there.get(key)!r} there, {value!r} now"
            for key, value in settings.items()
            if there.get(key) != value
        )
        raise UserError(
            f"the Optuna storage holds a search {name!r} with other settings ({differing}), whose objectives do not "
            "compare. Choose another study folder with --out, or move the storage's file away: finished stages that "
            "still hold are used again"
        )
    return study


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna prints a line to stderr for every study it creates."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
