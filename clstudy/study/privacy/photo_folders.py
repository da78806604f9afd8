"""Finds and removes photos of a person in the storage's own data sets."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shutil import rmtree
from typing import Any

from clstudy.assets import sha256_file
from clstudy.identities.conditions import conditions_beside, has_sidecars
from clstudy.identities.dataset import Photo
from clstudy.storage.documents import read_json
from clstudy.storage.places import Place, RemotePath, write_atomically
from clstudy.study.privacy.study_layout import PHOTO_SUFFIXES, VIEW


@dataclass(frozen=True, kw_only=True)
class PhotoFolder:
    """A person's folder in a data set of the storage: ``<home>/data/<data set>/<person>``."""

    root: Path
    name: str

    @property
    def photos(self) -> Path:
        """The person's photos."""
        return self.root / self.name

    @property
    def what(self) -> str:
        """What the folder holds of them, in words."""
        return "photos and the conditions beside them" if has_sidecars(self.photos) else "photos"

    @property
    def doomed(self) -> Path:
        """Where they are moved while being removed, so that after a stop everything there is known to be theirs."""
        return self.root / VIEW / self.name

    @property
    def beside(self) -> tuple[Path, ...]:
        """What ``python -m clstudy.identities prepare`` left of them; its scans do not name anybody."""
        report = self.root.with_name(f"{self.root.name}-report") / self.name
        return (report, self.root / ".report", self.root / ".prepare")


def photo_folders(study: Place, data_set: str | None, name: str, digests: Collection[str]) -> list[PhotoFolder]:
    """Folders in the storage's ``data`` with photos of exactly this person (others may have the same name)."""
    data = (Path("runs") if isinstance(study, RemotePath) else study.parent) / "data"
    found: list[PhotoFolder] = []
    if data_set is None or PurePosixPath(name).name != name or name in (".", ".."):  # of a study.yaml from elsewhere
        return found
    made = re.compile(rf"{re.escape(data_set)}(-[0-9a-f]{{16}})?")
    for root in sorted(data.glob("*")):
        folder = PhotoFolder(root=root, name=name)
        if made.fullmatch(root.name) and folder.doomed.is_dir():
            found.append(folder)
            continue
        if not (made.fullmatch(root.name) and folder.photos.is_dir()):
            continue
        if data.resolve() not in folder.photos.resolve().parents:  # a link: the originals, or another storage
            continue
        if any(_is_of(photo, digests) for photo in _photos_in(folder.photos)):
            found.append(folder)
    return found


def _is_of(path: Path, digests: Collection[str]) -> bool:
    """Whether stages have seen a photo, with its present sidecars or from before it had any."""
    photo = Photo(path, sha256_file(path), conditions_beside(path))
    return photo.digest in digests or photo.file_digest in digests


def _photos_in(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())


def remove_photos(folder: PhotoFolder) -> None:
    """Remove a person from a data set: photos and their sidecars, the manifest's lines, what preparing left."""
    manifest = folder.root / "manifest.json"
    with suppress(OSError, ValueError):
        document = read_json(manifest)
        write_atomically(manifest, (json.dumps(_without_paths(document, folder.name), indent=1) + "\n").encode())
    for place in folder.beside:
        rmtree(place, ignore_errors=True)
    folder.doomed.parent.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        folder.photos.rename(folder.doomed)
    rmtree(folder.doomed.parent)
    left = {path.name for path in folder.root.iterdir()}
    if left <= {"manifest.json", "prepared.json"}:  # nobody is left in it
        rmtree(folder.root)


def _without_paths(value: Any, name: str) -> Any:
    """A manifest without a person's entries (``person_00/t00/…``)."""
    if not isinstance(value, dict):
        return value
    return {
        key: _without_paths(entry, name)
        for key, entry in value.items()
        if key != name and not key.startswith(f"{name}/")
    }
