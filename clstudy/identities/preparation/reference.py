"""Identifies the person to keep: the one in the reference photos, or the one seen most often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse.csgraph import connected_components

from clstudy.errors import UserError
from clstudy.identities.preparation.filters import FilterSettings, drop_reason
from clstudy.identities.preparation.scans import Scan, Tools
from clstudy.identities.preparation.settings import PrepareSettings
from clstudy.identities.preparation.video import read_photo

_SAME_PERSON = 0.5


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The person to keep: a unit embedding ``[512]`` and how it was determined."""

    embedding: np.ndarray
    said: str


def reference_of(photos: Sequence[Path], tools: Tools) -> Reference | None:
    """The person in the reference photos (mean of their embeddings), or None without photos.

    Raises:
        UserError: a photo is unreadable or shows no face or several, or two photos show different people.
    """
    if not photos:
        return None
    rows = []
    for path in photos:
        image = read_photo(path)
        faces = tools.detector.faces(image)
        if len(faces) != 1:
            raise UserError(
                f"reference photo {str(path)!r} shows {len(faces) or 'no'} face{'s' if len(faces) > 1 else ''}; "
                "expected exactly one. Crop it to the person, or give another photo"
            )
        rows.append(tools.embed(image, faces[0]))
    vectors = np.stack(rows)
    cosines = vectors @ vectors.T
    least = FilterSettings().min_cosine
    if cosines.min() < least:
        one, other = (photos[int(place)].name for place in np.unravel_index(cosines.argmin(), cosines.shape))
        raise UserError(
            f"reference photos {one} and {other} seem to show different people (cosine {cosines.min():.2f}, expected "
            f"at least {least}); give photos of one person"
        )
    return Reference(embedding=_unit(vectors.mean(0)), said=f"{len(photos)} reference photo(s)")


def most_seen(scans: Sequence[Scan], settings: PrepareSettings) -> Reference | None:
    """The person seen on most occasions, then in most frames: the medoid of the largest cluster of good faces.

    Two faces are in one cluster if a chain of cosines of at least 0.5 connects them. None if there is no good face.
    """
    good = [
        (number, row)
        for number, scan in enumerate(scans)
        for row in range(len(scan.frame))
        if drop_reason(scan.face(row), settings.limits, settings.size) is None
    ]
    if not good:
        return None
    vectors = np.stack([scans[number].embeddings[row] for number, row in good])
    cosines = vectors @ vectors.T
    count, labels = connected_components(cosines >= _SAME_PERSON, directed=False)
    occasions = np.array([number for number, _ in good])
    sizes = [(len(np.unique(occasions[labels == one])), int((labels == one).sum()), -one) for one in range(count)]
    members = np.flatnonzero(labels == -max(sizes)[2])
    medoid = members[cosines[np.ix_(members, members)].mean(1).argmax()]
    number, row = good[medoid]
    others = f"; {count - 1} other group(s) of faces are left out" if count > 1 else ""
    return Reference(
        embedding=vectors[medoid],
        said=f"no reference photo was given: the face seen most, {scans[number].labels[scans[number].frame[row]]} of "
        f"occasion {number} (the medoid of {len(members)} of {len(good)} good faces{others})",
    )


def _unit(vector: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vector / np.linalg.norm(vector)
    return unit
