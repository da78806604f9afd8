"""What is behind a person, by name: functions that paint a square in linear light."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clstudy.identities.virtual.exact import smooth_step, value_noise
from clstudy.identities.virtual.moment import Backdrop
from clstudy.registry import Registry
from clstudy.seeding import derive_rng

Paint = Callable[[Backdrop, np.ndarray, np.ndarray], np.ndarray]
"""(settings, x, y) -> share of the second colour ``[s, s]`` in [0, 1]; x and y in [0, 1], right and down."""

BACKDROPS: Registry[Paint] = Registry("backdrop")


def backdrop(settings: Backdrop, size: int) -> np.ndarray:
    """Linear colours ``[size, size, 3]``.

    Raises:
        UserError: an unknown kind.
    """
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    mixed = BACKDROPS[settings.kind](settings, x, y)[..., None]
    grain = (0.92 + 0.16 * value_noise(settings.seed + 77, 9, x, y))[..., None]
    return np.asarray((np.array(settings.colour) * (1 - mixed) + np.array(settings.second) * mixed) * grain)


@BACKDROPS.register("plain")
def _plain(settings: Backdrop, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.zeros_like(x)


@BACKDROPS.register("gradient")
def _gradient(settings: Backdrop, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    slope = derive_rng("backdrop", settings.seed).random() - 0.5
    return np.minimum(np.maximum(y + slope * (x - 0.5), 0.0), 1.0)


@BACKDROPS.register("clouds")
def _clouds(settings: Backdrop, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(0.7 * value_noise(settings.seed, 3, x, y) + 0.3 * value_noise(settings.seed + 1, 7, x, y))


@BACKDROPS.register("wall")
def _wall(settings: Backdrop, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A wall above a darker floor or shelf."""
    height = 0.45 + 0.4 * derive_rng("backdrop", settings.seed).random()
    return smooth_step((y - height) * 18)


@BACKDROPS.register("curtain")
def _curtain(settings: Backdrop, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Vertical folds of uneven width."""
    along = x + 0.05 * value_noise(settings.seed, 4, x, y)
    return value_noise(settings.seed + 5, 14, along, np.zeros_like(y))


@BACKDROPS.register("lights")
def _lights(settings: Backdrop, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Discs of light out of focus."""
    rng = derive_rng("backdrop", settings.seed)
    total = np.zeros_like(x)
    for _ in range(9):
        radius = 0.05 + 0.08 * rng.random()
        dx, dy = x - rng.random(), y - rng.random()
        total = np.maximum(total, smooth_step((radius * radius - dx * dx - dy * dy) * 260) * (0.4 + 0.6 * rng.random()))
    return total


@BACKDROPS.register("window")
def _window(settings: Backdrop, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A bright window on one side, with bars."""
    left = derive_rng("backdrop", settings.seed).random() * 0.6
    inside = smooth_step((x - left) * 30) * smooth_step((left + 0.38 - x) * 30) * smooth_step((0.75 - y) * 30)
    bars = np.minimum(np.abs(x - left - 0.19), np.abs(y - 0.33))
    return np.asarray(inside * smooth_step((bars - 0.012) * 80))
