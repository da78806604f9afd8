"""Successive halving: decides which proposals of a cell stop early because they fall behind."""

from __future__ import annotations

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from clstudy.study.search.cell_sampler import SPREAD

HALVING_FACTOR = 2
"""One in this many proposals passes a rung."""
FIRST_RUNG = 2
"""Timestamps that a proposal has seen at the first rung: after only one, nothing can be forgotten yet."""


class HalvingPruner(BasePruner):
    """Asynchronous successive halving (ASHA, Li et al., MLSys 2020) of proposals that come one after another.

    Decides as ``optuna.pruners.SuccessiveHalvingPruner`` does, but from the stored intermediate values alone. Optuna's
    records a passed rung in the storage before the caller can store what follows from it, and a kill in between would
    change the decision. Proposals of the spread are never stopped: TPE learns most from finished ones.
    """

    def __init__(self, first: int = FIRST_RUNG, factor: int = HALVING_FACTOR, spared: int = SPREAD):
        self._first, self._factor, self._spared = first, factor, spared

    def is_rung(self, step: int) -> bool:
        """Whether a proposal is judged after this many timestamps: first, first x factor, first x factor^2, …"""
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
