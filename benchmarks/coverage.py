"""How often every interval we offer holds the truth, in situations like the protocol's.

    python benchmarks/coverage.py [--part intervals|clusters|near-duplicates|noise-free|photo-bias]
                                  [--simulations 2000] [--cluster-simulations 300] [--seed 0]

Five tables, one per part (all of them by default; every part starts from the seed, so parts may run at different
times). Lines marked (!) are warnings: these are in use elsewhere, or were, and are not what we report as an answer.

- ``intervals``, ``clusters``: an identity's difference between two strategies is drawn from a normal or a strongly
  skewed population (lognormal, skewness 6.2), mean and spread known. Around it lie three seeds and, for each of three
  timestamps, four test photos, shared by seeds, rows and strategies as in a trial; per-image values of both strategies
  are simulated, so that every interval starts from what a study stores. Two scores: the difference of AIP (whose truth
  is known) and the difference of Forgetting (whose truth, the mean over the population of what trials of this size
  measure, comes from many simulated identities: its max depends on the number of photos).
- ``near-duplicates``: half of the population differs by nearly the same small amount, as where two strategies keep
  nearly the same photos. Coverage, and how wide the widest intervals are in units of Student's.
- ``noise-free``: the truth is the Forgetting that infinitely many photos would show, at T = 3, 5 and 10: what the
  photo noise in the max does to Forgetting's interval, and that -BWT has no such trouble.
- ``photo-bias``: estimates of that bias, for 4, 6 and 10 photos.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from clstudy.analysis.photo_bias import photo_bias
from clstudy.analysis.scores import average_incremental_performance, backward_transfer, forgetting
from clstudy.analysis.statistics.intervals import (
    BOOTSTRAP_T_FROM,
    SUBSETS_UP_TO,
    IdentityImages,
    bootstrap_t,
    cluster_bootstrap,
    sign_flip_interval,
    t_interval,
)
from clstudy.analysis.statistics.paired import effect_size, probability_of_improvement

SIZES = (5, 10, 25)
LABELS = ("strategy", "baseline")
TIMESTAMPS, SEEDS, PHOTOS = 3, 3, 4
EFFECT = 0.5  # mean difference between the strategies; its spread over identities is 1
SEED_SPREAD, PHOTO_SPREAD, NOISE = 0.3, 0.5, 0.5
AGEING = 0.3  # share of the effect that is added with every timestamp that a photo grows older
SIGMA = 1.0  # of the lognormal's logarithm
TRUTH_IDENTITIES = 50_000
SHARE_ALIKE, ALIKE_SPREAD = 0.5, 0.01  # of the near-duplicates: half of them, a hundredth of the others' spread
FORGETTING_SIZES = (5, 20)
# Forgetting per step that a timestamp grows older, and its spread over identities, in units of a photo's noise
DRIFTS = {"nothing": (0.0, 0.0), "little": (0.1, 0.1), "much": (0.5, 0.25)}
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


def alike(rng: np.random.Generator, n: int) -> np.ndarray:
    """Half of the effects are near-duplicates, the others normal around 1; mean 0."""
    shared = rng.random(n) < SHARE_ALIKE
    values = np.where(shared, ALIKE_SPREAD * rng.standard_normal(n), 1 + rng.standard_normal(n))
    return values - (1 - SHARE_ALIKE)


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

    def table(self, title: str = "interval (nominal 95%)", join: str = " ") -> str:
        columns = list(dict.fromkeys(where for found in self.counts.values() for where in found))
        rows = []
        for line, found in self.counts.items():
            shares = [found.get(column) for column in columns]
            rows.append([line, *("–" if one is None else f"{100 * one[0] / one[1]:.1f}" for one in shares)])
        return markdown([title, *(f"{name}{join}{n}" for name, n in columns)], rows)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is text."""
    lines = [head, *rows]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([text[0], "|---|" + "---:|" * (len(head) - 1), *text[1:]])


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
                second(tally, "AIP", where, differences, rng, truth["aip"])
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
                second(tally, "Forgetting", where, old, rng, truth["forgetting"])
                better = probability_of_improvement(differences, negative_is_better=True)
                tally.add("probability of improvement (Clopper-Pearson)", where, better.low, better.high,
                          truth["improvement"])  # fmt: skip


