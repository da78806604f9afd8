"""Glasses for the mean head: rims, bridge and sides as flat ribbons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHAPES = {"round": (0.27, 0.26, 2.0), "square": (0.31, 0.20, 5.0), "wide": (0.33, 0.24, 3.0)}
"""Name -> half width, half height, and the exponent of the superellipse |x/a|^p + |y/b|^p = 1."""

_STEPS = 20
_WIDTH = 0.05
_EYE = np.array([0.49, -0.04, 0.50])


@dataclass(frozen=True)
class Glasses:
    """``points`` ``[n, 3]`` on the mean head and ``triangles`` ``[t, 3]``, each from both sides."""

    points: np.ndarray
    triangles: np.ndarray


def glasses(half_width: float, half_height: float, exponent: float) -> Glasses:
    """One pair; all shapes have the same number of points and the same triangles."""
    points: list[np.ndarray] = []
    triangles: list[tuple[int, int, int]] = []

    def add(quad: list[int]) -> None:
        a, b, c, d = quad
        for triangle in ((a, b, c), (a, c, d), (a, c, b), (a, d, c)):
            triangles.append(triangle)

    turn = np.linspace(0, 2 * np.pi, _STEPS, endpoint=False)
    unit = np.stack([np.cos(turn), np.sin(turn)], 1)
    unit = np.sign(unit) * np.abs(unit) ** (2 / exponent)
    for side in (-1, 1):
        base = len(points)
        for grown in (0.0, _WIDTH):
            for x, y in unit * [half_width + grown, half_height + grown]:
                points.append(np.array([side * (_EYE[0] + x), _EYE[1] + y, _EYE[2] - 0.12 * (x + 0.1)]))
        for k in range(_STEPS):
            after = (k + 1) % _STEPS
            add([base + k, base + after, base + _STEPS + after, base + _STEPS + k])
        end = _EYE[0] + half_width + _WIDTH
        corner = len(points)
        for x, z in ((end - 0.03, _EYE[2] - 0.06), (1.02, 0.1), (1.05, -1.0)):
            points.extend(np.array([side * x, height, z]) for height in (0.06, -0.01))
        for k in (0, 2):
            add([corner + k, corner + k + 1, corner + k + 3, corner + k + 2])
    bridge = len(points)
    inner = _EYE[0] - half_width
    for x in (-inner, inner):
        points.extend(np.array([x, height, _EYE[2] + 0.03]) for height in (0.05, -0.02))
    add([bridge, bridge + 1, bridge + 3, bridge + 2])
    return Glasses(np.stack(points), np.array(triangles))
