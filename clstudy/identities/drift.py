"""How much a person's photos change from occasion to occasion: without drift there is little to forget.

Strategies differ in what they keep of earlier occasions. If photos of two occasions differ no more than two photos of
one occasion do, training on the later ones teaches the earlier ones, too, and no strategy forgets a measurable amount.
This can be known before any time is spent on training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image
from scipy.spatial.distance import cdist

from clstudy.faces.embedding import IdentityEmbedder
from clstudy.identities.dataset import Identity, Timestamp
from clstudy.identities.preparation.perceptual import perceptual_distances
from clstudy.identities.preparation.selection import evenly
from clstudy.images import to_unit_range

MOST_PHOTOS = 12
"""Largest number of photos of an occasion that are measured, evenly spread."""

_LOOK, _PORTRAIT = 64, 128


@dataclass(frozen=True, kw_only=True)
class Drift:
    """For each measure, the mean distance of photos of different occasions, divided by that of photos of one occasion.

    1: occasions do not differ; NaN: fewer than two occasions, or none with two photos that differ.
    """

    looks: float
    """LPIPS."""
    face: float
    """1 - cosine of identity embeddings."""
    light: float
    """Euclidean distance of mean colours."""


LITTLE = 1.25
"""Below it, in looks and in faces, there is little to forget. ORL, whose "occasions" are artificial, has 1.08 and 1.07
(two of them) and 1.13 and 1.15 (three), and nothing is forgotten there; five parts of one sitting's interview have 1.17
and 1.12; the synthetic people, whose light and looks change at every occasion, 5.8 and 2.2, and much is forgotten."""

Embed = Callable[[np.ndarray], np.ndarray]
"""Photos uint8 ``[n, s, s, 3]`` -> unit embeddings ``[n, d]``."""


def estimate(people: Sequence[Identity], *, alignment: str, most_photos: int = MOST_PHOTOS) -> list[Drift]:
    """Measure people with the packaged networks.

    Args:
        alignment: how faces are aligned in the photos (``embedding.ALIGNMENTS``).
        most_photos: largest number per occasion.

    Raises:
        PhotoError: a photo is missing, changed or unreadable.
    """
    embedder = IdentityEmbedder(alignment=alignment)

    def embed(photos: np.ndarray) -> np.ndarray:
        return embedder(to_unit_range(photos)).numpy()

    return [drift(person, embed, most_photos=most_photos) for person in people]


def mean(drifts: Sequence[Drift]) -> Drift | None:
    """Mean over people; None if it is NaN for everybody."""
    found = [one for one in drifts if not math.isnan(one.looks + one.face + one.light)]
    if not found:
        return None
    return Drift(**{field.name: float(np.mean([getattr(one, field.name) for one in found])) for field in fields(Drift)})


def is_little(average: Drift) -> bool:
    """Whether there is little to forget."""
    return average.looks < LITTLE and average.face < LITTLE


def words(found: Drift) -> str:
    """A drift as text."""
    return (
        f"photos of two occasions differ {found.looks:.1f} times as much as two of one in LPIPS, {found.face:.1f} "
        f"times in face embedding, {found.light:.1f} times in light"
    )


WARNING = (
    "little to forget here: the photos of two occasions differ hardly more than two of one, so that "
    "strategies will hardly differ in Forgetting. Take occasions further apart, or in other light, places and looks"
)


def drift(identity: Identity, embed: Embed, *, most_photos: int = MOST_PHOTOS) -> Drift:
    """Measure one person's photos, training and test photos together.

    Raises:
        PhotoError: a photo is missing, changed or unreadable.
    """
    photos = [_photos(stamp, most_photos) for stamp in identity.timestamps]
    of = np.repeat(np.arange(len(photos)), [len(some) for some in photos])
    together = [photo for some in photos for photo in some]
    looks = np.stack([_reduced(photo, _LOOK) for photo in together])
    portraits = np.stack([_reduced(photo, min(_PORTRAIT, len(photo))) for photo in together])
    rows = embed(portraits)
    colours = looks.reshape(len(looks), -1, 3).mean(1) / 255
    return Drift(
        looks=ratio(perceptual_distances(looks), of),
        face=ratio(np.clip(1 - rows @ rows.T, 0, None), of),
        light=ratio(cdist(colours, colours), of),
    )


def ratio(distances: np.ndarray, of: np.ndarray) -> float:
    """Mean over pairs of different groups divided by the mean over pairs of one group.

    Args:
        distances: ``[n, n]``, symmetric.
        of: group of each of the n items, int ``[n]``.
    """
    pairs = np.triu(np.ones_like(distances, bool), 1)
    same = of[:, None] == of
    within, between = distances[pairs & same], distances[pairs & ~same]
    if not len(between) or not len(within) or within.mean() == 0:
        return math.nan
    return float(between.mean() / within.mean())


def _photos(stamp: Timestamp, most: int) -> list[np.ndarray]:
    photos = [*stamp.train, *stamp.test]
    return [photos[place].read() for place in evenly(len(photos), most)]


def _reduced(photo: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(photo).resize((size, size), Image.Resampling.BOX))
