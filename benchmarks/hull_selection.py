"""ER-Hull's choice: ours against a plain rendering of the reference procedure, on the same latents and subsets.

    python benchmarks/hull_selection.py [--plain-subsets 20] [--seed 0]

The plain procedure is written from the protocol: for each subset and each candidate left out, a generic constrained
optimiser (scipy's SLSQP, with the exact gradient, from equal weights) looks for the nearest point of the hull, in
plain loops. It is timed on some of the subsets and extrapolated to all of them, and it is spared the reference's PCA
and Qhull, so the ratio is on the cautious side. Times are processor time; set OPENBLAS_NUM_THREADS=1 for one core.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from scipy.optimize import minimize

from clstudy.strategies import make_items
from clstudy.strategies.balance import draw_subsets
from clstudy.strategies.convex_hull import best_subset, score_subsets

W_DIM = 512
NEW_PHOTOS = 20
SETTINGS = ((3, 1), (3, 3), (5, 2), (5, 4), (10, 1), (10, 2), (10, 4))  # (K, earlier timestamps): n = K + 20


def plain_distance(point: np.ndarray, vertices: np.ndarray) -> float:
    """Distance of a point ``[d]`` to the hull of vertices ``[k, d]`` by a generic optimiser."""
    k = len(vertices)
    scale = np.square(vertices - point).sum(axis=1).mean()
    found = minimize(
        lambda a: np.square(a @ vertices - point).sum() / scale,
        np.full(k, 1 / k),
        jac=lambda a: 2 * vertices @ (a @ vertices - point) / scale,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * k,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1.0, "jac": lambda a: np.ones(k)},
        options={"ftol": 1e-13, "maxiter": 500},
    )
    weights = np.maximum(found.x, 0.0)
    return float(np.linalg.norm(weights / weights.sum() @ vertices - point))


def plain_score(latents: np.ndarray, groups: np.ndarray, spread: np.ndarray, subset: np.ndarray) -> float:
    """The protocol's score of one subset, in plain loops."""
    per_timestamp = []
    for timestamp in np.unique(groups):
        outside = [i for i in np.flatnonzero(groups == timestamp) if i not in subset]
        if outside:
            per_timestamp.append(np.mean([plain_distance(latents[i], latents[subset]) for i in outside]))
        else:
            per_timestamp.append(spread[groups == timestamp].mean())
    return float(np.mean(per_timestamp))


def person(capacity: int, earlier: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents of one person: a buffer of ``capacity`` photos from earlier timestamps, and 20 new ones."""
    sizes = [len(part) for part in np.array_split(np.arange(capacity), earlier)] + [NEW_PHOTOS]
    centre = rng.normal(size=W_DIM)
    items = []
    for timestamp, size in enumerate(sizes):
        occasion = centre + 0.7 * rng.normal(size=W_DIM)
        latents = occasion + 0.5 * rng.normal(size=(NEW_PHOTOS, W_DIM))
        items += make_items(timestamp, [f"{i:02d}" for i in range(NEW_PHOTOS)], latents)[:size]
    return (
        np.stack([item.latent for item in items]).astype(np.float64),
        np.array([item.timestamp for item in items]),
        np.array([item.spread for item in items]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain-subsets", type=int, default=20, help="subsets on which the plain procedure is timed")
    parser.add_argument("--seed", type=int, default=0, help="of the latents and of the subsets")
    arguments = parser.parse_args()

    print(f"latents float64 [n, {W_DIM}]; plain procedure extrapolated from {arguments.plain_subsets} subsets")
    print("  K  earlier   n  subsets |  draw s  choose s  score all s |   plain s    ratio | largest score error  best")
    for capacity, earlier in SETTINGS:
        rng = np.random.default_rng([arguments.seed, capacity, earlier])
        latents, groups, spread = person(capacity, earlier, rng)

        started = time.process_time()
        subsets = draw_subsets(groups, capacity, 5000, rng)
        drawn = time.process_time()
        best = best_subset(latents, groups, spread, subsets)
        chosen = time.process_time()
        scores = score_subsets(latents, groups, spread, subsets)
        scored = time.process_time()

        sample = np.sort(rng.permutation(len(subsets))[: arguments.plain_subsets])
        plain_started = time.process_time()
        plain = np.array([plain_score(latents, groups, spread, subset) for subset in subsets[sample]])
        plain_seconds = (time.process_time() - plain_started) * len(subsets) / len(sample)

        error = float(np.abs(plain / scores[sample] - 1).max())
        same = best == scores.argmin() and best_subset(latents, groups, spread, subsets[sample]) == plain.argmin()
        print(
            f"{capacity:3d}  {earlier:7d} {len(groups):3d}  {len(subsets):7d} |"
            f" {drawn - started:7.3f} {chosen - drawn:9.3f} {scored - chosen:12.3f} |"
            f" {plain_seconds:9.1f} {plain_seconds / (chosen - drawn):8.0f} |"
            f" {error:19.1e}  {'same' if same else 'DIFFERENT'}",
            flush=True,
        )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB (Linux)")


if __name__ == "__main__":
    main()
