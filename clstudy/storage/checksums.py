"""Files that are trusted only while they match the checksum beside them: ``NAME``, ``.NAME.sha256``.

The checksum file is in ``sha256sum``'s format: ``cd runs/STUDY/results && sha256sum -c .*.sha256`` checks a folder by
hand. Its name begins with a dot, so that every Parquet reader still takes a folder of results for one table. It is
removed first and written last: whenever a writer is killed, the file has no checksum (and counts as unchecked, like
files of earlier versions), never a wrong one. No torch, no Ray.
"""

from __future__ import annotations

import enum
import hashlib

from clstudy.storage.checksum_names import checksum_name
from clstudy.storage.places import NoPlainFileError, Place, read_plain, write_atomically

_LONGEST_LINE = 1000


class State(enum.Enum):
    """What is known about a file."""

    ABSENT = "not there"
    WHOLE = "matches its checksum"
    UNCHECKED = "has no checksum"
    DAMAGED = "does not match its checksum"


def checksum_place(place: Place) -> Place:
    """The path of a file's checksum."""
    return place.parent / checksum_name(place.name)


def write_checked(place: Place, content: bytes) -> None:
    """Replace a file and its checksum."""
    checksum = checksum_place(place)
    checksum.unlink(missing_ok=True)
    write_atomically(place, content)
    write_atomically(checksum, _line(place.name, content))


def remove_checked(place: Place) -> None:
    """Remove a file and its checksum; does nothing if there is none."""
    checksum_place(place).unlink(missing_ok=True)
    place.unlink(missing_ok=True)


def read_checked(place: Place, most: int | None = None) -> tuple[State, bytes]:
    """A file's content and state; no content if it is missing, not a regular file, or above ``most`` bytes.

    Raises:
        OSError: it cannot be read.
    """
    for _ in range(2):  # the second time if a writer was between its two files
        try:
            content = read_plain(place, most)
        except (FileNotFoundError, NotADirectoryError):
            return State.ABSENT, b""
        except NoPlainFileError:
            return State.DAMAGED, b""
        try:
            line = read_plain(checksum_place(place), _LONGEST_LINE)
        except (FileNotFoundError, NotADirectoryError):
            return State.UNCHECKED, content
        except NoPlainFileError:
            return State.DAMAGED, content
        if line == _line(place.name, content):
            return State.WHOLE, content
    return State.DAMAGED, content


def _line(name: str, content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()
