"""Volume rendering along camera rays: rays, sample depths, compositing, resampling.

Sources: B. Mildenhall et al., "NeRF" (2003.08934: section 4, equation 3; hierarchical sampling, section 5.2); N. Max,
"Optical Models for Direct Volume Rendering" (1995); E. Chan et al., "Efficient Geometry-aware 3D GANs" (EG3D,
2112.07945). Written from the papers; the tiny reference network in ``tests/data`` fixes every convention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_MOST_TRANSPARENT = 1e-10
"""Added to what a sample lets through, so that an opaque one leaves gradients behind it."""

_LEAST_WEIGHT = 0.01
"""Added to a bin's smoothed weight, so that fine samples also fall where the coarse pass saw nothing."""

_LEAST_SHARE = 1e-5
"""Of the distribution of fine samples: bins below it are not divided by."""


class Rays(NamedTuple):
    """Rays in the world.

    Attributes:
        origins: ``[n, r, 3]``.
        directions: ``[n, r, 3]``, of length 1.
    """

    origins: Tensor
    directions: Tensor


class Composite(NamedTuple):
    """What is seen along rays.

    Attributes:
        features: ``[n, r, c]``; what is not absorbed counts as zero.
        depth: ``[n, r, 1]``, mean distance of what is seen from the origin, within the distances of the image's
            samples; the largest of them where nothing is seen.
        weights: of the intervals between samples ``[n, r, samples - 1, 1]``, in the order of depths, at most 1 in sum.
    """

    features: Tensor
    depth: Tensor
    weights: Tensor


