"""Distances to convex hulls against oracles that share nothing with them, and the choice of subsets."""

from __future__ import annotations

import math
import time
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from scipy.spatial import ConvexHull

from clstudy.strategies import STRATEGIES, Memory, make_items
from clstudy.strategies.balance import draw_subsets
from clstudy.strategies.er_hull_volume import log_extents, select_volume_subset
from clstudy.strategies.hull.distance import distance_to_hull
from clstudy.strategies.hull.subsets import best_subset, score_subsets, select_hull_subset
from clstudy.strategies.hull.volume import log_volume, log_volumes


def rational_distance(point: np.ndarray, vertices: np.ndarray) -> float:
    """The distance without rounding: every support's affine minimiser in rational arithmetic, the best feasible one."""
    edges = [[Fraction(float(v)) - Fraction(float(x)) for v, x in zip(row, point, strict=True)] for row in vertices]
    gram = [[sum(a * b for a, b in zip(p, q, strict=True)) for q in edges] for p in edges]
    best: Fraction | None = None
    for size in range(1, len(edges) + 1):
        for support in combinations(range(len(edges)), size):
            weights = _rational_minimiser([[gram[i][j] for j in support] for i in support])
            if weights is None or min(weights) < 0:
                continue
            square = sum(
                (
                    a * b * gram[i][j]
                    for a, i in zip(weights, support, strict=True)
                    for b, j in zip(weights, support, strict=True)
                ),
                Fraction(0),
            )
            best = square if best is None else min(best, square)
    assert best is not None
    shift = 4 ** max(0, 80 + (best.denominator.bit_length() - best.numerator.bit_length()) // 2) if best else 1
    return float(Fraction(math.isqrt(best.numerator * shift // best.denominator), math.isqrt(shift)))


def _rational_minimiser(gram: list[list[Fraction]]) -> list[Fraction] | None:
    """Weights with sum 1 that minimise the form; None for a dependent support (a smaller one does as well)."""
    size = len(gram)
    rows = [[*row, Fraction(1), Fraction(0)] for row in gram] + [[Fraction(1)] * size + [Fraction(0), Fraction(1)]]
    for column in range(size + 1):
        pivot = next((r for r in range(column, size + 1) if rows[r][column] != 0), None)
        if pivot is None:
            return None
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [value / rows[column][column] for value in rows[column]]
        for r in range(size + 1):
            if r != column and rows[r][column] != 0:
                factor = rows[r][column]
                rows[r] = [a - factor * b for a, b in zip(rows[r], rows[column], strict=True)]
    return [rows[i][-1] for i in range(size)]


def scipy_distance(point: np.ndarray, vertices: np.ndarray) -> float:
    """Least-distance programming by Lawson and Hanson: u >= 0 nearest [E; 1] u = [0; 1], then a = u / sum u."""
    edges = (vertices - point).T
    scale = np.abs(edges).max() or 1.0
    system = np.vstack([edges / scale, np.ones(len(vertices))])
    weights, _ = nnls(system, np.append(np.zeros(len(edges)), 1.0), maxiter=10_000)
    return float(np.linalg.norm(edges @ (weights / weights.sum())))


def reach(points: np.ndarray, vertices: np.ndarray) -> float:
    return float(max(np.linalg.norm(points[:, None] - vertices[None], axis=2).max(), 1e-300))


def assert_exact(points: np.ndarray, vertices: np.ndarray) -> None:
    ours = distance_to_hull(points, vertices)
    true = np.array([rational_distance(point, vertices) for point in points])
    # 1e-8 relative, down to what 64-bit coordinates can express
    np.testing.assert_allclose(ours, true, rtol=1e-8, atol=1e-14 * reach(points, vertices))


grid = st.integers(-3, 3).map(float)  # coincidences, dependent vertices and points on faces all over


@st.composite
def on_a_grid(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    k, d, n = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(grid, min_size=d, max_size=d), min_size=k + n, max_size=k + n))
    return np.array(rows[:n]), np.array(rows[n:])


@st.composite
def adversarial(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    k, d, n = draw(st.integers(1, 5)), draw(st.integers(1, 6)), 3
    vertices, points = rng.normal(size=(k, d)), rng.normal(size=(n, d))
    kind = draw(
        st.sampled_from(
            ["random", "inside", "on a face", "repeated", "flat", "nearly flat", "needle", "scales", "extremes", "far"]
        )
    )
    small = 10.0 ** draw(st.integers(-12, -2))
    if kind in ("inside", "on a face"):
        face = vertices if kind == "inside" else vertices[: max(1, k - 1)]
        points = rng.dirichlet(np.ones(len(face)), n) @ face
    elif kind == "repeated":
        vertices = vertices[rng.integers(k, size=k)]
        points[0] = vertices[0]
    elif kind == "flat":  # more vertices than the hull has dimensions, some points in its plane
        plane = rng.normal(size=(min(d, max(1, k - 2)), d))
        vertices = rng.normal(size=(k, len(plane))) @ plane
        points[0] = rng.normal(size=len(plane)) @ plane
    elif kind == "nearly flat":
        vertices[-1] = rng.dirichlet(np.ones(k)) @ vertices + small * vertices[-1]
    elif kind == "needle":
        vertices = rng.normal(size=(k, 1)) * rng.normal(size=d) + small * vertices
        points = rng.dirichlet(np.ones(k), n) @ vertices + 10.0 ** draw(st.integers(-9, 0)) * points
    elif kind == "scales":
        scales = 10.0 ** rng.integers(-3, 4, size=d)
        vertices, points = vertices * scales, points * scales
    elif kind == "extremes":
        scales = 10.0 ** rng.integers(-10, 11, size=d)
        vertices, points = vertices * scales, points * scales
    elif kind == "far":
        vertices, points = vertices + 1e5, points + 1e5
    return points, vertices


@settings(max_examples=150, deadline=None)
@given(on_a_grid())
def test_distance_on_grids_equals_rational_arithmetic(case):
    assert_exact(*case)


@settings(max_examples=250, deadline=None)
@given(adversarial())
def test_distance_in_adversarial_cases_equals_rational_arithmetic(case):
    assert_exact(*case)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), k=st.integers(1, 12), d=st.sampled_from([1, 2, 5, 9, 40, 512]), tied=st.booleans())
def test_distance_equals_scipy(seed, k, d, tied):
    rng = np.random.default_rng(seed)
    vertices, points = rng.normal(size=(k, d)), 1.5 * rng.normal(size=(8, d))
    if tied:  # latents of one person: far from the origin, close together, some of them equal
        vertices, points = 5 + 0.1 * vertices[rng.integers(k, size=k)], 5 + 0.1 * points
    theirs = [scipy_distance(point, vertices) for point in points]
    ours = distance_to_hull(points, vertices)
    np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10 * reach(points, vertices))


@settings(max_examples=150, deadline=None)
@given(adversarial())
def test_scores_in_adversarial_cases_equal_rational_arithmetic(case):
    points, vertices = case  # many subsets are solved in their own affine hulls, unlike single distances
    k, n = len(vertices), len(points)
    score = score_subsets(np.concatenate([vertices, points]), np.zeros(k + n), np.zeros(k + n), [range(k)])
    true = np.mean([rational_distance(point, vertices) for point in points])
    np.testing.assert_allclose(score, [true], rtol=1e-8, atol=1e-14 * reach(points, vertices))


def test_a_point_a_segment_and_a_triangle():
    np.testing.assert_allclose(distance_to_hull([[3.0, 4.0]], [[0.0, 0.0]]), [5.0], rtol=1e-15)
    np.testing.assert_allclose(
        distance_to_hull([[-3.0, 4.0], [0.5, 2.0], [4.0, 4.0], [0.25, 0.0]], [[0.0, 0.0], [1.0, 0.0]]),
        [5.0, 2.0, 5.0, 0.0],
        atol=1e-15,
    )
    triangle = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    np.testing.assert_allclose(
        distance_to_hull([[0.2, 0.2, -2.0], [1.0, 1.0, 0.0], [0.3, 0.3, 0.0]], triangle),
        [2.0, np.sqrt(0.5), 0.0],
        atol=1e-15,
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), k=st.integers(1, 8), d=st.integers(1, 12))
def test_geometry(seed, k, d):
    rng = np.random.default_rng(seed)
    vertices, points = rng.normal(size=(k, d)), rng.normal(size=(6, d))
    distances = distance_to_hull(points, vertices)
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    close = {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(distance_to_hull(points + 7.0, vertices + 7.0), distances, **close)
    np.testing.assert_allclose(distance_to_hull(points @ rotation, vertices @ rotation), distances, **close)
    np.testing.assert_allclose(distance_to_hull(1e6 * points, 1e6 * vertices) / 1e6, distances, **close)
    np.testing.assert_allclose(distance_to_hull(1e-9 * points, 1e-9 * vertices) * 1e9, distances, **close)
    np.testing.assert_allclose(distance_to_hull(points, vertices[rng.permutation(k)]), distances, **close)
    np.testing.assert_allclose(distance_to_hull(rng.dirichlet(np.ones(k), 5) @ vertices, vertices), 0.0, atol=1e-13)
    more = np.concatenate([vertices, rng.normal(size=(1, d))])
    assert (distance_to_hull(points, more) <= distances + 1e-12).all()
    assert (distances <= np.linalg.norm(points[:, None] - vertices[None], axis=2).min(axis=1) + 1e-12).all()


def test_all_points_equal():
    np.testing.assert_array_equal(distance_to_hull(np.ones((3, 4)), np.ones((2, 4))), np.zeros(3))


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30, 1e150])
def test_distances_at_the_ends_of_the_range(scale):
    rng = np.random.default_rng(3)
    vertices, points = rng.normal(size=(4, 6)), rng.normal(size=(5, 6))
    expected = [scipy_distance(point, vertices) for point in points]
    np.testing.assert_allclose(distance_to_hull(scale * points, scale * vertices) / scale, expected, rtol=1e-8)


