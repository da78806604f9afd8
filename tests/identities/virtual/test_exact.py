"""Arithmetic of the renderer against the mathematics library, and the rasteriser against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clstudy.identities.virtual.exact import bell, cosine_and_sine, cross, enlarged, sampled, share, unit, value_noise
from clstudy.identities.virtual.head import Neighbours
from clstudy.identities.virtual.rasteriser import rasterise


@given(st.floats(-360, 360))
def test_cosine_and_sine_are_those_of_the_mathematics_library(degrees: float) -> None:
    cosine, sine = cosine_and_sine(degrees)
    assert cosine == pytest.approx(math.cos(math.radians(degrees)), abs=1e-14)
    assert sine == pytest.approx(math.sin(math.radians(degrees)), abs=1e-14)


def test_cross_and_unit_agree_with_numpy() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 50, 3))
    np.testing.assert_allclose(cross(a, b), np.cross(a, b), atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(unit(a), axis=1), 1)
    assert not unit(np.zeros((1, 3))).any()


def test_bell_is_nearly_standard_normal() -> None:
    rng = np.random.default_rng(1)
    drawn = np.array([bell(rng) for _ in range(4000)])
    assert abs(drawn.mean()) < 0.06 and abs(drawn.std() - 1) < 0.05


@given(st.integers(0, 2**31), st.integers(1, 30), st.floats(0, 1), st.floats(0, 1))
def test_noise_stays_in_its_range_up_to_the_edges(seed: int, cells: int, x: float, y: float) -> None:
    assert 0 <= value_noise(seed, cells, np.array([x]), np.array([y]))[0] <= 1


def test_enlarging_keeps_means_and_constants() -> None:
    picture = np.random.default_rng(2).random((8, 8))
    assert enlarged(picture, 4).shape == (32, 32)
    np.testing.assert_allclose(enlarged(np.full((4, 4), 0.3), 2), 0.3)
    assert enlarged(picture, 4).mean() == pytest.approx(picture.mean(), abs=1e-12)


def test_samples_are_pixels_at_their_centres_and_means_between_them() -> None:
    picture = np.arange(12.0).reshape(3, 4)
    found = sampled(picture, np.array([0.0, 1.5, -5.0]), np.array([0.0, 1.0, 1.0]))
    np.testing.assert_allclose(found, [0, 5.5, 4], atol=1e-5)


@given(st.floats(0, 100), st.floats(0, 100))
def test_shares_never_fall(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert 0 <= share(low, 20, 60) <= share(high, 20, 60) <= 1


def _brute_force(points: np.ndarray, depths: np.ndarray, triangles: np.ndarray, side: int) -> dict[int, float]:
    nearest: dict[int, float] = {}
    for triangle in triangles:
        (ax, ay), (bx, by), (cx, cy) = points[triangle]
        whole = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if whole >= -1e-9 or (depths[triangle] <= 0).any():
            continue
        for pixel in range(side * side):
            x, y = pixel % side + 0.5, pixel // side + 0.5
            first = ((cx - bx) * (y - by) - (cy - by) * (x - bx)) / whole
            second = ((ax - cx) * (y - cy) - (ay - cy) * (x - cx)) / whole
            shares = np.array([first, second, 1 - first - second])
            if (shares >= 0).all():
                depth = 1 / (shares / depths[triangle]).sum()
                nearest[pixel] = min(depth, nearest.get(pixel, np.inf))
    return nearest


def test_the_rasteriser_finds_what_brute_force_finds() -> None:
    rng = np.random.default_rng(3)
    side = 16
    points, depths = rng.uniform(-6, side + 6, (40, 2)), rng.uniform(-0.2, 4, 40)
    triangles = rng.integers(0, 40, (60, 3))
    found = rasterise(points, depths, triangles, side)
    wanted = _brute_force(points, depths, triangles, side)
    assert found.pixels.tolist() == sorted(wanted)
    np.testing.assert_allclose(found.depths, [wanted[pixel] for pixel in sorted(wanted)], rtol=1e-9)
    np.testing.assert_allclose(found.weights.sum(1), 1)


def test_a_picture_of_nothing_has_no_fragments() -> None:
    found = rasterise(np.full((3, 2), 100.0), np.ones(3), np.array([[0, 2, 1]]), 8)
    assert len(found.pixels) == 0


def test_normals_are_the_area_weighted_means_of_the_triangles_around() -> None:
    rng = np.random.default_rng(4)
    vertices, triangles = rng.standard_normal((9, 3)), rng.integers(0, 9, (20, 3))
    wanted = np.zeros((9, 3))
    for triangle in triangles:
        a, b, c = vertices[triangle]
        for corner in triangle:
            wanted[corner] += np.cross(b - a, c - a)
    np.testing.assert_allclose(Neighbours.of(triangles, 9).normals(vertices), unit(wanted), atol=1e-12)
