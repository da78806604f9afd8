"""What the embedded 3D generator is pretrained on: moments of virtual people, each seen by several cameras at once.

``python -m clstudy.generators.pretraining views --out DIR --workers 2`` writes ``views.npz`` (``Views``); the same seed
gives the same views whatever the number of workers. The people on whom something is studied are held out, as in
``training_faces``, with everybody who has one of their portraits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from clstudy.errors import UserError
from clstudy.faces.geometry import five_points
from clstudy.generators.pretraining.chunks import in_chunks
from clstudy.generators.pretraining.training_faces import (
    OLDEST,
    YOUNGEST,
    arrays_in,
    reported_virtual,
    strangers,
)
from clstudy.identities.virtual.moment import Expression, Moment, Pose
from clstudy.identities.virtual.occasions import Occasion
from clstudy.identities.virtual.person import Person
from clstudy.identities.virtual.photo import Sitter
from clstudy.identities.virtual.presets import PRESETS
from clstudy.identities.virtual.views_set import ray_distances
from clstudy.seeding import derive_rng

SIZE, DEPTH_SIZE = 64, 32
"""Sides of a photo and of its depth in pixels."""

VIEWS = 4
"""Cameras of a moment; the first is that of the photo that a study would take."""

EXPRESSIONS = tuple(Expression().weights())
"""Names of what a face does."""

MOMENTS_OF_PERSON = 4
"""Every moment at another age, on another occasion."""

MOMENTS_OF_HELD_OUT = 4

SIDES = (-20.0, 0.0, 20.0)
"""Yaws from which held-out people are seen, besides their own camera."""

_MOST_YAW, _MOST_PITCH = 40.0, 15.0


@dataclass(frozen=True)
class Views:
    """Moments, each seen by ``v`` cameras.

    Attributes:
        images: uint8 ``[m, v, 64, 64, 3]``.
        depths: float16 ``[m, v, 32, 32]``, distance from the camera; NaN where any part of a pixel shows the backdrop.
        points: float32 ``[m, v, 5, 2]`` in pixels of the photo: eyes, nose tip, corners of the mouth.
        cameras: float32 ``[m, v, 25]``.
        people: int64 ``[m]``: moments with the same number show the same person.
        expressions: float32 ``[m, e]``, weights in the order of ``EXPRESSIONS``.
    """

    images: np.ndarray
    depths: np.ndarray
    points: np.ndarray
    cameras: np.ndarray
    people: np.ndarray
    expressions: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: slice | np.ndarray) -> Views:
        return Views(*(getattr(self, entry.name)[chosen] for entry in fields(self)))

    def spread(self, count: int) -> Views:
        """At most so many moments, evenly spaced."""
        return self[:: max(len(self) // count, 1)][:count]

    @classmethod
    def together(cls, parts: list[Views]) -> Views:
        """All of them; people of different parts are different people."""
        first, people = 0, list[np.ndarray]()
        for part in parts:
            people.append(part.people + first)
            first += int(part.people.max()) + 1
        others = [entry.name for entry in fields(cls) if entry.name != "people"]
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in others}
        return cls(**joined, people=np.concatenate(people))

    def save(self, path: Path) -> None:
        """Write ``path`` (npz)."""
        np.savez(path, **{entry.name: getattr(self, entry.name) for entry in fields(self)})

    @classmethod
    def read(cls, path: Path) -> Views:
        """What ``save`` wrote.

        Raises:
            UserError: there is no such file, or it holds something else.
        """
        expected = "expected the views.npz that `python -m clstudy.generators.pretraining views` writes"
        views = cls(**arrays_in(path, [entry.name for entry in fields(cls)], expected))
        if views.images.dtype != np.uint8 or views.images.ndim != 5 or len(views.cameras) != len(views.images):
            raise UserError(f"{path} does not hold views as uint8 (m, v, height, width, 3) with cameras; {expected}")
        return views


def views_of(sitter: Sitter, moment: Moment, poses: list[Pose]) -> Views:
    """One moment as its own camera and others see it."""
    taken = [sitter.photograph(moment, SIZE)]
    taken += [sitter.photograph(moment, SIZE, seen=pose) for pose in poses]
    return Views(
        images=np.stack([photo.image for photo in taken])[None],
        depths=np.stack([ray_distances(photo, DEPTH_SIZE).astype(np.float16) for photo in taken])[None],
        points=np.stack([five_points(photo.landmarks) for photo in taken]).astype(np.float32)[None],
        cameras=np.stack([photo.camera for photo in taken]).astype(np.float32)[None],
        people=np.zeros(1, np.int64),
        expressions=np.array([list(moment.expression.weights().values())], np.float32),
    )


def _of_one_person(moments: Iterator[Views]) -> Views:
    together = Views.together(list(moments))
    return replace(together, people=np.zeros(len(together), np.int64))


def views_chunk(seed: int, chunk: int, *, people: int = 25) -> Views:
    """Moments of so many virtual people whose portrait nobody held out has."""
    rng = derive_rng("pretraining views", seed, chunk)
    return Views.together([_of_one_person(_training_moments(person, rng)) for person in islice(strangers(rng), people)])


def _training_moments(person: Person, rng: np.random.Generator) -> Iterator[Views]:
    for number in range(MOMENTS_OF_PERSON):
        aged = replace(person, base_age=YOUNGEST + (OLDEST - YOUNGEST) * rng.random())
        frames = Occasion(aged, PRESETS["strong"], person.seed, number).frames()
        moment = frames[int(rng.integers(len(frames)))].moment
        poses = [
            replace(
                moment.pose,
                yaw=_MOST_YAW * (2 * rng.random() - 1),
                pitch=_MOST_PITCH * (2 * rng.random() - 1),
            )
            for _ in range(VIEWS - 1)
        ]
        yield views_of(Sitter(aged), moment, poses)


def held_out_views(moments_of_each: int = MOMENTS_OF_HELD_OUT) -> Views:
    """Moments of the reported virtual people, each of another occasion, seen by their own camera and from ``SIDES``."""
    parts = []
    for person in reported_virtual():
        sitter = Sitter(person)
        occasions = [Occasion(person, PRESETS["strong"], person.seed, number) for number in range(moments_of_each)]
        moments = (occasion.train(1)[0].moment for occasion in occasions)
        parts.append(
            _of_one_person(
                views_of(sitter, moment, [replace(moment.pose, yaw=side, pitch=0.0) for side in SIDES])
                for moment in moments
            )
        )
    return Views.together(parts)


def collect_views(seed: int, count: int, workers: int) -> Views:
    """The first ``count`` moments of ``views_chunk`` of a seed, in order."""
    return Views.together(in_chunks(partial(views_chunk, seed), count, workers, "moments"))[:count]
