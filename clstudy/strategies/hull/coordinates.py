"""Latents as few, well-scaled coordinates, and in blocks that fit the cache."""

from __future__ import annotations

import numpy as np

BLOCK = 2**17  # numbers per array in the batched loops, so that they stay in the cache


def reduced(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre, scale and rotate points ``[n, d]`` into ``[n, min(n, d)]``; distances shrink by the returned scale."""
    if not np.isfinite(points).all():
        raise ValueError("expected finite latents, got NaN or infinity among them")
    if points.size == 0:
        return np.zeros((len(points), 1)), 1.0
    centred = points - points.mean(axis=0)
    scale = float(np.abs(centred).max())
    if scale == 0.0:
        return np.zeros((len(points), 1)), 1.0
    centred /= scale
    # QR, not an eigen-decomposition of the Gram matrix, which would lose half of the digits.
    if points.shape[1] > len(points):
        centred = np.asarray(np.linalg.qr(centred.T, mode="r")).T
    return centred, scale


def edges_from(coordinates: np.ndarray, subsets: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Vertices of subsets ``[m, k]`` as seen from the points left out ``[m, o]``, ``[m, o, k, min(r, k)]``.

    Where coordinates ``[n, r]`` have more dimensions than a hull can fill, each subset is rotated into its own affine
    hull (QR), and the part of a point outside it becomes one coordinate.
    """
    vertices, points = coordinates[subsets], coordinates[rest]
    k = subsets.shape[1]
    if coordinates.shape[1] <= k:
        differences: np.ndarray = vertices[:, None] - points[:, :, None]
        return differences
    basis, triangle = np.linalg.qr((vertices[:, 1:] - vertices[:, :1]).swapaxes(1, 2))  # [m, r, k - 1]
    offset = points - vertices[:, :1]
    along = offset @ basis  # [m, o, k - 1]
    edges = np.zeros((*rest.shape, k, k))
    edges[:, :, 1:, :-1] = triangle.swapaxes(1, 2)[:, None]
    edges[..., :-1] -= along[:, :, None]
    edges[..., -1] = np.sqrt(np.square(offset - along @ basis.swapaxes(1, 2)).sum(axis=2))[:, :, None]
    return edges
