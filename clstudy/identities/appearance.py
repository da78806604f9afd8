"""Appearance of a timestamp: light, colour, shadow, backdrop and things worn, added to an aligned face photo.

The domain generator has seen none of it. A timestamp's photos share all of it, with small variation.
Coordinates are pixels of the aligned photo, centre of the top-left pixel at (0, 0), y downwards.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw

from clstudy.registry import Registry
from clstudy.seeding import derive_rng

Colour = tuple[float, float, float]
"""Red, green, blue in [0, 1]."""

_SUPERSAMPLING = 4
_DISPLAY_GAMMA = 2.2


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """How a photo looks; a timestamp has one appearance, and each of its photos a slightly varied copy.

    Angles are in radians, lengths of shadows in units of the photo's side.
    """

    light_angle: float
    """Direction the light comes from in the picture plane (-pi/2: from above)."""
    light_slant: float
    """Angle between light and viewing direction: 0 frontal, pi/2 from the side."""
    ambient: float
    """Share of light that comes from everywhere, in [0, 1]."""
    tint: Colour
    """Natural logarithms of the light's red, green and blue gains."""
    exposure: float
    """Photographic stops."""
    gamma: float
    """Tone curve exponent; above 1 darkens the middle tones."""
    saturation: float
    """0 grey, 1 unchanged."""
    shadow: str
    shadow_angle: float
    shadow_offset: float
    shadow_softness: float
    shadow_depth: float
    """Share of light that the shadow takes away, in [0, 1]."""
    worn: str
    worn_colour: Colour
    worn_style: float
    """In [0, 1]: width of a frame, height of a brim."""
    backdrop: Colour
    backdrop_strength: float
    """Share of the backdrop's colour that replaces what is behind the head, in [0, 1]."""

    def varied(self, rng: np.random.Generator) -> Appearance:
        """A photo's own small deviation from its timestamp's appearance."""
        wobble = rng.standard_normal(8)
        return replace(
            self,
            light_angle=self.light_angle + 0.12 * wobble[0],
            light_slant=self.light_slant + 0.06 * wobble[1],
            exposure=self.exposure + 0.10 * wobble[2],
            gamma=self.gamma * float(np.exp(0.03 * wobble[3])),
            shadow_angle=self.shadow_angle + 0.06 * wobble[4],
            shadow_offset=self.shadow_offset + 0.03 * wobble[5],
            worn_style=float(np.clip(self.worn_style + 0.04 * wobble[6], 0, 1)),
            backdrop_strength=float(np.clip(self.backdrop_strength + 0.04 * wobble[7], 0, 1)),
        )


