"""Defines the synthetic people: one DCGAN latent per (data seed, index), chosen as a clear frontal face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clstudy.faces.embedding import IdentityEmbedder
from clstudy.faces.face_finder import FaceFinder
from clstudy.faces.geometry import aligned_template, similarity_transform
from clstudy.identities.dcgan import LATENT_SIZE, FaceSource
from clstudy.images import to_unit_range
from clstudy.seeding import derive_rng

REPORTED_DATA_SEED = 0
"""Data seed of the people on whom results are reported."""

TUNING_DATA_SEED = 1
"""Data seed of the people on whom settings are chosen."""


@dataclass(frozen=True)
class FaceTools:
    """The packaged networks needed to draw, align and recognise faces."""

    source: FaceSource
    finder: FaceFinder
    embedder: IdentityEmbedder

    @classmethod
    def load(cls, *, threads: int = 1) -> FaceTools:
        """Open all packaged networks."""
        return cls(FaceSource(), FaceFinder(threads=threads), IdentityEmbedder(threads=threads))


@dataclass(frozen=True)
class Person:
    """A person who does not exist: the latent ``[100]``, its aligned portrait and unit embedding ``[512]``."""

    latent: np.ndarray
    portrait: np.ndarray
    embedding: np.ndarray


def draw_person(tools: FaceTools, data_seed: int, index: int) -> Person:
    """Return person ``index`` of ``data_seed``: the first latent of its stream that shows a clear frontal face."""
    rng = derive_rng("synthetic person", data_seed, index)
    for _ in range(1000):
        latent = rng.standard_normal(LATENT_SIZE)
        aligned = tools.finder.align(tools.source.draw(latent[None])[0])
        if aligned is None:
            continue
        portrait, face = aligned
        transform = similarity_transform(face.points, aligned_template())
        scale = float(np.sqrt(np.linalg.det(transform[:, :2])))
        brightness = portrait[16:56, 16:48].mean()
        if face.score > 0.995 and abs(face.yaw()) < 0.12 and 0.85 < scale < 1.1 and 70 < brightness < 200:
            embedding = tools.embedder(to_unit_range(portrait[None]))[0].numpy()
            return Person(latent, portrait, embedding)
    raise RuntimeError(f"no clear face in 1000 draws for data seed {data_seed}, person {index}")
