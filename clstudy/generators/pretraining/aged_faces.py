"""What the age estimator learns from: virtual people at ages from 18 to 85.

``python -m clstudy.generators.pretraining ages --out DIR --workers 2`` writes ``ages.npz`` (``AgedFaces``); the same
seed gives the same faces whatever the number of workers. People on whom something is studied are held out, as in
``training_faces``, with everybody who has one of their portraits.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from clstudy.errors import UserError
from clstudy.generators.pretraining.chunks import in_chunks
from clstudy.generators.pretraining.training_faces import (
    OLDEST,
    YOUNGEST,
    arrays_in,
    reported_virtual,
    strangers,
)
from clstudy.identities.virtual.occasions import Occasion
from clstudy.identities.virtual.person import Person
from clstudy.identities.virtual.photo import Sitter
from clstudy.identities.virtual.presets import PRESETS
from clstudy.seeding import derive_rng

AGES_OF_PERSON, MOMENTS_OF_AGE = 5, 4
"""Every moment is photographed at every age: what ageing changes is then known, and nothing else changes."""


@dataclass(frozen=True)
class AgedFaces:
    """Moments of people at several ages each.

    Attributes:
        images: uint8 ``[n, a, m, 64, 64, 3]``: n people at a ages in m moments.
        ages: float32 ``[n, a]``, years.
    """

    images: np.ndarray
    ages: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def flat(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images uint8 ``[n a m, 64, 64, 3]``, their ages, and numbers of their people."""
        n, a, m = self.images.shape[:3]
        people = np.repeat(np.arange(n), a * m)
        return self.images.reshape(-1, *self.images.shape[3:]), np.repeat(self.ages.ravel(), m), people

    def save(self, path: Path) -> None:
        """Write ``path`` (npz)."""
        np.savez(path, images=self.images, ages=self.ages)

    @classmethod
    def read(cls, path: Path) -> AgedFaces:
        """What ``save`` wrote.

        Raises:
            UserError: there is no such file, or it holds something else.
        """
        expected = "expected the ages.npz that `python -m clstudy.generators.pretraining ages` writes"
        found = cls(**arrays_in(path, [entry.name for entry in fields(cls)], expected))
        if found.images.dtype != np.uint8 or found.images.ndim != 6 or found.ages.shape != found.images.shape[:2]:
            raise UserError(f"{path} does not hold faces as uint8 (n, a, m, height, width, 3) with ages; {expected}")
        return found


def aged_chunk(seed: int, chunk: int, *, people: int = 10) -> AgedFaces:
    """So many virtual people whose portrait nobody held out has."""
    rng = derive_rng("pretraining ages", seed, chunk)
    # one more is drawn than is taken: the photos of earlier sets begin after it
    return _of_people(list(islice(strangers(rng), people + 1))[:people], rng)


def held_out_ages() -> AgedFaces:
    """The reported virtual people, likewise."""
    return _of_people(reported_virtual(), derive_rng("held-out ages"))


def _of_people(people: list[Person], rng: np.random.Generator) -> AgedFaces:
    images, ages = [], []
    for person in people:
        # one stratum of years for each age: no person is at one age only
        strata = (np.arange(AGES_OF_PERSON) + rng.random(AGES_OF_PERSON)) / AGES_OF_PERSON
        years = YOUNGEST + (OLDEST - YOUNGEST) * strata
        sitter = Sitter(replace(person, base_age=YOUNGEST))
        moments = []
        for number in range(MOMENTS_OF_AGE):
            frames = Occasion(sitter.person, PRESETS["strong"], person.seed, number).frames()
            moments.append(frames[int(rng.integers(len(frames)))].moment)
        images.append(
            [[sitter.photograph(replace(moment, age=float(age))).image for moment in moments] for age in years]
        )
        ages.append(years)
    return AgedFaces(np.array(images), np.array(ages, np.float32))


def collect_ages(seed: int, count: int, workers: int) -> AgedFaces:
    """The first ``count`` people of ``aged_chunk`` of a seed, in order."""
    parts = in_chunks(partial(aged_chunk, seed), count, workers, "people")
    return AgedFaces(
        np.concatenate([part.images for part in parts])[:count], np.concatenate([part.ages for part in parts])[:count]
    )
