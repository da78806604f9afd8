"""Hair, hat and glasses on a person's head, as points in eye distances."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from clstudy.identities.virtual.assets import POSITION_STEPS, virtual_assets
from clstudy.identities.virtual.head import Neighbours, years_of_ageing
from clstudy.identities.virtual.person import Person

_INSIDE_ROWS = 10
"""Rows of the grid, from the lowest up, that can be seen from inside."""

_CURTAIN_ROWS = 9
_ROOTS = 0.08
_BRIDGE_LANDMARK = 27


@dataclass(frozen=True)
class Grid:
    """The mesh that hair and hats share.

    Attributes:
        outside: triangles as seen from outside, ``[t, 3]``, and the normals' neighbours.
        inside: the low ones once more, as seen from inside, ``[u, 3]``.
        columns, rows: grid coordinates of each point ``[n]``.
    """

    outside: Neighbours
    inside: np.ndarray
    columns: np.ndarray
    rows: np.ndarray


@cache
def grid() -> Grid:
    """The grid's mesh."""
    rows, columns = virtual_assets()["grid.bound"].shape
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)[None]).ravel()
    first = np.stack([corner, corner + columns, corner + 1], axis=1)
    second = np.stack([corner + 1, corner + columns, corner + columns + 1], axis=1)
    outside = np.concatenate([first, second])
    low = outside[outside.min(axis=1) >= columns * (rows - _INSIDE_ROWS)]
    row, column = np.divmod(np.arange(rows * columns), columns)
    return Grid(Neighbours.of(outside, rows * columns), low[:, ::-1], column.astype(float), row.astype(float))


@dataclass(frozen=True)
class Cover:
    """Hair or a hat: ``points`` ``[n, 3]`` and ``thickness`` ``[n]`` in eye distances, negative under the skin."""

    points: np.ndarray
    thickness: np.ndarray


def _cover(kind: str, number: int, moved: np.ndarray, mirrored: bool) -> Cover:
    assets = virtual_assets()
    points = assets[f"{kind}.points"][number] / float(POSITION_STEPS)
    thickness = assets[f"{kind}.thickness"][number] / 128.0
    if mirrored:
        points = points[:, ::-1] * np.array([-1.0, 1.0, 1.0])
        thickness = thickness[:, ::-1]
    return Cover(points.reshape(-1, 3) + moved, np.ascontiguousarray(thickness).ravel())


def hair_and_hat(person: Person, vertices: np.ndarray, age: float, with_hat: bool) -> tuple[Cover, Cover | None]:
    """The hair, less of it in old age and none under a hat, and the hat if one is worn.

    Args:
        person: whose.
        vertices: the resting head ``[n, 3]`` in eye distances.
        age: years.
        with_hat: whether the hat is worn.
    """
    assets = virtual_assets()
    bound = assets["grid.bound"].ravel().astype(np.int64)
    moved = (vertices - assets["head.mean"] / float(POSITION_STEPS))[bound]
    hidden = assets["grid.hidden"].reshape(-1, 3) / float(POSITION_STEPS) + moved
    hair = _cover("hair", assets.rows["hair"].index(person.hair), moved, person.parted_left)
    lost = 0.3 * min(max(years_of_ageing(age), 0.0), 1.0)
    # only what stands off by more than the roots grows thin: the scalp must not show through the mesh
    shrink = lost * np.minimum(np.maximum((hair.thickness - _ROOTS) / 0.1, 0.0), 1.0)
    shrink = np.where(grid().rows < len(assets["grid.bound"]) - _CURTAIN_ROWS, shrink, 0.0)[:, None]
    hair = Cover(hair.points + (hidden - hair.points) * shrink, hair.thickness)
    if not with_hat:
        return hair, None
    hat = _cover("hats", assets.rows["hats"].index(person.hat), moved, False)
    under = (hat.thickness > 0)[:, None]
    return Cover(np.where(under, hidden, hair.points), np.where(under[:, 0], -0.1, hair.thickness)), hat


def glasses_points(person: Person, vertices: np.ndarray) -> np.ndarray:
    """The points of a person's glasses ``[m, 3]``, resting on the bridge of the nose."""
    assets = virtual_assets()
    number = assets.rows["glasses"].index(person.glasses)
    bridge = int(assets["head.landmarks"][_BRIDGE_LANDMARK])
    moved = vertices[bridge] - assets["head.mean"][bridge] / float(POSITION_STEPS)
    return np.asarray(assets["glasses.points"][number] / float(POSITION_STEPS) + moved)
