"""The faces that the embedded generator is pretrained on: DCGAN faces and photos of virtual people.

``python -m clstudy.generators.pretraining faces --out DIR --workers 2`` writes ``faces.npz`` (``Faces``); the same seed
gives the same faces whatever the number of workers. People on whom something is studied are held out: virtual people
whose portrait is one of theirs, and DCGAN faces that look like one of them, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from clstudy.errors import UserError
from clstudy.faces.geometry import aligned_template, five_points, similarity_transform
from clstudy.generators.pretraining.chunks import in_chunks
from clstudy.identities.dcgan import LATENT_SIZE
from clstudy.identities.people import REPORTED_DATA_SEED, TUNING_DATA_SEED, FaceTools, draw_person
from clstudy.identities.virtual.assets import virtual_assets
from clstudy.identities.virtual.occasions import Occasion
from clstudy.identities.virtual.person import Person, draw_virtual_person
from clstudy.identities.virtual.photo import Photograph, Sitter
from clstudy.identities.virtual.presets import DEFAULT_PRESET, PRESETS, Preset
from clstudy.images import to_unit_range
from clstudy.seeding import derive_rng

HELD_OUT_PEOPLE = 10
"""DCGAN people per data seed (reported and tuning) whose look-alikes are removed."""

HELD_OUT_VIRTUAL = {REPORTED_DATA_SEED: 24, TUNING_DATA_SEED: 8, 2: 12, 8: 12}
"""How many of a data seed's first virtual people are held out: those on whom results are reported, settings chosen, a
pilot made (2), and the selection study repeated (8). Seeds 2 and 8 are the first two whose people share no portrait
with the reported ones."""

HELD_OUT_COSINE = 0.5
"""A face this similar to a held-out person is removed (different people stay below it in 99.9% of pairs)."""

PHOTOS_OF_HELD_OUT = 20
"""Photos of each reported virtual person on which the networks are measured, every one of another occasion."""

PHOTOS_OF_PERSON, OCCASIONS_OF_PERSON = 16, 4
"""Of a virtual person; every occasion at another age."""

YOUNGEST, OLDEST = 18.0, 85.0
"""Years of the people that networks are trained on."""

_WIDE = Preset(description="wider than any that is studied", drift=1.0, spread=0.8, jitter=1.2, dwell_ratio=1.0)
"""Half of the occasions; the other half are as in the studies."""
_FIRST_FRAMES = 30
"""The first photo of an occasion is one of its first so many frames; the others are evenly spaced behind it."""


@dataclass(frozen=True)
class Faces:
    """Aligned faces.

    Attributes:
        images: uint8 ``[n, 64, 64, 3]``.
        points: float32 ``[n, 5, 2]`` in pixels: eyes, nose tip, corners of the mouth.
        people: int64 ``[n]``: photos with the same number show the same person.
    """

    images: np.ndarray
    points: np.ndarray
    people: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: slice | np.ndarray) -> Faces:
        return Faces(self.images[chosen], self.points[chosen], self.people[chosen])

    def spread(self, count: int) -> Faces:
        """At most so many, evenly spaced."""
        return self[:: max(len(self) // count, 1)][:count]

    @classmethod
    def together(cls, parts: list[Faces]) -> Faces:
        """All of them; people of different parts are different people."""
        first, people = 0, list[np.ndarray]()
        for part in parts:
            people.append(part.people + first)
            first += int(part.people.max()) + 1
        images, points = (np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "points"))
        return cls(images, points, np.concatenate(people))

    def save(self, path: Path) -> None:
        """Write ``path`` (npz)."""
        np.savez(path, images=self.images, points=self.points, people=self.people)

    @classmethod
    def read(cls, path: Path) -> Faces:
        """What ``save`` wrote.

        Raises:
            UserError: there is no such file, or it holds something else.
        """
        expected = "expected the faces.npz that `python -m clstudy.generators.pretraining faces` writes"
        faces = cls(**arrays_in(path, [entry.name for entry in fields(cls)], expected))
        if faces.images.dtype != np.uint8 or faces.images.ndim != 4 or len(faces.points) != len(faces.images):
            raise UserError(f"{path} does not hold faces as uint8 (n, height, width, 3) with points; {expected}")
        return faces


def arrays_in(path: Path, names: Sequence[str], expected: str) -> dict[str, np.ndarray]:
    """Arrays of an npz file by name.

    Raises:
        UserError: there is no such file, or it holds something else; the message ends in what was expected.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in names}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error}); {expected}") from error


def held_out_virtual() -> list[Person]:
    """The virtual people who are held out."""
    return [draw_virtual_person(seed, index) for seed, count in HELD_OUT_VIRTUAL.items() for index in range(count)]


def reported_virtual() -> list[Person]:
    """Those of them on whom results are reported."""
    return [draw_virtual_person(REPORTED_DATA_SEED, index) for index in range(HELD_OUT_VIRTUAL[REPORTED_DATA_SEED])]


