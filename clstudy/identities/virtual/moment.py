"""What changes from photo to photo: age, expression, gaze, pose, light, backdrop, clothes, things worn, the lens."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from clstudy.errors import UserError
from clstudy.identities.virtual.person import OLDEST, YOUNGEST, Colour


def _check(what: object, name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise UserError(f"{type(what).__name__}: {name} = {value}; expected {low} to {high}")


def _check_colour(what: object, name: str, colour: Colour, high: float = 1.0) -> None:
    if len(colour) != 3:
        raise UserError(f"{type(what).__name__}: {name} = {colour}; expected red, green and blue")
    for part in colour:
        _check(what, name, part, 0.0, high)


@dataclass(frozen=True, kw_only=True)
class Expression:
    """Weights in [0, 1] of what a face does.

    Raises:
        UserError: a weight is outside.
    """

    jaw: float = 0.0
    """1: the mouth is wide open."""
    smile: float = 0.0
    frown: float = 0.0
    """The corners of the mouth go down."""
    pucker: float = 0.0
    press: float = 0.0
    brow_up: float = 0.0
    brow_down: float = 0.0
    blink: float = 0.0
    """1: the eyes are closed."""
    wide: float = 0.0
    """The eyes are wide open."""
    squint: float = 0.0

    def __post_init__(self) -> None:
        for name, value in self.weights().items():
            _check(self, name, value, 0.0, 1.0)

    def weights(self) -> dict[str, float]:
        """Name -> weight."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How the head is turned to the camera, in degrees, and how exactly the photo is aligned to the face.

    Attributes:
        yaw: positive: to the picture's right, the person's left; within 60 degrees.
        pitch: positive: up; within 35 degrees.
        roll: what the alignment leaves, positive: clockwise; within 30 degrees.
        zoom: 1: exactly the alignment's scale.
        shift: to the right and down, in shares of the photo's side.
        shoulders: share of the yaw that the shoulders do not follow.

    Raises:
        UserError: a value is outside its range.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    shoulders: float = 0.6

    def __post_init__(self) -> None:
        _check(self, "yaw", self.yaw, -60, 60)
        _check(self, "pitch", self.pitch, -35, 35)
        _check(self, "roll", self.roll, -30, 30)
        _check(self, "zoom", self.zoom, 0.3, 2)
        for part in self.shift:
            _check(self, "shift", part, -0.5, 0.5)
        _check(self, "shoulders", self.shoulders, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Light:
    """One lamp and light from all around.

    Attributes:
        azimuth, elevation: where the lamp is as the camera sees it, in degrees; 0, 0: behind the camera; positive: to
            the right, above.
        colour: of the lamp; [1, 1, 1] is white.
        ambient: share of the light that comes from all around, in [0, 1].
        ambient_colour: of that light.
        strength: of both, in [0.2, 3].

    Raises:
        UserError: a value is outside its range.
    """

    azimuth: float = 0.0
    elevation: float = 25.0
    colour: Colour = (1.0, 1.0, 1.0)
    ambient: float = 0.5
    ambient_colour: Colour = (1.0, 1.0, 1.0)
    strength: float = 1.0

    def __post_init__(self) -> None:
        _check(self, "azimuth", self.azimuth, -180, 180)
        _check(self, "elevation", self.elevation, -90, 90)
        _check_colour(self, "colour", self.colour, 2.0)
        _check(self, "ambient", self.ambient, 0, 1)
        _check_colour(self, "ambient_colour", self.ambient_colour, 2.0)
        _check(self, "strength", self.strength, 0.2, 3)


@dataclass(frozen=True, kw_only=True)
class Backdrop:
    """What is behind the person: a name in ``backdrops.BACKDROPS``, two colours, and the seed of its irregularities."""

    kind: str = "plain"
    colour: Colour = (0.30, 0.32, 0.35)
    second: Colour = (0.12, 0.14, 0.18)
    seed: int = 0

    def __post_init__(self) -> None:
        _check_colour(self, "colour", self.colour)
        _check_colour(self, "second", self.second)


@dataclass(frozen=True, kw_only=True)
class Clothes:
    """A garment by its neckline (a name in ``clothes.NECKLINES``), two colours, and stripes per eye distance or 0."""

    neckline: str = "crew"
    colour: Colour = (0.08, 0.10, 0.16)
    second: Colour = (0.4, 0.4, 0.42)
    stripes: float = 0.0

    def __post_init__(self) -> None:
        _check_colour(self, "colour", self.colour)
        _check_colour(self, "second", self.second)
        _check(self, "stripes", self.stripes, 0, 8)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Everything about a photo but the person.

    Attributes:
        age: years; None: the person's ``base_age``.
        gaze: where the eyes look relative to the head, degrees to the picture's right and up, within 35.
        glasses: None: as this person usually does.
        hat: whether the person's hat is worn.
        noise: standard deviation of the sensor's noise in steps of 255, in [0, 20].
        blur: 0 sharp, 1 each pixel mixed with its neighbours, at most 3.
        noise_seed: which noise.

    Raises:
        UserError: a value is outside its range.
    """

    age: float | None = None
    expression: Expression = field(default_factory=Expression)
    gaze: tuple[float, float] = (0.0, 0.0)
    pose: Pose = field(default_factory=Pose)
    light: Light = field(default_factory=Light)
    backdrop: Backdrop = field(default_factory=Backdrop)
    clothes: Clothes = field(default_factory=Clothes)
    glasses: bool | None = None
    hat: bool = False
    noise: float = 0.0
    blur: float = 0.0
    noise_seed: int = 0

    def __post_init__(self) -> None:
        if self.age is not None:
            _check(self, "age", self.age, YOUNGEST, OLDEST)
        for part in self.gaze:
            _check(self, "gaze", part, -35, 35)
        _check(self, "noise", self.noise, 0, 20)
        _check(self, "blur", self.blur, 0, 3)
