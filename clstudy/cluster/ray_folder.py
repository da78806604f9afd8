"""The folder of Ray's session (sockets, logs, Tune's records, which name people): private, and removed after the run.

By default Ray uses ``/tmp/ray``, readable by everybody, where every run leaves a folder for good. A run on this machine
gets a folder of its own instead. On a cluster that was joined, the session belongs to whoever started the cluster: only
the study's own folder in it is removed (``experiment_name``). Ray is imported where it is used.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clstudy.errors import UserError
from clstudy.storage.places import Place, write_atomically
from clstudy.study.privacy.ray_sessions import _MOST_LOG_BYTES

PREFIX = "clstudy-ray-"
_LOCK = "lock"
_LONGEST = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""Most bytes of the folder's path: the path of a socket in it may have 107."""
_TRIES = 10


# --- a folder of our own ---------------------------------------------------------------------------------------------


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder for Ray's session, readable by this user only; removed at the end, with those of killed drivers.

    Raises:
        UserError: the folder cannot be created.
    """
    parent = _parent()
    remove_abandoned(parent)
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    except OSError as error:
        raise UserError(
            f"Ray cannot start on this machine: no folder can be made in {parent} ({error.strerror}). Free space or "
            "fix the permissions there, or name another folder with RAY_TMPDIR"
        ) from error
    # the lock file is locked before it gets its name: one that nobody holds marks the folder of a dead driver
    with (folder / f"{_LOCK}.new").open("w") as lock:
        with suppress(OSError):  # without locks in the file system, no driver will take it for abandoned either
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / f"{_LOCK}.new").rename(folder / _LOCK)
        try:
            yield folder
        finally:
            _remove(folder)


def _parent() -> Path:
    """Ray's or the system's temporary folder; ``/tmp`` where a socket's path would be too long for the system."""
    named = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()).absolute()
    fits = len(os.fsencode(named / f"{PREFIX}12345678")) <= _LONGEST
    return named if fits and named.is_dir() else Path("/tmp")


def _remove(folder: Path) -> None:
    """Remove a folder in which processes that are just ending may still write."""
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.2)


def remove_abandoned(parent: Path) -> int:
    """Remove the folders that this user's killed drivers left behind; returns how many."""
    removed = 0
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            about = folder.lstat()
            if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
                continue
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its driver lives
                _remove(folder)
                removed += 1
            finally:
                os.close(descriptor)
    return removed


def keep_logs(folder: Path, target: Place) -> int:
    """Copy Ray's logs of a run that went wrong into the study's folder; returns how many files."""
    kept = 0
    for path in sorted(folder.glob("session_2*/logs/*")):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink() and 0 < path.stat().st_size <= _MOST_LOG_BYTES:
                write_atomically(target / path.name, path.read_bytes())
                kept += 1
    return kept


# --- a cluster's session ---------------------------------------------------------------------------------------------


def remove_experiment(name: str) -> int:
    """Remove a study's folders (``experiment_name``) from this node's session (called on every node); returns how many.

    They contain names of people: working folders of trials and, on the driver's node, Tune's records.
    """
    import ray

    node: Any = ray._private.worker._global_node
    session = Path(node.get_session_dir_path())
    found = list(session.glob(f"artifacts/*/{name}"))
    for folder in found:
        shutil.rmtree(folder, ignore_errors=True)
    return len(found)


# --- sessions that are not removed by themselves ---------------------------------------------------------------------
