"""Where studies are stored: a local or shared folder (``pathlib.Path``), or one of an object store (``RemotePath``).

Both are used the same way: ``place / "results"``, ``read_bytes``, ``is_file``; functions of this module handle
the differences (writing in one step, room, schemas), and :mod:`clstudy.storage.trees` handles whole folders.
No torch, no Ray.

``python -m clstudy.storage copy SOURCE TARGET`` copies a study between them.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.fs as pafs

from clstudy.errors import UserError
from clstudy.safe_text import has_credentials, shown_address

MIN_FREE_BYTES = 500_000_000
"""With less free space than this on a disk no trial is started, however small its stages are."""


@dataclass(frozen=True)
class RemotePath:
    """A file or folder of an object store; the part of ``pathlib.Path``'s interface that this package uses.

    Args:
        uri: as a user writes it, e.g. ``s3://bucket/clstudy?region=eu-central-1``. Credentials come from the
            environment (or the machine's role), never from here.
    """

    uri: str

    @cached_property
    def _opened(self) -> tuple[pafs.FileSystem, str]:
        opened: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(self.uri)
        return opened

    @property
    def system(self) -> pafs.FileSystem:
        """The pyarrow file system."""
        return self._opened[0]

    @property
    def path(self) -> str:
        """The path in the file system, bucket first."""
        return self._opened[1]

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}  # the open connection stays in its process

    def __setstate__(self, state: dict[str, str]) -> None:
        object.__setattr__(self, "uri", state["uri"])

    def _moved(self, change: Callable[[PurePosixPath], PurePosixPath]) -> RemotePath:
        parts = urlsplit(self.uri)
        # the bucket is the URI's host: keep it out of the path arithmetic
        moved = RemotePath(urlunsplit(parts._replace(path=str(change(PurePosixPath(parts.path or "/"))))))
        if "_opened" in self.__dict__:
            moved.__dict__["_opened"] = (self.system, str(change(PurePosixPath(self.path))))
        return moved

    def __truediv__(self, name: str) -> RemotePath:
        return self._moved(lambda path: path / name)

    def __str__(self) -> str:
        return shown_address(urlunsplit(urlsplit(self.uri)._replace(query="")))

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(urlsplit(self.uri).path).name

    @property
    def parent(self) -> RemotePath:
        """The folder that contains it."""
        return self._moved(lambda path: path.parent)

    def read_bytes(self) -> bytes:
        """The whole content; raises FileNotFoundError if there is none."""
        with self.system.open_input_file(self.path) as stream:
            content: bytes = stream.read()
            return content

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole content as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        """Write in one step: an object store shows an object completely or not at all."""
        with self.system.open_output_stream(self.path) as stream:
            stream.write(content)

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        there: bool = self.system.get_file_info(self.path).type == pafs.FileType.File
        return there

    def is_dir(self) -> bool:
        """Whether there are objects below this name."""
        there: bool = self.system.get_file_info(self.path).type == pafs.FileType.Directory
        return there

    def exists(self) -> bool:
        """Whether either exists."""
        there: bool = self.system.get_file_info(self.path).type != pafs.FileType.NotFound
        return there

    def folder_names(self) -> list[str]:
        """Names of the folders directly below."""
        selector = pafs.FileSelector(self.path, recursive=False, allow_not_found=True)
        return [info.base_name for info in self.system.get_file_info(selector) if info.type == pafs.FileType.Directory]

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            self.system.delete_file(self.path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def resolve(self) -> RemotePath:
        """The path itself: remote paths are never relative."""
        return self


Place = Path | RemotePath


def open_place(text: str | Path) -> Place:
    """The folder that a user wrote as a path or as the URI of an object store.

    Raises:
        UserError: pyarrow does not know this kind of URI, or it contains credentials.
    """
    if isinstance(text, Path) or "://" not in text:
        return Path(text).expanduser()
    parts = urlsplit(text)
    if parts.scheme == "file":
        return Path(parts.path)
    shown = shown_address(text)
    if has_credentials(text):
        raise UserError(
            f"{shown} was given with credentials; leave them out of the address: they come from the environment "
            "(AWS_ACCESS_KEY_ID, AWS_PROFILE) or from the machine's role"
        )
    if not parts.netloc:
        raise UserError(f"{text!r} names no bucket; expected e.g. s3://bucket/clstudy")
    place = RemotePath(text.rstrip("/"))
    try:
        place.system  # noqa: B018  opens it, so that an unknown kind is reported now
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"the storage {shown} cannot be used: {first_line(error)}; expected a folder, or s3://bucket/folder, "
            "gs://bucket/folder"
        ) from error
    return place


def require_writable(
    place: Place,
    what: str = "the storage",
    remedy: str = "name another folder with --storage or --out, or mend its permissions",
) -> None:
    """Write and remove a small file, before the first expensive second; leaves no file or folder behind.

    Args:
        place: folder that will be written; need not exist.
        what: its name in the message.
        remedy: what the message tells the user to do.

    Raises:
        UserError: it cannot be written; gives the reason.
    """
    made: list[Path] = []
    try:
        if place.is_file():
            raise NotADirectoryError("it is a file")
        if isinstance(place, Path):
            made = [folder for folder in (place, *place.parents) if not folder.exists()]
        _try_to_write(place)
    except OSError as error:
        raise UserError(f"{what} {place} cannot be written: {first_line(error)}; {remedy}") from error
    finally:
        for folder in made:  # the deepest first
            with suppress(OSError):
                folder.rmdir()


def _try_to_write(place: Place, tries: int = 3) -> None:
    probe = place / f".writable-{uuid.uuid4().hex[:8]}"
    try:
        write_atomically(probe, b"clstudy")
        if probe.read_bytes() != b"clstudy":
            raise OSError("what was written cannot be read back")
        probe.unlink()
    except FileNotFoundError:  # another process that tries the same place has just removed the folder
        if tries == 1:
            raise
        _try_to_write(place, tries - 1)


def first_line(error: BaseException) -> str:
    """The first line of an error: the system's text, or else its message, or else its name."""
    lines = str(getattr(error, "strerror", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class NoPlainFileError(OSError):
    """There is a pipe, a device, a socket or a bad link instead of a file; reading it might never end."""


def read_plain(place: Place, most: int | None = None) -> bytes:
    """The content of a file of at most this many bytes (None: any number).

    Raises:
        FileNotFoundError: there is none.
        NoPlainFileError: it is larger, or not a regular file (which may never end).
        OSError: it cannot be read.
    """
    if isinstance(place, RemotePath):
        return place.read_bytes()
    try:
        about = place.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NoPlainFileError(errno.ELOOP, "it is a link to itself", str(place)) from error
        raise
    if not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):
        raise NoPlainFileError(errno.EINVAL, "it is a pipe or a device, not a file", str(place))
    if most is not None and about.st_size > most:
        expected = f"it has {about.st_size:,} bytes, expected at most {most:,}"
        raise NoPlainFileError(errno.EFBIG, expected, str(place))
    return place.read_bytes()


def write_durably(path: Path, content: bytes) -> None:
    """Write a local file and wait until it is on the disk."""
    with path.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())


def write_atomically(place: Place, content: bytes) -> None:
    """Replace a file in one step, so that a kill leaves the old or the new file, never a part."""
    if isinstance(place, RemotePath):
        place.write_bytes(content)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    try:
        write_durably(draft, content)
        draft.replace(place)
    except OSError:
        draft.unlink(missing_ok=True)  # half a file on a full disk would keep it full
        raise


def free_bytes(place: Place) -> int | None:
    """Free bytes on the disk of a folder; None for an object store, which has no limit."""
    if isinstance(place, RemotePath):
        return None
    existing = next((folder for folder in (place, *place.absolute().parents) if folder.exists()), Path("/"))
    return shutil.disk_usage(existing).free
