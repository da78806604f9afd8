"""This node's folder for a study's temporary files; it is used only if nobody else has access.

Its name can be guessed (``clstudy-<uid>``), and everybody may write into the folder that it is in (the system's
temporary folder). So somebody else may have created it first: as a folder of theirs, a link, or with rights for others.
It holds people's photos, and Python imports from it. So every level is checked before it is used.
"""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clstudy.errors import UserError


def node_folder() -> Path:
    """The folder's path; it need not exist."""
    return Path(tempfile.gettempdir()) / f"clstudy-{os.getuid()}"


def private_node_folder(*names: str) -> Path:
    """``node_folder()/names…``, created if it does not exist; each level must be ours alone.

    Raises:
        UserError: a level is somebody else's, not a folder, or open to others; or anybody may replace folders in
            the temporary folder.
    """
    folder = node_folder()
    _require_unreplaceable(folder)
    made_private(folder)
    for name in names:
        folder = made_private(folder / name)
    return folder


def made_private(folder: Path) -> Path:
    """Make sure that this is a folder of ours that nobody else can use; create it if it does not exist.

    If others may read a folder of ours, it is closed to them: earlier versions created such folders. If others may
    write into it, it is refused, because they may have done so.

    Raises:
        UserError: it is not such a folder, or cannot be created.
    """
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()  # of a link itself, not of where it leads
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not mode & 0o022:
            if mode & 0o055:
                folder.chmod(0o700)
            return folder
    except OSError as error:
        raise UserError(
            f"the folder {folder} cannot be made or closed to others ({error.strerror}); mend that, or name another "
            "temporary folder with TMPDIR"
        ) from error
    kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a link" if stat.S_ISLNK(found.st_mode) else "no folder"
    raise UserError(
        f"{folder} is {kind} of {_user(found.st_uid)} with mode {mode:03o}; expected a folder of {_user(os.geteuid())} "
        "with mode 700, since other users of this machine could read photos there or have their code run. Look at "
        "what is in it and remove it, or name a temporary folder of your own with TMPDIR"
    )


def is_private(folder: Path) -> bool:
    """Whether a folder exists, is ours, and cannot be written by others."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


@contextmanager
def lock_file(path: Path) -> Iterator[int]:
    """Open a lock's file while the block runs, never through a link and without emptying it; yields its descriptor.

    Raises:
        UserError: it is a link, or cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(
            f"the lock {path} cannot be opened ({error.strerror}); expected a plain file or none: remove what is there"
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _require_unreplaceable(folder: Path) -> None:
    """Refuse a temporary folder in which everybody may rename our files (writable without the sticky bit)."""
    parent = folder.parent.resolve()
    try:
        mode = stat.S_IMODE(parent.stat().st_mode)
    except OSError as error:
        raise UserError(f"the temporary folder {parent} cannot be used ({error.strerror}); set TMPDIR") from error
    if mode & 0o002 and not mode & stat.S_ISVTX:
        raise UserError(
            f"the temporary folder {parent} has mode {mode:03o}: everybody may replace what is in it; expected 1777 "
            "(sticky) or a folder of your own: `chmod +t` it, or set TMPDIR"
        )


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
