"""How large a study must be, from a pilot of several seeds: people and seeds against the power they buy.

    python -m benchmarks.sizing runs/selection_pilot [--pair er_hull er_rand] [--buffer-size 3]
                                                     [--effects aip=5 forgetting=25]

takes the paired difference of two strategies (reconstruction LPIPS) in every score named under ``--effects``, splits
the variance of a person's difference into people, seeds and test photos (``clstudy.analysis.variance``), and prints
the power of a t test over people for a difference of so many per cent of the second strategy's mean, for numbers of
people and seeds, with the observed spread and with its cautious upper limit (80% confidence, Browne 1995). Several
scores are one family under Holm's correction: the first of m has to be below 0.05 / m, and so is every power here.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clstudy.analysis.statistics.paired import ALPHA
from clstudy.analysis.statistics.sample_size import cautious_sd, power_of
from clstudy.analysis.summary import Summary, summarise
from clstudy.analysis.variance import variance_table

PANEL = {"protocol": "reconstruction", "metric": "lpips"}
PEOPLE, SEEDS = (6, 8, 10, 12, 16, 20, 24), (1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Variance of a person's difference by its causes, for one seed and the pilot's test photos.

    Attributes:
        n: people of the pilot, which say how well the variance is known.
        people, seed, photos: variances, in the score's unit squared.
        wanted: the difference that is to be found, in the score's unit.
    """

    n: int
    people: float
    seed: float
    photos: float
    wanted: float

    def sd(self, seeds: int) -> float:
        """Standard deviation over people with so many seeds."""
        return math.sqrt(self.people + self.seed / seeds + self.photos)


def spread(summary: Summary, score: str, percent: float, pair: Sequence[str], size: int) -> Spread:
    """What a pilot says of a pair of strategies at one buffer size.

    Raises:
        SystemExit: the study has no such difference, or one seed, which cannot tell people and seeds apart.
    """
    mean = _row(summary.scores.to_pylist(), score, pair[1], size)
    row = _row([one for one in variance_table(summary).to_pylist() if one["baseline"] == pair[1]], score, pair[0], size)
    if mean is None or row is None or row["seeds"] is None or row["people"] is None:
        raise SystemExit(f"no {score} of {' - '.join(pair)} at K = {size} with two seeds or more in this study")
    return Spread(
        n=row["n_identities"],
        people=row["people"],
        seed=row["seeds"] * row["n_seeds"],
        photos=row["photos"] or 0.0,
        wanted=abs(mean["mean"]) * percent / 100,
    )


def _row(rows: Sequence[Mapping[str, Any]], score: str, strategy: str, size: int) -> Mapping[str, Any] | None:
    wanted = PANEL | {"score": score, "strategy": strategy, "buffer_size": size}
    return next((row for row in rows if all(row[key] == value for key, value in wanted.items())), None)


def say(score: str, found: Spread, alpha: float) -> None:
    """Print the parts, and a table of power."""
    parts = {"people": found.people, "one seed": found.seed, "test photos": found.photos}
    print(f"\n{score}: to find {found.wanted:.5f} at alpha {alpha:g}; standard deviations over {found.n} people:")
    print(", ".join(f"{name} {math.sqrt(variance):.5f}" for name, variance in parts.items()))
    print("power   " + "   ".join(f"{seeds} seed{'s' if seeds > 1 else ' '} (cautious)" for seeds in SEEDS))
    for people in PEOPLE:
        shown = []
        for seeds in SEEDS:
            sd = found.sd(seeds)
            powers = [power_of(found.wanted, one, people, alpha=alpha) for one in (sd, cautious_sd(sd, found.n))]
            shown.append(f"{powers[0]:6.2f}  ({powers[1]:.2f})    ")
        print(f"n = {people:2d}  " + "   ".join(shown))


def main() -> None:
    """Read the pilot, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", type=Path)
    parser.add_argument("--pair", nargs=2, default=("er_hull", "er_rand"), metavar=("STRATEGY", "BASELINE"))
    parser.add_argument("--buffer-size", type=int, default=3)
    parser.add_argument("--effects", nargs="+", default=("aip=5", "forgetting=25"), metavar="SCORE=PERCENT")
    options = parser.parse_args()
    summary = summarise(options.study)
    wanted = [effect.split("=") for effect in options.effects]
    for score, percent in wanted:
        found = spread(summary, score, float(percent), options.pair, options.buffer_size)
        say(score, found, ALPHA / len(wanted))


if __name__ == "__main__":
    main()
