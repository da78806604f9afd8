"""What single strategies choose, what items and memories are, what the balance rule draws.

The contract that all strategies share is in test_conformance.py.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clstudy.errors import UserError
from clstudy.strategies import STRATEGIES, Item, Memory, candidates, make_items, memory_from_dict, memory_to_dict
from clstudy.strategies.balance import (
    count_subsets,
    draw_subset,
    draw_subsets,
    enumerate_subsets,
    is_balanced,
)
from clstudy.strategies.gdumb import greedy_balance
from clstudy.strategies.herding import herding_order
from clstudy.strategies.hull.subsets import score_subsets
from clstudy.strategies.k_center import farthest_first
from clstudy.strategies.kmeans import kmeans_centroids, nearest_unused

NAMES = list(STRATEGIES)


def photos(timestamp: int, count: int, seed: int = 0, w_dim: int = 12) -> list[Item]:
    rng = np.random.default_rng([seed, timestamp])
    latents = rng.normal(size=w_dim) + rng.normal(size=(count, w_dim))
    digests = [rng.bytes(8).hex() for _ in range(count)]
    return make_items(timestamp, digests, latents)


def keys(items) -> list[tuple[int, str]]:
    return [(item.timestamp, item.digest) for item in items]


def fold(name: str, counts: list[int], capacity: int, seed: int = 0, draws: int | None = None) -> list[Memory]:
    """The memory after each timestamp of a trial; ``draws``: seed of the draws, where photos stay the same."""
    memory, memories = Memory(), []
    for timestamp, count in enumerate(counts):
        rng = np.random.default_rng([seed if draws is None else draws, timestamp])
        memory = STRATEGIES[name]().select(memory, photos(timestamp, count, seed), capacity, rng)
        memories.append(memory)
    return memories


# All of them


def test_the_studys_strategies_are_registered():
    assert {"lower", "upper", "er_rand", "er_hull", "kmeans"} <= set(NAMES)
    assert {"gdumb", "reservoir", "herding", "k_center", "mergan_jtr", "mergan_ra", "ewc"} <= set(NAMES)
    with pytest.raises(UserError, match="er_hull"):
        STRATEGIES["er_hul"]


def test_only_the_upper_bound_is_joint():
    assert [name for name in NAMES if STRATEGIES[name].joint] == ["upper"]


@pytest.mark.parametrize("name", [name for name in NAMES if STRATEGIES[name].stores_items()])
def test_odd_requests(name):
    strategy, rng = STRATEGIES[name](), np.random.default_rng(0)
    new = photos(0, 6)
    assert keys(strategy.select(Memory(), new, 99, rng).items) == sorted(keys(new))
    assert len(strategy.select(Memory(), new + new, 6, rng).items) == 6  # a photo that comes twice is one candidate
    assert len(strategy.select(Memory(), new + new, 4, rng).items) == 4
    with pytest.raises(ValueError, match="capacity of 0"):
        strategy.select(Memory(), new, 0, rng)


def test_er_rand_depends_on_the_seed():
    new = photos(0, 9)
    buffers = {
        tuple(keys(STRATEGIES["er_rand"]().select(Memory(), new, 3, np.random.default_rng(seed)).items))
        for seed in range(20)
    }
    assert len(buffers) > 10


# Items and memories


def test_spread_is_the_mean_distance_to_the_others():
    items = make_items(3, ["a", "b", "c"], [[0.0, 0.0], [3.0, 4.0], [0.0, 8.0]])
    assert [item.spread for item in items] == pytest.approx([(5 + 8) / 2, (5 + 5) / 2, (8 + 5) / 2])
    assert make_items(0, ["alone"], [[1.0, 2.0]])[0].spread == 0.0
    assert items[0].timestamp == 3 and items[0].latent.dtype == np.float32


def test_bad_items_are_refused():
    with pytest.raises(ValueError, match="2 photos"):
        make_items(0, ["a", "b"], np.zeros((3, 4)))
    with pytest.raises(ValueError, match="finite"):
        make_items(0, ["a"], [[np.nan, 0.0]])
    with pytest.raises(ValueError, match="spread"):
        Item("a", 0, np.zeros(2, dtype=np.float32), float("nan"))


def test_items_do_not_change():
    latents = np.zeros((1, 3), dtype=np.float32)
    item = make_items(0, ["a"], latents)[0]
    latents[0, 0] = 5.0
    assert item.latent[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        item.latent[0] = 1.0


def test_memory_survives_json_bit_for_bit():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(4, 512)).astype(np.float32)
    latents[0, :3] = [np.finfo(np.float32).tiny, -0.0, 1e-45]
    memory = Memory(items=candidates(Memory(), make_items(2, list("dbca"), latents)), state={"seen": 12})
    text = json.dumps(memory_to_dict(memory), sort_keys=True)
    again = memory_from_dict(json.loads(text))
    assert again == memory
    assert json.dumps(memory_to_dict(again), sort_keys=True) == text
    for one, two in zip(memory.items, again.items, strict=True):
        assert one.latent.tobytes() == two.latent.tobytes() and one.spread == two.spread


def test_candidates_are_in_canonical_order():
    old, new = photos(0, 3), photos(1, 4)
    pool = candidates(Memory(items=tuple(old[::-1])), new[::-1])
    assert keys(pool) == sorted(keys(old + new))


# The balance rule


def brute_force(groups: np.ndarray, capacity: int) -> list[tuple[int, ...]]:
    """Balanced by definition: a timestamp may have 2 fewer than another only if it gave all it has."""
    size = min(capacity, len(groups))
    available = Counter(groups.tolist())
    found = []
    for subset in combinations(range(len(groups)), size):
        counts = Counter(groups[list(subset)].tolist())
        most = max(counts.values())
        if all(counts[group] >= min(most - 1, number) for group, number in available.items()):
            found.append(subset)
    return found


@settings(max_examples=80, deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), capacity=st.integers(1, 9), seed=st.integers(0, 99))
def test_balanced_subsets_are_those_of_the_definition(sizes, capacity, seed):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)) * 5, sizes))[:11]
    expected = brute_force(groups, capacity)
    assert [tuple(row) for row in enumerate_subsets(groups, capacity).tolist()] == expected
    assert count_subsets(groups, capacity) == len(expected)
    drawn = draw_subsets(groups, capacity, 15, rng)
    assert len(drawn) == min(15, len(expected)) == len({tuple(row) for row in drawn.tolist()})
    assert {tuple(row) for row in drawn.tolist()} <= set(expected)
    assert tuple(draw_subset(groups, capacity, rng).tolist()) in set(expected)
    assert all(is_balanced(groups, np.array(subset), capacity) for subset in expected)


def test_unbalanced_subsets_are_recognised():
    groups = np.array([0, 0, 0, 1, 1, 1])
    assert is_balanced(groups, np.array([0, 1, 3]), 3)
    assert not is_balanced(groups, np.array([0, 1, 2]), 3)
    assert not is_balanced(groups, np.array([0, 3]), 3)
    assert not is_balanced(groups, np.array([0, 0, 3]), 3)


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Pearson's statistic in units of its standard deviation from its mean."""
    expected = counts.sum() * probabilities
    freedom = len(counts) - 1
    return float((np.square(counts - expected) / expected).sum() - freedom) / np.sqrt(2 * freedom)


