"""Exchange search against exhaustive search, and the GPU's bounds (here on the CPU) against the exact choice."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clstudy.strategies.balance import count_subsets, draw_subset, draw_subsets, enumerate_subsets, is_balanced
from clstudy.strategies.hull.refinement import balanced_exchanges, exchange_search
from clstudy.strategies.hull.subsets import best_subset, score_subsets, select_hull_subset
from tests.strategies.test_convex_hull import of_kind

CASES = 60  # benchmarks/hull_selection.py does it with 200
FEW = 30

_spec = importlib.util.spec_from_file_location(
    "hull_selection", Path(__file__).parents[2] / "benchmarks" / "hull_selection.py"
)
assert _spec is not None and _spec.loader is not None
benchmark = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(benchmark)

Case = tuple[np.ndarray, np.ndarray, np.ndarray]


def candidates(rng: np.random.Generator, sizes: list[int], d: int) -> Case:
    """Latents around a centre of each timestamp, timestamps with gaps between them, spreads."""
    groups = np.repeat(2 * np.arange(len(sizes)), sizes)
    latents = 1.5 * rng.normal(size=(len(sizes), d))[groups // 2] + rng.normal(size=(len(groups), d))
    return latents, groups, rng.random(len(groups))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    capacity=st.integers(1, 8),
)
def test_exchanges_are_all_balanced_neighbours(seed, sizes, capacity):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    subset = draw_subset(groups, capacity, np.random.default_rng(seed))
    rows = balanced_exchanges(subset, groups)
    every = enumerate_subsets(groups, capacity)
    neighbours = every[np.isin(every, subset).sum(axis=1) == len(subset) - 1]
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, neighbours.tolist()))
    assert all(is_balanced(groups, row, capacity) for row in rows)


@pytest.mark.parametrize("cases", [15, pytest.param(CASES, marks=[pytest.mark.slow, pytest.mark.ci_slow], id="many")])
def test_refinement_finds_the_optimum_and_is_never_worse_than_random(cases):
    rng = np.random.default_rng(11)
    optimal = done = 0
    while done < cases:
        sizes = [*rng.integers(1, 8, size=rng.integers(0, 5)).tolist(), int(rng.integers(4, 13))]
        case = candidates(rng, sizes, int(rng.choice([2, 3, 5, 16, 512])))
        capacity, seed = int(rng.integers(2, 7)), int(rng.integers(2**32))
        if not FEW < count_subsets(case[1], capacity) <= 3000:
            continue
        random, refined = (
            select_hull_subset(*case, capacity, rng=np.random.default_rng(seed), num_subsets=FEW, refine=refine)
            for refine in (False, True)
        )
        best = score_subsets(*case, enumerate_subsets(case[1], capacity)).min()
        random_score, score = score_subsets(*case, np.stack([random, refined]))
        assert is_balanced(case[1], refined, capacity)
        assert score <= random_score * (1 + 1e-9) + 1e-12
        optimal += bool(score <= best * (1 + 1e-9) + 1e-12)
        done += 1
    assert optimal >= int(0.95 * cases), f"optimal in {optimal} of {cases}"


def test_where_all_subsets_can_be_tried_they_are():
    rng = np.random.default_rng(0)
    case = candidates(rng, [3, 3, 6], 20)
    every = enumerate_subsets(case[1], 4)
    chosen = select_hull_subset(*case, 4, rng=rng, num_subsets=len(every), refine=True)
    np.testing.assert_array_equal(chosen, every[score_subsets(*case, every).argmin()])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    capacity=st.integers(1, 6),
    d=st.sampled_from([1, 2, 5, 40]),
    kind=st.sampled_from(["people", "repeated", "grid", "equal"]),
)
def test_no_exchange_improves_a_refined_choice(seed, sizes, capacity, d, kind):
    rng = np.random.default_rng(seed)
    latents, groups, spread = candidates(rng, sizes, d)
    latents = of_kind(kind, latents, rng)
    case = (latents, groups, spread)

    generators = [np.random.default_rng(seed) for _ in range(3)]
    random = select_hull_subset(*case, capacity, rng=generators[0], num_subsets=10)
    refined = select_hull_subset(*case, capacity, rng=generators[1], num_subsets=10, refine=True)
    again = select_hull_subset(*case, capacity, rng=generators[2], num_subsets=10, refine=True)
    np.testing.assert_array_equal(refined, again)
    assert generators[0].bit_generator.state == generators[1].bit_generator.state  # the same subsets were drawn
    assert is_balanced(groups, refined, capacity)
    neighbours = balanced_exchanges(refined, groups)
    scores = score_subsets(*case, np.concatenate([refined[None], random[None], neighbours]))
    assert scores[0] <= scores.min() * (1 + 1e-9) + 1e-12


def test_a_search_that_cannot_improve_returns_its_first_start():
    groups = np.array([0, 0, 1, 1])
    starts = np.array([[0, 2], [1, 3]])

    def flat(subsets: np.ndarray, below: float) -> tuple[int, float] | None:
        return (0, 1.0) if below > 1.0 else None

    np.testing.assert_array_equal(exchange_search(starts, groups, flat), [0, 2])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(2, 7), min_size=1, max_size=4),
    capacity=st.integers(1, 8),
    d=st.sampled_from([1, 3, 40]),
    repeated=st.booleans(),
)
def test_bounds_for_the_gpu_keep_the_choice(seed, sizes, capacity, d, repeated):
    rng = np.random.default_rng(seed)
    latents, groups, spread = candidates(rng, sizes, d)
    if repeated:
        latents = latents[rng.integers(len(latents), size=len(latents))]
    subsets = draw_subsets(groups, capacity, 200, rng)
    row, solved = benchmark.torch_best_subset(latents, groups, spread, subsets, "cpu")
    assert row == best_subset(latents, groups, spread, subsets)
    assert 1 <= solved <= len(subsets)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")
def test_the_benchmark_says_that_there_is_no_gpu(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["hull_selection.py", "--device", "cuda"])
    with pytest.raises(SystemExit) as exit_:
        benchmark.main()
    assert exit_.value.code == 2
    assert "--device cpu" in capsys.readouterr().err
