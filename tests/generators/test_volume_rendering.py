"""Rays, compositing and resampling against slow direct versions and against scenes whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from clstudy.generators.tri_planes import CORRECTED_AXES, PUBLISHED_AXES, sample_planes
from clstudy.generators.volume_rendering import (
    Midpoints,
    Rays,
    Samples,
    Uniform,
    camera_rays,
    composite,
    inverse_cdf,
    points_at,
    resampled_depths,
    spaced_depths,
)

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_cameras(count: int = 2) -> Tensor:
    """Cameras 2.7 away from the origin that look at it, with skew and a principal point off the middle."""
    rng = np.random.default_rng(4)
    rows = []
    for _ in range(count):
        forward = rng.standard_normal(3)
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 1.0, 0.0])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, 0], pose[:3, 1], pose[:3, 2] = right, np.cross(forward, right), forward
        pose[:3, 3] = -2.7 * forward
        intrinsics = np.array([[4.2, 0.1, 0.52], [0, 4.1, 0.47], [0, 0, 1]])
        rows.append(np.concatenate([pose.ravel(), intrinsics.ravel()]))
    return torch.tensor(np.array(rows))


def test_rays_run_through_the_pixels_that_their_points_project_to() -> None:
    cameras, size = some_cameras(), 5
    rays = camera_rays(cameras, size)
    for index, camera in enumerate(cameras.numpy()):
        pose, intrinsics = camera[:16].reshape(4, 4), camera[16:].reshape(3, 3)
        for pixel in range(size * size):
            point = (rays.origins[index, pixel] + 1.7 * rays.directions[index, pixel]).numpy()
            seen = intrinsics @ (np.linalg.inv(pose) @ [*point, 1.0])[:3]
            row, column = divmod(pixel, size)
            np.testing.assert_allclose(seen[:2] / seen[2], [(column + 0.5) / size, (row + 0.5) / size], atol=1e-9)
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(2, size * size, dtype=torch.float64))


@pytest.mark.parametrize("plane_axes", [PUBLISHED_AXES, CORRECTED_AXES])
def test_planes_are_read_as_bilinear_interpolation_says(plane_axes: tuple[tuple[int, int], ...]) -> None:
    rng, box, size, channels = seeded(), 1.4, 6, 4
    planes = torch.randn(2, 3, channels, size, size, generator=rng)
    points = (torch.rand(2, 40, 3, generator=rng) - 0.5) * 2.2 * box  # some of them outside
    expected = torch.zeros(2, 40, channels)
    for n in range(2):
        for p in range(40):
            for plane, (across, down) in enumerate(plane_axes):
                x = (points[n, p, across] / (box / 2) + 1) * size / 2 - 0.5
                y = (points[n, p, down] / (box / 2) + 1) * size / 2 - 0.5
                for row in (math.floor(y), math.floor(y) + 1):
                    for column in (math.floor(x), math.floor(x) + 1):
                        if 0 <= row < size and 0 <= column < size:
                            share = (1 - abs(float(y) - row)) * (1 - abs(float(x) - column))
                            expected[n, p] += share * planes[n, plane, :, row, column] / 3
    torch.testing.assert_close(sample_planes(planes, points, box, plane_axes), expected, **CLOSE)


def slow_composite(features: Tensor, densities: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
    """One ray: features ``[samples, c]``, densities and depths ``[samples]``; by the sums of NeRF's equation 3."""
    let_through, colour, depth, total = 1.0, torch.zeros(features.shape[1]), 0.0, 0.0
    for i in range(len(depths) - 1):
        density = math.log1p(math.exp(float(densities[i] + densities[i + 1]) / 2 - 1))
        opacity = 1 - math.exp(-density * float(depths[i + 1] - depths[i]))
        weight = let_through * opacity
        colour = colour + weight * (features[i] + features[i + 1]) / 2
        depth += weight * float(depths[i] + depths[i + 1]) / 2
        total += weight
        let_through *= 1 - opacity
    return colour, torch.tensor(depth / total)


def test_compositing_is_the_sum_over_intervals() -> None:
    rng = seeded(1)
    features, densities = torch.rand(2, 7, 9, 3, generator=rng), torch.randn(2, 7, 9, 1, generator=rng) * 4
    depths = torch.rand(2, 7, 9, 1, generator=rng).sort(dim=2).values + 2
    seen = composite([Samples(features, densities, depths)])
    for n in range(2):
        for r in range(7):
            colour, depth = slow_composite(features[n, r], densities[n, r, :, 0], depths[n, r, :, 0])
            torch.testing.assert_close(seen.features[n, r], colour, **CLOSE)
            torch.testing.assert_close(seen.depth[n, r, 0], depth, **CLOSE)
    assert float(seen.weights.sum(2).max()) <= 1 + 1e-6


def test_several_passes_are_one_ray_in_the_order_of_depths() -> None:
    rng = seeded(7)
    features, densities = torch.rand(2, 7, 9, 3, generator=rng), torch.randn(2, 7, 9, 1, generator=rng) * 4
    depths = torch.rand(2, 7, 9, 1, generator=rng).sort(dim=2).values + 2
    whole = composite([Samples(features, densities, depths)])
    some, others = torch.tensor([0, 2, 5, 8]), torch.tensor([1, 3, 4, 6, 7])
    parts = [Samples(*(value[:, :, chosen] for value in (features, densities, depths))) for chosen in (some, others)]
    for one, other in zip(whole, composite(parts), strict=True):
        torch.testing.assert_close(other, one, **CLOSE)


def before_activation(density: Tensor) -> Tensor:
    """What softplus(x - 1) makes this density of."""
    return torch.log(torch.expm1(density)) + 1