class Jitter(Protocol):
    """Where in its share of a ray a sample lies: numbers in [0, 1)."""

    def coarse(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """For evenly spaced samples ``[n, r, samples, 1]``."""
        ...

    def fine(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Quantiles ``[rays, samples]`` at which the coarse pass's distribution is sampled."""
        ...


class Midpoints:
    """No randomness, for evaluation: the middle of each coarse share, and evenly spaced quantiles."""

    def coarse(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        return like.new_full(shape, 0.5)

    def fine(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        count = shape[-1]
        quantiles = (torch.arange(count, dtype=like.dtype, device=like.device) + 0.5) / count
        return quantiles.expand(shape)


class Uniform:
    """Independent uniform numbers, for training (EG3D, NeRF: stratified sampling)."""

    def __init__(self, generator: torch.Generator):
        self._generator = generator

    def coarse(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        return self._draw(shape, like)

    def fine(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        return self._draw(shape, like)

    def _draw(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        drawn = torch.rand(shape, generator=self._generator, dtype=like.dtype, device=self._generator.device)
        return drawn.to(like.device)


def camera_rays(cameras: Tensor, resolution: int) -> Rays:
    """Rays through pixel centres, row by row: ``r = resolution²``.

    Args:
        cameras: ``[n, 25]``: camera to world 4 x 4, then intrinsics 3 x 3 in shares of the image's side, both row by
            row; x to the right, y down, z into the picture.
        resolution: of the square image in pixels.
    """
    pose, intrinsics = cameras[:, :16].view(-1, 4, 4), cameras[:, 16:].view(-1, 3, 3)
    centres = (torch.arange(resolution, dtype=cameras.dtype, device=cameras.device) + 0.5) / resolution
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    fx, fy, cx, cy, skew = (
        intrinsics[:, row, column, None] for row, column in ((0, 0), (1, 1), (0, 2), (1, 2), (0, 1))
    )
    y = (v.reshape(1, -1) - cy) / fy
    x = (u.reshape(1, -1) - cx - skew * y) / fx
    seen = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    directions = F.normalize(seen @ pose[:, :3, :3].transpose(1, 2), dim=-1)
    return Rays(pose[:, None, :3, 3].expand_as(directions), directions)


def spaced_depths(rays: Rays, near: float, far: float, count: int, jitter: Jitter) -> Tensor:
    """Evenly spaced distances ``[n, r, count, 1]``, each moved away from ``near`` by its jitter times the spacing."""
    even = torch.linspace(near, far, count, dtype=rays.origins.dtype, device=rays.origins.device)
    moved = jitter.coarse((*rays.origins.shape[:2], count, 1), rays.origins)
    return even[:, None] + moved * ((far - near) / (count - 1))


def points_at(rays: Rays, depths: Tensor) -> Tensor:
    """Points ``[n, r * samples, 3]`` at distances ``[n, r, samples, 1]``."""
    return (rays.origins[:, :, None] + depths * rays.directions[:, :, None]).flatten(1, 2)


class Samples(NamedTuple):
    """What was found along rays in one pass.

    Attributes:
        features: ``[n, r, samples, c]``.
        densities: ``[n, r, samples, 1]`` before activation: softplus(x - 1) of an interval's mean is its density.
        depths: ``[n, r, samples, 1]``, ascending within the pass.
    """

    features: Tensor
    densities: Tensor
    depths: Tensor


def composite(passes: Sequence[Samples]) -> Composite:
    """Absorb light along rays by the trapezoidal values between neighbouring samples of all passes.

    Only densities are put in the order of depths: an interval's features are the mean of its two samples', so every
    sample counts with half the weights of the intervals beside it, wherever it is stored.
    """
    depths = torch.cat([one.depths for one in passes], dim=2)
    densities = torch.cat([one.densities for one in passes], dim=2)
    order = None
    if len(passes) > 1:
        depths, order = torch.sort(depths, dim=2)
        densities = densities.gather(2, order)
    weights = interval_weights(densities, depths)
    shares = (F.pad(weights, (0, 0, 0, 1)) + F.pad(weights, (0, 0, 1, 0))) / 2
    if order is not None:
        shares = torch.zeros_like(shares).scatter(2, order, shares)
    parts = torch.split(shares, [one.depths.shape[2] for one in passes], dim=2)
    features = sum((share.transpose(2, 3) @ one.features)[:, :, 0] for share, one in zip(parts, passes, strict=True))
    depth = (weights * _middles(depths)).sum(2) / weights.sum(2)
    # the bounds of each image's own samples: what is seen must not depend on the other images of a batch
    nearest, farthest = (bound(dim=(1, 2, 3), keepdim=True)[..., 0] for bound in (depths.amin, depths.amax))
    depth = torch.clamp(torch.nan_to_num(depth, float("inf")), nearest, farthest)
    assert isinstance(features, Tensor)
    return Composite(features, depth, weights)


def interval_weights(densities: Tensor, depths: Tensor) -> Tensor:
    """Share of the light that comes from each interval between samples, ``[n, r, samples - 1, 1]``.

    Args:
        densities: ``[n, r, samples, 1]`` before activation, in the order of depths.
        depths: ``[n, r, samples, 1]``, ascending.
    """
    lengths = depths[:, :, 1:] - depths[:, :, :-1]
    opacity = 1 - torch.exp(-F.softplus(_middles(densities) - 1) * lengths)
    through = 1 - opacity + _MOST_TRANSPARENT
    before = torch.cat([torch.ones_like(through[:, :, :1]), torch.cumprod(through, dim=2)[:, :, :-1]], dim=2)
    return opacity * before


def _middles(values: Tensor) -> Tensor:
    """Means of neighbouring samples, along axis 2."""
    return (values[:, :, :-1] + values[:, :, 1:]) / 2


@torch.no_grad()
def resampled_depths(depths: Tensor, weights: Tensor, count: int, jitter: Jitter) -> Tensor:
    """More distances ``[n, r, count, 1]``, dense where the coarse pass absorbed much (NeRF, section 5.2).

    Args:
        depths: of the coarse pass ``[n, r, samples, 1]``.
        weights: of its intervals ``[n, r, samples - 1, 1]``.
        count: of distances wanted.
        jitter: gives the quantiles.
    """
    rays = depths.shape[:2].numel()
    flat = weights.reshape(rays, 1, -1)
    # the larger of neighbouring weights, then their means: a blur that never loses a peak (mip-NeRF, 2103.13415)
    blurred = F.avg_pool1d(F.max_pool1d(flat, 2, 1, padding=1), 2, 1)[:, 0] + _LEAST_WEIGHT
    quantiles = jitter.fine((rays, count), depths)
    edges = _middles(depths).reshape(rays, -1)
    return inverse_cdf(edges, blurred[:, 1:-1], quantiles).view(*depths.shape[:2], count, 1)


def inverse_cdf(edges: Tensor, weights: Tensor, quantiles: Tensor) -> Tensor:
    """Invert the piecewise linear distribution with ``weights [rays, bins]`` between ``edges [rays, >= bins + 1]``.

    Edges beyond the last bin's are not used. Returns values like ``quantiles [rays, count]``.
    """
    shares = weights + _LEAST_SHARE
    shares = shares / shares.sum(-1, keepdim=True)
    cdf = F.pad(torch.cumsum(shares, dim=-1), (1, 0))
    bins = weights.shape[-1]
    above = torch.searchsorted(cdf, quantiles.contiguous(), right=True)
    below, above = (above - 1).clamp_min(0), above.clamp_max(bins)
    low, high = cdf.gather(1, below), cdf.gather(1, above)
    left, right = edges.gather(1, below), edges.gather(1, above)
    width = high - low
    width = torch.where(width < _LEAST_SHARE, torch.ones_like(width), width)
    return left + (quantiles - low) / width * (right - left)
