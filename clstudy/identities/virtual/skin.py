"""The unrolled skin of a person at an age: portrait, beard, wrinkles, grey brows, spots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clstudy.identities.virtual.assets import ATLAS_SIDE, virtual_assets
from clstudy.identities.virtual.exact import enlarged, share, value_noise
from clstudy.identities.virtual.head import grey_share
from clstudy.identities.virtual.moment import Expression
from clstudy.identities.virtual.person import NO_BEARD, Person

_GREY = np.array([0.42, 0.41, 0.40])
_LIPS = np.array([0.86, 0.50, 0.52])
"""Colour of the lips, as shares of the skin's."""

_DEEPENED_BY = {
    "forehead": {"brow_up": 0.45},
    "glabella": {"brow_down": 0.6},
    "crow's feet": {"smile": 0.3, "squint": 0.4},
    "nasolabial": {"smile": 0.45},
}
"""Wrinkles that expressions deepen at any age -> by how much."""

_WRINKLED_AFTER = 50.0


@dataclass(frozen=True)
class Skin:
    """Colours and relief in the atlas.

    Attributes:
        colours: linear ``[ATLAS_SIDE, ATLAS_SIDE, 3]``.
        relief: slope of the wrinkles to the right and downwards, ``[ATLAS_SIDE, ATLAS_SIDE, 2]``.
    """

    colours: np.ndarray
    relief: np.ndarray


def skin_tone(person: Person) -> np.ndarray:
    """The skin's own colour, linear ``[3]``."""
    root = virtual_assets()["people.tone"] / 255.0
    first, second = (root[portrait] * root[portrait] for portrait in person.portraits)
    return np.asarray(first * (1 - person.blend) + second * person.blend)


def bare_skin(person: Person) -> np.ndarray:
    """The portraits' skin without anything that depends on age, linear ``[ATLAS_SIDE, ATLAS_SIDE, 3]``."""
    first = _unpacked(person.portraits[0])
    if person.blend:
        first = first * (1 - person.blend) + _unpacked(person.portraits[1]) * person.blend
    return np.ascontiguousarray(first[:, ::-1]) if person.mirrored else first


def _unpacked(portrait: int) -> np.ndarray:
    assets = virtual_assets()
    brightness = enlarged(assets["people.brightness"][portrait].astype(float), 2)
    red, blue = (enlarged(part.astype(float), 4) - 128.0 for part in assets["people.differences"][portrait])
    green = brightness - 0.25 * (red + blue)
    root = np.stack([green + red, green, green + blue], axis=-1) / 255.0
    root = np.minimum(np.maximum(root, 0.0), 1.0)
    return np.asarray(root * root)


def wrinkle_depth(person: Person, age: float, expression: Expression) -> np.ndarray:
    """Depth of the wrinkles in the atlas, in [0, 1]."""
    assets = virtual_assets()
    weights = expression.weights()
    depth = np.zeros((ATLAS_SIDE, ATLAS_SIDE))
    kinds = zip(assets.rows["wrinkles"], person.wrinkled_from, assets["atlas.wrinkles"], strict=True)
    for name, start, grooves in kinds:
        strength = share(age, start, start + _WRINKLED_AFTER)
        for unit, more in _DEEPENED_BY.get(name, {}).items():
            strength += more * weights[unit]
        if strength > 0:
            depth = np.maximum(depth, grooves * (min(strength, 1.0) / 255))
    return depth


def skin_at(person: Person, bare: np.ndarray, age: float, expression: Expression) -> Skin:
    """Paint what a person's age, beard and expression add to their bare skin."""
    assets = virtual_assets()
    tone, grey = skin_tone(person), grey_share(person, age)
    aged = share(age, 30, 85)
    colours = bare * (1 - 0.12 * aged) + tone * (0.12 * aged)
    hair = np.array(person.hair_colour) * (1 - grey) + _GREY * grey
    brows = (assets["atlas.brows"] * ((person.brows * (1 - grey) + 0.6 * grey) / 255))[..., None]
    colours = colours * (1 - brows) + (hair * (0.5 + 0.5 * tone[1] * grey)) * brows
    lips = (assets["atlas.lips"] * (person.lips * (1 - 0.5 * aged) / 255))[..., None]
    colours = colours * (1 - lips) + tone * _LIPS * lips
    y, x = np.mgrid[:ATLAS_SIDE, :ATLAS_SIDE] / float(ATLAS_SIDE)
    if person.beard != NO_BEARD:
        density = assets["atlas.beards"][assets.rows["beards"].index(person.beard)] / 255.0
        density = density * (0.62 + 0.5 * value_noise(person.blotches, 48, x, y))
        density = np.minimum(density, 0.92)[..., None]
        colours = colours * (1 - density) + hair * density
    spots = np.maximum(value_noise(person.blotches + 1, 22, x, y) - 0.66, 0.0) * (1.5 * aged)
    colours = colours * (1 - spots)[..., None]
    depth = wrinkle_depth(person, age, expression)
    colours = colours * (1 - depth[..., None] * np.array([0.36, 0.46, 0.48]))
    return Skin(colours, _slopes(depth))


def _slopes(depth: np.ndarray) -> np.ndarray:
    right, down = np.zeros_like(depth), np.zeros_like(depth)
    right[:, 1:-1] = depth[:, 2:] - depth[:, :-2]
    down[1:-1] = depth[2:] - depth[:-2]
    return np.stack([right, down], axis=-1)
