"""Arithmetic whose last bit is the same on every machine.

IEEE 754 fixes the results of +, -, *, / and of the square root of float64, and numpy applies them element by element.
It does not fix sums over an axis, matrix products, sines, exponentials and powers, whose results depend on the
processor and the libraries. The renderer uses only the former; what it needs of the latter is here.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

_PI_180 = 0.017453292519943295
_SERIES = 14


def cosine_and_sine(degrees: float) -> tuple[float, float]:
    """Cosine and sine of an angle of at most 360 degrees, by their Taylor series within +-45 degrees."""
    quarter = round(degrees / 90)
    x = (degrees - 90 * quarter) * _PI_180
    square = x * x
    cosine, sine = 1.0, 1.0
    for k in range(_SERIES, 0, -1):
        cosine = 1.0 - cosine * square / ((2 * k - 1) * (2 * k))
        sine = 1.0 - sine * square / ((2 * k) * (2 * k + 1))
    sine *= x
    return [(cosine, sine), (-sine, cosine), (-cosine, -sine), (sine, -cosine)][quarter % 4]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Uniform in [low, high); numpy's own ``uniform`` may fuse its multiplication and addition."""
    return low + (high - low) * rng.random()


def bell(rng: np.random.Generator) -> float:
    """Nearly standard normal: twelve uniform numbers, added in order (Irwin and Hall)."""
    total = -6.0
    for _ in range(12):
        total += rng.random()
    return total


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dot products of vectors ``[..., 3]`` with vectors ``[..., 3]``, added in order."""
    return np.asarray(a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2])


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross products of vectors ``[..., 3]``."""
    return np.stack(
        [
            a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1],
            a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2],
            a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0],
        ],
        axis=-1,
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors ``[..., 3]`` of length one; zeros stay zeros."""
    return np.asarray(vectors / (np.sqrt(dot(vectors, vectors)) + 1e-12)[..., None])


def turned(rotation: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """``rotation @ v`` for each of the vectors ``[..., 3]``."""
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.stack([row[0] * x + row[1] * y + row[2] * z for row in rotation], axis=-1)


def smooth_step(values: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, 3x^2 - 2x^3 between."""
    x = np.minimum(np.maximum(values, 0.0), 1.0)
    return np.asarray(x * x * (3.0 - 2.0 * x))


def share(value: float, low: float, high: float) -> float:
    """How far a value is from ``low`` to ``high``, in [0, 1], smoothly."""
    x = min(max((value - low) / (high - low), 0.0), 1.0)
    return x * x * (3.0 - 2.0 * x)


def sampled(picture: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Bilinear look-up in ``[h, w, ...]`` at positions in pixels, the centre of the first one at 0."""
    height, width = picture.shape[:2]
    x = np.minimum(np.maximum(column, 0.0), width - 1.000001)
    y = np.minimum(np.maximum(row, 0.0), height - 1.000001)
    left, above = x.astype(np.int64), y.astype(np.int64)
    more = (...,) + (None,) * (picture.ndim - 2)
    right_share, below_share = (x - left)[more], (y - above)[more]
    flat = picture.reshape(height * width, *picture.shape[2:])
    start = above * width + left
    upper = flat[start] * (1 - right_share) + flat[start + 1] * right_share
    lower = flat[start + width] * (1 - right_share) + flat[start + width + 1] * right_share
    return np.asarray(upper * (1 - below_share) + lower * below_share)


def enlarged(picture: np.ndarray, factor: int) -> np.ndarray:
    """A picture ``[h, w, ...]`` bilinearly enlarged by a power of two, each pixel's centre kept in its block."""
    while factor > 1:
        for axis in (0, 1):
            before = np.concatenate([picture.take([0], axis), picture.take(range(picture.shape[axis] - 1), axis)], axis)
            after = np.concatenate([picture.take(range(1, picture.shape[axis]), axis), picture.take([-1], axis)], axis)
            pair = np.stack([0.25 * before + 0.75 * picture, 0.75 * picture + 0.25 * after], axis + 1)
            shape = list(picture.shape)
            shape[axis] *= 2
            picture = pair.reshape(shape)
        factor //= 2
    return picture


@lru_cache(maxsize=256)
def _lattice(seed: int, cells: int) -> np.ndarray:
    values = np.random.Generator(np.random.PCG64(seed)).integers(0, 1 << 16, (cells + 1, cells + 1))
    return np.asarray(values / 65535.0)


def value_noise(seed: int, cells: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth noise in [0, 1] at points of the unit square; features are 1 / ``cells`` wide."""
    lattice = _lattice(seed, cells)
    u, v = np.minimum(np.maximum(x, 0.0), 0.999999) * cells, np.minimum(np.maximum(y, 0.0), 0.999999) * cells
    column, row = u.astype(np.int64), v.astype(np.int64)
    fx, fy = smooth_step(u - column), smooth_step(v - row)
    upper = lattice[row, column] * (1 - fx) + lattice[row, column + 1] * fx
    lower = lattice[row + 1, column] * (1 - fx) + lattice[row + 1, column + 1] * fx
    return np.asarray(upper * (1 - fy) + lower * fy)
