"""Skin textures from portraits: the portrait laid on the head, freed of its light, its hair and its eyes.

A texture is an atlas of the face: columns are the angle about the head's vertical axis, rows the height. Colours are
linear light here, and their square roots (gamma 2) where they are stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from clstudy.identities.virtual.build.fitting import Fit
from clstudy.identities.virtual.build.shapes import Shapes
from clstudy.identities.virtual.rasteriser import rasterise

ATLAS = 128
"""Side of the atlas while a texture is made."""

WIDEST_ANGLE = 1.1
TOP, BOTTOM = 1.15, -2.05
_AXIS_DEPTH = -1.1
_LIPS, _EYES, _BROWS = [*range(48, 60)], ([*range(36, 42)], [*range(42, 48)]), ([*range(17, 22)], [*range(22, 27)])


def atlas_coordinates(vertices: np.ndarray) -> np.ndarray:
    """Place of each vertex of the mean head in the atlas ``[n, 2]``: column and row, both in [0, 1]."""
    angle = np.arctan2(vertices[:, 0], vertices[:, 2] - _AXIS_DEPTH)
    column = 0.5 + angle / (2 * WIDEST_ANGLE)
    row = (TOP - vertices[:, 1]) / (TOP - BOTTOM)
    return np.asarray(np.clip(np.stack([column, row], axis=1), 0.0, 1.0))


@dataclass(frozen=True)
class Masks:
    """Where things are in the atlas, ``[ATLAS, ATLAS]`` in [0, 1] each."""

    eyes: np.ndarray
    brows: np.ndarray
    lips: np.ndarray

    @cached_property
    def features(self) -> np.ndarray:
        """What is no bare skin."""
        return np.asarray(np.maximum.reduce([self.eyes, self.brows, self.lips]))


class Atlas:
    """The mean head unrolled.

    Args:
        shapes: the heads.
        triangles: those of the skin, ``[t, 3]``, without the inside of the mouth.
    """

    def __init__(self, shapes: Shapes, triangles: np.ndarray):
        self.coordinates = atlas_coordinates(shapes.mean)
        mean, points = shapes.mean, self.coordinates * ATLAS
        radius = np.hypot(mean[:, 0], mean[:, 2] - _AXIS_DEPTH)
        fragments = rasterise(points, 10 - radius, triangles, ATLAS)
        self._corners, self._weights, self._pixels = triangles[fragments.triangles], fragments.weights, fragments.pixels
        self.landmarks = points[shapes.landmarks]
        self.heights = np.linspace(TOP, BOTTOM, ATLAS)[:, None]
        self.angles = np.linspace(-WIDEST_ANGLE, WIDEST_ANGLE, ATLAS)[None]

    def painted(self, values: np.ndarray, empty: float = 0.0) -> np.ndarray:
        """Vertex values ``[n, c]`` interpolated over the atlas ``[ATLAS, ATLAS, c]``."""
        picture = np.full((ATLAS * ATLAS, values.shape[1]), empty)
        picture[self._pixels] = (values[self._corners] * self._weights[..., None]).sum(1)
        return picture.reshape(ATLAS, ATLAS, -1)

    @cached_property
    def masks(self) -> Masks:
        """Eyes, brows and lips, from the landmarks of the mean head."""
        eyes = np.maximum(*[self._area(self.landmarks[side], 1.35) for side in _EYES])
        brows = np.maximum(*[self._stroke(self.landmarks[side] + [0, 1.0], 3.6) for side in _BROWS])
        return Masks(eyes=eyes, brows=brows, lips=self._area(self.landmarks[_LIPS], 1.2))

    def _area(self, outline: np.ndarray, grown: float) -> np.ndarray:
        from matplotlib.path import Path as Outline

        middle = outline.mean(0)
        y, x = np.mgrid[:ATLAS, :ATLAS]
        inside = Outline((outline - middle) * grown + middle).contains_points(np.stack([x.ravel(), y.ravel()], 1) + 0.5)
        return np.asarray(gaussian_filter(inside.reshape(ATLAS, ATLAS).astype(float), 0.8))

    def _stroke(self, line: np.ndarray, width: float) -> np.ndarray:
        y, x = np.mgrid[:ATLAS, :ATLAS] + 0.5
        steps = np.linspace(0, len(line) - 1, 60)
        along = np.stack([np.interp(steps, np.arange(len(line)), line[:, k]) for k in (0, 1)], 1)
        distance = np.sqrt(((np.stack([x, y], -1)[:, :, None] - along) ** 2).sum(-1)).min(-1)
        return np.asarray(1 / (1 + np.exp((distance - width) * 1.8)))


@dataclass(frozen=True)
class Skin:
    """A texture.

    Attributes:
        colours: linear ``[ATLAS, ATLAS, 3]``.
        tone: the skin's own colour ``[3]``.
        seen: share of the face that the portrait shows well.
        flaws: how much the two sides of the face differ and how colourful their details are, in logarithms: shadows,
            stray hair, coloured glasses.
    """

    colours: np.ndarray
    tone: np.ndarray
    seen: float
    flaws: float


_LOW_PASS = 9.0
_KEPT_SHADING = 0.4
_DETAIL = 1.3
_COLOURFULNESS = 0.6
_DARKEST, _BRIGHTEST = -1.4, 0.28  # of the detail, as logarithms: deep shadows stay, highlights are the lamp's
_MIDDLE_SKIN, _SPREAD = 0.32, 0.75  # portraits are dark by their light more often than by their skin
_DARKEST_SKIN, _PALEST_SKIN = 0.06, 0.60
_RED_OVER_GREEN, _BLUE_OVER_GREEN = (
    (0.38, 0.80),
    (-0.90, -0.28),
)  # logarithms; beyond, the portrait's light was coloured


def skin_texture(atlas: Atlas, fit: Fit, portrait: np.ndarray, normals: np.ndarray) -> Skin:
    """The portrait's skin without its light.

    Args:
        atlas: where a texture goes.
        fit: the head behind the portrait.
        portrait: uint8 ``[64, 64, 3]``.
        normals: ``[n, 3]`` of the head turned as in the portrait.
    """
    picture = (portrait / 255.0) ** 2
    facing = np.clip((normals[:, 2] - 0.3) / 0.4, 0, 1)
    inside = ((fit.points > 0.5) & (fit.points < 62.5)).all(1)
    found = atlas.painted(np.concatenate([fit.points, (facing * inside)[:, None]], axis=1))
    points, trust = found[..., :2], found[..., 2]
    colours = np.stack(
        [map_coordinates(picture[..., c], [points[..., 1], points[..., 0]], order=1, mode="nearest") for c in range(3)],
        axis=-1,
    )
    masks = atlas.masks
    light = np.log(colours.clip(0.004))
    cheeks = (trust > 0.7) & (atlas.heights < -0.25) & (atlas.heights > -0.8) & (np.abs(atlas.angles) < 0.75)
    tone = np.median(light[cheeks & (masks.features < 0.1)], axis=0)
    trust = trust * _skin_like(light, tone, atlas, masks)
    bare = trust * (1 - masks.features)
    low = _smoothed(light, bare, _LOW_PASS, tone)
    own = _plausible(tone)
    detail = _smoothed(light - low, trust * (1 - masks.eyes), 0.6, np.zeros(3))
    shade = low - tone
    shade = (shade + shade[:, ::-1]) / 2 * _KEPT_SHADING
    within = _fading_edges(atlas)
    surely = gaussian_filter(trust, 2.0)[..., None] * within
    shade = shade * within
    hidden_eyes = masks.eyes[..., None]
    lid = np.array([-0.10, -0.16, -0.18])
    grey = detail.mean(-1, keepdims=True)
    detail = _DETAIL * (np.clip(grey, _DARKEST, _BRIGHTEST) + _COLOURFULNESS * (detail - grey)) * surely
    albedo = own + shade + detail * (1 - hidden_eyes) + lid * hidden_eyes
    face = (np.abs(atlas.angles) < 0.7) & (atlas.heights < 0.9) & (atlas.heights > -1.6)
    seen = float(trust[face].mean())
    sides = gaussian_filter(detail * (1 - hidden_eyes), (2.0, 2.0, 0))
    coloured = np.abs(sides - sides.mean(-1, keepdims=True)).max(-1) * (1 - masks.lips)
    flaws = float(np.abs(sides - sides[:, ::-1])[face].mean() + 0.5 * np.quantile(coloured[face], 0.97))
    return Skin(np.exp(albedo).clip(0, 1), np.exp(own), seen, flaws)


def _fading_edges(atlas: Atlas) -> np.ndarray:
    """1 inside, 0 at the atlas's edges, whose colours go on over the scalp, the ears and the neck ``[a, a, 1]``."""
    top = np.clip((TOP - 0.04 - atlas.heights) / 0.25, 0, 1)
    bottom = np.clip((atlas.heights - BOTTOM - 0.04) / 0.2, 0, 1)
    sides = np.clip((WIDEST_ANGLE - 0.04 - np.abs(atlas.angles)) / 0.2, 0, 1)
    return np.asarray(top * bottom * sides)[..., None]


