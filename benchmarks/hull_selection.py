"""ER-Hull's choice: ours against a plain rendering of the reference procedure, on the same latents and subsets.

    python -m benchmarks.hull_selection [--plain-subsets 20] [--small-cases 200] [--seed 0] [--device cpu|cuda]

The plain procedure is written from the protocol: for each subset and each candidate left out, a generic constrained
optimiser (scipy's SLSQP, with the exact gradient, from equal weights) looks for the nearest point of the hull, in
plain loops. It is timed on some of the subsets and extrapolated to all of them, and it is spared the reference's PCA
and Qhull, so the ratio is on the cautious side. Times are processor time; set OPENBLAS_NUM_THREADS=1 for one core.
With n = 500 candidates it is timed on an eighth of those subsets, since each takes many times longer.

The last columns are about quality: the score reached by the best random subset (er_hull), by the exchanges that
start from it (er_hull_refined), and the seconds of the whole refined choice; they are left out where the random
subsets are all there are. Then small random cases, in which the best of all balanced subsets is known but only a few
may be drawn: how often each finds it.

``--device cuda`` adds the choice on a GPU (elapsed time): bounds on all scores there, in float64, and the exact
scores of those few subsets that the bounds cannot rule out here, so that the choice is the same.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from benchmarks.checkout import module
from clstudy.strategies import make_items
from clstudy.strategies.balance import count_subsets, draw_subsets, enumerate_subsets

if TYPE_CHECKING:  # torch is imported on request only: it would be most of the memory
    import torch

_HULL = module("hull")
best_subset, score_subsets, select_hull_subset = _HULL.best_subset, _HULL.score_subsets, _HULL.select_hull_subset

W_DIM = 512
NEW_PHOTOS = 20
# (K, sizes of the timestamps): a buffer of K photos and 20 new ones; and many candidates at once.
SETTINGS = (
    (3, (3, 20)),
    (3, (1, 1, 1, 20)),
    (5, (3, 2, 20)),
    (5, (2, 1, 1, 1, 20)),
    (10, (10, 20)),
    (10, (5, 5, 20)),
    (10, (3, 3, 2, 2, 20)),
    (10, (20,) * 25),
    (10, (5, 5, 490)),
)
SMALL_SUBSETS = 30  # drawn at most in the small cases, of up to 5,000
_TIE = 1e-10
_BLOCK = 2**24  # numbers per array on the GPU


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


def person(
    sizes: tuple[int, ...], rng: np.random.Generator, w_dim: int = W_DIM
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents ``[n, w_dim]``, timestamps and spreads of one person's candidates, so many of each timestamp."""
    centre = rng.normal(size=w_dim)
    items = []
    for timestamp, size in enumerate(sizes):
        photos = max(size, NEW_PHOTOS)  # a buffer keeps some of its timestamp's
        latents = centre + 0.7 * rng.normal(size=w_dim) + 0.5 * rng.normal(size=(photos, w_dim))
        items += make_items(timestamp, [f"{i:03d}" for i in range(photos)], latents)[:size]
    return (
        np.stack([item.latent for item in items]).astype(np.float64),
        np.array([item.timestamp for item in items]),
        np.array([item.spread for item in items]),
    )


