"""How often every interval we offer holds the truth, in situations like the protocol's.

    python benchmarks/coverage.py [--simulations 4000] [--cluster-simulations 300] [--seed 0]

An identity's difference between two strategies is drawn from a normal or a strongly skewed population (lognormal,
skewness 6.2), mean and spread known. Around it lie three seeds and, for each of three timestamps, four test photos,
shared by seeds, rows and strategies as in a trial; per-image values of both strategies are simulated, so that every
interval starts from what a study stores. Two scores: the difference of AIP (whose truth is known) and the difference
of Forgetting (whose truth, the mean over the population of what trials of this size measure, comes from many
simulated identities: its max depends on the number of photos).

Printed: the share of intervals that hold the truth, in percent, for nominal 95%. Lines marked (!) are warnings: these
are in use elsewhere, and not what we report as an answer.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from clstudy.analysis.comparisons import effect_size, probability_of_improvement
from clstudy.analysis.intervals import IdentityImages, bootstrap_t, cluster_bootstrap, t_interval
from clstudy.analysis.scores import average_incremental_performance, forgetting

SIZES = (5, 10, 25)
LABELS = ("strategy", "baseline")
TIMESTAMPS, SEEDS, PHOTOS = 3, 3, 4
EFFECT = 0.5  # mean difference between the strategies; its spread over identities is 1
SEED_SPREAD, PHOTO_SPREAD, NOISE = 0.3, 0.5, 0.5
AGEING = 0.3  # share of the effect that is added with every timestamp that a photo grows older
SIGMA = 1.0  # of the lognormal's logarithm
TRUTH_IDENTITIES = 50_000
RESAMPLES = 1_000
CLUSTER_RESAMPLES = 1_000

Population = Callable[[np.random.Generator, int], np.ndarray]


class Simulated(NamedTuple):
    """``values`` [n, labels, seeds, T, T, photos] and each identity's true difference ``effects`` [n]."""

    values: np.ndarray
    effects: np.ndarray


def normal(rng: np.random.Generator, n: int) -> np.ndarray:
    """Effects of mean 0 and spread 1."""
    return rng.standard_normal(n)


def skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    """Lognormal effects, shifted and scaled to mean 0 and spread 1."""
    mean, spread = np.exp(SIGMA**2 / 2), np.sqrt((np.exp(SIGMA**2) - 1) * np.exp(SIGMA**2))
    return (rng.lognormal(0.0, SIGMA, n) - mean) / spread


POPULATIONS: dict[str, Population] = {"normal": normal, "skewed": skewed}


def simulate(rng: np.random.Generator, population: Population, n: int) -> Simulated:
    """Per-image values (lower is better) of n identities under two strategies; one of them forgets more."""
    shape = (n, 2, SEEDS, TIMESTAMPS, TIMESTAMPS, PHOTOS)
    effects = EFFECT + population(rng, n)
    person = rng.standard_normal((n, 1, 1, 1, 1, 1))
    seed = SEED_SPREAD * rng.standard_normal((n, 2, SEEDS, 1, 1, 1))
    # A photo is hard in every row and seed, and a little harder for one strategy than for the other.
    photo = PHOTO_SPREAD * (
        rng.standard_normal((n, 1, 1, 1, TIMESTAMPS, PHOTOS)) + rng.standard_normal((n, 2, 1, 1, TIMESTAMPS, PHOTOS))
    )
    values = person + seed + photo + NOISE * rng.standard_normal(shape)
    values[:, 0] += effects[:, None, None, None, None]
    age = np.arange(TIMESTAMPS)[:, None, None] - np.arange(TIMESTAMPS)[:, None]
    values[:, 0] += AGEING * effects[:, None, None, None, None] * np.maximum(age, 0)
    return Simulated(np.where(age >= 0, values, np.nan), effects)


def true_aip_difference(effects: np.ndarray) -> np.ndarray:
    """Without noise: effect (1 + AGEING x mean over t of the mean age of the timestamps seen at t)."""
    mean_age = np.mean([np.mean(np.arange(t + 1)) for t in range(TIMESTAMPS)])
    return effects * (1 + AGEING * mean_age)