def timestamp_appearance(data_seed: int, person: int, timestamp: int, attempt: int) -> Appearance:
    """Appearance of one timestamp of one synthetic person; ``attempt`` counts discarded attempts.

    Things worn and kinds of shadow rotate in each person's own order, and hue, light direction and
    exposure advance by irrational steps, so that neighbouring timestamps always differ clearly and timestamp t does
    not depend on how many there are. Every further attempt is a new and slightly milder draw.
    """
    order = derive_rng("appearance order", data_seed, person)
    worn_order, shadow_order = order.permutation(list(WORN)), order.permutation(list(SHADOWS))
    start = order.random(5)
    # Steps by the powers of the inverse plastic number (Roberts' R-sequence) spread well in several dimensions.
    hue, side, bright, backdrop_hue, backdrop_light = (start + timestamp * _IRRATIONAL_STEPS) % 1.0

    rng = derive_rng("appearance", data_seed, person, timestamp, attempt)
    mild = 0.85**attempt
    tint_angle = 2 * np.pi * hue
    strength = mild * rng.uniform(0.16, 0.36)
    # attempts also advance the thing worn, because it may be what hides the person
    worn = str(worn_order[(timestamp + attempt // 2) % len(worn_order)])
    return Appearance(
        light_angle=np.pi * (1.0 + side) + rng.uniform(-0.25, 0.25),
        light_slant=mild * rng.uniform(0.75, 1.15),
        ambient=1 - mild * rng.uniform(0.5, 0.75),
        tint=_colour(strength * np.cos(tint_angle - 2 * np.pi / 3 * np.arange(3))),
        exposure=mild * (bright * 1.0 - 0.3),
        gamma=float(np.exp(mild * rng.uniform(-0.2, 0.2))),
        saturation=1 + mild * rng.uniform(-0.5, 0.1),
        shadow=str(shadow_order[timestamp % len(shadow_order)]),
        shadow_angle=rng.uniform(0, 2 * np.pi),
        shadow_offset=rng.uniform(-0.08, 0.08),
        shadow_softness=rng.uniform(0.015, 0.05),
        shadow_depth=mild * rng.uniform(0.45, 0.65),
        worn=worn,
        worn_colour=_colour(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.3, 0.95), rng.uniform(0.25, 0.9))),
        worn_style=rng.random(),
        backdrop=_colour(colorsys.hsv_to_rgb(backdrop_hue, rng.uniform(0.2, 0.7), 0.25 + 0.65 * backdrop_light)),
        backdrop_strength=rng.uniform(0.45, 0.8),
    )


_IRRATIONAL_STEPS = 1.3247179572447460 ** -np.arange(1.0, 6.0)


def _colour(values: object) -> Colour:
    red, green, blue = np.asarray(values, float).tolist()
    return red, green, blue


def put_on(photo: np.ndarray, landmarks: np.ndarray, appearance: Appearance) -> np.ndarray:
    """Return the aligned photo (uint8 RGB ``[s, s, 3]``) with this appearance.

    Args:
        landmarks: 68 points ``[68, 2]`` in pixels of the photo.
    """
    head = _Head.of(landmarks, photo.shape[0])
    scene = photo / 255.0
    scene = _blend(scene, np.array(appearance.backdrop), appearance.backdrop_strength * (1 - head.mask)[..., None])
    scene = _put_on_worn(scene, head, appearance)
    # light adds up in linear intensities, not in display values
    light = np.clip(scene, 0, 1) ** _DISPLAY_GAMMA
    light = light * (_shading(head, appearance) * _shadow(head, appearance))[..., None]
    light = light * np.exp(appearance.tint) * 2.0**appearance.exposure
    grey = light @ np.array([0.2126, 0.7152, 0.0722])
    light = np.clip(grey[..., None] + appearance.saturation * (light - grey[..., None]), 0, None)
    # a shoulder instead of hard clipping: 0.8 and below stay, brighter tones approach 1
    light = np.where(light > 0.8, 0.8 + 0.2 * np.tanh((light - 0.8) / 0.2), light)
    shown = light ** (appearance.gamma / _DISPLAY_GAMMA)
    graded: np.ndarray = np.clip(np.round(shown * 255), 0, 255).astype(np.uint8)
    return graded


def _blend(under: np.ndarray, over: np.ndarray, share: np.ndarray) -> np.ndarray:
    blended: np.ndarray = under * (1 - share) + over * share
    return blended


@dataclass(frozen=True)
class _Head:
    """An upright ellipse around the head, and the face's own axes: eye distance as unit, origin between the eyes."""

    size: int
    centre: np.ndarray
    radii: np.ndarray
    origin: np.ndarray
    across: np.ndarray
    unit: float
    brow: float
    half_width: float

    @classmethod
    def of(cls, landmarks: np.ndarray, size: int) -> _Head:
        left, right = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
        unit = float(np.linalg.norm(right - left))
        across = (right - left) / unit
        down = np.array([-across[1], across[0]])
        origin = (left + right) / 2
        chin = landmarks[8]
        height = float((chin - landmarks[17:27].mean(0)) @ down)
        ears = (landmarks[[0, 16]] - origin) @ across
        # the top of a head lies about three quarters of the height from chin to brows above the brows
        centre = chin - down * 0.875 * height + across * (ears.mean() - (chin - origin) @ across) * 0.7
        half_width = float(np.ptp(ears) / 2)
        brow = float((landmarks[17:27].mean(0) - origin) @ down / unit)
        return cls(size, centre, np.array([half_width, 0.9 * height]), origin, across, unit, brow, half_width / unit)

    @cached_property
    def down(self) -> np.ndarray:
        return np.array([-self.across[1], self.across[0]])

    @cached_property
    def grid(self) -> np.ndarray:
        """Pixel centres ``[s, s, 2]``."""
        steps = np.arange(self.size, dtype=float)
        return np.stack(np.meshgrid(steps, steps, indexing="xy"), axis=-1)

    @cached_property
    def relative(self) -> np.ndarray:
        """Pixels relative to the ellipse ``[s, s, 2]``: length 1 on its edge."""
        relative: np.ndarray = (self.grid - self.centre) / (self.radii * 1.12)
        return relative

    @cached_property
    def mask(self) -> np.ndarray:
        """About 1 on the head and the neck below it, about 0 behind them ``[s, s]``."""
        radius = np.linalg.norm(self.relative, axis=-1)
        head = _step((1.05 - radius) / 0.06)
        below = self.grid - self.centre
        neck = _step((below[..., 1] - 0.7 * self.radii[1]) / 2) * _step((0.75 * self.radii[0] - abs(below[..., 0])) / 2)
        mask: np.ndarray = np.maximum(head, neck)
        return mask

    def points(self, local: np.ndarray) -> list[tuple[float, float]]:
        """Face coordinates ``[n, 2]`` (across, down; eye distances) to pixels of the supersampled canvas."""
        pixels = self.origin + self.unit * (local[:, :1] * self.across + local[:, 1:] * self.down)
        return [(float(x), float(y)) for x, y in (pixels + 0.5) * _SUPERSAMPLING - 0.5]


def _step(x: np.ndarray) -> np.ndarray:
    step: np.ndarray = 1 / (1 + np.exp(-np.clip(x, -40, 40)))
    return step


def _shading(head: _Head, appearance: Appearance) -> np.ndarray:
    """Lambert's law on an ellipsoid in place of the head, a slow gradient behind it; mean about 1. ``[s, s]``"""
    slant = np.clip(appearance.light_slant, 0, 1.4)
    direction = np.array([np.cos(appearance.light_angle), np.sin(appearance.light_angle)])
    flat = head.relative
    radius = np.linalg.norm(flat, axis=-1, keepdims=True)
    inside = flat * np.minimum(1, 0.97 / np.maximum(radius, 1e-9))
    towards_viewer = np.sqrt(1 - (inside**2).sum(-1))
    facing = np.clip(np.sin(slant) * inside @ direction + np.cos(slant) * towards_viewer, 0, None)
    # 0.55 is about the mean of `facing` over the head, so that light changes direction and not exposure
    on_head = appearance.ambient + (1 - appearance.ambient) * facing / 0.55
    behind = 1 + 0.5 * (1 - appearance.ambient) * np.tanh(flat @ direction / 1.5)
    return _blend(behind, on_head, head.mask)


ShadowField = Callable[["_Head", Appearance], np.ndarray]
SHADOWS: Registry[ShadowField] = Registry("shadow")
"""Kind of cast shadow -> function that returns its strength, in [0, 1], ``[s, s]``."""


def _shadow(head: _Head, appearance: Appearance) -> np.ndarray:
    return 1 - appearance.shadow_depth * SHADOWS[appearance.shadow](head, appearance)


def _along(head: _Head, appearance: Appearance) -> np.ndarray:
    """Signed distance from the face's middle along the shadow's direction, in units of the photo's side."""
    direction = np.array([np.cos(appearance.shadow_angle), np.sin(appearance.shadow_angle)])
    middle = head.origin + head.down * head.unit * 0.4
    along: np.ndarray = (head.grid - middle) @ direction / head.size - appearance.shadow_offset
    return along


@SHADOWS.register("none")
def _no_shadow(head: _Head, appearance: Appearance) -> np.ndarray:
    return np.zeros((head.size, head.size))


@SHADOWS.register("half")
def _half_shadow(head: _Head, appearance: Appearance) -> np.ndarray:
    return _step(_along(head, appearance) / appearance.shadow_softness)


@SHADOWS.register("blinds")
def _blinds_shadow(head: _Head, appearance: Appearance) -> np.ndarray:
    return _step(3 * np.sin(2 * np.pi * _along(head, appearance) / 0.21))


@SHADOWS.register("corner")
def _corner_shadow(head: _Head, appearance: Appearance) -> np.ndarray:
    turned = replace(appearance, shadow_angle=appearance.shadow_angle + np.pi / 2)
    softness = appearance.shadow_softness
    lit = _step((0.22 - abs(_along(head, appearance))) / softness) * _step(
        (0.28 - abs(_along(head, turned))) / softness
    )
    shadow: np.ndarray = 1 - lit
    return shadow


@SHADOWS.register("leaves")
def _leaves_shadow(head: _Head, appearance: Appearance) -> np.ndarray:
    """Incommensurate waves in three directions: patches as under a tree."""
    waves = [
        np.sin(2 * np.pi * _along(head, replace(appearance, shadow_angle=appearance.shadow_angle + turn)) / period)
        for turn, period in ((0.0, 0.31), (1.1, 0.23), (2.3, 0.41))
    ]
    return _step(2.5 * (np.sum(waves, axis=0) - 0.35))


class _Canvas:
    """A transparent layer drawn at four times the photo's resolution."""

    def __init__(self, size: int):
        self._image = Image.new("RGBA", (size * _SUPERSAMPLING,) * 2)
        # drawn shapes replace what is below; nothing is blended until the layer is laid on the photo
        self._draw = ImageDraw.Draw(self._image)

    def area(self, head: _Head, local: np.ndarray, colour: Colour, opacity: float = 1.0) -> None:
        self._draw.polygon(head.points(local), fill=_ink(colour, opacity))

    def line(self, head: _Head, local: np.ndarray, colour: Colour, width: float) -> None:
        points = head.points(local)
        thick = max(1, round(width * head.unit * _SUPERSAMPLING))
        self._draw.line(points, fill=_ink(colour, 1.0), width=thick, joint="curve")

    def laid_on(self, scene: np.ndarray) -> np.ndarray:
        size = scene.shape[0]
        layer = np.asarray(self._image, float) / 255
        weighted = np.concatenate([layer[..., :3] * layer[..., 3:], layer[..., 3:]], axis=-1)
        mean = weighted.reshape(size, _SUPERSAMPLING, size, _SUPERSAMPLING, 4).mean((1, 3))
        covered: np.ndarray = scene * (1 - mean[..., 3:]) + mean[..., :3]
        return covered


def _ink(colour: Colour, opacity: float) -> tuple[int, int, int, int]:
    red, green, blue = (round(255 * min(max(value, 0.0), 1.0)) for value in colour)
    return red, green, blue, round(255 * opacity)


def _scaled(colour: Colour, factor: float) -> Colour:
    return _colour(np.clip(np.array(colour) * factor, 0, 1))


DrawWorn = Callable[[_Canvas, _Head, Appearance], None]
WORN: Registry[DrawWorn] = Registry("thing worn")
"""Thing worn -> function that draws it by landmarks."""


def _put_on_worn(scene: np.ndarray, head: _Head, appearance: Appearance) -> np.ndarray:
    canvas = _Canvas(head.size)
    WORN[appearance.worn](canvas, head, appearance)
    return canvas.laid_on(scene)


@WORN.register("nothing")
def _wear_nothing(canvas: _Canvas, head: _Head, appearance: Appearance) -> None:
    pass


def _rounded(centre: tuple[float, float], half: tuple[float, float], power: float) -> np.ndarray:
    """Closed superellipse |x/a|^p + |y/b|^p = 1, ``[64, 2]``: p = 2 an ellipse, p = 4 a rounded rectangle."""
    turn = np.linspace(0, 2 * np.pi, 64)
    unit = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    outline: np.ndarray = np.array(centre) + np.array(half) * np.sign(unit) * abs(unit) ** (2 / power)
    return outline


def _glasses(
    canvas: _Canvas, head: _Head, appearance: Appearance, half: tuple[float, float], power: float, glass: float
) -> None:
    colour = _scaled(appearance.worn_colour, 0.6)
    width = 0.07 + 0.05 * appearance.worn_style
    for side in (-1.0, 1.0):
        rim = _rounded((0.5 * side, 0.06), half, power)
        canvas.area(head, rim, colour, glass)
        outer = side * (0.5 + half[0])
        canvas.line(head, np.array([[outer, 0.0], [side * head.half_width * 1.02, -0.08]]), colour, width)
        canvas.line(head, np.concatenate([rim, rim[1:3]]), colour, width)
    inner = 0.5 - half[0]
    canvas.line(head, np.array([[-inner, 0.02], [0.0, -0.05], [inner, 0.02]]), colour, width)


@WORN.register("round glasses")
def _wear_round_glasses(canvas: _Canvas, head: _Head, appearance: Appearance) -> None:
    _glasses(canvas, head, appearance, (0.36, 0.34), 2.0, 0.12)


@WORN.register("tinted glasses")
def _wear_tinted_glasses(canvas: _Canvas, head: _Head, appearance: Appearance) -> None:
    _glasses(canvas, head, appearance, (0.40, 0.29), 4.0, 0.4)


def _dome(width: float, base: float, height: float) -> np.ndarray:
    turn = np.linspace(0, np.pi, 40)
    return np.stack([width * np.cos(turn), base - height * np.sin(turn) ** 0.8], axis=1)


def _band(width: float, base: float, thickness: float, bend: float) -> np.ndarray:
    across = np.linspace(-width, width, 30)
    lower = base + bend * (1 - (across / width) ** 2)
    return np.concatenate(
        [np.stack([across, lower], axis=1), np.stack([across[::-1], lower[::-1] - thickness], axis=1)]
    )


@WORN.register("cap")
def _wear_cap(canvas: _Canvas, head: _Head, appearance: Appearance) -> None:
    colour, width = appearance.worn_colour, head.half_width * 1.12
    base = head.brow - 0.42 - 0.1 * appearance.worn_style
    canvas.area(head, _dome(width, base, 1.15), colour)
    for seam in (-0.45, 0.0, 0.45):
        curve = np.linspace(0, 1, 12)
        points = np.stack([seam * width * (1 - 0.8 * curve**2), base - 1.12 * curve], axis=1)
        canvas.line(head, points, _scaled(colour, 0.7), 0.035)
    visor = np.concatenate([_dome(width * 0.95, base, 0.12), _dome(width * 0.95, base, -0.22)[::-1]])
    canvas.area(head, visor, _scaled(colour, 0.55))


@WORN.register("beanie")
def _wear_beanie(canvas: _Canvas, head: _Head, appearance: Appearance) -> None:
    colour, width = appearance.worn_colour, head.half_width * 1.15
    base = head.brow - 0.38 - 0.1 * appearance.worn_style
    canvas.area(head, _dome(width, base, 1.5), colour)
    fold = _band(width * 1.03, base - 0.02, 0.34, 0.08)
    canvas.area(head, fold, _scaled(colour, 1.35))
    for x in np.linspace(-0.9, 0.9, 11) * width:
        canvas.line(head, np.array([[x, base + 0.02], [x, base - 0.3]]), _scaled(colour, 0.9), 0.04)


@WORN.register("headband")
def _wear_headband(canvas: _Canvas, head: _Head, appearance: Appearance) -> None:
    colour, width = appearance.worn_colour, head.half_width * 1.08
    base, thickness = head.brow - 0.36, 0.26 + 0.1 * appearance.worn_style
    canvas.area(head, _band(width, base, thickness, -0.12), colour)
    stripe = _band(width, base - 0.4 * thickness, 0.2 * thickness, -0.12)
    canvas.area(head, stripe, _scaled(_colour(1 - np.array(colour)), 0.9))