def second(
    tally: Tally, title: str, where: tuple[str, int], values: np.ndarray, rng: np.random.Generator, truth: float
) -> None:
    """What stands beside Student t: sign flips where identities are few (93.75% at n = 5), else bootstrap-t."""
    if len(values) <= SUBSETS_UP_TO:
        exact = sign_flip_interval(values)
        tally.add(f"{title}: sign flips, inverted (93.75% at n = 5)", where, exact.low, exact.high, truth)
    boot = bootstrap_t(values, rng, resamples=RESAMPLES)
    if len(values) >= BOOTSTRAP_T_FROM:
        tally.add(f"{title}: bootstrap-t (from n = {BOOTSTRAP_T_FROM})", where, boot.low, boot.high, truth)
    else:
        tally.add(f"(!) {title}: bootstrap-t, fewer identities", where, boot.low, boot.high, truth)


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


def near_duplicates(rng: np.random.Generator, simulations: int) -> str:
    """Coverage, and the width that one interval in twenty exceeds, in units of Student's."""
    columns = (5, 8, 10, 25)
    found: dict[str, dict[int, list[tuple[bool, float]]]] = {}
    for n in columns:
        for _ in range(simulations):
            values = EFFECT + alike(rng, n)
            primary, boot = t_interval(values), bootstrap_t(values, rng, resamples=RESAMPLES)
            intervals = {"Student t (default)": (primary.low, primary.high)}
            if n <= SUBSETS_UP_TO:
                exact = sign_flip_interval(values)
                intervals["sign flips, inverted (93.75% at n = 5)"] = (exact.low, exact.high)
            reported = n >= BOOTSTRAP_T_FROM
            intervals["bootstrap-t" if reported else "(!) bootstrap-t, fewer identities"] = (boot.low, boot.high)
            intervals["(!) bootstrap-t with near-duplicate resamples"] = every_resample(values, rng)
            for name, (low, high) in intervals.items():
                width = (high - low) / (primary.high - primary.low)
                found.setdefault(name, {}).setdefault(n, []).append((low <= EFFECT <= high, width))
    rows = []
    for name, at in found.items():
        cells = []
        for n in columns:
            hits, widths = zip(*at[n], strict=True) if n in at else ((), ())
            cells.append(f"{100 * np.mean(hits):.1f} ({np.quantile(widths, 0.95):.1f})" if hits else "–")
        rows.append([name, *cells])
    return markdown(["near-duplicates: coverage (width)", *(f"n = {n}" for n in columns)], rows)


