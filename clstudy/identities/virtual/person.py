"""Who a virtual person is: everything that stays when the light, the day and the camera change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from clstudy.errors import UserError
from clstudy.identities.virtual.assets import VirtualAssets, virtual_assets
from clstudy.identities.virtual.exact import bell, between
from clstudy.seeding import derive_rng

Colour = tuple[float, float, float]
"""Red, green, blue of linear light in [0, 1]."""

T = TypeVar("T")

NO_BEARD = "none"
YOUNGEST, OLDEST = 18.0, 90.0
"""Ages that can be photographed, in years."""

_BEYOND_THE_FIT = 1.35
"""Standard deviation of the shape that is added to the portrait's fit, in those of the population."""

_MOST_DEVIATIONS = 3 * 256

_DARK = ((0.012, 0.010, 0.009), (0.030, 0.018, 0.012), (0.065, 0.035, 0.020))
_LIGHT = ((0.13, 0.070, 0.034), (0.24, 0.15, 0.075), (0.42, 0.30, 0.15), (0.26, 0.085, 0.03))
_IRISES = ((0.045, 0.022, 0.010), (0.10, 0.055, 0.022), (0.055, 0.085, 0.050), (0.06, 0.12, 0.20), (0.11, 0.14, 0.16))
_LONG = frozenset({"fringe", "bob", "long", "bun", "curls"})
_COLOURS = ((0.45, 0.04, 0.05), (0.05, 0.12, 0.38), (0.03, 0.03, 0.035), (0.5, 0.45, 0.38), (0.08, 0.22, 0.10))


@dataclass(frozen=True, kw_only=True)
class Person:
    """A person who does not exist.

    Attributes:
        seed, index: where this person comes from.
        portraits: the portraits of the skin, and of the fitted shape; the second one weighs ``blend``.
        blend: 0: the first portrait alone.
        mirrored: whether the skin is mirrored.
        shape: coefficients of the shape's components, in 1/256 standard deviations.
        hair, hat, glasses, beard: names among the packaged ones; ``beard`` may be ``none``.
        parted_left: whether the hair is mirrored.
        wears_glasses: whether this person usually does.
        brows, lips: how strongly both are coloured over what the portrait shows, in [0, 1].
        hair_colour, iris, hat_colour, frame_colour: colours.
        grey_from: age at which the hair begins to turn grey.
        wrinkled_from: age at which each kind of wrinkle begins to show.
        blotches: seed of the skin's spots.
        base_age: age in years when nothing else is said.
    """

    seed: int
    index: int
    portraits: tuple[int, int]
    blend: float
    mirrored: bool
    shape: tuple[int, ...]
    hair: str
    parted_left: bool
    beard: str
    hat: str
    glasses: str
    wears_glasses: bool
    brows: float
    lips: float
    hair_colour: Colour
    iris: Colour
    hat_colour: Colour
    frame_colour: Colour
    grey_from: float
    wrinkled_from: tuple[float, ...]
    blotches: int
    base_age: float


def draw_virtual_person(seed: int, index: int) -> Person:
    """Person ``index`` of a seed; does not depend on how many people there are.

    The first people each have a portrait of their own, in an order given by the seed. When the portraits are used up,
    skins and shapes are blends of two portraits.

    Raises:
        UserError: the index is negative.
    """
    if index < 0:
        raise UserError(f"virtual person {index}; expected an index of at least 0")
    assets = virtual_assets()
    rng = derive_rng("virtual person", seed, index)
    portraits, blend = _portraits(assets.portraits, seed, index, rng)
    tone = float(assets["people.tone"][portraits[0]].astype(np.int64).sum()) / (3 * 255)
    hair = _one_of(rng, assets.rows["hair"])
    bearded = hair not in _LONG and rng.random() < 0.5
    return Person(
        seed=seed,
        index=index,
        portraits=portraits,
        blend=blend,
        mirrored=rng.random() < 0.5,
        shape=_shape(assets, portraits, blend, rng),
        hair=hair,
        parted_left=rng.random() < 0.5,
        beard=_one_of(rng, assets.rows["beards"]) if bearded else NO_BEARD,
        hat=_one_of(rng, assets.rows["hats"]),
        glasses=_one_of(rng, assets.rows["glasses"]),
        wears_glasses=rng.random() < 0.25,
        brows=between(rng, 0.0, 0.55),
        lips=between(rng, 0.1, 0.6),
        hair_colour=_varied(_one_of(rng, _DARK if tone < 0.45 or rng.random() < 0.4 else _LIGHT), rng),
        iris=_varied(_one_of(rng, _IRISES[:2] if tone < 0.45 else _IRISES), rng),
        hat_colour=_varied(_one_of(rng, _COLOURS), rng),
        frame_colour=_varied(_one_of(rng, ((0.01, 0.01, 0.012), (0.12, 0.05, 0.02), (0.35, 0.33, 0.3))), rng),
        grey_from=between(rng, 32, 55),
        wrinkled_from=tuple(between(rng, 24, 42) for _ in assets.rows["wrinkles"]),
        blotches=int(rng.integers(0, 1 << 31)),
        base_age=between(rng, 20, 60),
    )


def _portraits(count: int, seed: int, index: int, rng: np.random.Generator) -> tuple[tuple[int, int], float]:
    lap, place = divmod(index, count)
    # the order of argsort over distinct random integers is the same everywhere
    order = np.argsort(derive_rng("virtual portraits", seed, lap).integers(0, 1 << 62, count), kind="stable")
    first = int(order[place])
    if lap == 0:
        return (first, first), 0.0
    second = int(order[(place + 1 + int(rng.integers(0, count - 1))) % count])
    return (first, second), between(rng, 0.3, 0.7)


def _shape(
    assets: VirtualAssets, portraits: tuple[int, int], blend: float, rng: np.random.Generator
) -> tuple[int, ...]:
    fitted = assets["people.shape"].astype(np.int64) * 8
    second = round(blend * 256)
    mixed = (fitted[portraits[0]] * (256 - second) + fitted[portraits[1]] * second) // 256
    drawn = [int(value) + round(256 * _BEYOND_THE_FIT * bell(rng)) for value in mixed]
    return tuple(min(max(value, -_MOST_DEVIATIONS), _MOST_DEVIATIONS) for value in drawn)


def _one_of(rng: np.random.Generator, choices: tuple[T, ...]) -> T:
    return choices[int(rng.integers(0, len(choices)))]


def _varied(colour: Colour, rng: np.random.Generator) -> Colour:
    brightness = between(rng, 0.75, 1.3)
    red, green, blue = (min(part * brightness * between(rng, 0.92, 1.08), 1.0) for part in colour)
    return red, green, blue