def test_a_sphere_of_constant_density_absorbs_by_the_length_of_the_chord() -> None:
    radius, density, size = 0.3, 2.5, 16
    camera = torch.zeros(1, 25, dtype=torch.float64)
    camera[0, :16] = torch.tensor([1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1])
    camera[0, 16:] = torch.tensor([4.26, 0, 0.5, 0, 4.26, 0.5, 0, 0, 1])
    rays = camera_rays(camera, size)
    depths = spaced_depths(rays, 2.2, 3.2, 4000, Midpoints())
    inside = points_at(rays, depths).norm(dim=-1).view(1, size * size, -1, 1) < radius
    densities = torch.where(
        inside, before_activation(torch.tensor(density, dtype=torch.float64)), torch.tensor(-60.0, dtype=torch.float64)
    )
    seen = composite([Samples(torch.ones_like(densities), densities, depths)])
    across = rays.origins.cross(rays.directions, dim=-1).norm(dim=-1)  # distance of a ray from the sphere's middle
    chord = 2 * (radius**2 - across**2).clamp_min(0).sqrt()
    expected = 1 - torch.exp(-density * chord)
    assert float(expected.max()) > 0.7 and float(expected.min()) == 0
    torch.testing.assert_close(seen.features[..., 0], expected, rtol=0, atol=2e-3)  # 4,000 steps of 0.00025


def test_an_opaque_plane_is_seen_at_its_depth_and_samples_gather_there() -> None:
    at, rays = 2.71, Rays(torch.zeros(1, 3, 3), torch.tensor([[[0.0, 0, 1], [0.6, 0, 0.8], [0, 0.28, 0.96]]]))
    along = at / rays.directions[..., 2]

    def densities(depths: Tensor) -> Tensor:
        return torch.where(points_at(rays, depths)[..., 2].view(depths.shape) >= at, 400.0, -60.0)

    coarse = spaced_depths(rays, 2.2, 4.2, 40, Midpoints())
    first = composite([Samples(torch.ones(1, 3, 40, 1), densities(coarse), coarse)])
    fine = resampled_depths(coarse, first.weights, 40, Midpoints())
    ones = torch.ones(1, 3, 40, 1)
    seen = composite([Samples(ones, densities(coarse), coarse), Samples(ones, densities(fine), fine)])
    step = 2.0 / 39
    assert float((first.depth[..., 0] - along).abs().max()) < step
    assert float((seen.depth[..., 0] - along).abs().max()) < 0.2 * step, "finer than the coarse pass"
    near_plane = ((fine[..., 0] - along[..., None]).abs() < 2 * step).float().mean()
    assert float(near_plane) > 0.6
    torch.testing.assert_close(seen.features, torch.ones(1, 3, 1), **CLOSE)


def test_nothing_is_seen_at_the_largest_depth_of_its_own_image() -> None:
    depths = torch.stack([torch.linspace(2, 3, 5), torch.linspace(2, 9, 5)]).view(2, 1, 5, 1)
    seen = composite([Samples(torch.ones(2, 1, 5, 1), torch.full((2, 1, 5, 1), -200.0), depths)])
    assert seen.depth.flatten().tolist() == [3.0, 9.0]
    assert seen.features.flatten().tolist() == [0.0, 0.0]


def slow_inverse(edges: np.ndarray, weights: np.ndarray, quantile: float) -> float:
    """Walk over the bins until the quantile lies in one."""
    shares = (weights + 1e-5) / (weights + 1e-5).sum()
    below = 0.0
    for index, share in enumerate(shares):
        if quantile < below + share or index == len(shares) - 1:
            return float(edges[index] + (quantile - below) / share * (edges[index + 1] - edges[index]))
        below += share
    raise AssertionError


def test_resampling_inverts_the_distribution() -> None:
    rng = np.random.default_rng(5)
    edges = np.sort(rng.random((6, 9)), axis=1)
    weights, quantiles = rng.random((6, 7)) ** 3, rng.random((6, 30))
    found = inverse_cdf(torch.tensor(edges), torch.tensor(weights), torch.tensor(quantiles)).numpy()
    for row in range(6):
        expected = [slow_inverse(edges[row], weights[row], quantile) for quantile in quantiles[row]]
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_fine_samples_follow_the_smoothed_weights_of_the_coarse_pass() -> None:
    """By numpy: the larger of neighbours, their means, a floor; then the inverse at evenly spaced quantiles."""
    rng = np.random.default_rng(6)
    depths = np.sort(rng.random((1, 4, 10, 1)) + 2, axis=2)
    weights = rng.random((1, 4, 9, 1)) ** 4
    found = resampled_depths(torch.tensor(depths), torch.tensor(weights), 8, Midpoints())[0, :, :, 0]
    for ray in range(4):
        w = weights[0, ray, :, 0]
        peaks = np.maximum(np.append(w, -np.inf), np.insert(w, 0, -np.inf))
        blurred = (peaks[:-1] + peaks[1:]) / 2 + 0.01
        edges = (depths[0, ray, :-1, 0] + depths[0, ray, 1:, 0]) / 2
        expected = [slow_inverse(edges, blurred[1:-1], (i + 0.5) / 8) for i in range(8)]
        np.testing.assert_allclose(found[ray].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("jitter", [Midpoints(), Uniform(seeded(2))])
def test_coarse_samples_ascend_from_near_one_in_each_share(jitter: Midpoints | Uniform) -> None:
    rays = camera_rays(some_cameras(), 4)
    depths = spaced_depths(rays, 2.0, 3.0, 11, jitter)[..., 0]
    even = torch.linspace(2.0, 3.0, 11, dtype=torch.float64)
    assert bool(((depths >= even) & (depths < even + 0.1 + 1e-12)).all())
