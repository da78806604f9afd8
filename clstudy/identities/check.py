"""Checks a photo folder: finds every problem in one pass, and names the file of each.

Layout: ``ROOT/<identity>/<timestamp>/{train,test}/*.png|jpg``; timestamps in sorted name order; conditions of photos in
``<timestamp>/conditions.json`` and ``{train,test}/<stem>.json`` (``clstudy.identities.conditions``). Hidden entries,
other files beside identities, timestamps and splits (``manifest.json``), and ``*.safetensors`` are skipped.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clstudy.errors import UserError
from clstudy.faces.alignments import TRANSFORMS, usual_alignment
from clstudy.identities.cameras import CAMERA, camera_problem
from clstudy.identities.conditions import (
    FOR_ALL,
    NO_CONDITIONS,
    NO_SIDECARS,
    Conditions,
    FoundPhoto,
    disagreements,
    read_sidecar,
    too_many,
)
from clstudy.identities.known_geometry import geometry_problem
from clstudy.images import opened_picture, read_picture_file
from clstudy.storage.documents import read_json

LAYOUT = "<identity>/<timestamp>/{train,test}/*.png or *.jpg"
"""The layout of photos inside a data folder."""

SPLITS = ("train", "test")
"""The two photo folders of a timestamp."""

_PHOTO_SUFFIXES = {".png", ".jpg", ".jpeg"}
_OTHER_SUFFIXES = {".json", ".safetensors"}

FoundPhotos = Mapping[str, tuple[FoundPhoto, ...]]
"""Split -> photos, in sorted name order."""


@dataclass(frozen=True)
class Inspection:
    """What a folder holds (identity -> timestamp -> split -> photos) and everything that is wrong with it."""

    root: Path
    found: Mapping[str, Mapping[str, FoundPhotos]]
    problems: tuple[str, ...]

    def counts(self) -> tuple[int, int, int]:
        """Number of identities, timestamps and photos."""
        timestamps = [splits for identity in self.found.values() for splits in identity.values()]
        photos = sum(len(photos) for splits in timestamps for photos in splits.values())
        return len(self.found), len(timestamps), photos

    def conditions(self) -> dict[str, int]:
        """The photos' conditions: name -> how many numbers it has."""
        timestamps = (splits for identity in self.found.values() for splits in identity.values())
        photos = (photo for splits in timestamps for photos in splits.values() for photo in photos)
        found = {name: len(numbers) for photo in photos for name, numbers in photo.conditions.items()}
        return dict(sorted(found.items()))


def decode_photo(data: bytes, size: int | None) -> np.ndarray:
    """Return uint8 RGB ``[h, w, 3]`` of a PNG or JPEG file's bytes.

    Raises:
        ValueError: unreadable, another format, too large, not 8-bit RGB, or not ``size x size`` pixels (when a size is
            given).
    """
    with opened_picture(data) as image:
        if image.mode != "RGB":
            raise ValueError(f"wrong mode {image.mode}, expected RGB (8 bits, no transparency)")
        if size is not None and image.size != (size, size):  # before it is decoded
            raise ValueError(f"wrong size {image.width}x{image.height}, expected {size}x{size} pixels")
        return np.asarray(image)