def every_resample(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Bootstrap-t as it is usually done: only resamples without any spread are left out."""
    drawn = values[rng.integers(len(values), size=(RESAMPLES, len(values)))]
    drawn = drawn[np.ptp(drawn, axis=1) > 0]
    ratios = (drawn.mean(axis=1) - values.mean()) / drawn.std(axis=1, ddof=1)
    low, high = values.mean() - np.quantile(ratios, [0.975, 0.025]) * values.std(ddof=1)
    return float(low), float(high)


def drifting(rng: np.random.Generator, drift: tuple[float, float], shape: tuple[int, ...], size: int) -> np.ndarray:
    """Noise-free R (lower is better) of identities of which each forgets at its own pace; ``[*shape, size, size]``."""
    pace = NOISE * (drift[0] + drift[1] * rng.standard_normal(shape))
    return pace[..., None, None] * np.maximum(np.arange(size)[:, None] - np.arange(size), 0)


def photographed(rng: np.random.Generator, r: np.ndarray, photos: int) -> np.ndarray:
    """Single images around R: a photo is hard at every t alike, and noisy at each."""
    hard = PHOTO_SPREAD * rng.standard_normal((*r.shape[:-2], 1, r.shape[-1], photos))
    values = r[..., None] + hard + NOISE * rng.standard_normal((*r.shape, photos))
    return np.where(np.tri(r.shape[-1], dtype=bool)[..., None], values, np.nan)


def noise_free(tally: Tally, rng: np.random.Generator, simulations: int) -> None:
    """Student t for Forgetting and -BWT against what infinitely many photos would show."""
    chunk = 50
    for size, n in itertools.product((3, 5, 10), FORGETTING_SIZES):
        where = (f"T = {size}, n", n)
        truth = {
            name: float(forgotten(drifting(rng, drift, (TRUTH_IDENTITIES,), size)).mean())
            for name, drift in DRIFTS.items()
        }
        slope = {name: NOISE * drift[0] * size / 2 for name, drift in DRIFTS.items()}  # -BWT: mean age is T / 2
        for _ in range(max(1, simulations // chunk)):
            scores: dict[str, dict[str, np.ndarray]] = {}
            for name, drift in DRIFTS.items():
                r = drifting(rng, drift, (chunk, n, 1), size)
                values = photographed(rng, np.broadcast_to(r, (chunk, n, SEEDS, size, size)), PHOTOS)
                means = values.mean(axis=-1)
                seen = forgotten(means)
                scores[name] = {
                    "Forgetting": seen.mean(axis=-1),
                    "-BWT": -backward_transfer(means, False).mean(axis=-1),
                    "Forgetting less photo_bias": (seen - photo_bias(values, False)).mean(axis=-1),
                }
            for name, kinds in scores.items():
                for kind, values in kinds.items():
                    true = slope[name] if kind == "-BWT" else truth[name]
                    held(tally, f"{name} is forgotten: {kind}", where, values, true)
            for kind in ("Forgetting", "-BWT"):
                true = slope if kind == "-BWT" else truth
                difference = scores["little"][kind] - scores["much"][kind]
                held(tally, f"little minus much: {kind}", where, difference, true["little"] - true["much"])


def held(tally: Tally, line: str, where: tuple[str, int], values: np.ndarray, truth: float) -> None:
    """Student t of every row of ``values`` [simulations, n]."""
    for one in values:
        found = t_interval(one)
        tally.add(line, where, found.low, found.high, truth)


def estimated_bias(rng: np.random.Generator, simulations: int) -> str:
    """What single trials' photos say of Forgetting's bias, in units of a photo's noise: mean (spread over trials)."""
    rows = []
    for size, photos, (name, drift) in itertools.product((5, 10), (4, 6, 10), DRIFTS.items()):
        r = drifting(rng, drift, (simulations,), size)
        values = photographed(rng, r, photos)
        seen, true = forgotten(values.mean(axis=-1)), forgotten(r)
        halves = [list(half) for half in itertools.combinations(range(photos), photos // 2)]
        halves = [halves[i] for i in rng.permutation(len(halves))[:20]]
        again = [rng.integers(photos, size=photos) for _ in range(40)]
        others = [np.delete(np.arange(photos), i) for i in range(photos)]
        estimates = (
            photo_bias(values, False),
            seen - np.mean([evaluated_on(values, half) for half in halves], axis=0),
            np.mean([forgotten(values[..., chosen].mean(axis=-1)) for chosen in again], axis=0) - seen,
            (photos - 1) * (np.mean([forgotten(values[..., one].mean(axis=-1)) for one in others], axis=0) - seen),
        )
        cells = [f"{one.mean() / NOISE:.3f} ({one.std() / NOISE:.2f})" for one in estimates]
        rows.append([f"T = {size}, {photos} photos, {name} forgotten", f"{(seen - true).mean() / NOISE:.3f}", *cells])
    return markdown(
        ["bias of Forgetting", "true", "leave one out (photo_bias)", "halves", "bootstrap", "jackknife"], rows
    )


def evaluated_on(values: np.ndarray, photos: list[int]) -> np.ndarray:
    """Forgetting (lower is better) whose best t is chosen on the other photos."""
    size = values.shape[-2]
    here = values[..., photos].mean(axis=-1)
    there = np.delete(values, photos, axis=-1).mean(axis=-1)
    drops = []
    for k in range(size - 1):
        best = there[..., k : size - 1, k].argmin(axis=-1)[..., None]
        drops.append(here[..., -1, k] - np.take_along_axis(here[..., k : size - 1, k], best, axis=-1)[..., 0])
    return np.mean(drops, axis=0)


def run(part: str, seed: int, simulations: int, cluster_simulations: int) -> str:
    """One part's table."""
    rng, tally = np.random.default_rng(seed), Tally()
    if part == "near-duplicates":
        return near_duplicates(rng, simulations)
    if part == "photo-bias":
        return estimated_bias(rng, simulations)
    if part == "noise-free":
        noise_free(tally, rng, simulations)
        return tally.table("Student t, noise-free truth (nominal 95%)", " = ")
    if part == "clusters":
        clusters(tally, rng, cluster_simulations)
    else:
        simple(tally, rng, simulations)
        effects(tally, rng, simulations)
    return tally.table()


PARTS = ("intervals", "clusters", "near-duplicates", "noise-free", "photo-bias")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="one table (default: all)")
    parser.add_argument("--simulations", type=int, default=2_000, help="per column")
    parser.add_argument("--cluster-simulations", type=int, default=300, help="the same for the cluster bootstrap")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for part in (arguments.part,) if arguments.part else PARTS:
        start = time.process_time()
        print(run(part, arguments.seed, arguments.simulations, arguments.cluster_simulations))
        tries = arguments.cluster_simulations if part == "clusters" else arguments.simulations
        print(f"\n{part}: {tries:,} simulations per column (a share of 95 is known to about "
              f"+-{1.96 * (0.95 * 0.05 / tries) ** 0.5:.1%}), processor time {time.process_time() - start:.0f} s.\n",
              flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
