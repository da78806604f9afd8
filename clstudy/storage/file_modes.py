"""Who may read what a command writes: by default nobody but its user (photos, faces, latents of people are among it).

The process's umask does it, so that it holds for every file of every library: Parquet, SQLite, MLflow's pictures, Ray's
logs. Workers on other nodes are given the driver's (``apply``). Files that are there already keep their modes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clstudy.errors import UserError, nearest

VARIABLE = "CLSTUDY_FILES"
MODES: dict[str, int | None] = {"private": 0o077, "group": 0o027, "shared": None}
"""By name the umask: only the user; the group may read; as the shell has it."""
DEFAULT = "private"


_outside: list[int] = []
"""Umasks as they were before ``new_files``, innermost last."""


def mask_of(mode: str | None = None) -> int:
    """The umask of a mode by name; None: that of the environment, else private.

    Raises:
        UserError: there is no such mode.
    """
    wanted = mode or os.environ.get(VARIABLE) or DEFAULT
    if wanted not in MODES:
        where = "--files" if mode else VARIABLE
        raise UserError(f"{where} is {wanted!r}; expected one of {', '.join(MODES)}.{nearest(wanted, MODES)}")
    mask = MODES[wanted]
    if mask is not None:
        return mask
    return _outside[0] if _outside else current_mask()


def current_mask() -> int:
    """This process's umask (which can only be read by setting it)."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextmanager
def new_files() -> Iterator[None]:
    """Files made while the block runs are private, or what the environment says.

    Raises:
        UserError: the environment names no mode.
    """
    mask = mask_of()
    _outside.append(os.umask(mask))
    try:
        yield
    finally:
        os.umask(_outside.pop())


def apply(mask: int) -> None:
    """Give a worker's process the driver's umask."""
    os.umask(mask)


def open_to_others(folder: Path) -> str:
    """How others can get into a folder: its mode ("755"), or nothing where they cannot or it is not there."""
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError:
        return ""
    return f"{mode:o}" if mode & 0o077 else ""