def torch_best_subset(
    latents: np.ndarray,
    groups: np.ndarray,
    spread: np.ndarray,
    subsets: np.ndarray,
    device: str,
    sweeps: int = 16,
) -> tuple[int, int]:
    """``best_subset`` with the bounds on a torch device.

    Returns:
        The row of the best subset, and how many subsets were solved exactly.
    """
    import torch

    points = torch.as_tensor(latents - latents.mean(axis=0), dtype=torch.float64, device=device)
    scale = points.abs().max()
    scale = torch.where(scale > 0, scale, 1.0)
    gram = (points / scale) @ (points / scale).T
    chosen = torch.as_tensor(subsets, device=device)
    _, labels = np.unique(groups, return_inverse=True)
    member = torch.nn.functional.one_hot(torch.as_tensor(labels, device=device)).double()  # [n, timestamps]
    mean_spread = torch.as_tensor(spread, device=device) @ member / member.sum(dim=0)
    bounds = [
        torch_bounds(gram, scale, block, member, mean_spread, sweeps)
        for block in chosen.split(max(1, _BLOCK // (len(latents) * subsets.shape[1])))
    ]
    lower, upper = (torch.cat(part) for part in zip(*bounds, strict=True))
    matter = np.flatnonzero((lower <= upper.min() * (1 + 2 * _TIE) + 1e-12 * scale).cpu().numpy())
    return int(matter[best_subset(latents, groups, spread, subsets[matter])]), len(matter)


def torch_bounds(
    gram: torch.Tensor,
    scale: torch.Tensor,
    subsets: torch.Tensor,
    member: torch.Tensor,
    mean_spread: torch.Tensor,
    sweeps: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lower and upper bounds ``[m]`` on the scores of subsets ``[m, k]``.

    Weights in the affine hulls are made feasible by coordinate ascent in the multipliers of a >= 0, as in
    ``hull.distance``. Any weights of sum 1 give a lower bound, by the plane through the nearest vertex; any feasible
    ones give an upper bound.

    Args:
        gram: inner products of the centred latents, divided by ``scale`` squared, ``[n, n]``.
        scale: what distances shrank by.
        subsets: candidate indices ``[m, k]``.
        member: 1 where a candidate is of a timestamp, ``[n, timestamps]``.
        mean_spread: what a timestamp contributes that lies wholly in the subset, ``[timestamps]``.
        sweeps: coordinate steps for each vertex.
    """
    import torch

    k = subsets.shape[1]
    inner = gram[subsets[:, :, None], subsets[:, None, :]]  # [m, k, k]
    cross = gram[subsets]  # [m, k, n]: the members too, which weigh nothing below
    square = gram.diagonal()
    ridge = torch.ones_like(inner) + 1e-9 * torch.eye(k, dtype=gram.dtype, device=gram.device)
    mean = square.mean()
    inverse = torch.linalg.inv(inner + torch.where(mean > 0, mean, 1.0) * ridge)
    ones = inverse.sum(dim=2)
    affine = ones / ones.sum(dim=1, keepdim=True)
    form = inverse - ones[:, :, None] * affine[:, None, :]
    weights = form @ cross + affine[:, :, None]
    multipliers = torch.zeros_like(weights)
    tiny = torch.finfo(gram.dtype).tiny
    for _ in range(sweeps):
        for i in range(k):
            step = torch.maximum(-weights[:, i] / form[:, i, i, None].clamp_min(tiny), -multipliers[:, i])
            multipliers[:, i] += step
            weights += form[:, :, i, None] * step[:, None]

    largest = gram.diagonal().max()
    outside = torch.ones(len(subsets), len(gram), dtype=gram.dtype, device=gram.device).scatter_(1, subsets, 0.0)
    left_out = outside @ member
    share = (1.0 / (member.shape[1] * left_out.clamp_min(1.0))) @ member.T * outside  # [m, n]
    constant = ((left_out == 0) * mean_spread).mean(dim=1)

    def distances(weights: torch.Tensor, bound: str) -> torch.Tensor:
        product = inner @ weights
        along = square - (weights * cross).sum(dim=1)
        norm = along - (weights * (cross - product)).sum(dim=1)
        unsure = 1e-13 * largest * (1.0 + weights.abs().sum(dim=1)).square()  # rounding of these sums, generously
        if bound == "upper":
            return (norm.clamp_min(0.0) + unsure).sqrt()
        plane = along - (cross - product).amax(dim=1)
        return (plane - unsure).clamp_min(0.0) / (norm.clamp_min(0.0) + unsure + tiny).sqrt()

    feasible = weights.clamp_min(0.0)
    feasible /= feasible.sum(dim=1, keepdim=True)
    lower, upper = distances(weights, "lower"), distances(feasible, "upper")
    return scale * (share * lower).sum(dim=1) + constant, scale * (share * upper).sum(dim=1) + constant


def small_cases(count: int, seed: int) -> tuple[int, int, int, float]:
    """Draw cases in which all balanced subsets can be scored but only few are drawn.

    Returns:
        How often the best random subset is the best of all, how often the refined one is, how often the refined
        one is worse than the random one, and the seconds that the refined choices took.
    """
    random_hits = hits = worse = done = 0
    seconds = 0.0
    rng = np.random.default_rng([seed, count])
    while done < count:
        sizes = tuple(rng.integers(1, 8, size=rng.integers(1, 5)).tolist()) + (int(rng.integers(4, 13)),)
        capacity = int(rng.integers(2, 7))
        latents, groups, spread = person(sizes, rng, int(rng.choice([2, 3, 5, 16, W_DIM])))
        if not SMALL_SUBSETS < count_subsets(groups, capacity) <= 5000:
            continue
        best = score_subsets(latents, groups, spread, enumerate_subsets(groups, capacity)).min()
        draw = int(rng.integers(2**32))

        def choose(refine: bool, *case, draw: int = draw) -> np.ndarray:
            generator = np.random.default_rng(draw)
            return select_hull_subset(*case, rng=generator, num_subsets=SMALL_SUBSETS, refine=refine)

        started = time.process_time()
        refined = choose(True, latents, groups, spread, capacity)
        seconds += time.process_time() - started
        random = choose(False, latents, groups, spread, capacity)
        random_score, score = score_subsets(latents, groups, spread, np.stack([random, refined]))
        same = best * (1 + 1e-9) + 1e-12  # rounding
        random_hits += bool(random_score <= same)
        hits += bool(score <= same)
        worse += bool(score > random_score * (1 + 1e-9) + 1e-12)
        done += 1
    return random_hits, hits, worse, seconds


def compare(sizes: tuple[int, ...], capacity: int, plain_subsets: int, seed: int, cuda: bool) -> str:
    """One row of the table: K = ``capacity`` of candidates of which each timestamp has so many."""
    latents, groups, spread = person(sizes, np.random.default_rng([seed, capacity, len(sizes)]))
    case = (latents, groups, spread)

    marks = [time.process_time()]
    subsets = draw_subsets(groups, capacity, 5000, np.random.default_rng(seed))
    marks.append(time.process_time())
    best = best_subset(*case, subsets)
    marks.append(time.process_time())
    scores = score_subsets(*case, subsets)
    marks.append(time.process_time())
    refined = select_hull_subset(*case, capacity, rng=np.random.default_rng(seed), refine=True)
    marks.append(time.process_time())
    draw_seconds, choose_seconds, score_seconds, refine_seconds = np.diff(marks)

    # At least 2, or the best of them would be no test.
    sample = np.random.default_rng(seed).permutation(len(subsets))
    sample = np.sort(sample[: max(2, plain_subsets // (8 if len(groups) > 100 else 1))])
    started = time.process_time()
    plain = np.array([plain_score(*case, subset) for subset in subsets[sample]])
    plain_seconds = (time.process_time() - started) * len(subsets) / len(sample)

    error = float(np.abs(plain / scores[sample] - 1).max())
    agree = best == scores.argmin() and best_subset(*case, subsets[sample]) == plain.argmin()
    same = "same" if agree else "DIFFERENT"
    row = (
        f"{capacity:3d} {len(sizes):6d} {len(groups):4d}  {len(subsets):7d} |"
        f" {draw_seconds:6.3f} {choose_seconds:8.3f} {score_seconds:11.3f} |"
        f" {plain_seconds:8.1f} {plain_seconds / choose_seconds:6.0f}  {error:7.1e}  {same} |"
    )
    if count_subsets(groups, capacity) > len(subsets):
        row += f" {scores[best]:9.5f} {score_subsets(*case, [refined])[0]:9.5f} {refine_seconds:8.2f}"
    else:
        row += f" {scores[best]:9.5f}  (these are all)   "
    if cuda:
        torch_best_subset(*case, subsets, "cuda")  # what is set up at the first call is not counted
        started = time.perf_counter()
        row_there, solved = torch_best_subset(*case, subsets, "cuda")
        seconds = time.perf_counter() - started
        row += f" | {seconds:6.3f} {solved:6d}  {'same' if row_there == best else 'DIFFERENT'}"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain-subsets", type=int, default=20, help="subsets on which the plain procedure is timed")
    parser.add_argument("--small-cases", type=int, default=200, help="cases compared with exhaustive search")
    parser.add_argument("--seed", type=int, default=0, help="of the latents and of the subsets")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: choose on a GPU as well")
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            print(
                f"--device cuda: torch {torch.__version__} sees no CUDA GPU here; use --device cpu, or run this where "
                "`python -c 'import torch; print(torch.cuda.is_available())'` prints True",
                file=sys.stderr,
            )
            raise SystemExit(2)

    print(f"latents float64 [n, {W_DIM}]; plain procedure extrapolated from {arguments.plain_subsets} subsets")
    header = "  K stages    n  subsets | draw s choose s score all s |  plain s  ratio    error  best |"
    header += "    random   refined refine s"
    print(header + (" | cuda s solved  best" if arguments.device == "cuda" else ""))
    for capacity, sizes in SETTINGS:
        cuda = arguments.device == "cuda"
        print(compare(sizes, capacity, arguments.plain_subsets, arguments.seed, cuda), flush=True)

    count = arguments.small_cases
    random_hits, hits, worse, seconds = small_cases(count, arguments.seed)
    print(f"\n{count} small cases, {SMALL_SUBSETS} random subsets each, against the best of all balanced subsets:")
    print(f"  best random subset  optimal in {random_hits:4d} ({random_hits / max(count, 1):.1%})")
    print(f"  refined             optimal in {hits:4d} ({hits / max(count, 1):.1%}), worse than random in {worse}")
    print(f"  {seconds / max(count, 1):.3f} s of processor time per refined choice")
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB (Linux)")


if __name__ == "__main__":
    main()