def _plausible(tone: np.ndarray) -> np.ndarray:
    """The logarithm of a colour that skin can have, nearest to that of ``tone``."""
    middle = np.log(_MIDDLE_SKIN)
    green = np.clip(middle + _SPREAD * (tone[1] - middle), np.log(_DARKEST_SKIN), np.log(_PALEST_SKIN))
    red = green + np.clip(tone[0] - tone[1], *_RED_OVER_GREEN)
    return np.array([red, green, green + np.clip(tone[2] - tone[1], *_BLUE_OVER_GREEN)])


def _skin_like(light: np.ndarray, tone: np.ndarray, atlas: Atlas, masks: Masks) -> np.ndarray:
    """1 where the portrait shows skin; 0 for hair over the forehead and the temples."""
    off = np.abs(gaussian_filter(light, (1.5, 1.5, 0)) - tone).max(-1)
    rim = np.clip(np.maximum((atlas.heights - 0.45) / 0.3, (np.abs(atlas.angles) - 0.62) / 0.25), 0, 1)
    rim = rim * (1 - masks.brows)
    like = 1 - np.clip((off - 0.35) / 0.25, 0, 1)
    return np.asarray(gaussian_filter(1 - rim * (1 - like), 1.0))


def _smoothed(values: np.ndarray, weights: np.ndarray, sigma: float, otherwise: np.ndarray) -> np.ndarray:
    """Weighted Gaussian mean; where nothing has weight, ``otherwise``."""
    little = 0.02
    total = gaussian_filter(weights, sigma)[..., None] + little
    parts = gaussian_filter(values * weights[..., None], (sigma, sigma, 0))
    return np.asarray((parts + little * otherwise) / total)


def stored(colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brightness uint8 ``[64, 64]`` and colour differences uint8 ``[2, 32, 32]`` of a texture, gamma 2."""
    root = (np.sqrt(colours) * 255).round().clip(0, 255).astype(np.uint8)
    small = np.asarray(Image.fromarray(root).reduce(2), float)
    brightness = small @ [0.25, 0.5, 0.25]
    differences = np.stack([small[..., 0] - small[..., 1], small[..., 2] - small[..., 1]])
    coarse = differences.reshape(2, 32, 2, 32, 2).mean((2, 4))
    return brightness.round().astype(np.uint8), (coarse + 128).round().clip(0, 255).astype(np.uint8)