def test_many_vertices_and_no_points():
    rng = np.random.default_rng(0)
    vertices, points = rng.normal(size=(60, 25)), 2 * rng.normal(size=(20, 25))
    np.testing.assert_allclose(
        distance_to_hull(points, vertices), [scipy_distance(point, vertices) for point in points], rtol=1e-8
    )
    assert distance_to_hull(np.zeros((0, 25)), vertices).shape == (0,)


@pytest.mark.parametrize(
    ("points", "vertices"),
    [
        (np.zeros((2, 3)), np.zeros((0, 3))),
        (np.zeros((2, 3)), np.zeros((2, 4))),
        (np.zeros(3), np.zeros((2, 3))),
        (np.full((1, 3), np.nan), np.zeros((2, 3))),
        (np.zeros((1, 3)), np.full((2, 3), np.inf)),
    ],
)
def test_bad_geometry_is_refused(points, vertices):
    with pytest.raises(ValueError, match="expected"):
        distance_to_hull(points, vertices)


def plain_score(latents, groups, spread, subset):
    """The protocol's sentence, word by word."""
    means = []
    for timestamp in sorted(set(groups.tolist())):
        of_timestamp = [i for i in range(len(groups)) if groups[i] == timestamp]
        outside = [i for i in of_timestamp if i not in set(subset.tolist())]
        if outside:
            means.append(np.mean([scipy_distance(latents[i], latents[subset]) for i in outside]))
        else:
            means.append(np.mean([spread[i] for i in of_timestamp]))
    return np.mean(means)