@pytest.mark.parametrize(("sizes", "capacity"), [([2, 1, 6], 2), ([2, 2, 5], 4), ([1, 3, 5], 7)])
def test_subsets_are_drawn_in_two_steps(sizes, capacity):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    subsets = [tuple(row) for row in enumerate_subsets(groups, capacity).tolist()]
    counts_of = [tuple(np.bincount(groups[list(subset)], minlength=len(sizes)).tolist()) for subset in subsets]
    per_share = Counter(counts_of)
    probabilities = np.array([1 / len(per_share) / per_share[share] for share in counts_of])  # shares are uniform
    rng = np.random.default_rng(11)
    drawn = Counter(tuple(draw_subset(groups, capacity, rng).tolist()) for _ in range(6000))
    assert abs(chi_square(np.array([drawn[subset] for subset in subsets]), probabilities)) < 4


@pytest.mark.parametrize(("capacity", "count"), [(3, 2), (4, 60)])  # rejection, and the race over all subsets
def test_distinct_subsets_follow_the_same_law(capacity, count):
    """The first of several distinct subsets is distributed like a single one."""
    groups = np.repeat([0, 1, 2], [2, 2, 9])
    subsets = [tuple(row) for row in enumerate_subsets(groups, capacity).tolist()]
    counts_of = [tuple(np.bincount(groups[list(subset)]).tolist()) for subset in subsets]
    per_share = Counter(counts_of)
    probabilities = np.array([1 / len(per_share) / per_share[share] for share in counts_of])
    rng = np.random.default_rng(5)
    first = Counter(tuple(draw_subsets(groups, capacity, count, rng)[0].tolist()) for _ in range(1500))
    assert abs(chi_square(np.array([first[subset] for subset in subsets]), probabilities)) < 4


