"""Wrinkles in the atlas, and how much of the sky each point of the skin sees."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from clstudy.identities.virtual.build.textures import ATLAS, BOTTOM, TOP, WIDEST_ANGLE, Atlas
from clstudy.identities.virtual.rasteriser import rasterise
from clstudy.seeding import derive_rng

WRINKLES = "forehead", "glabella", "crow's feet", "under the eyes", "nasolabial", "marionette"


def wrinkle_maps(atlas: Atlas, seed: int) -> np.ndarray:
    """Depth of the wrinkles of each kind ``[6, ATLAS, ATLAS]``, at most 1."""
    rng = derive_rng("virtual wrinkles", seed)
    marks = atlas.landmarks
    lines: dict[str, list[tuple[np.ndarray, float, float]]] = {name: [] for name in WRINKLES}
    for height in (0.56, 0.68, 0.80, 0.93):
        for side in (-1, 1):
            angle = np.linspace(0, side * rng.uniform(0.5, 0.66), 24)
            wave = height + 0.03 * np.sin(angle * 9 + rng.uniform(0, 6)) - 0.12 * angle**2
            lines["forehead"].append((_in_atlas(angle, wave), 1.1, rng.uniform(0.7, 1)))
    for side in (-1, 1):
        inner, outer, lid = (21, 36, 41) if side < 0 else (22, 45, 46)
        brow = marks[inner] + [-side * 1.5, 0]
        lines["glabella"].append((brow + np.linspace([0, -5], [side * 1.0, 8], 16), 1.2, 1.0))
        start = marks[outer] + [side * 3.0, 0]
        for turn in (-0.55, -0.15, 0.25, 0.6):
            end = start + 12 * np.array([side * np.cos(turn), np.sin(turn)])
            lines["crow's feet"].append((np.linspace(start, end, 16), 0.9, 0.9))
        middle = marks[lid] + [0, 4]
        for drop in (0.0, 4.0):
            x = np.linspace(-9, 9, 20)
            lines["under the eyes"].append((middle + np.stack([x, drop + 2.5 - 0.035 * x**2], 1), 1.3, 1 - drop / 8))
        wing, corner = (31, 48) if side < 0 else (35, 54)
        a, c = marks[wing] + [side * 3, -2], marks[corner] + [side * 5.5, 2]
        t = np.linspace(0, 1, 24)[:, None]
        lines["nasolabial"].append((a * (1 - t) + c * t + np.array([side * 5.0, -1]) * (t * (1 - t)), 1.7, 1.0))
        m = marks[corner] + [side * 1.5, 2]
        lines["marionette"].append((m + np.linspace([0, 0], [side * 2.5, 14], 20), 1.5, 0.9))
    return np.stack([_grooves(lines[name]) for name in WRINKLES])


def _in_atlas(angle: np.ndarray, height: np.ndarray) -> np.ndarray:
    column = (0.5 + angle / (2 * WIDEST_ANGLE)) * ATLAS
    return np.stack([column, (TOP - height) / (TOP - BOTTOM) * ATLAS], 1)


def _grooves(lines: list[tuple[np.ndarray, float, float]]) -> np.ndarray:
    y, x = np.mgrid[:ATLAS, :ATLAS] + 0.5
    total = np.zeros((ATLAS, ATLAS))
    for line, width, depth in lines:
        steps = np.linspace(0, len(line) - 1, 80)
        along = np.stack([np.interp(steps, np.arange(len(line)), line[:, k]) for k in (0, 1)], 1)
        squared = ((np.stack([x, y], -1)[:, :, None] - along) ** 2).sum(-1)
        taper = np.sin(np.linspace(0.25, np.pi - 0.25, len(along))) ** 0.5
        total = np.maximum(total, (np.exp(-squared / (2 * width**2)) * taper).max(-1) * depth)
    return np.asarray(gaussian_filter(total, 0.4))


_VIEWS = 60
_SIDE = 220


def openness(vertices: np.ndarray, normals: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Share of the light from all around that reaches each vertex ``[n]``: ambient occlusion by counting views."""
    total, reached = np.full(len(vertices), 1e-9), np.zeros(len(vertices))
    for k in range(_VIEWS):  # directions of a Fibonacci lattice
        up = 1 - 2 * (k + 0.5) / _VIEWS
        if up < -0.6:
            continue
        turn = k * np.pi * (3 - np.sqrt(5))
        flat = np.sqrt(1 - up**2)
        towards = np.array([flat * np.cos(turn), up, flat * np.sin(turn)])
        right = np.cross([0, 1, 0], towards)
        right /= np.linalg.norm(right)
        above = np.cross(towards, right)
        x, y, near = vertices @ right, vertices @ above, vertices @ towards
        points = np.stack([(x / 7 + 0.5) * _SIDE, (0.5 - (y + 0.8) / 7) * _SIDE], 1)
        fragments = rasterise(points, 20 - near, triangles, _SIDE)
        flat_depth = np.full(_SIDE * _SIDE, np.inf)
        flat_depth[fragments.pixels] = fragments.depths
        column, row = np.clip(points.astype(int), 0, _SIDE - 1).T
        seen = 20 - near < flat_depth[row * _SIDE + column] + 0.07
        weight = np.clip(normals @ towards, 0, None)
        total += weight
        reached += weight * seen
    return np.asarray(reached / total)
