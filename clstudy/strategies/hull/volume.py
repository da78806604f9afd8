"""Volumes of the simplices that few latents span, as logarithms."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from clstudy.strategies.hull.coordinates import BLOCK, reduced

_FLAT = 16 * np.finfo(float).eps  # relative rounding of a vertex, times k: heights below it count as zero


def log_volume(vertices: ArrayLike) -> float:
    """Return the natural log of the (k - 1)-volume of the simplex of k vertices.

    For k = 2 that is the log of a length, for k = 3 of an area. A single vertex has 0 by convention (its 0-volume, a
    count, is 1).

    Args:
        vertices: ``[k, d]``, k >= 1; coordinates may be of very different scale.

    Returns:
        A float; -inf where vertices repeat or are affinely dependent up to the rounding of their coordinates.

    Raises:
        ValueError: the shape does not fit or values are not finite.
    """
    corners = np.asarray(vertices, dtype=np.float64)
    if corners.ndim != 2 or len(corners) == 0:
        raise ValueError(f"expected vertices [k, d], k >= 1, got shape {corners.shape}")
    if not np.isfinite(corners).all():
        raise ValueError("expected finite vertices, got NaN or infinity among them")
    # A power of two costs no digits and keeps the squares in range.
    exponent = int(np.frexp(np.abs(corners).max(initial=0.0))[1])
    corners = np.ldexp(corners, -exponent)
    unsure = _FLAT * len(corners) * np.abs(corners).max(axis=0, initial=0.0)
    return float(_log_volumes(corners[None], unsure)[0]) + (len(corners) - 1) * exponent * math.log(2.0)


def log_volumes(latents: ArrayLike, subsets: ArrayLike) -> np.ndarray:
    """Return ``log_volume`` of many subsets of the candidates at once.

    Args:
        latents: candidates ``[n, d]``.
        subsets: candidate indices ``[m, k]``, k >= 1.

    Returns:
        float64 ``[m]``. Where d > n, rounding is judged over all coordinates together, not for each.

    Raises:
        ValueError: shapes do not fit or values are not finite.
    """
    points, rows = np.asarray(latents, dtype=np.float64), np.asarray(subsets)
    if points.ndim != 2 or rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"expected latents [n, d] and subsets [m, k], k >= 1, got {points.shape}, {rows.shape}")
    coordinates, scale = reduced(points)
    unsure = _FLAT * rows.shape[1] * np.abs(points).max(axis=0, initial=0.0) / scale
    if points.shape[1] > len(points):
        unsure = np.full(coordinates.shape[1], np.sqrt(np.square(unsure).sum()))
    volumes = np.empty(len(rows))
    size = max(1, BLOCK // (rows.shape[1] * coordinates.shape[1]))
    for first in range(0, len(rows), size):
        volumes[first : first + size] = _log_volumes(coordinates[rows[first : first + size]], unsure)
    in_own_unit: np.ndarray = volumes + (rows.shape[1] - 1) * math.log(scale)
    return in_own_unit


def _log_volumes(corners: np.ndarray, unsure: np.ndarray) -> np.ndarray:
    """Log volumes ``[m]`` of simplices ``[m, k, r]``; residuals within ``unsure`` ``[r]`` count as zero.

    The volume is a product of heights: at each step, that of the unused vertex farthest from the affine hull of the
    used ones (Gram-Schmidt with pivoting). It works on coordinates, not on inner products, and orthogonalises each
    height twice, so that small coordinates keep their digits beside large ones.
    """
    m, k, r = corners.shape
    every = np.arange(m)
    edges = corners - corners[:, :1]
    # Start at an end of a longest edge: starting amid the others would differ only in rounding.
    edges = edges - edges[every, np.square(edges).sum(axis=2).argmax(axis=1)][:, None]
    logs = np.full(m, -math.lgamma(k))
    directions = np.zeros((m, k - 1, r))
    for step in range(k - 1):
        farthest = np.square(edges).sum(axis=2).argmax(axis=1)
        residual = edges[every, farthest]
        for _ in range(2):  # one pass leaves rounding of the size of the large coordinates
            for direction in directions[:, :step].swapaxes(0, 1):
                residual = residual - (residual * direction).sum(axis=1, keepdims=True) * direction
        height = np.sqrt(np.square(residual).sum(axis=1))
        flat = (np.abs(residual) <= unsure).all(axis=1)
        with np.errstate(divide="ignore"):
            logs += np.where(flat, -np.inf, np.log(height))
        direction = directions[:, step] = residual / np.where(height > 0, height, 1.0)[:, None]
        edges = edges - (edges @ direction[:, :, None]) * direction[:, None]
        edges[every, farthest] = 0.0
    return logs