def strangers(rng: np.random.Generator) -> Iterator[Person]:
    """Virtual people without end whose portrait nobody held out has; each is drawn when it is asked for."""
    portraits = virtual_assets().portraits
    taken = {portrait for person in held_out_virtual() for portrait in person.portraits}
    while True:
        person = draw_virtual_person(int(rng.integers(1 << 32, 1 << 40)), int(rng.integers(portraits)))
        if taken.isdisjoint(person.portraits):
            yield person


def held_out_photos(photos_of_each: int) -> Faces:
    """Photos of the reported virtual people, as of the data set ``virtual``, each of another occasion."""
    return Faces.together([_on_occasions(person, photos_of_each) for person in reported_virtual()])


def _on_occasions(person: Person, count: int) -> Faces:
    """One photo of each of a person's first occasions."""
    sitter, preset = Sitter(person), PRESETS[DEFAULT_PRESET]
    occasions = (Occasion(person, preset, person.seed, number) for number in range(count))
    return _of_one_person([sitter.photograph(occasion.train(1)[0].moment) for occasion in occasions])


def _of_one_person(taken: Sequence[Photograph]) -> Faces:
    points = np.stack([five_points(photo.landmarks) for photo in taken]).astype(np.float32)
    return Faces(np.stack([photo.image for photo in taken]), points, np.zeros(len(taken), np.int64))


def drawn_chunk(seed: int, chunk: int, held_out: np.ndarray, *, latents: int = 1000) -> Faces:
    """The accepted faces of so many latents of the DCGAN.

    Args:
        seed, chunk: which latents.
        held_out: unit embeddings ``[m, 512]`` of people whose look-alikes are left out.
        latents: how many.
    """
    torch.set_num_threads(1)
    tools = FaceTools.load()
    drawn = derive_rng("pretraining faces", seed, chunk).standard_normal((latents, LATENT_SIZE))
    images, points = [], []
    for image in tools.source.draw(drawn):
        aligned = tools.finder.align(image)
        if aligned is None or aligned[1].score < 0.9 or abs(aligned[1].yaw()) > 0.4:
            continue
        embedding = tools.embedder(to_unit_range(aligned[0][None]))[0].numpy()
        if (held_out @ embedding).max() < HELD_OUT_COSINE:
            transform = similarity_transform(aligned[1].points, aligned_template())
            images.append(aligned[0])
            points.append(aligned[1].points @ transform[:, :2].T + transform[:, 2])
    return Faces(np.stack(images), np.stack(points).astype(np.float32), np.arange(len(images)))


def virtual_chunk(seed: int, chunk: int, held_out: np.ndarray, *, people: int = 50) -> Faces:
    """Photos of so many virtual people whose portrait nobody held out has.

    A portrait is met again in other chunks, with another shape, hair, beard and age, and mirrored half of the time.
    """
    del held_out  # virtual people are known by their portraits
    rng = derive_rng("pretraining people", seed, chunk)
    return Faces.together([_of_all_ages(person, rng) for person in islice(strangers(rng), people)])


def _of_all_ages(person: Person, rng: np.random.Generator) -> Faces:
    taken = []
    of_each = PHOTOS_OF_PERSON // OCCASIONS_OF_PERSON
    for number in range(OCCASIONS_OF_PERSON):
        aged = replace(person, base_age=YOUNGEST + (OLDEST - YOUNGEST) * rng.random())
        preset = _WIDE if number % 2 else PRESETS["strong"]
        frames, sitter = Occasion(aged, preset, person.seed, number).frames(), Sitter(aged)
        first = int(rng.integers(_FIRST_FRAMES))
        for turn in range(of_each):
            place = (first + turn * math.ceil(len(frames) / of_each)) % len(frames)
            taken.append(sitter.photograph(frames[place].moment))
    return _of_one_person(taken)


def held_out_embeddings() -> np.ndarray:
    """Unit embeddings ``[m, 512]`` of everybody who is held out."""
    tools = FaceTools.load()
    drawn = [
        draw_person(tools, data_seed, index).embedding
        for data_seed in (REPORTED_DATA_SEED, TUNING_DATA_SEED)
        for index in range(HELD_OUT_PEOPLE)
    ]
    for person in held_out_virtual():
        photos = _on_occasions(person, 4)
        mean = tools.embedder(to_unit_range(photos.images)).numpy().mean(axis=0)
        drawn.append(mean / np.linalg.norm(mean))
    return np.stack(drawn)


def collect(seed: int, count: int, workers: int, draw: Callable[..., Faces]) -> Faces:
    """The first ``count`` faces of ``drawn_chunk`` or ``virtual_chunk`` of a seed, in order."""
    chunk = partial(draw, seed, held_out=held_out_embeddings())
    return Faces.together(in_chunks(chunk, count, workers, "faces"))[:count]
