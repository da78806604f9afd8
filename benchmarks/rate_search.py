"""Does the search for learning rates beat a grid of the same size?

    python benchmarks/rate_search.py [--seeds 20] [--cells 6] [--first-seed 0]

A cell's response to the learning rate is known: a bowl over the logarithm of the rate with its minimum anywhere in
two decades (0.0003 to 0.03), a steep wall above it, divergence further up, and deterministic waves of 0, 1 or 3% of
the lowest value in place of noise (heights, widths and places drawn per cell). Two identities share the bowl at
different heights. Every line is the mean over seeds of the mean over cells; the ``excess`` of a choice is how far its
response lies above the lowest there is, in percent. ``grid`` tries as many rates evenly on the log scale, ends
included; ``Optuna's defaults`` is TPE with ten random proposals first.

The settings of the search (``SPREAD``, ``CANDIDATES``) were chosen on cells of other seeds (1000 and above).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import optuna

from clstudy.seeding import derive_rng
from clstudy.settings.space import RateRange
from clstudy.settings.trial_spec import GridCell
from clstudy.study.search.rate_search import RateSearch

LOW, HIGH = 3e-4, 3e-2
IDENTITIES = {"a": 0.9, "b": 1.1}
"""Height of each identity's response around the cell's."""


@dataclass(frozen=True)
class Response:
    """Objective over x = log10(rate): floor (1 + curve (x - x0)^2 + wall + waves); none where training diverges."""

    floor: float
    optimum: float
    curve: float
    wall: float
    waves: float
    phases: tuple[float, float]

    def __call__(self, rate: np.ndarray | float) -> np.ndarray:
        """Responses; NaN where training diverges."""
        x = np.log10(np.asarray(rate, dtype=float))
        off = x - self.optimum
        waves = np.sin(2 * np.pi * x / 0.5 + self.phases[0]) + 0.5 * np.sin(2 * np.pi * x / 0.17 + self.phases[1])
        bowl = 1 + self.curve * off**2 + 20 * np.maximum(off - self.wall, 0) ** 2
        return np.where(off > self.wall + 0.6, np.nan, self.floor * (bowl + self.waves * waves / 1.5))

    def lowest(self) -> tuple[float, float]:
        """(rate, response) of the minimum, from a fine grid."""
        rates = np.geomspace(LOW, HIGH, 20_001)
        values = self(rates)
        place = int(np.nanargmin(values))
        return float(rates[place]), float(values[place])


def response(seed: int, cell: int, waves: float) -> Response:
    """The response of one cell."""
    rng = derive_rng("synthetic response", seed, cell)
    return Response(
        floor=rng.uniform(0.015, 0.03),
        optimum=rng.uniform(math.log10(LOW), math.log10(HIGH)),
        curve=rng.uniform(0.5, 1.5),
        wall=rng.uniform(0.3, 0.7),
        waves=waves,
        phases=(rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)),
    )


def cell_of(number: int) -> GridCell:
    """A cell by number."""
    return GridCell(strategy="er_rand", buffer_size=number + 1)


def searched(responses: Sequence[Response], seed: int, trials: int) -> list[float]:
    """The rate that the search chooses for each response."""
    cells = [cell_of(number) for number in range(len(responses))]
    search = RateSearch(
        cells,
        list(IDENTITIES),
        [0],
        RateRange(low=LOW, high=HIGH, trials=trials),
        storage=optuna.storages.InMemoryStorage(),
        study_name="synthetic",
        seed=seed,
        asha=False,
        timestamps=1,
    )
    while (spec := search.next()) is not None:
        assert spec.buffer_size is not None
        value = float(responses[spec.buffer_size - 1](spec.learning_rate)) * IDENTITIES[spec.identity]
        search.finish(spec.trial_id, None if math.isnan(value) else value)
    best = search.best()
    return [best[cell] for cell in cells]


def gridded(responses: Sequence[Response], seed: int, trials: int) -> list[float]:
    """The best of as many rates evenly on the log scale."""
    rates = np.geomspace(LOW, HIGH, trials)
    return [float(rates[np.nanargmin(one(rates))]) for one in responses]


def by_default(responses: Sequence[Response], seed: int, trials: int) -> list[float]:
    """What Optuna's TPE finds as it comes; a diverged trial has failed."""
    chosen = []
    for number, one in enumerate(responses):
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1000 * seed + number))

        def objective(trial: optuna.Trial, one: Response = one) -> float:
            return float(one(trial.suggest_float("learning_rate", LOW, HIGH, log=True)))

        study.optimize(objective, n_trials=trials)
        chosen.append(float(study.best_params["learning_rate"]))
    return chosen


class Score(NamedTuple):
    """Per seed and cell ``[seeds, cells]``: excess of the response, and distance of the rate in decades."""

    excess: np.ndarray
    decades: np.ndarray


Method = Callable[[Sequence[Response], int, int], list[float]]
METHODS: dict[str, Method] = {"search": searched, "grid": gridded, "Optuna's defaults": by_default}


def score(method: Method, *, seeds: Sequence[int], cells: int, trials: int, waves: float) -> Score:
    """How well a method does."""
    found = np.empty((2, len(seeds), cells))
    for row, seed in enumerate(seeds):
        responses = [response(seed, cell, waves) for cell in range(cells)]
        for column, (one, rate) in enumerate(zip(responses, method(responses, seed, trials), strict=True)):
            best_rate, lowest = one.lowest()
            found[:, row, column] = float(one(rate)) / lowest - 1, abs(math.log10(rate / best_rate))
    return Score(*found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--cells", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=0)
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    print(f"{len(seeds)} seeds x {args.cells} cells; excess in percent, distance of the rate in decades")
    print(
        f"{'rates':>5} {'waves':>6} {'method':<18} {'mean excess':>11} {'worst':>7} {'distance':>9} {'seeds won':>10}"
    )
    for trials in (8, 12, 20):
        for waves in (0.0, 0.01, 0.03):
            scores = {
                name: score(method, seeds=seeds, cells=args.cells, trials=trials, waves=waves)
                for name, method in METHODS.items()
            }
            grid = scores["grid"].excess.mean(axis=1)
            for name, one in scores.items():
                won = "" if name == "grid" else f"{int((one.excess.mean(axis=1) < grid).sum())} of {len(seeds)}"
                print(
                    f"{trials:>5} {waves:>6.0%} {name:<18} {100 * one.excess.mean():>11.3f} "
                    f"{100 * one.excess.max():>7.2f} {one.decades.mean():>9.4f} {won:>10}"
                )


if __name__ == "__main__":
    main()
