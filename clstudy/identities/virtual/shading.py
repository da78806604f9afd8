"""The colour of every visible point: skin, eyes, teeth, hair, hat, frames, clothes under one lamp and the sky."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from clstudy.identities.virtual import scene as parts
from clstudy.identities.virtual.camera import head_rotation
from clstudy.identities.virtual.clothes import cloth_colours, cloth_share
from clstudy.identities.virtual.exact import cosine_and_sine, dot, sampled, turned, unit
from clstudy.identities.virtual.head import grey_share
from clstudy.identities.virtual.moment import Moment, Pose
from clstudy.identities.virtual.person import Person
from clstudy.identities.virtual.rasteriser import Fragments
from clstudy.identities.virtual.scene import Scene, mean_points
from clstudy.identities.virtual.skin import Skin, skin_tone

_WRAP = np.array([0.34, 0.22, 0.16])
"""How far light reaches round the skin's edge, per colour: red scatters most."""

_LAMP, _SKY = 1.55, 0.95
_GREY_HAIR = np.array([0.50, 0.49, 0.48])
_STRANDS = 24, 1024
_STRANDS_PER_CELL = 21.0


@dataclass(frozen=True)
class Lighting:
    """The light in the head's own frame: unit vectors to the lamp and to the camera."""

    lamp: np.ndarray
    eye: np.ndarray

    @classmethod
    def of(cls, moment: Moment, seen: Pose | None = None) -> Lighting:
        """The lamp is where the moment's camera sees it, however the head is turned; the eye may be elsewhere."""
        ca, sa = cosine_and_sine(moment.light.azimuth)
        ce, se = cosine_and_sine(moment.light.elevation)
        back = head_rotation(moment.pose).T
        eye = back if seen is None else head_rotation(seen).T
        return cls(turned(back, np.array([sa * ce, se, ca * ce])), turned(eye, np.array([0.0, 0.0, 1.0])))


@dataclass(frozen=True)
class Sitting:
    """What the painters know: who is photographed, and in what light."""

    person: Person
    age: float
    moment: Moment
    skin: Skin
    scene: Scene
    light: Lighting


@dataclass(frozen=True)
class Points:
    """The visible points of some parts, interpolated.

    Attributes:
        part: what each belongs to ``[k]``.
        corners: vertices of their triangles ``[k, 3]``.
        weights: shares of the corners ``[k, 3]``.
        normals: unit ``[k, 3]``.
        attributes: ``[k, 6]``, see ``Scene``.
    """

    part: np.ndarray
    corners: np.ndarray
    weights: np.ndarray
    normals: np.ndarray
    attributes: np.ndarray

    @classmethod
    def of(cls, scene: Scene, fragments: Fragments, chosen: np.ndarray) -> Points:
        """The fragments with these indices."""
        triangles, weights = fragments.triangles[chosen], fragments.weights[chosen]
        corners = scene.triangles[triangles]
        normals = unit(_mixed(scene.normals, corners, weights))
        return cls(scene.parts[triangles], corners, weights, normals, _mixed(scene.attributes, corners, weights))

    def seen_from_outside(self, inside: int) -> Points:
        """The same points, their normals turned towards the camera where part ``inside`` is seen."""
        back = (self.part == inside)[:, None]
        return replace(self, normals=np.where(back, -self.normals, self.normals))


