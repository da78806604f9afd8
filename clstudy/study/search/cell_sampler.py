"""Samples a cell's next learning rate: first some spread over the range, then those of Optuna's TPE sampler."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, count
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial

from clstudy.seeding import derive_seed
from clstudy.settings.trial_spec import GridCell

SPREAD = 7
"""Proposals of a cell that are spread evenly over the range, at its eighths, before TPE takes over.

Equal for all cells, which then share the first stage at these rates. With Optuna's default, ten random proposals, a
search of 20 is worse than a grid of 20; with these it is better (``benchmarks/rate_search.py``)."""
CANDIDATES = 8
"""Number of rates that TPE draws to choose one from. From many (Optuna: 24) it chooses one further from the best rates,
where little is left to find in one dimension (same benchmark; 3 to 9 spread proposals and 8 or 12 candidates do about
as well).
"""
DIGITS = 4
"""Significant digits of a proposed rate: trial ids print six, and more digits would not make another rate."""


def spread_position(number: int) -> float:
    """Position in (0, 1) of the n-th proposal: halves, then quarters, then eighths (van der Corput's sequence)."""
    position, share, rest = 0.0, 0.5, number + 1
    while rest:
        position += share * (rest & 1)
        rest >>= 1
        share /= 2
    return position


def nearest_free_rate(rate: float, low: float, high: float, used: frozenset[float]) -> float:
    """Return the unused rate of ``DIGITS`` digits in [low, high] that is nearest to the given one.

    The range must hold more such rates than were used (``clstudy.settings.space.MIN_RANGE`` ensures it).
    """
    unit = 10.0 ** (math.floor(math.log10(rate)) - DIGITS + 1)
    steps: Iterator[float] = chain.from_iterable((rate + k * unit, rate - k * unit) for k in count())
    return next(near for near in map(_short, steps) if low <= near <= high and near not in used)


def _short(rate: float) -> float:
    return float(f"{rate:.{DIGITS - 1}e}")


class CellSampler(BaseSampler):
    """Proposes the rates of one cell: ``SPREAD`` fixed ones, then TPE.

    It has no state: every proposal gets a new TPE sampler with its own seed. Optuna calls it whenever a trial of the
    cell's study has no rate yet.
    """

    def __init__(self, seed: int, cell: GridCell):
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
        """Return the rate of proposal ``trial.number``, which differs from all earlier ones."""
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
