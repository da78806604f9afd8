"""Who may read what a command writes: by default only its user, because it includes people's photos and latents.

This is done by the process's umask, so it holds for every library's files: Parquet, SQLite, MLflow's pictures, Ray's
logs. Workers on other nodes get the driver's umask (``apply``). Existing files keep their modes.
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
"""Name -> umask: only the user; the group may read; as the shell has it."""
DEFAULT = "private"


_outside: list[int] = []
"""Umasks from before each ``new_files`` block, innermost last."""


def mask_of(mode: str | None = None) -> int:
    """The umask of a named mode; None: the environment's mode, by default private.

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
    """Make files created while the block runs private, or what the environment says.

    Raises:
        UserError: the environment does not name a valid mode.
    """
    mask = mask_of()
    _outside.append(os.umask(mask))
    try:
        yield
    finally:
        os.umask(_outside.pop())


def apply(mask: int) -> None:
    """Set the driver's umask in a worker's process."""
    os.umask(mask)


def open_to_others(folder: Path) -> str:
    """The mode of a folder that others can enter ("755"); empty if they cannot, or it does not exist."""
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError:
        return ""
    return f"{mode:o}" if mode & 0o077 else ""
