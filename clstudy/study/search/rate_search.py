"""The search for learning rates: proposes the next rate of every cell, and determines the best one.

One Optuna study per cell (strategy x buffer size), all in one storage that ``optuna-dashboard`` opens. A *proposal* is
one rate of one cell: one trial per validation person and seed; its objective is their mean. Within a cell, proposals
come strictly one after another (different cells, people and seeds keep workers busy), and each follows from the
study's seed, the cell, its number and the objectives before it. So the answer depends neither on the number of workers
nor on the order in which trials end; and a search that was killed at any point continues as if nothing had happened.

This module needs neither Ray nor torch nor photos: the caller runs the trials that :meth:`RateSearch.next` gives, and
reports their results.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product

import pyarrow as pa
from optuna.pruners import NopPruner
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from clstudy.errors import UserError
from clstudy.settings.space import RateRange
from clstudy.settings.trial_spec import GridCell, TrialSpec, refuse_equal_ids
from clstudy.study.search.cell_proposals import DIVERGED, OUTCOME, RATE, RUNNING, Lane, Proposal
from clstudy.study.search.cell_sampler import CellSampler
from clstudy.study.search.halving import HalvingPruner
from clstudy.study.search.optuna_storage import damaged_storage, open_storage, open_study

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
"""One row per proposal. ``state``: finished, diverged, stopped (by ASHA) or running; ``objective`` is what the
search minimises (AIP, with its sign turned where higher is better), NaN unless it is finished."""


class RateSearch:
    """The trial source of a search for learning rates: proposals cell by cell.

    Use it from one thread of one process; others may read the storage meanwhile. To resume, construct it again with
    the same arguments: finished proposals are not tried again, and unfinished ones are handed out again at the same
    rate (their finished stages are stored, so this is cheap). ``rates.trials`` may have grown since.

    Args:
        cells: strategy x buffer size; one rate is chosen for each.
        identities: names of the validation people.
        seeds: trial seeds.
        rates: the range, and how many proposals a cell makes.
        storage: ``sqlite:///…`` (or any URL that Optuna's RDBStorage takes), or an Optuna storage object.
        study_name: the search space's; a cell's Optuna study is called ``<study_name>: er_rand K=3``.
        seed: for the proposals.
        asha: stop proposals that fall behind (:class:`HalvingPruner`).
        timestamps: number of every validation person's timestamps.
        basis: digest of everything else that the objective depends on (profile, photos, numerics). A storage filled
            under another basis is refused, because objectives of both would be compared.

    Raises:
        UserError: the storage cannot be opened, or holds a search with other settings.
    """

    def __init__(
        self,
        cells: Sequence[GridCell],
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
        self._owners: dict[str, tuple[Lane, Proposal]] = {}
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
        opened = open_storage(storage) if isinstance(storage, str) else storage
        halving = HalvingPruner() if asha else None
        self._lanes: dict[GridCell, Lane] = {}
        for cell in cells:
            specs_at = partial(_trials_at, cell, tuple(identities), tuple(seeds))
            refuse_equal_ids(specs_at(rates.low))
            name = f"{study_name}: {cell.label}"
            try:
                study = open_study(opened, name, CellSampler(seed, cell), halving or NopPruner(), settings)
                lane = Lane(study, rates, timestamps, specs_at, halving)
                lane.require_sane()
            except UserError:
                raise
            except Exception as error:  # a damaged database fails in SQLite, SQLAlchemy, Optuna or JSON, anywhere
                if not isinstance(storage, str):  # the caller's own storage, and the caller's own errors
                    raise
                raise damaged_storage(str(storage), error) from error
            self._lanes[cell] = lane

    def next(self) -> TrialSpec | None:
        """The next trial to start; None: none right now (or ever again, see :meth:`exhausted`)."""
        # Take the cell that is furthest behind. All people of its proposal come before the next cell, so that workers
        # begin with different people instead of waiting for the first stage that all cells share.
        for lane in sorted(self._lanes.values(), key=lambda lane: lane.decided):
            taken = lane.take()
            if taken is not None:
                spec, proposal = taken
                self._owners[spec.trial_id] = lane, proposal
                return spec
        return None

    def exhausted(self) -> bool:
        """Whether there will be no further trial (some already handed out may still be running)."""
        return not any(lane.has_more() for lane in self._lanes.values())

    def complete(self) -> bool:
        """Whether every proposal of every cell is decided, so that there is an answer."""
        return all(lane.decided == self._rates.trials for lane in self._lanes.values())

    def report(self, trial_id: str, t: int, objective: float) -> bool:
        """Report a trial's objective (AIP) over the timestamps 0..t; returns False to stop the trial.

        Every timestamp must be reported, even if its stage was read from the store. An objective that is not finite
        counts as divergence. ``finish`` need not be called for a stopped trial.

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
        """Report a trial's objective (AIP) at its end; None: the model diverged.

        One diverged trial makes its rate bad for the cell, whatever the others reached: a rate must work for everybody.
        A trial is ignored if its rate was decided meanwhile.

        Raises:
            KeyError: no such trial was handed out.
        """
        lane, proposal = self._owners[trial_id]
        if not proposal.over and trial_id not in proposal.ends:
            usable = objective is not None and math.isfinite(objective)
            proposal.ends[trial_id] = objective if usable else None
            lane.settle(proposal)

    def abandon(self, trial_id: str) -> None:
        """Report that a trial failed in a way that says nothing about its rate (no memory, a lost node).

        Nothing is stored. Its cell starts no more trials in this process; a resumed search hands this one out again.

        Raises:
            KeyError: no such trial was handed out.
        """
        lane, proposal = self._owners[trial_id]
        if not proposal.over:
            lane.abandon()

    def best(self) -> Mapping[GridCell, float]:
        """Cell -> the rate with the lowest objective.

        Raises:
            UserError: all proposals of a cell diverged, or its search is not over.
        """
        return {cell: self._best(cell, lane) for cell, lane in self._lanes.items()}

    def _best(self, cell: GridCell, lane: Lane) -> float:
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
        return float(min(finished, key=lambda one: (one.value, one.number)).params[RATE])

    def table(self) -> pa.Table:
        """All proposals so far, cell by cell, in ``PROPOSALS_SCHEMA``."""
        rows = [
            {
                "strategy": cell.strategy,
                "buffer_size": cell.buffer_size,
                "proposal": one.number,
                "learning_rate": one.params.get(RATE, math.nan),
                # Optuna sets a pruned trial's value to its last intermediate value
                "objective": one.value if one.state == TrialState.COMPLETE else math.nan,
                "state": one.user_attrs.get(OUTCOME, DIVERGED) if one.state.is_finished() else RUNNING,
            }
            for cell, lane in self._lanes.items()
            for one in lane.proposals()
        ]
        return pa.Table.from_pylist(rows, schema=PROPOSALS_SCHEMA)


def _trials_at(
    cell: GridCell, identities: tuple[str, ...], seeds: tuple[int, ...], rate: float
) -> tuple[TrialSpec, ...]:
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