def _mixed(values: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Vertex values ``[n, c]`` at points ``[k, c]``."""
    return np.asarray(
        values[corners[:, 0]] * weights[:, :1]
        + values[corners[:, 1]] * weights[:, 1:2]
        + values[corners[:, 2]] * weights[:, 2:]
    )


Painter = Callable[[Points, Sitting], np.ndarray]
"""Linear colours ``[k, 3]`` of visible points."""


def shaded(sitting: Sitting, fragments: Fragments) -> np.ndarray:
    """Linear colours ``[n, 3]`` of the fragments."""
    found = sitting.scene.parts[fragments.triangles]
    colours = np.zeros((len(found), 3))
    for of, paint in _PAINTERS:
        chosen = np.flatnonzero(np.isin(found, of))
        if len(chosen):
            colours[chosen] = paint(Points.of(sitting.scene, fragments, chosen), sitting)
    return np.asarray(colours * sitting.moment.light.strength)


def _received(normals: np.ndarray, openness: np.ndarray, sitting: Sitting) -> np.ndarray:
    """Light that reaches points ``[k, 3]``."""
    settings, lamp_at = sitting.moment.light, sitting.light.lamp
    sky = (settings.ambient * _SKY * (0.82 + 0.18 * normals[:, 1])) * openness
    facing = dot(normals, lamp_at)[:, None]
    lamp = np.maximum((facing + _WRAP) / (1 + _WRAP), 0.0) * ((1 - settings.ambient) * _LAMP)
    lamp = lamp * (0.55 + 0.45 * openness)[:, None]
    return np.asarray(lamp * np.array(settings.colour) + sky[:, None] * np.array(settings.ambient_colour))


def _gloss(normals: np.ndarray, sitting: Sitting, doublings: int) -> np.ndarray:
    """Mirrored light ``[k, 1]``; the more doublings of the exponent, the smaller the highlight."""
    half = unit(sitting.light.lamp + sitting.light.eye)
    shine = np.maximum(dot(normals, half), 0.0)
    for _ in range(doublings):
        shine = shine * shine
    return np.asarray((shine * (1 - sitting.moment.light.ambient))[:, None])


def _skin(points: Points, sitting: Sitting) -> np.ndarray:
    column, row, openness, cavity, lashes = (points.attributes[:, k] for k in range(5))
    albedo = sampled(sitting.skin.colours, column, row)
    slope = sampled(sitting.skin.relief, column, row)
    normals = points.normals.copy()
    normals[:, 0] = normals[:, 0] + slope[:, 0] * 0.55
    normals[:, 1] = normals[:, 1] - slope[:, 1] * 0.55
    normals = unit(normals)
    dark = np.array([0.030, 0.007, 0.007])
    albedo = albedo * (1 - 0.8 * lashes)[:, None]
    albedo = albedo * (1 - cavity)[:, None] + dark * cavity[:, None]
    mean, clothes = _mean(points), sitting.moment.clothes
    cloth = cloth_share(clothes, mean[:, 0], mean[:, 1], mean[:, 2])[:, None]
    albedo = albedo * (1 - cloth) + cloth_colours(clothes, mean[:, 1]) * cloth
    shine = _gloss(normals, sitting, 4) * (0.10 * (1 - cavity)[:, None] * (1 - cloth)) * openness[:, None]
    return np.asarray(albedo * _received(normals, openness, sitting) + shine)


def _mean(points: Points) -> np.ndarray:
    first, second, third = (mean_points(points.corners[:, k]) * points.weights[:, k : k + 1] for k in range(3))
    return np.asarray(first + second + third)


_IRIS, _PUPIL, _LIMBUS = 0.52, 0.24, 0.56


def _eyes(points: Points, sitting: Sitting) -> np.ndarray:
    scene, gaze = sitting.scene, sitting.moment.gaze
    place = _mixed(scene.vertices, points.corners, points.weights)
    left = (place[:, 0] > 0)[:, None]
    away = unit(place - np.where(left, scene.eyes[1], scene.eyes[0]))
    ca, sa = cosine_and_sine(gaze[0])
    ce, se = cosine_and_sine(gaze[1])
    towards = np.array([sa * ce, se, ca * ce])
    off = _sine_between(away, towards)
    white = np.array([0.60, 0.57, 0.54])
    iris = np.array(sitting.person.iris)
    ring = np.minimum(np.maximum((_LIMBUS - off) / 0.05, 0.0), 1.0)[:, None]
    pupil = np.minimum(np.maximum((_PUPIL - off) / 0.05, 0.0), 1.0)[:, None]
    rim = np.minimum(np.maximum((off - _IRIS + 0.12) / 0.12, 0.0), 1.0)[:, None]
    albedo = white * (1 - ring) + (iris * (1 - 0.55 * rim)) * ring
    albedo = albedo * (1 - pupil) + 0.008 * pupil
    shadow = np.minimum(np.maximum(0.95 - 1.9 * (away[:, 1] - 0.02), 0.45), 1.0)
    spot = _gloss(away, sitting, 7) * 0.45
    return np.asarray(albedo * _received(away, shadow, sitting) + spot)


def _sine_between(vectors: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Sine of the angle between unit vectors ``[k, 3]`` and an axis; 2 beyond a right angle."""
    along = dot(vectors, axis)
    sine = np.sqrt(np.maximum(1 - along * along, 0.0))
    return np.where(along > 0, sine, 2.0)


def _teeth(points: Points, sitting: Sitting) -> np.ndarray:
    openness = np.full(len(points.part), 0.8)
    return np.asarray(np.array([0.62, 0.58, 0.50]) * _received(points.normals, openness, sitting))


@cache
def _strand_noise() -> np.ndarray:
    """Streaks along the hair in [0, 1], ``[24, 1024]``: smooth along a strand, random across."""
    rows, columns = _STRANDS
    values = np.random.Generator(np.random.PCG64(20)).integers(0, 256, (rows, columns)) / 255.0
    along = (values + np.roll(values, 1, 0) + np.roll(values, 2, 0) + np.roll(values, 3, 0)) / 4
    return np.asarray((along - 0.5) * 1.8 + 0.5)


def _strands(points: Points, scale: float) -> np.ndarray:
    column = points.attributes[:, 0] * (_STRANDS_PER_CELL * scale)
    row = points.attributes[:, 1] * 0.8
    noise = _strand_noise()
    return sampled(noise, column - np.floor(column / 1000) * 1000, np.minimum(row, 22.0))


def _hair(points: Points, sitting: Sitting) -> np.ndarray:
    person = sitting.person
    strand = _strands(points, 0.35)
    fine = _strands(points, 1.0)
    inside = points.part == parts.HAIR_INSIDE
    normals = points.seen_from_outside(parts.HAIR_INSIDE).normals
    normals = unit(normals + np.stack([(strand - 0.5) * 0.35, np.zeros_like(strand), np.zeros_like(strand)], axis=1))
    grey = grey_share(person, sitting.age)
    white = np.minimum(np.maximum(grey + (fine - 0.5) * (0.9 * grey * (1 - grey)), 0.0), 1.0)[:, None]
    colour = np.array(person.hair_colour) * (1 - white) + _GREY_HAIR * white
    colour = colour * (0.55 + 0.9 * strand)[:, None]
    thin = np.minimum(np.maximum((points.attributes[:, 2] - 0.035 * fine) / 0.05, 0.0), 1.0)[:, None]
    thin = np.where(inside[:, None], 1.0, thin)
    colour = skin_tone(person) * (1 - thin) + colour * thin
    openness = np.where(inside, 0.35, 0.75 + 0.25 * strand)
    shine = _gloss(normals, sitting, 3) * (0.02 + 0.10 * np.array(person.hair_colour)) * strand[:, None] * thin
    return np.asarray(colour * _received(normals, openness, sitting) + shine)


def _hat(points: Points, sitting: Sitting) -> np.ndarray:
    inside = points.part == parts.HAT_INSIDE
    normals = points.seen_from_outside(parts.HAT_INSIDE).normals
    knit = _strands(points, 0.1)
    openness = np.where(inside, 0.4, 0.9)
    colour = np.array(sitting.person.hat_colour) * (0.94 + 0.12 * knit)[:, None]
    return np.asarray(colour * _received(normals, openness, sitting))


def _frame(points: Points, sitting: Sitting) -> np.ndarray:
    received = _received(points.normals, np.full(len(points.part), 0.9), sitting)
    return np.asarray(np.array(sitting.person.frame_colour) * received + _gloss(points.normals, sitting, 4) * 0.05)


_PAINTERS: tuple[tuple[tuple[int, ...], Painter], ...] = (
    ((parts.SKIN,), _skin),
    ((parts.EYE,), _eyes),
    ((parts.TEETH,), _teeth),
    ((parts.HAIR, parts.HAIR_INSIDE), _hair),
    ((parts.HAT, parts.HAT_INSIDE), _hat),
    ((parts.FRAME,), _frame),
)
