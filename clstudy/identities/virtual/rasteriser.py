"""Which triangle every pixel shows, and where in it: a z-buffer in numpy whose result is the same on every machine.

Everything here is elementwise IEEE arithmetic (+, -, *, /) and integer minima. Neither is open to a machine's choice
of instructions, unlike sums over an axis, matrix products and the functions of the mathematics library.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_DEPTH_STEPS = 1 << 40
_NOTHING = np.iinfo(np.int64).max
_INDEX_BITS = 20


@dataclass(frozen=True)
class Fragments:
    """The visible surface, one entry per covered pixel, in the order of the pixels.

    Attributes:
        pixels: int64 ``[n]``, row * width + column.
        triangles: int64 ``[n]``.
        weights: float64 ``[n, 3]``, perspective-correct shares of the triangle's corners; they add up to one.
        depths: float64 ``[n]``, in the unit of the corners' depths.
    """

    pixels: np.ndarray
    triangles: np.ndarray
    weights: np.ndarray
    depths: np.ndarray


def rasterise(points: np.ndarray, depths: np.ndarray, triangles: np.ndarray, side: int) -> Fragments:
    """Fragments of a square picture; triangles that look away or lie behind the camera are left out.

    Args:
        points: float64 ``[v, 2]``, x to the right and y down, the top-left pixel covering 0 to 1.
        depths: float64 ``[v]``, positive in front of the camera.
        triangles: int ``[t, 3]``, fewer than 2^20, counter-clockwise as seen from outside with y up.
        side: pixels along a side.
    """
    x, y = points[:, 0][triangles], points[:, 1][triangles]
    depth = depths[triangles]
    area = _cross(x[:, 1] - x[:, 0], y[:, 1] - y[:, 0], x[:, 2] - x[:, 0], y[:, 2] - y[:, 0])
    seen = np.flatnonzero((area < -1e-9) & (depth > 0).all(1))
    owner, columns, rows = _pixels_of_boxes(x[seen], y[seen], side)
    chosen = seen[owner]
    weights, inside = _weights(x, y, area, chosen, columns + 0.5, rows + 0.5)
    chosen, weights = chosen[inside], weights[inside]
    pixels = (rows * side + columns)[inside]
    nearness = weights / depth[chosen]
    total = nearness[:, 0] + nearness[:, 1] + nearness[:, 2]
    first = _nearest(1 / total, chosen, pixels, side)
    return Fragments(
        pixels=pixels[first],
        triangles=chosen[first],
        weights=nearness[first] / total[first, None],
        depths=1 / total[first],
    )


def _cross(ax: np.ndarray, ay: np.ndarray, bx: np.ndarray, by: np.ndarray) -> np.ndarray:
    return np.asarray(ax * by - ay * bx)


def _pixels_of_boxes(x: np.ndarray, y: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All (triangle, column, row) of the pixel centres in the triangles' bounding boxes, inside the picture."""
    left, right = _span(x, side)
    top, bottom = _span(y, side)
    width, height = right - left + 1, bottom - top + 1
    count = np.where((width > 0) & (height > 0), width * height, 0)
    owner = np.repeat(np.arange(len(x)), count)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    wide = width[owner]
    down = step // wide
    return owner, left[owner] + step - down * wide, top[owner] + down


def _span(values: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last pixel whose centre lies between the corners."""
    low = np.minimum(np.minimum(values[:, 0], values[:, 1]), values[:, 2])
    high = np.maximum(np.maximum(values[:, 0], values[:, 1]), values[:, 2])
    first = np.ceil(np.clip(low, -1.0, side + 1.0) - 0.5).astype(np.int64)
    last = np.floor(np.clip(high, -1.0, side + 1.0) - 0.5).astype(np.int64)
    return np.maximum(first, 0), np.minimum(last, side - 1)


def _weights(
    x: np.ndarray, y: np.ndarray, area: np.ndarray, chosen: np.ndarray, px: np.ndarray, py: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the three corners on the screen ``[n, 3]``, and whether the point lies inside."""
    x0, x1, x2 = (x[:, k][chosen] for k in range(3))
    y0, y1, y2 = (y[:, k][chosen] for k in range(3))
    whole = area[chosen]
    first = _cross(x2 - x1, y2 - y1, px - x1, py - y1) / whole
    second = _cross(x0 - x2, y0 - y2, px - x2, py - y2) / whole
    third = 1 - first - second
    inside = (first >= 0) & (second >= 0) & (third >= 0)
    return np.stack([first, second, third], axis=1), inside


def _nearest(depths: np.ndarray, triangles: np.ndarray, pixels: np.ndarray, side: int) -> np.ndarray:
    """Indices of the nearest fragment of each covered pixel; of equally near ones that of the first triangle."""
    if not len(depths):
        return np.zeros(0, np.int64)
    near, far = depths.min(), depths.max()
    steps = ((depths - near) * (_DEPTH_STEPS / max(far - near, 1e-12))).astype(np.int64)
    keys = (steps << _INDEX_BITS) | triangles
    best = np.full(side * side, _NOTHING)
    np.minimum.at(best, pixels, keys)
    winners = np.flatnonzero(best[pixels] == keys)
    return np.asarray(winners[np.argsort(pixels[winners], kind="stable")])
