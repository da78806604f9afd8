"""Files that workers on other machines need and may lack: photos, and the weights of metrics.

The driver puts them into the study's own storage, addressed by content. A node that lacks a file fetches it from there
once, into a folder of its own that is removed when the study ends. So people's photos are copied to no other place than
the storage that the user named. No torch, no Ray.
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

    A photo's name contains its ``digest``, which covers its conditions: stages refer to photos by it, so that they are
    found when a person is forgotten. The content is checked against the digest of the file alone. The conditions
    themselves are sent to workers with the photo.

    Args:
        storage: the study's folder.
        token: of the study; names the folder on a node.
    """

    storage: Place
    token: str

    @property
    def folder(self) -> Place:
        """The folder of these files in the storage."""
        return self.storage / "inputs"

    @property
    def cache(self) -> Path:
        """This node's folder for them, readable by this user only. Call ``private_cache`` before using it."""
        return node_folder() / self.token

    def private_cache(self, *names: str) -> Path:
        """``cache``, or a folder in it, created if it does not exist.

        Raises:
            UserError: other users have access to it.
        """
        return private_node_folder(self.token, *names)

    def remove_cache(self) -> None:
        """Remove ``cache``, unless the node's folder belongs to somebody else: then nothing in it is ours."""
        if is_private(node_folder()):
            remove_tree(self.cache)

    # -- the driver -------------------------------------------------------------------------------------------------

    def provide(self, data: DataSet, files: Mapping[str, Path], digests: Mapping[str, str]) -> int:
        """Copy the files that the storage lacks into it; returns how many were copied.

        Args:
            data: the photos.
            files: paths by role.
            digests: sha256 by role, of the files to copy.
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
            check: whether to check the digest of a file at the driver's path (not needed for photos, which are checked
                whenever they are read).

        Raises:
            UserError: it is neither here nor in the storage, or has changed; or other users have access to this node's
                folder.
        """
        if path.is_file() and not (check and sha256_file(path) != digest):
            return path
        name = name or stored_name(path, digest)
        cached = self.private_cache() / name
        if cached.is_file():
            return cached
        with lock_file(self.cache / ".lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # workers of one node start together: one fetches, the others wait
            if not cached.is_file():
                write_atomically(cached, self._fetched(path, digest, name))
        return cached

    def _fetched(self, path: Path, digest: str, name: str) -> bytes:
        place = self.folder / name
        try:
            content = patiently(place.read_bytes)
        except FileNotFoundError as error:
            raise UserError(
                f"{path.name} is neither on this node nor in {self.folder}; start the study again, which puts it there"
            ) from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise UserError(f"{place} is damaged (its sha256 differs); delete it and start the study again")
        return content

    def local_identity(self, identity: Identity) -> Identity:
        """The same person, with the paths of the photos on this node."""

        def here(photo: Photo) -> Photo:
            name = stored_name(photo.path, photo.digest)
            return replace(photo, path=self.local(photo.path, photo.file_digest, name=name))

        return mapped(identity, here)

    def local_files(self, files: Mapping[str, Path], digests: Mapping[str, str]) -> dict[str, Path]:
        """Paths on this node by role; files without a digest keep their paths."""
        return {
            role: self.local(path, digests[role], check=True) if role in digests else path
            for role, path in files.items()
        }


def stored_name(path: Path, digest: str) -> str:
    """Name of a file among the inputs: its digest, and the suffix that tells its format."""
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
    """A person with ``change`` applied to every photo."""

    def of(timestamp: Timestamp) -> Timestamp:
        return replace(
            timestamp,
            train=tuple(change(photo) for photo in timestamp.train),
            test=tuple(change(photo) for photo in timestamp.test),
        )

    return replace(identity, timestamps=tuple(of(timestamp) for timestamp in identity.timestamps))
