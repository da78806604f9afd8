"""Checks that the trials of an identity were tested on the same photos; otherwise their differences are meaningless."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

_MARK_BYTES = 5
"""Range of a photo's mark: 40 bits, so that the sum over the photos of a cell stays far below 2^63."""


def photo_marks(names: pa.ChunkedArray) -> pa.Array:
    """One number per photo, from its name, int64 ``[rows]``; equal sums over equally many photos mean the same photos.

    Args:
        names: photos' names (digests), strings or a dictionary of them.
    """
    if not pa.types.is_dictionary(names.type):
        names = names.dictionary_encode()
    encoded = names.unify_dictionaries().combine_chunks()
    marks = [_mark(name) for name in encoded.dictionary.to_pylist()]
    return pa.array(np.array(marks, dtype=np.int64)[encoded.indices.to_numpy()])


def other_photos(marks: np.ndarray, counts: np.ndarray, identities: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Find the cells that were measured on other photos than those of most cells of their identity.

    Args:
        marks: int64 ``[trials, protocols, metrics, T, T]``, sum of the photos' marks of a cell.
        counts: int64, same shape: photos of a cell; 0 where nothing was measured.
        identities: of every trial.

    Returns:
        (odd, usual): bool of that shape; and int ``[trials, protocols, metrics, T]``, for each test timestamp k a trial
        with the usual photos of the identity (the first if several sets are equally frequent), -1 if no trial of the
        identity is odd.
    """
    odd = np.zeros(marks.shape, dtype=bool)
    usual = np.full((*marks.shape[:3], marks.shape[-1]), -1)
    names = np.array(identities)
    for identity in dict.fromkeys(identities):
        members = np.flatnonzero(names == identity)
        mine, there = marks[members], counts[members] > 0
        most = np.where(there, mine, np.iinfo(np.int64).min).max(axis=(0, 3))
        least = np.where(there, mine, np.iinfo(np.int64).max).min(axis=(0, 3))
        for p, m, k in np.argwhere(there.any(axis=(0, 3)) & (most != least)):
            column, measured = mine[:, p, m, :, k], there[:, p, m, :, k]
            sets, first, times = np.unique(column[measured], return_index=True, return_counts=True)
            usual_set = sets[np.lexsort((first, -times))[0]]
            with_it = (measured & (column == usual_set)).any(axis=1)
            odd[members, p, m, :, k] = measured & (column != usual_set)
            usual[members, p, m, k] = members[with_it][0]
    return odd, usual


def _mark(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=_MARK_BYTES).digest(), "big")