def recorded_alignment(root: Path) -> str | None:
    """The alignment that a folder's ``prepared.json`` (written by ``prepare``) names; None if there is none."""
    try:
        return str(read_json(root / "prepared.json")["alignment"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def require_folder(root: Path) -> Path:
    """Return the absolute path of an existing folder.

    Raises:
        UserError: it does not exist or is not a folder.
    """
    if not root.exists():
        raise UserError(
            f"data folder {str(root)!r} does not exist; expected a folder with {LAYOUT}. Give the path of one, "
            "or the name of a packaged data set"
        )
    if not root.is_dir():
        raise UserError(f"{str(root)!r} is a file; expected a folder with {LAYOUT}")
    return root.resolve()


def inspect_folder(root: Path, *, image_size: int) -> Inspection:
    """Read and digest every photo below ``root`` and list every problem, in reading order.

    Raises:
        UserError: ``root`` is missing or not a folder (the only thing that ends the check early).
    """
    root = require_folder(root)
    walk = _Walk(root=root, image_size=image_size)
    walk.misplaced(root)
    found = {folder.name: walk.identity(folder) for folder in _folders(root)}
    for path, problem in disagreements(walk.read):
        walk.say(path, problem)
    if not found:
        walk.problems.append(f"no identity: {root} holds no folders, expected {LAYOUT}")
    return Inspection(root, found, tuple(walk.problems))


@dataclass
class _Walk:
    root: Path
    image_size: int
    problems: list[str] = field(default_factory=list)
    read: list[FoundPhoto] = field(default_factory=list)
    """Photos with readable sidecars; the conditions in unreadable ones are unknown."""

    def say(self, path: Path, problem: str) -> None:
        self.problems.append(f"{path.relative_to(self.root).as_posix()}: {problem}")

    def identity(self, folder: Path) -> dict[str, FoundPhotos]:
        timestamps = _folders(folder)
        if not timestamps:
            self.say(folder, f"no timestamp; expected {LAYOUT}")
        elif any(entry.name in SPLITS for entry in timestamps):
            self.say(folder, f"train and test must lie inside a timestamp's folder: {LAYOUT}")
            return {}
        self.misplaced(folder)
        seen: dict[str, Path] = {}
        return {entry.name: self.timestamp(entry, seen) for entry in timestamps}

    def timestamp(self, folder: Path, seen: dict[str, Path]) -> FoundPhotos:
        shared = self.sidecar(folder / FOR_ALL)
        photos = {split: self.photos(folder / split, seen, shared) for split in SPLITS}
        files = {split: _files(folder / split) for split in SPLITS}
        if not any(files.values()):
            self.say(folder, "empty timestamp: no photo in train or test")
        else:
            for split in SPLITS:
                if not files[split]:
                    state = "is empty" if (folder / split).is_dir() else "does not exist"
                    self.say(folder, f"missing {split} set: {split}/ {state}")
        return photos

    def photos(
        self, folder: Path, seen: dict[str, Path], shared: Mapping[str, tuple[float, ...]] | None
    ) -> tuple[FoundPhoto, ...]:
        found = []
        self.strays(folder)
        for path in _files(folder):
            if path.suffix.lower() not in _PHOTO_SUFFIXES:
                self.say(path, "not a .png or .jpg photo; convert or remove it")
                continue
            try:
                data = read_picture_file(path)
                pixels = decode_photo(data, self.image_size)
            except OSError as error:
                self.say(path, f"unreadable file ({error.strerror})")
            except ValueError as error:
                self.say(path, str(error))
            else:
                conditions = self.conditions(path, shared)
                found.append(FoundPhoto(path, hashlib.sha256(data).hexdigest(), conditions or NO_CONDITIONS))
                if conditions is not None:
                    self.read.append(found[-1])
                self.duplicate(path, pixels, seen)
        return tuple(found)

    def conditions(self, photo: Path, shared: Mapping[str, tuple[float, ...]] | None) -> Conditions | None:
        """A photo's conditions: its timestamp's, extended or overridden by its own; None if one cannot be read."""
        own = self.sidecar(photo.with_suffix(".json"))
        if own is None or shared is None:
            return None
        conditions = Conditions({**shared, **own})
        problems = too_many(conditions)
        camera = camera_problem(conditions[CAMERA]) if CAMERA in conditions else None
        problems = (*problems, *filter(None, (camera, geometry_problem(conditions))))
        for problem in problems:
            self.say(photo, problem)
        return None if problems else conditions

    def sidecar(self, path: Path) -> Mapping[str, tuple[float, ...]] | None:
        values, problems = read_sidecar(path)
        for problem in problems:
            self.say(path, problem)
        return None if problems else values

    def strays(self, folder: Path) -> None:
        """Report JSON files beside photos that are not the sidecar of exactly one photo."""
        photos = Counter(path.stem for path in _files(folder) if path.suffix.lower() in _PHOTO_SUFFIXES)
        for path in _entries(folder, {".json"}):
            if photos[path.stem] > 1:
                self.say(path, f"sidecar of {photos[path.stem]} photos of one name; rename all but one of them")
            elif photos[path.stem] and path.suffix != ".json":
                self.say(path, "sidecars end in .json, in small letters; rename it")
            elif not photos[path.stem] and path.name not in NO_SIDECARS:
                self.say(
                    path,
                    f"sidecar without its photo: expected {path.stem}.png or .jpg beside it. Rename or remove it; "
                    f"{FOR_ALL} for all photos of a timestamp lies beside train and test",
                )

    def misplaced(self, folder: Path) -> None:
        if (folder / FOR_ALL).exists():
            self.say(folder / FOR_ALL, f"would never be read; expected it as <identity>/<timestamp>/{FOR_ALL}")

    def duplicate(self, path: Path, pixels: np.ndarray, seen: dict[str, Path]) -> None:
        """Compare by pixels, so that the same picture saved twice is found too."""
        key = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        first = seen.setdefault(key, path)
        if first is path:
            return
        splits = {first.parent.name, path.parent.name}
        where = "in train and test" if len(splits) == 2 else f"twice in {path.parent.name}"
        self.say(path, f"duplicate photo {where}: same pixels as {first.relative_to(self.root).as_posix()}")


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _entries(folder: Path, suffixes: set[str] | None = None) -> list[Path]:
    if not folder.is_dir():
        return []
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return sorted(entry for entry in entries if suffixes is None or entry.suffix.lower() in suffixes)


def _files(folder: Path) -> list[Path]:
    return [
        entry
        for entry in _entries(folder)
        if entry.suffix.lower() not in _OTHER_SUFFIXES
        # a folder called a.png is a mistake; skipped, it would be a photo that is silently left out
        and (entry.suffix.lower() in _PHOTO_SUFFIXES or not entry.is_dir())
    ]


def alignment_of(root: Path, size: int) -> str:
    """The alignment that a data folder's ``prepared.json`` names, or else the usual one for the size."""
    named = recorded_alignment(root)
    return named if named is not None and named in TRANSFORMS else usual_alignment(size)
