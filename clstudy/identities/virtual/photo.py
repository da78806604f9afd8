"""Photographs of virtual people, each with its truth: camera, depth, mask and landmarks.

The same person, moment and size give the same bytes on every machine (``exact``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clstudy.errors import UserError
from clstudy.faces.alignments import usual_alignment
from clstudy.identities.virtual.backdrops import backdrop
from clstudy.identities.virtual.camera import aligned_camera, to_world
from clstudy.identities.virtual.moment import Moment, Pose
from clstudy.identities.virtual.person import Person
from clstudy.identities.virtual.rasteriser import Fragments, rasterise
from clstudy.identities.virtual.scene import Resting, scene_of
from clstudy.identities.virtual.shading import Lighting, Sitting, shaded
from clstudy.identities.virtual.skin import bare_skin, skin_at
from clstudy.seeding import derive_rng

SMALLEST, LARGEST = 64, 256
"""Side of a photo in pixels."""

_SUPERSAMPLING = 2
_KNEE = 0.75
"""Linear light above which the film compresses."""


@dataclass(frozen=True)
class Photograph:
    """A photo and what is true of it.

    Attributes:
        image: uint8 ``[s, s, 3]``.
        depth: float32 ``[s, s]``, z in the camera's coordinates in world units, mean over the pixel; NaN where any part
            of it shows the backdrop.
        mask: bool ``[s, s]``, whether the whole pixel shows the person.
        landmarks: float64 ``[68, 2]`` in pixels, the centre of the top-left pixel at (0, 0); hidden ones, too.
        camera: float64 ``[25]`` (``camera``).
        age: years.
    """

    image: np.ndarray
    depth: np.ndarray
    mask: np.ndarray
    landmarks: np.ndarray
    camera: np.ndarray
    age: float


class Sitter:
    """A person prepared to be photographed many times: what does not change between photos is computed once."""

    def __init__(self, person: Person):
        self.person = person
        self._bare = bare_skin(person)
        self._resting: dict[float, Resting] = {}

    def photograph(
        self, moment: Moment, size: int = 64, *, framing: str | None = None, seen: Pose | None = None
    ) -> Photograph:
        """Take a photo.

        Args:
            moment: what the photo is of.
            size: side in pixels, even, 64 to 256.
            framing: a name in ``camera.FRAMINGS``; None: what the profiles expect of photos of this size.
            seen: a second camera's view of the moment: head, shoulders and light stay as they are, only the camera
                stands elsewhere (its roll, zoom and shift count, too). The backdrop stays in the picture.

        Raises:
            UserError: a size that is not offered; an unknown framing, backdrop or neckline.
        """
        if not (SMALLEST <= size <= LARGEST and size % 2 == 0):
            raise UserError(f"photo of {size} px; expected an even number from {SMALLEST} to {LARGEST}")
        age = float(self.person.base_age if moment.age is None else moment.age)
        scene = scene_of(self.person, self._at(age), moment, age)
        world = to_world(scene.vertices)
        landmarks = to_world(scene.landmarks)
        camera = aligned_camera(moment.pose if seen is None else seen, landmarks, framing or usual_alignment(size))
        points, depths = camera.project(world)
        side = size * _SUPERSAMPLING
        fragments = rasterise(points * side, depths, scene.triangles, side)
        skin = skin_at(self.person, self._bare, age, moment.expression)
        sitting = Sitting(self.person, age, moment, skin, scene, Lighting.of(moment, seen))
        colours = shaded(sitting, fragments)
        depth = _depth(fragments, size)
        return Photograph(
            image=_developed(colours, fragments, moment, size),
            depth=depth,
            mask=~np.isnan(depth),
            landmarks=camera.project(landmarks)[0] * size - 0.5,
            camera=camera.numbers(),
            age=age,
        )

    def _at(self, age: float) -> Resting:
        if age not in self._resting:
            self._resting = {age: Resting.of(self.person, age)}
        return self._resting[age]


def photograph(person: Person, moment: Moment, size: int = 64, *, framing: str | None = None) -> Photograph:
    """One photo of a person; for many, a ``Sitter`` is faster.

    Raises:
        UserError: as ``Sitter.photograph``.
    """
    return Sitter(person).photograph(moment, size, framing=framing)


def _depth(fragments: Fragments, size: int) -> np.ndarray:
    """The mean of a pixel's four samples where all of them show the person."""
    side = size * _SUPERSAMPLING
    samples = np.full(side * side, np.nan)
    samples[fragments.pixels] = fragments.depths
    fine = samples.reshape(size, 2, size, 2)
    mean = (fine[:, 0, :, 0] + fine[:, 0, :, 1] + fine[:, 1, :, 0] + fine[:, 1, :, 1]) / 4
    return np.asarray(mean.astype(np.float32))


def _developed(colours: np.ndarray, fragments: Fragments, moment: Moment, size: int) -> np.ndarray:
    """The photo: samples over the backdrop, film curve, blur, noise, 8 bits."""
    side = size * _SUPERSAMPLING
    behind = backdrop(moment.backdrop, size) * (0.5 + 0.5 * moment.light.strength)
    picture = np.repeat(np.repeat(behind, 2, axis=0), 2, axis=1).reshape(side * side, 3)
    picture[fragments.pixels] = colours
    fine = picture.reshape(size, 2, size, 2, 3)
    linear = (fine[:, 0, :, 0] + fine[:, 0, :, 1] + fine[:, 1, :, 0] + fine[:, 1, :, 1]) / 4
    over = np.maximum(linear - _KNEE, 0.0)
    linear = np.minimum(linear, _KNEE) + over / (1 + over / (1 - _KNEE))
    seen = np.sqrt(np.minimum(np.maximum(_blurred(linear, moment.blur), 0.0), 1.0)) * 255
    if moment.noise:
        seen = seen + _noise(moment, size)
    return np.asarray(np.minimum(np.maximum(np.rint(seen), 0), 255).astype(np.uint8))


def _blurred(picture: np.ndarray, strength: float) -> np.ndarray:
    left = strength
    while left > 0:
        part = min(left, 1.0)
        soft = picture
        for axis in (0, 1):
            before = np.concatenate([soft.take([0], axis), soft.take(range(len(soft) - 1), axis)], axis)
            after = np.concatenate([soft.take(range(1, len(soft)), axis), soft.take([-1], axis)], axis)
            soft = 0.25 * before + 0.5 * soft + 0.25 * after
        picture = picture * (1 - part) + soft * part
        left -= 1.0
    return picture


def _noise(moment: Moment, size: int) -> np.ndarray:
    """Nearly normal noise ``[size, size, 3]``: four random bytes each, whose sum has a deviation of 147.8."""
    bytes_ = derive_rng("sensor noise", moment.noise_seed).integers(0, 256, (4, size, size, 3))
    total = bytes_[0] + bytes_[1] + bytes_[2] + bytes_[3] - 510
    return np.asarray(total * (moment.noise / 147.8))
