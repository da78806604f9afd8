"""Identities, timestamps and photos, and the one loader for all data sets.

Needs neither torch nor onnxruntime, so that planning and reporting can read a data set anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from clstudy.errors import PhotoError, UserError, nearest
from clstudy.identities.check import FoundPhotos, Inspection, decode_photo, inspect_folder
from clstudy.identities.conditions import NO_CONDITIONS, Conditions
from clstudy.images import read_picture_file
from clstudy.storage.content_addressed_store import digest_of


@dataclass(frozen=True)
class Photo:
    """One photo with its conditions, as they were when the data set was loaded.

    Attributes:
        path: the photo's file.
        file_digest: sha256 of its bytes.
        conditions: named numbers (camera, age, class label) from its sidecars; read-only, empty without any.
    """

    path: Path
    file_digest: str
    conditions: Mapping[str, tuple[float, ...]] = NO_CONDITIONS

    def __post_init__(self) -> None:
        if not isinstance(self.conditions, Conditions):
            object.__setattr__(self, "conditions", Conditions(self.conditions))

    @cached_property
    def digest(self) -> str:
        """sha256 of everything that a stage sees of the photo: its file, and its conditions if it has any."""
        if not self.conditions:
            return self.file_digest
        return digest_of({"photo": self.file_digest, "conditions": dict(self.conditions)})

    def read(self, size: int | None = None) -> np.ndarray:
        """Return uint8 RGB ``[h, w, 3]``, with h = w = ``size`` when a size is given.

        Raises:
            PhotoError: the file is missing, unreadable, changed since it was digested, or has the wrong mode or size.
        """
        try:
            data = read_picture_file(self.path)
        except OSError as error:
            raise PhotoError(
                f"photo {self.path} can no longer be read ({error.strerror}); put it back and run again"
            ) from error
        found = hashlib.sha256(data).hexdigest()
        if found != self.file_digest:
            raise PhotoError(
                f"photo {self.path} changed since the data set was loaded: sha256 {found[:12]}…, expected "
                f"{self.file_digest[:12]}…; restore the file, or start the study again with the new photo"
            )
        try:
            return decode_photo(data, size)
        except ValueError as error:
            raise PhotoError(f"photo {self.path}: {error}") from error


@dataclass(frozen=True)
class Timestamp:
    """One occasion: its index in time (0, 1, …), folder name, training photos and held-out test photos."""

    index: int
    name: str
    train: tuple[Photo, ...]
    test: tuple[Photo, ...]


@dataclass(frozen=True)
class Identity:
    """A person: ordered timestamps."""

    name: str
    timestamps: tuple[Timestamp, ...]

    def first(self, count: int) -> Identity:
        """This person with at most the first ``count`` timestamps."""
        return replace(self, timestamps=self.timestamps[:count])


@dataclass(frozen=True)
class DataSet:
    """People of one study, in sorted name order."""

    name: str
    root: Path
    identities: tuple[Identity, ...]

    def select(self, names: Iterable[str]) -> DataSet:
        """Keep the named people, in the order of the names.

        Raises:
            UserError: a name is unknown (the nearest one is shown) or repeated, or none is given.
        """
        known = {identity.name: identity for identity in self.identities}
        names = list(names)
        if not names:
            raise UserError(f"no identity selected from data set {self.name!r}; known: {', '.join(known)}")
        for name in names:
            if name not in known:
                raise UserError(
                    f"unknown identity {name!r} in data set {self.name!r}.{nearest(name, known)} "
                    f"Known: {', '.join(known)}."
                )
            if names.count(name) > 1:
                raise UserError(f"identity {name!r} was given twice; name every person once")
        return replace(self, identities=tuple(known[name] for name in names))

    def digests(self) -> dict[str, str]:
        """Photo path relative to the root -> ``Photo.digest``, in the order of the data set."""
        photos = (
            photo
            for identity in self.identities
            for timestamp in identity.timestamps
            for photo in (*timestamp.train, *timestamp.test)
        )
        return {photo.path.relative_to(self.root).as_posix(): photo.digest for photo in photos}


def load_folder(root: Path, *, image_size: int = 64) -> DataSet:
    """Load ``ROOT/<identity>/<timestamp>/{train,test}/*.png|jpg`` with sidecars, and digest every photo.

    Raises:
        UserError: the folder is missing, or has problems (all of them are listed).
    """
    inspection = inspect_folder(Path(root), image_size=image_size)
    if inspection.problems:
        count = len(inspection.problems)
        listed = "\n".join(f"  - {problem}" for problem in inspection.problems)
        raise UserError(
            f"data folder {str(root)!r} has {count} problem{'s' if count > 1 else ''}:\n{listed}\n"
            f"Mend them; `python -m clstudy.identities check {root} --size {image_size}` checks again."
        )
    return data_set_of(inspection)


def data_set_of(inspection: Inspection) -> DataSet:
    """The data set of a folder without problems."""
    identities = tuple(
        Identity(
            name, tuple(_timestamp(index, stamp, photos) for index, (stamp, photos) in enumerate(timestamps.items()))
        )
        for name, timestamps in inspection.found.items()
    )
    return DataSet(inspection.root.name, inspection.root, identities)


def _timestamp(index: int, name: str, photos: FoundPhotos) -> Timestamp:
    train, test = (tuple(Photo(*photo) for photo in photos[split]) for split in ("train", "test"))
    return Timestamp(index, name, train, test)