def of_kind(kind: str, latents: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The latents as they are ("people"), or in their place some that are hard for geometry."""
    if kind == "repeated":
        return latents[rng.integers(len(latents), size=len(latents))]
    if kind == "grid":
        return rng.integers(-1, 2, size=latents.shape).astype(float)
    return np.ones_like(latents) if kind == "equal" else latents


def people(rng: np.random.Generator, sizes: list[int], d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    groups = np.repeat(np.arange(len(sizes)) * 3, sizes)
    latents = 1 + (1.5 * rng.normal(size=(len(sizes), d)))[groups // 3] + rng.normal(size=(len(groups), d))
    return latents, groups, rng.random(len(groups))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    d=st.sampled_from([1, 2, 3, 20]),
    k=st.integers(1, 8),
    repeated=st.booleans(),
)
def test_scores_equal_a_plain_loop(seed, sizes, d, k, repeated):
    rng = np.random.default_rng(seed)
    latents, groups, spread = people(rng, sizes, d)
    n = len(groups)
    if repeated:
        latents = latents[rng.integers(n, size=n)]
    k = min(k, n)
    subsets = np.array([rng.permutation(n)[:k] for _ in range(6)])
    plain = [plain_score(latents, groups, spread, subset) for subset in subsets]
    np.testing.assert_allclose(score_subsets(latents, groups, spread, subsets), plain, rtol=1e-8, atol=1e-9)


def test_a_timestamp_wholly_in_the_subset_counts_with_its_spread():
    latents = np.array([[0.0], [1.0], [10.0], [14.0]])
    groups, spread = np.array([0, 0, 1, 1]), np.array([1.0, 3.0, 4.0, 4.0])
    # timestamp 0: mean of 1 and 3; timestamp 1: 10 and 14 are 9 and 13 away from the segment [0, 1]
    np.testing.assert_allclose(score_subsets(latents, groups, spread, [[0, 1]]), [(2.0 + 11.0) / 2])
    np.testing.assert_allclose(score_subsets(latents, groups, spread, [[0, 1, 2, 3]]), [(2.0 + 4.0) / 2])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    d=st.sampled_from([1, 2, 4, 30, 100]),
    k=st.integers(1, 10),
    kind=st.sampled_from(["people", "repeated", "grid", "equal"]),
)
@example(seed=104542, sizes=[4, 9, 6, 7, 5], d=100, k=10, kind="repeated")  # a system of which rounding left nothing
def test_the_choice_equals_exhaustive_scoring(seed, sizes, d, k, kind):
    rng = np.random.default_rng(seed)
    latents, groups, spread = people(rng, sizes, d)
    latents = of_kind(kind, latents, rng)
    subsets = draw_subsets(groups, k, 300, rng)
    scores = score_subsets(latents, groups, spread, subsets)
    assert np.isfinite(scores).all()
    lowest = scores.min() * (1 + 1e-10) + 1e-13 * np.abs(latents).max()
    assert best_subset(latents, groups, spread, subsets) == np.flatnonzero(scores <= lowest)[0]


def test_of_equal_subsets_the_first_is_chosen():
    rng = np.random.default_rng(2)
    half = rng.normal(size=(6, 40))
    latents, groups, spread = np.concatenate([half, half]), np.zeros(12, dtype=int), np.ones(12)
    subsets = np.array([[0, 1, 2], [3, 4, 11], [3, 4, 5], [9, 10, 11], [9, 4, 11]])
    for order in ([0, 1, 2, 3, 4], [4, 3, 0, 2, 1], [2, 0, 1, 4, 3]):
        shuffled = subsets[order]
        scores = score_subsets(latents, groups, spread, shuffled)
        assert best_subset(latents, groups, spread, shuffled) == int(np.argmin(np.round(scores, 9)))


def test_the_best_of_5000_is_exact_and_fast():
    rng = np.random.default_rng(7)
    latents, groups, spread = people(rng, [5, 5, 20], 512)
    started = time.process_time()
    chosen = select_hull_subset(latents, groups, spread, 10, rng=np.random.default_rng(3))
    seconds = time.process_time() - started
    subsets = draw_subsets(groups, 10, 5000, np.random.default_rng(3))
    assert len(subsets) == 5000
    scores = score_subsets(latents, groups, spread, subsets)
    np.testing.assert_array_equal(chosen, subsets[scores.argmin()])
    for row in (0, 2500, 4999):
        assert scores[row] == pytest.approx(plain_score(latents, groups, spread, subsets[row]), rel=1e-8)
    assert seconds < 3, f"took {seconds:.2f} s of processor time"


def test_select_keeps_all_when_all_fit():
    rng = np.random.default_rng(0)
    latents, groups, spread = people(rng, [2, 3], 8)
    for capacity in (5, 9):
        chosen = select_hull_subset(latents, groups, spread, capacity, rng=rng)
        np.testing.assert_array_equal(chosen, np.arange(5))


@pytest.mark.parametrize(
    "change",
    [
        {"subsets": [[0, 0]]},
        {"subsets": [[0, 9]]},
        {"subsets": np.zeros((0, 2), dtype=int)},
        {"groups": [0, 0]},
        {"spread": [1.0]},
        {"latents": np.full((3, 2), np.nan)},
    ],
)
def test_bad_subsets_are_refused(change):
    good = {"latents": np.eye(3, 2), "groups": [0, 0, 1], "spread": [1.0, 1.0, 1.0], "subsets": [[0, 2]]}
    assert np.isfinite(score_subsets(**good)).all()
    with pytest.raises(ValueError, match="expected"):
        score_subsets(**{**good, **change})


def test_impossible_requests_are_refused():
    latents, groups, spread = people(np.random.default_rng(0), [3, 3], 4)
    with pytest.raises(ValueError, match="capacity of 0"):
        select_hull_subset(latents, groups, spread, 0, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="num_subsets = 0"):
        select_hull_subset(latents, groups, spread, 2, rng=np.random.default_rng(0), num_subsets=0)


def rational_log_volume(vertices: np.ndarray) -> float:
    """Half the log of the Gram determinant of the edges in rational arithmetic, less log (k - 1)!."""
    edges = [
        [Fraction(float(a)) - Fraction(float(b)) for a, b in zip(row, vertices[0], strict=True)] for row in vertices
    ]
    gram = [[sum((a * b for a, b in zip(p, q, strict=True)), Fraction(0)) for q in edges[1:]] for p in edges[1:]]
    determinant = Fraction(1)
    for column in range(len(gram)):
        pivot = next((r for r in range(column, len(gram)) if gram[r][column] != 0), None)
        if pivot is None:
            return -math.inf
        gram[column], gram[pivot] = gram[pivot], gram[column]  # of a determinant >= 0 only the size matters
        determinant *= abs(gram[column][column])
        for r in range(column + 1, len(gram)):
            factor = gram[r][column] / gram[column][column]
            gram[r] = [a - factor * b for a, b in zip(gram[r], gram[column], strict=True)]
    logs = math.log(determinant.numerator) - math.log(determinant.denominator)
    return logs / 2 - math.log(math.factorial(len(vertices) - 1))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), d=st.integers(2, 6))
def test_volume_of_full_simplices_equals_qhull(seed, d):
    vertices = np.random.default_rng(seed).normal(size=(d + 1, d))
    volume = ConvexHull(vertices, qhull_options="Qt Pp").volume
    assert math.exp(log_volume(vertices)) == pytest.approx(volume, rel=1e-9, abs=1e-14)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    k=st.integers(1, 6),
    extra=st.integers(0, 4),
    kind=st.sampled_from(["random", "scales", "vertex scales", "far", "huge", "minute", "needle"]),
)
def test_volume_equals_rational_arithmetic(seed, k, extra, kind):
    rng = np.random.default_rng(seed)
    d = max(1, k - 1 + extra)
    vertices, tolerance = rng.normal(size=(k, d)), 1e-9
    if kind == "scales":
        vertices *= 10.0 ** rng.integers(-8, 9, size=d)
    elif kind == "vertex scales":
        vertices *= 10.0 ** rng.integers(-3, 4, size=(k, 1))
    elif kind == "far":
        vertices += 1e6
    elif kind in ("huge", "minute"):
        vertices *= 1e200 if kind == "huge" else 1e-200
    elif kind == "needle":
        small = 10.0 ** rng.integers(-8, 0)
        vertices = rng.normal(size=(k, 1)) * rng.normal(size=d) + small * vertices
        tolerance = 1e-13 / small
    assert log_volume(vertices) == pytest.approx(rational_log_volume(vertices), rel=1e-13, abs=100 * tolerance)


def test_volume_equals_cayley_and_menger():
    vertices = np.random.default_rng(5).normal(size=(4, 7))
    bordered = np.ones((5, 5))
    bordered[0, 0] = 0.0
    bordered[1:, 1:] = np.square(vertices[:, None] - vertices[None]).sum(axis=2)
    square = np.linalg.det(bordered) / (2**3 * math.factorial(3) ** 2)  # (-1)^k of them is 1 for k = 4
    assert log_volume(vertices) == pytest.approx(0.5 * math.log(square), rel=1e-10)


def test_small_volumes():
    assert log_volume([[3.0, 4.0]]) == 0.0  # by convention
    assert log_volume([[0.0, 0.0], [3.0, 4.0]]) == pytest.approx(math.log(5.0))
    assert log_volume([[0.0, 0.0], [1e8, 0.0], [0.0, 1e-8]]) == pytest.approx(math.log(0.5))
    assert log_volume([[0.0, 0.0], [1e8, 1e-8], [1e8, -1e-8]]) == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    k=st.integers(2, 7),
    d=st.integers(1, 8),
    scales=st.booleans(),
    kind=st.sampled_from(["repeated", "dependent", "too many", "equal"]),
)
def test_flat_simplices_have_no_volume(seed, k, d, scales, kind):
    rng = np.random.default_rng(seed)
    vertices = rng.normal(size=(k, d)) * (10.0 ** rng.integers(-6, 7, size=d) if scales else 1.0) + rng.normal()
    if kind == "repeated":
        vertices[-1] = vertices[0]
    elif kind == "dependent":
        vertices[-1] = rng.dirichlet(np.ones(k - 1)) @ vertices[:-1]
    elif kind == "too many":
        vertices = vertices[:, : max(1, k - 2)] if k > 2 else np.ones((2, 1))
    else:
        vertices[:] = vertices[0]
    vertices = vertices[rng.permutation(len(vertices))]
    assert log_volume(vertices) == -math.inf
    assert log_volumes(vertices, [range(len(vertices))])[0] == -math.inf


@pytest.mark.parametrize("d", [3, 12, 60])
def test_volumes_of_many_subsets_equal_single_ones(d):
    rng = np.random.default_rng(d)
    latents = 4 + 0.1 * rng.normal(size=(20, d))
    latents[5] = latents[11]
    subsets = np.array([rng.permutation(20)[:6] for _ in range(400)])
    single = [log_volume(latents[subset]) for subset in subsets]
    np.testing.assert_allclose(log_volumes(latents, subsets), single, rtol=1e-10)
    repeated = np.isin(subsets, [5, 11]).sum(axis=1) == 2
    np.testing.assert_array_equal(np.isneginf(single), repeated if d > 4 else True)


def test_bad_vertices_are_refused():
    for vertices in (np.zeros((0, 3)), np.zeros(3), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match="expected"):
            log_volume(vertices)
    with pytest.raises(ValueError, match="expected"):
        log_volumes(np.zeros((3, 2)), np.zeros((3, 0), dtype=int))
    with pytest.raises(ValueError, match="num_subsets = 0"):
        select_volume_subset(np.eye(3), np.zeros(3), 2, rng=np.random.default_rng(0), num_subsets=0)
    with pytest.raises(ValueError, match="groups"):
        select_volume_subset(np.eye(3), np.zeros(2), 2, rng=np.random.default_rng(0))


def test_the_largest_volume_is_chosen():
    rng = np.random.default_rng(1)
    latents, groups, _ = people(rng, [4, 4, 9], 40)
    for capacity in (2, 3, 5):
        subsets = draw_subsets(groups, capacity, 300, np.random.default_rng(9))
        largest = max(range(len(subsets)), key=lambda row: rational_log_volume(latents[subsets[row]]))
        chosen = select_volume_subset(latents, groups, capacity, rng=np.random.default_rng(9), num_subsets=300)
        np.testing.assert_array_equal(chosen, subsets[largest])


def test_flat_hulls_are_told_apart_by_the_dimensions_they_have():
    rng = np.random.default_rng(4)
    latents, groups = rng.normal(size=(12, 2)), np.zeros(12, dtype=int)
    subsets = draw_subsets(groups, 5, 100, np.random.default_rng(0))
    centred = latents[subsets] - latents[subsets].mean(axis=1, keepdims=True)
    extents = 0.5 * np.log(np.linalg.det(centred.transpose(0, 2, 1) @ centred))  # rank 2: the scatter's determinant
    np.testing.assert_allclose(log_extents(latents, subsets), extents, rtol=1e-9, atol=1e-9)
    chosen = select_volume_subset(latents, groups, 5, rng=np.random.default_rng(0), num_subsets=100)
    np.testing.assert_array_equal(chosen, subsets[extents.argmax()])

    # Where hulls are not flat, extents and volumes order subsets alike.
    latents = rng.normal(size=(12, 30))
    constant = log_extents(latents, subsets) - log_volumes(latents, subsets)
    np.testing.assert_allclose(constant, constant[0], rtol=1e-9)


def test_without_any_volume_the_first_subset_is_chosen():
    for latents, capacity in ((np.ones((8, 3)), 3), (np.random.default_rng(0).normal(size=(8, 3)), 1)):
        subsets = draw_subsets(np.zeros(8), capacity, 5, np.random.default_rng(2))
        chosen = select_volume_subset(
            latents, np.zeros(8), capacity, rng=np.random.default_rng(2), num_subsets=min(5, len(subsets))
        )
        np.testing.assert_array_equal(chosen, subsets[0])


@pytest.mark.parametrize("name", ["er_hull", "er_hull_refined", "er_hull_volume"])
@pytest.mark.parametrize("w_dim", [3, 64])
def test_hull_strategies_keep_a_balanced_buffer(name, w_dim):
    rng = np.random.default_rng(0)
    strategy = STRATEGIES[name]()
    old = make_items(0, [f"a{i}" for i in range(5)], rng.normal(size=(5, w_dim)))
    new = make_items(1, [f"b{i}" for i in range(12)], rng.normal(size=(12, w_dim)))
    memory = strategy.select(strategy.select(Memory(), old, 4, rng), new, 4, rng)
    assert strategy.balanced and len(memory.items) == 4
    assert [item.timestamp for item in memory.items] == [0, 0, 1, 1]
