"""Where a garment begins, by the name of its neckline."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clstudy.identities.virtual.exact import smooth_step
from clstudy.identities.virtual.moment import Clothes
from clstudy.registry import Registry

Neckline = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(x, z) of points of the mean body ``[n]`` -> height above which there is skin, in eye distances."""

NECKLINES: Registry[Neckline] = Registry("neckline")


@NECKLINES.register("crew")
def _crew(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.asarray(-2.55 + 0.12 * np.abs(x))


@NECKLINES.register("v-neck")
def _v_neck(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.asarray(-3.2 + 0.9 * np.minimum(np.abs(x), 1.0))


@NECKLINES.register("turtleneck")
def _turtleneck(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.where(z < -0.25, -1.95, -9.0)


@NECKLINES.register("shirt collar")
def _shirt_collar(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.where(z < -0.25, -2.9 + 0.8 * np.minimum(np.abs(x), 1.0), -9.0)


@NECKLINES.register("bare shoulders")
def _bare_shoulders(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.full_like(x, -3.15)


def cloth_share(clothes: Clothes, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """How far points of the mean body ``[n]`` are covered, in [0, 1].

    Raises:
        UserError: an unknown neckline.
    """
    return smooth_step((NECKLINES[clothes.neckline](x, z) - y) * 14 + 0.5)


def cloth_colours(clothes: Clothes, y: np.ndarray) -> np.ndarray:
    """Linear colours ``[n, 3]`` at heights ``[n]``."""
    cloth = np.array(clothes.colour) + np.zeros((len(y), 3))
    if not clothes.stripes:
        return cloth
    turns = (y + 8.0) * clothes.stripes
    wave = np.abs(turns - np.floor(turns) - 0.5) * 4 - 0.5
    share = smooth_step(wave)[:, None]
    return np.asarray(cloth * (1 - share) + np.array(clothes.second) * share)
