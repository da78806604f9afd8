"""Names of checksum files: ``.NAME.sha256`` beside ``NAME`` (read and written by ``clstudy.storage.checksums``)."""

from __future__ import annotations

from pathlib import PurePosixPath

SUFFIX = ".sha256"


def checksum_name(name: str) -> str:
    """The name of the checksum file of a file (a path with ``/``)."""
    path = PurePosixPath(name)
    return str(path.with_name(f".{path.name}{SUFFIX}"))


def checked_name(name: str) -> str | None:
    """The file that a checksum file (a path with ``/``) belongs to; None if it is not a checksum file."""
    path = PurePosixPath(name)
    file = path.name.removesuffix(SUFFIX)
    return str(path.with_name(file[1:])) if path.name.endswith(SUFFIX) and file[:1] == "." and file[1:] else None