def identity_differences(values: np.ndarray, score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Per trial first, then over seeds: one difference per identity, ``[n]``."""
    per_identity = score(values.mean(axis=-1)).mean(axis=-1)
    return per_identity[:, 0] - per_identity[:, 1]


def aip(r: np.ndarray) -> np.ndarray:
    return average_incremental_performance(r, False)


def forgotten(r: np.ndarray) -> np.ndarray:
    return forgetting(r, False)


def percentile(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The usual percentile bootstrap of one value per identity."""
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


class Tally:
    """Hits and tries per (line, population, n); the order of lines is that of their first entry."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[tuple[str, int], list[int]]] = {}

    def add(self, line: str, where: tuple[str, int], low: float, high: float, truth: float) -> None:
        hits = self.counts.setdefault(line, {}).setdefault(where, [0, 0])
        hits[0] += low <= truth <= high
        hits[1] += 1

    def table(self) -> str:
        columns = [(name, n) for name in POPULATIONS for n in SIZES]
        head = ["interval (nominal 95%)", *(f"{name} {n}" for name, n in columns)]
        lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * len(columns)]
        for line, found in self.counts.items():
            shares = [f"{100 * hits / tries:.1f}" for hits, tries in (found[column] for column in columns)]
            lines.append("| " + " | ".join([line, *shares]) + " |")
        return "\n".join(lines)


def truths(population: Population, rng: np.random.Generator) -> dict[str, float]:
    """What the intervals should hold: means over the whole population."""
    found = {"aip": float(true_aip_difference(np.array([EFFECT]))[0])}
    many = simulate(rng, population, TRUTH_IDENTITIES)
    differences = identity_differences(many.values, aip)
    found["improvement"] = float((differences < 0).mean())
    found["forgetting"] = float(identity_differences(many.values, forgotten).mean())
    return found


def simple(tally: Tally, rng: np.random.Generator, simulations: int) -> None:
    """Intervals from one value per identity."""
    for name, population in POPULATIONS.items():
        truth = truths(population, rng)
        for n in SIZES:
            where = (name, n)
            for _ in range(simulations):
                values = simulate(rng, population, n).values
                differences = identity_differences(values, aip)
                mean = t_interval(differences)
                tally.add("AIP: Student t on identity values (default)", where, mean.low, mean.high, truth["aip"])
                boot = bootstrap_t(differences, rng, resamples=RESAMPLES)
                tally.add("AIP: bootstrap-t on identity values", where, boot.low, boot.high, truth["aip"])
                tally.add("(!) AIP: percentile bootstrap on identity values", where,
                          *percentile(differences, rng), truth["aip"])  # fmt: skip
                # Every image of every seed as if it were a new person.
                cells = aip(np.moveaxis(values, -1, 0))
                pooled = t_interval((cells[:, :, 0] - cells[:, :, 1]).ravel())
                tally.add("(!) AIP: t on pooled images and seeds", where, pooled.low, pooled.high, truth["aip"])
                old = identity_differences(values, forgotten)
                mean = t_interval(old)
                tally.add("Forgetting: Student t on identity values (default)", where, mean.low, mean.high,
                          truth["forgetting"])  # fmt: skip
                boot = bootstrap_t(old, rng, resamples=RESAMPLES)
                tally.add("Forgetting: bootstrap-t on identity values", where, boot.low, boot.high,
                          truth["forgetting"])  # fmt: skip
                better = probability_of_improvement(differences, negative_is_better=True)
                tally.add("probability of improvement (Clopper-Pearson)", where, better.low, better.high,
                          truth["improvement"])  # fmt: skip


def effects(tally: Tally, rng: np.random.Generator, simulations: int) -> None:
    """Effect size limits; for skewed values the truth is the population's mean / spread too."""
    for name, population in POPULATIONS.items():
        for n in SIZES:
            for _ in range(simulations):
                found = effect_size(EFFECT + population(rng, n))
                tally.add("effect size d (noncentral t)", (name, n), found.low, found.high, EFFECT)


def clusters(tally: Tally, rng: np.random.Generator, simulations: int) -> None:
    """The two-level bootstrap, from images."""
    for name, population in POPULATIONS.items():
        truth = truths(population, rng)
        for n in SIZES:
            where = (name, n)
            for _ in range(simulations):
                data = simulate(rng, population, n)
                people = [
                    IdentityImages(identity=f"{i:03d}", labels=LABELS, values=one, counts=np.full(TIMESTAMPS, PHOTOS))
                    for i, one in enumerate(data.values)
                ]
                for title, score in (("AIP", aip), ("Forgetting", forgotten)):
                    boot = cluster_bootstrap(people, score, rng, resamples=CLUSTER_RESAMPLES)
                    new = boot.interval(*LABELS)
                    tally.add(f"{title}: cluster bootstrap, new identities", where, new.low, new.high,
                              truth[title.lower()])  # fmt: skip
                    plain = boot.interval(*LABELS, expanded=False)
                    tally.add(f"(!) {title}: the same, plain percentiles", where, plain.low, plain.high,
                              truth[title.lower()])  # fmt: skip
                these = cluster_bootstrap(people, aip, rng, resamples=CLUSTER_RESAMPLES, new_identities=False)
                inside = these.interval(*LABELS)
                tally.add("AIP: cluster bootstrap, these identities", where, inside.low, inside.high,
                          float(true_aip_difference(data.effects).mean()))  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=4_000, help="per population and n")
    parser.add_argument("--cluster-simulations", type=int, default=300, help="the same for the cluster bootstrap")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.process_time()
    tally = Tally()
    rng = np.random.default_rng(arguments.seed)
    simple(tally, rng, arguments.simulations)
    effects(tally, rng, arguments.simulations)
    clusters(tally, rng, arguments.cluster_simulations)
    print(tally.table())
    print()
    print(f"{arguments.simulations:,} simulations per column ({arguments.cluster_simulations:,} for the cluster "
          f"bootstrap): a share of 95 is known to about +-{1.96 * (0.95 * 0.05 / arguments.simulations) ** 0.5:.1%} "
          f"(+-{1.96 * (0.95 * 0.05 / arguments.cluster_simulations) ** 0.5:.1%}). "
          f"Processor time {time.process_time() - start:.0f} s.")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
