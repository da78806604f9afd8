"""What workers on other machines need and may not have: photos, and weights that metrics are computed with.

The driver puts them into the study's own storage, by content; a node that lacks a file fetches it from there once, into
a folder of its own that goes when the study ends. So people's photos pass through no other place than the storage that
was named. No torch, no Ray.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from clstudy.assets import sha256_file
from clstudy.errors import UserError
from clstudy.identities.dataset import DataSet, Identity, Photo, Timestamp
from clstudy.storage.patience import patiently
from clstudy.storage.places import Place, write_atomically
from clstudy.storage.private_folder import is_private, lock_file, node_folder, private_node_folder
from clstudy.storage.trees import list_files, remove_tree, together


@dataclass(frozen=True)
class Inputs:
    """Files in a study's storage under ``inputs/<digest><suffix>``.

    The name has a photo's ``digest`` (with its conditions, by which stages name it too, so that forgetting a person
    finds it), the content must have the file's own. Conditions themselves travel with the photo.

    Args:
        storage: the study's folder.
        token: of the study; names the folder on a node.
    """

    storage: Place
    token: str

    @property
    def folder(self) -> Place:
        """Where they lie."""
        return self.storage / "inputs"

    @property
    def cache(self) -> Path:
        """This node's folder for them, readable by this user only. Before anything in it is used: ``private_cache``."""
        return node_folder() / self.token

    def private_cache(self, *names: str) -> Path:
        """``cache``, or a folder in it, made where it is not there.

        Raises:
            UserError: it is not this user's alone.
        """
        return private_node_folder(self.token, *names)

    def remove_cache(self) -> None:
        """Remove it; where the node's folder is not ours, there is nothing of ours in it."""
        if is_private(node_folder()):
            remove_tree(self.cache)

    # -- the driver -------------------------------------------------------------------------------------------------

    def provide(self, data: DataSet, files: Mapping[str, Path], digests: Mapping[str, str]) -> int:
        """Put everything there that is not there yet; returns how many files that were.

        Args:
            data: the photos.
            files: paths by role.
            digests: sha256 by role, of those that go along.
        """
        wanted = {stored_name(photo.path, photo.digest): photo.path for photo in photos_of(data.identities)}
        wanted |= {stored_name(files[role], digest): files[role] for role, digest in digests.items()}
        there = list_files(self.folder)
        missing = [name for name, path in wanted.items() if there.get(name) != path.stat().st_size]

        def put(name: str) -> None:
            write_atomically(self.folder / name, wanted[name].read_bytes())

        patiently(lambda: together(put, missing, self.folder))
        return len(missing)

    # -- a worker ---------------------------------------------------------------------------------------------------

    def local(self, path: Path, digest: str, *, name: str | None = None, check: bool = False) -> Path:
        """The file on this node: where the driver has it, or fetched once.

        Args:
            path: where the driver has it.
            digest: sha256 of its bytes.
            name: of the file among the inputs (default: ``stored_name`` of path and digest).
            check: whether a file in the driver's place must be looked into (photos are, whenever they are read).

        Raises:
            UserError: it is neither here nor in the storage, or is not what it was; or others have a hand in this
                node's folder.
        """
        if path.is_file() and not (check and sha256_file(path) != digest):
            return path
        name = name or stored_name(path, digest)
        cached = self.private_cache() / name
        if cached.is_file():
            return cached
        with lock_file(self.cache / ".lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # many workers of one node begin at once: one fetches, the others wait
            if not cached.is_file():
                write_atomically(cached, self._fetched(path, digest, name))
        return cached

    def _fetched(self, path: Path, digest: str, name: str) -> bytes:
        place = self.folder / name
        try:
            content = patiently(place.read_bytes)
        except FileNotFoundError as error:
            raise UserError(
                f"{path.name} is not on this node, and not in {self.folder}; start the study again, which puts it there"
            ) from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise UserError(f"{place} is damaged (its sha256 differs); delete it and start the study again")
        return content

    def local_identity(self, identity: Identity) -> Identity:
        """The same person with photos that this node has."""

        def here(photo: Photo) -> Photo:
            name = stored_name(photo.path, photo.digest)
            return replace(photo, path=self.local(photo.path, photo.file_digest, name=name))

        return mapped(identity, here)

    def local_files(self, files: Mapping[str, Path], digests: Mapping[str, str]) -> dict[str, Path]:
        """Files by role as this node has them; those without a digest are taken as they are."""
        return {
            role: self.local(path, digests[role], check=True) if role in digests else path
            for role, path in files.items()
        }


def stored_name(path: Path, digest: str) -> str:
    """Name of a file among the inputs: its content, and the ending that says what it is."""
    return f"{digest}{path.suffix.lower()}"


def photos_of(identities: tuple[Identity, ...]) -> list[Photo]:
    """All photos of these people."""
    return [
        photo
        for identity in identities
        for timestamp in identity.timestamps
        for photo in (*timestamp.train, *timestamp.test)
    ]


def mapped(identity: Identity, change: Callable[[Photo], Photo]) -> Identity:
    """A person with every photo replaced by what ``change`` makes of it."""

    def of(timestamp: Timestamp) -> Timestamp:
        return replace(
            timestamp,
            train=tuple(change(photo) for photo in timestamp.train),
            test=tuple(change(photo) for photo in timestamp.test),
        )

    return replace(identity, timestamps=tuple(of(timestamp) for timestamp in identity.timestamps))