def test_a_short_timestamp_gives_its_places_to_the_others():
    groups = np.repeat([0, 1, 2], [1, 20, 20])
    rng = np.random.default_rng(0)
    shares = Counter(tuple(np.bincount(groups[draw_subset(groups, 10, rng)]).tolist()) for _ in range(400))
    assert set(shares) == {(1, 5, 4), (1, 4, 5)}
    assert min(shares.values()) > 150


def test_many_timestamps_and_one_place():
    groups = np.repeat([0, 1], [1, 50])
    rng = np.random.default_rng(0)
    first = sum(int(draw_subset(groups, 1, rng)[0] == 0) for _ in range(400))
    assert 150 < first < 250  # uniform over timestamps, not over photos


def test_huge_numbers_of_subsets_are_counted_exactly():
    groups = np.repeat(np.arange(5), 100)
    assert count_subsets(groups, 25) == 75287520**5


# The single strategies


def test_er_hull_takes_the_best_balanced_subset():
    memory = fold("er_hull", [8, 8], 4, seed=3)[-1]
    pool = candidates(fold("er_hull", [8], 4, seed=3)[-1], photos(1, 8, seed=3))
    groups = np.array([item.timestamp for item in pool])
    latents = np.stack([item.latent for item in pool]).astype(np.float64)
    spread = np.array([item.spread for item in pool])
    subsets = enumerate_subsets(groups, 4)
    best = subsets[score_subsets(latents, groups, spread, subsets).argmin()]
    assert keys(memory.items) == [keys(pool)[index] for index in best]


def test_er_hull_leaves_less_outside_than_er_rand():
    latents = np.random.default_rng(1).normal(size=(30, 64))
    items = make_items(0, [f"{i:02d}" for i in range(30)], latents)

    def score(name: str, seed: int) -> float:
        kept = STRATEGIES[name]().select(Memory(), items, 5, np.random.default_rng(seed)).items
        subset = [int(item.digest) for item in kept]
        return float(score_subsets(latents, np.zeros(30, dtype=int), np.ones(30), [subset])[0])

    assert score("er_hull", 0) < min(score("er_rand", seed) for seed in range(10))


def test_kmeans_finds_separate_clusters():
    rng = np.random.default_rng(0)
    centres = 50 * rng.normal(size=(4, 8))
    labels = np.repeat(np.arange(4), (3, 9, 2, 6))
    latents = centres[labels] + rng.normal(size=(20, 8))
    for seed in range(5):
        centroids = kmeans_centroids(latents, 4, np.random.default_rng(seed))
        chosen = nearest_unused(latents, centroids)
        assert sorted(labels[chosen]) == [0, 1, 2, 3]
        for index in chosen:  # the photo nearest the mean of its cluster
            own = latents[labels == labels[index]]
            nearest = np.linalg.norm(own - own.mean(axis=0), axis=1).min()
            assert np.linalg.norm(latents[index] - own.mean(axis=0)) == pytest.approx(nearest)


def test_kmeans_takes_the_nearest_unused_photo():
    points = np.array([[0.0], [1.0], [5.0]])
    assert nearest_unused(points, np.array([[0.1], [0.2], [0.3]])).tolist() == [0, 1, 2]
    assert nearest_unused(points, np.array([[0.9], [0.8]])).tolist() == [1, 0]


