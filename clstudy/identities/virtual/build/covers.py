"""Hair, hats and glasses for the mean head, as meshes that follow a person's head.

Hair and hats share one grid around the skull: columns are azimuths, rows go from the crown to the height of the ears
and on down as a curtain. A cover lies at a signed distance from the skin; where it is negative the cover is under the
skin, so that the hairline is where both surfaces meet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from clstudy.identities.virtual.build.makehuman import MakeHuman, skull_radii
from clstudy.registry import Registry

COLUMNS, SKULL_ROWS, CURTAIN_ROWS = 49, 19, 9
ROWS = SKULL_ROWS + CURTAIN_ROWS
_ORIGIN = np.array([0.0, 0.3, -1.1])
_WIDEST, _LOWEST_ANGLE = np.radians(165), np.radians(116)
_UNDER = -0.12
_CURTAIN = 0.2  # thick enough not to let skin shine through


@dataclass(frozen=True)
class Skull:
    """The grid on the mean head's skin.

    Attributes:
        points: ``[ROWS, COLUMNS, 3]``; those of the curtain are those of the last skull row.
        outward: unit vectors ``[ROWS, COLUMNS, 3]``.
        bound: the skin vertex that each grid point follows, ``[ROWS, COLUMNS]``.
    """

    points: np.ndarray
    outward: np.ndarray
    bound: np.ndarray

    @property
    def azimuth(self) -> np.ndarray:
        """0 in front, radians, ``[COLUMNS]``."""
        return np.linspace(-_WIDEST, _WIDEST, COLUMNS)


def grid_on(head: MakeHuman, skin: np.ndarray) -> Skull:
    """The grid of ``head``; ``skin`` are the vertices that it may follow, but for the ears, which vary most."""
    x, y, z = head.template[skin].T
    skin = skin[~((np.abs(x) > 1.0) & (y > -1) & (y < 0.55) & (z < -0.45) & (z > -2.1))]
    polar = np.linspace(0.02, 1, SKULL_ROWS)[:, None] * _LOWEST_ANGLE
    azimuth = np.linspace(-_WIDEST, _WIDEST, COLUMNS)[None]
    outward = np.stack(
        [np.sin(polar) * np.sin(azimuth), np.cos(polar) + 0 * azimuth, np.sin(polar) * np.cos(azimuth)], axis=-1
    )
    radii = skull_radii(head, _ORIGIN, outward.reshape(-1, 3)).reshape(SKULL_ROWS, COLUMNS)
    for row in radii:
        known = ~np.isnan(row)
        row[:] = np.interp(np.arange(COLUMNS), np.flatnonzero(known), row[known])
    points = _ORIGIN + outward * radii[..., None]
    low = np.repeat(points[-1:], CURTAIN_ROWS, 0), np.repeat(outward[-1:], CURTAIN_ROWS, 0)
    points, outward = np.concatenate([points, low[0]]), np.concatenate([outward, low[1]])
    bound = skin[cKDTree(head.template[skin]).query(points.reshape(-1, 3))[1]].reshape(ROWS, COLUMNS)
    return Skull(points, outward, bound)


@dataclass(frozen=True)
class Cover:
    """Distances from the skin ``[SKULL_ROWS, COLUMNS]`` in eye distances, and a curtain.

    Attributes:
        distances: negative where there is no cover.
        brim: how far it stands off horizontally, in addition, ``[SKULL_ROWS, COLUMNS]``.
        length: how far the curtain hangs below the ears; 0: none.
        opening: azimuth in radians within which the curtain is open.
        flare: how far the curtain's end stands off from where it starts.
    """

    distances: np.ndarray
    brim: np.ndarray | None = None
    length: float = 0.0
    opening: float = 1.1
    flare: float = 0.0


def placed(skull: Skull, cover: Cover) -> tuple[np.ndarray, np.ndarray]:
    """Points ``[ROWS, COLUMNS, 3]`` and thickness ``[ROWS, COLUMNS]`` of a cover on the mean head."""
    thickness = np.full((ROWS, COLUMNS), _UNDER)
    thickness[:SKULL_ROWS] = np.maximum(cover.distances, _UNDER)
    points = skull.points + skull.outward * thickness[..., None]
    if cover.brim is not None:
        level = skull.outward[:SKULL_ROWS] * [1, 0, 1]
        points[:SKULL_ROWS] += (level + [0, -0.12, 0]) * cover.brim[..., None]
    inside = np.array([0.0, -0.6, -1.4])
    points[SKULL_ROWS:] = inside + 0.3 * (points[SKULL_ROWS:] - inside)
    if cover.length:
        hangs = np.abs(skull.azimuth) > cover.opening
        start = points[SKULL_ROWS - 1]
        flat = skull.outward[SKULL_ROWS - 1] * [1, 0, 1]
        for row in range(CURTAIN_ROWS):
            share = (row + 1) / CURTAIN_ROWS
            away = cover.flare * share - 0.22 * share**4  # the ends turn inwards
            lower = start + flat * away + np.array([0, -cover.length * share, 0])
            points[SKULL_ROWS + row, hangs] = lower[hangs]
            thickness[SKULL_ROWS + row, hangs] = _CURTAIN
    return points, thickness


Style = Callable[[Skull], Cover]
HAIR: Registry[Style] = Registry("hair shape")
HATS: Registry[Style] = Registry("hat")


def _coordinates(skull: Skull) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    points = skull.points[:SKULL_ROWS]
    return points[..., 0], points[..., 1], points[..., 2]


def _hairline(
    skull: Skull, *, front: float = 1.02, temples: float = 0.36, corners: float = 0.0, nape: float = -1.1
) -> np.ndarray:
    """Signed distance from the hairline, positive in the hair: forehead, temples, round the ears, nape."""
    x, y, z = _coordinates(skull)
    forehead = y - front + temples * x**2 - corners * np.exp(-(((np.abs(x) - 0.6) / 0.22) ** 2)) * (y > 0.5)
    temple = np.minimum(-0.42 - z, y - 0.02 + 0.35 * (z + 0.42))
    behind = np.minimum(-1.35 - z, y - nape)
    return np.asarray(np.maximum.reduce([forehead, temple, behind]))


def _grown(line: np.ndarray, height: np.ndarray | float) -> np.ndarray:
    """Distances that rise from the hairline to ``height``, slowly at first."""
    edge: np.ndarray = np.clip(line / 0.42, -1, 1)
    rise = np.clip(edge, 0, 1) ** 1.5 * (2.5 - 1.5 * edge)
    return np.asarray(np.where(edge > 0, 0.045 * np.minimum(edge * 4, 1) + height * rise, 0.4 * edge))


@HAIR.register("cropped")
def _cropped(skull: Skull) -> Cover:
    return Cover(_grown(_hairline(skull, front=1.04, corners=0.14), 0.05))


@HAIR.register("short")
def _short(skull: Skull) -> Cover:
    y = _coordinates(skull)[1]
    return Cover(_grown(_hairline(skull, corners=0.08), 0.08 + 0.2 * np.clip(y - 0.5, 0, 1)))


@HAIR.register("quiff")
def _quiff(skull: Skull) -> Cover:
    x, y, z = _coordinates(skull)
    crest = np.exp(-((x / 0.75) ** 2)) * np.exp(-(((z + 0.25) / 0.55) ** 2)) * (y > 0.6)
    return Cover(_grown(_hairline(skull, front=1.04, corners=0.2), 0.05 + 0.5 * crest + 0.15 * np.clip(y - 0.7, 0, 1)))


@HAIR.register("side parting")
def _side_parting(skull: Skull) -> Cover:
    x, y, _ = _coordinates(skull)
    parting = 1 - 0.9 * np.exp(-(((x - 0.5) / 0.16) ** 2)) * (y > 0.8)
    line = _hairline(skull, front=1.02, temples=0.2) + 0.18 * np.clip(0.3 - x, 0, 0.8) * (y > 0.4)
    return Cover(_grown(line, (0.14 + 0.2 * np.clip(y - 0.4, 0, 1)) * parting))


@HAIR.register("fringe")
def _fringe(skull: Skull) -> Cover:
    x = _coordinates(skull)[0]
    line = _hairline(skull, front=0.62, temples=-0.02)
    return Cover(_grown(np.maximum(line, -0.42 - _coordinates(skull)[2]), 0.24 + 0 * x), None, 1.5, 1.05, 0.05)


@HAIR.register("bob")
def _bob(skull: Skull) -> Cover:
    x, y, z = _coordinates(skull)
    line = np.maximum(_hairline(skull), np.minimum(-0.3 - z, y + 3))
    return Cover(
        _grown(line, 0.2 + 0.1 * np.clip(1 - y, 0, 1) - 0.12 * np.exp(-((x / 0.12) ** 2))), None, 1.3, 1.0, 0.12
    )


@HAIR.register("long")
def _long(skull: Skull) -> Cover:
    x, y, z = _coordinates(skull)
    line = np.maximum(_hairline(skull), np.minimum(-0.42 - z, y + 3))
    return Cover(
        _grown(line, 0.16 + 0.08 * np.clip(1 - y, 0, 1) - 0.1 * np.exp(-((x / 0.1) ** 2))), None, 2.7, 1.12, 0.25
    )


@HAIR.register("afro")
def _afro(skull: Skull) -> Cover:
    x, y, z = _coordinates(skull)
    bumps = 0.05 * np.sin(7 * x + 1) * np.sin(8 * y) + 0.05 * np.sin(9 * z + 2 * x)
    return Cover(_grown(_hairline(skull, front=0.94), 0.52 + bumps))


@HAIR.register("curls")
def _curls(skull: Skull) -> Cover:
    x, y, z = _coordinates(skull)
    bumps = 0.07 * np.sin(9 * x + 4 * y) + 0.07 * np.sin(10 * y - 5 * z + 1)
    line = np.maximum(_hairline(skull, front=0.86), np.minimum(-0.38 - z, y + 3))
    return Cover(_grown(line, 0.3 + bumps * np.clip(y + 0.7, 0, 1)), None, 1.0, 1.08, 0.1)


@HAIR.register("bun")
def _bun(skull: Skull) -> Cover:
    x, y, z = _coordinates(skull)
    off = np.sqrt(x**2 + (z + 1.15) ** 2)
    knot = 0.55 * np.clip((0.62 - off) / 0.16, 0, 1) * (y > 0.8)
    return Cover(_grown(_hairline(skull, front=1.0), 0.06 + knot))


@HAIR.register("receding")
def _receding(skull: Skull) -> Cover:
    x, y, _ = _coordinates(skull)
    line = _hairline(skull, front=1.18) - 0.5 * np.exp(-(((np.abs(x) - 0.62) / 0.3) ** 2)) * (y > 0.75)
    return Cover(_grown(line, 0.1))


@HAIR.register("crown of hair")
def _crown_of_hair(skull: Skull) -> Cover:
    x, y, z = _coordinates(skull)
    return Cover(_grown(np.minimum(_hairline(skull, front=3.0), 0.95 - y), 0.1))


@HAIR.register("bald")
def _bald(skull: Skull) -> Cover:
    return Cover(np.full((SKULL_ROWS, COLUMNS), -1.0))


@HATS.register("beanie")
def _beanie(skull: Skull) -> Cover:
    x, y, z = _coordinates(skull)
    line = y - 0.62 - 0.25 * np.clip(z + 0.3, -1.4, 0) * -0.6
    fold = 0.1 * ((line > 0) & (line < 0.42))
    return Cover(np.where(line > 0, 0.26 + fold + 0.25 * np.clip(y - 1.1, 0, 1), -1))


@HATS.register("cap")
def _cap(skull: Skull) -> Cover:
    x, y, z = _coordinates(skull)
    line = y - 0.74 + 0.15 * np.clip(z + 0.3, -1.6, 0)
    lowest = (line > 0) & (line < 0.2) & (z > -0.35)
    return Cover(np.where(line > 0, 0.2, -1), brim=lowest * 0.8 * np.clip(1.2 - 0.9 * x**2, 0, 1))


@HATS.register("brimmed hat")
def _brimmed_hat(skull: Skull) -> Cover:
    y = _coordinates(skull)[1]
    line = y - 0.74
    return Cover(np.where(line > 0, 0.2 + 0.4 * np.clip(y - 1.1, 0, 0.6), -1), brim=((line > 0) & (line < 0.2)) * 0.62)


@HATS.register("headband")
def _headband(skull: Skull) -> Cover:
    x, y, z = _coordinates(skull)
    line = y - 0.72 + 0.35 * np.clip(z + 0.2, -1.6, 0) * -0.6
    return Cover(np.where((line > 0) & (line < 0.4), 0.13, -1))


@HATS.register("headscarf")
def _headscarf(skull: Skull) -> Cover:
    x, y, z = _coordinates(skull)
    line = np.maximum(y - 0.82 + 0.2 * x**2, -0.1 - z)
    return Cover(np.where(line > 0, 0.16 + 0.1 * np.minimum(line, 0.5), _UNDER), None, 2.2, 0.78, 0.1)