def test_kmeans_is_not_balanced():
    latents = np.concatenate([np.zeros((6, 2)), 100 * np.eye(2)[[0, 1, 0]] * [[1], [1], [-1]]])
    items = make_items(0, [f"{i}" for i in range(6)], latents[:6]) + make_items(1, list("678"), latents[6:])
    kept = STRATEGIES["kmeans"]().select(Memory(), items, 4, np.random.default_rng(0)).items
    assert [item.timestamp for item in kept] == [0, 1, 1, 1]


def test_gdumb_is_greedy_balanced():
    held = [Counter(item.timestamp for item in memory.items) for memory in fold("gdumb", [8, 8, 8, 8], 3)]
    assert held[0] == {0: 3}
    assert held[1] == {0: 1, 1: 2}  # the second photo still finds a larger timestamp, the third does not
    assert held[2] == {0: 1, 1: 1, 2: 1}
    assert sorted(held[3].values()) == [1, 1, 1] and held[3][3] == 1  # the newest always enters


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6), capacity=st.integers(1, 12), seed=st.integers(0, 999))
def test_gdumb_is_balanced(sizes, capacity, seed):
    """Also with few photos per timestamp and fewer places than timestamps, and whatever the stream's order."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    assert is_balanced(groups, greedy_balance(groups, capacity, rng), capacity)


def test_gdumb_draws_who_goes_and_who_comes():
    memories = [fold("gdumb", [4, 4], 4, draws=seed)[-1] for seed in range(3000)]
    assert {tuple(sorted(Counter(item.timestamp for item in memory.items).items())) for memory in memories} == {
        ((0, 2), (1, 2))
    }
    kept = Counter(key for memory in memories for key in keys(memory.items))
    assert len(kept) == 8
    assert all(abs(number - 1500) < 4 * np.sqrt(3000 / 4) for number in kept.values())


def test_gdumb_ties_are_drawn():
    groups = np.array([0, 1, 2])  # one place each for 0 and 1, then 2 arrives
    gone = Counter(
        ({0, 1} - set(greedy_balance(groups, 2, np.random.default_rng(seed)).tolist())).pop() for seed in range(1000)
    )
    assert abs(gone[0] - 500) < 4 * np.sqrt(1000 / 4)


def test_reservoir_keeps_every_photo_seen_with_the_same_probability():
    counts, capacity, trials = [9, 2, 7, 6], 5, 1500
    total = sum(counts)
    kept, pairs = Counter(), Counter()
    for seed in range(trials):
        chosen = keys(fold("reservoir", counts, capacity, draws=seed)[-1].items)
        kept.update(chosen)
        pairs.update(combinations(chosen, 2))
    everything = sorted(key for t, count in enumerate(counts) for key in keys(photos(t, count)))
    share = capacity / total
    # Without replacement the counts' variances are those of a binomial; the sum is smaller by (total - 1) / total.
    counted = np.array([kept[key] for key in everything])
    statistic = (
        float((np.square(counted - trials * share) / (trials * share * (1 - share))).sum()) * (total - 1) / total
    )
    assert abs(statistic - (total - 1)) < 4 * np.sqrt(2 * (total - 1))
    pair_share = share * (capacity - 1) / (total - 1)
    counted = np.array([pairs[pair] for pair in combinations(everything, 2)])
    deviation = (counted - trials * pair_share) / np.sqrt(trials * pair_share * (1 - pair_share))
    assert np.abs(deviation).max() < 4.5 and np.square(deviation).mean() == pytest.approx(1.0, abs=0.3)


def test_reservoir_counts_what_it_saw():
    states = [memory.state for memory in fold("reservoir", [3, 20, 1], 5)]
    assert states == [{"seen": 3}, {"seen": 23}, {"seen": 24}]


def test_reservoir_goes_on_from_a_memory_read_back():
    """The count survives: without it new photos would enter too often."""
    before = fold("reservoir", [30], 4)[-1]
    read = memory_from_dict(json.loads(json.dumps(memory_to_dict(before))))
    for seed in range(20):
        one, two = (
            STRATEGIES["reservoir"]().select(memory, photos(1, 10), 4, np.random.default_rng(seed))
            for memory in (before, read)
        )
        assert one == two and one.state == {"seen": 40}


def test_reservoir_with_fewer_places_keeps_a_uniform_sample():
    before = fold("reservoir", [8], 6)[-1]
    kept = Counter()
    for seed in range(2000):
        memory = STRATEGIES["reservoir"]().select(before, photos(1, 6), 3, np.random.default_rng(seed))
        assert memory.state == {"seen": 14} and len(memory.items) == 3
        kept.update(keys(memory.items))
    old = np.array([kept[key] for key in keys(before.items)])
    assert abs(old.sum() - 2000 * 3 * 8 / 14) < 4 * np.sqrt(2000 * 3 / 4)
    assert abs(chi_square(old, np.full(6, 1 / 6))) < 4


def icarl_exemplars(features: np.ndarray, count: int) -> list[int]:
    """Algorithm 4 of iCaRL, one candidate mean at a time."""
    mean = features.mean(axis=0)
    exemplars: list[int] = []
    for k in range(1, count + 1):
        error = {
            x: np.linalg.norm(mean - (features[x] + sum((features[p] for p in exemplars), np.zeros_like(mean))) / k)
            for x in range(len(features))
            if x not in exemplars
        }
        exemplars.append(min(error, key=lambda x: error[x]))
    return exemplars


@pytest.mark.parametrize("seed", range(10))
def test_herding_order_is_icarls(seed):
    points = np.random.default_rng(seed).normal(size=(15, 6)) * np.geomspace(0.1, 10, 6)
    assert herding_order(points) == icarl_exemplars(points, 15)


def test_herding_keeps_the_heads_of_icarls_rankings():
    counts, capacity = [9, 2, 12, 7, 7], 8
    memories = fold("herding", counts, capacity, seed=4)
    ranking = {}
    for timestamp, memory in enumerate(memories):
        new = sorted(photos(timestamp, counts[timestamp], seed=4), key=lambda item: item.digest)
        latents = np.stack([item.latent for item in new]).astype(np.float64)  # all photos, most of which go
        ranking[timestamp] = [new[index].digest for index in icarl_exemplars(latents, len(new))]
        held = Counter(item.timestamp for item in memory.items)
        expected = {t: ranking[t][: held[t]] for t in sorted(held)}
        assert memory.state == {"ranking": {str(t): best for t, best in expected.items()}}
        assert {(t, digest) for t, best in expected.items() for digest in best} == set(keys(memory.items))


def test_herding_draws_the_extra_places():
    shares = Counter(
        tuple(np.bincount([item.timestamp for item in fold("herding", [6, 6], 3, draws=seed)[-1].items]).tolist())
        for seed in range(400)
    )
    assert set(shares) == {(1, 2), (2, 1)}
    assert min(shares.values()) > 150


def covering_radius(points: np.ndarray, centres) -> float:
    distances = np.linalg.norm(points[:, None] - points[list(centres)], axis=2)
    return float(distances.min(axis=1).max())


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 9), count=st.integers(1, 5), spread=st.integers(1, 6), seed=st.integers(0, 999))
def test_farthest_first_covers_within_twice_the_optimum(n, count, spread, seed):
    points = np.random.default_rng(seed).integers(-spread, spread + 1, size=(n, 2)).astype(float)  # duplicates, ties
    count = min(count, n)
    chosen = farthest_first(points, count).tolist()
    assert len(set(chosen)) == count
    best = min(covering_radius(points, centres) for centres in combinations(range(n), count))
    assert covering_radius(points, chosen) <= 2 * best + 1e-9


def test_k_center_starts_in_the_middle_and_draws_nothing():
    points = np.array([[0.0], [9.0], [4.0], [5.0], [10.0]])  # mean 5.6
    assert farthest_first(points, 5).tolist() == [3, 0, 4, 1, 2]  # 9 and 4 are equally far: the first
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    STRATEGIES["k_center"]().select(Memory(), photos(0, 9), 4, rng)
    assert rng.bit_generator.state == before
