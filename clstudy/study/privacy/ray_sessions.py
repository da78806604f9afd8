"""Finds and removes names in leftover Ray sessions. Ray is not imported."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_MOST_LOG_BYTES = 20_000_000


def experiment_name(token: str) -> str:
    """A study's name in Ray's folders, which does not name anybody."""
    return f"clstudy-{token}"


def forget_in_sessions(study: str, names_somebody: Callable[[bytes], bool]) -> list[str]:
    """Remove a study's records that name somebody from ended sessions in Ray's usual folders.

    Runs of earlier versions, and clusters started on this machine, left them there.

    Args:
        study: its name, which earlier versions gave to its records.
        names_somebody: tells whether a file's name or content names the person.

    Returns:
        What still contains the name, in words: records of running sessions, and Ray's logs.
    """
    left, called = [], (glob.escape(study), experiment_name("*"))
    for session in _sessions():
        records = [folder for name in called for folder in session.glob(f"artifacts/*/{name}")]
        naming = [folder for folder in records if any(_has_name(path, names_somebody) for path in folder.rglob("*"))]
        if naming and _alive(session):
            left.append(f"{session} contains the name, and its Ray is still running: `ray stop`, then run this again")
            continue
        for folder in naming:
            shutil.rmtree(folder, ignore_errors=True)
        logs = [path for path in session.glob("logs/**/*") if records and _has_name(path, names_somebody)]
        if logs:
            left.append(f"{session} is an ended Ray session whose logs contain the name: remove that folder")
    return left


def _sessions() -> list[Path]:
    """Sessions of this user in Ray's usual folders."""
    roots = {Path("/tmp"), Path(tempfile.gettempdir()), Path(os.environ.get("RAY_TMPDIR") or "/tmp")}
    found = {session.resolve() for root in roots for session in (root / "ray").glob("session_2*")}
    return sorted(session for session in found if session.is_dir() and session.stat().st_uid == os.getuid())


def _has_name(path: Path, names_somebody: Callable[[bytes], bool]) -> bool:
    try:
        if names_somebody(os.fsencode(path.name)):
            return True
        small = stat.S_ISREG(path.lstat().st_mode) and path.stat().st_size <= _MOST_LOG_BYTES
        return small and names_somebody(path.read_bytes())
    except OSError:
        return False


def _alive(session: Path) -> bool:
    """Whether a process answers at one of a session's sockets."""
    for path in session.glob("sockets/*"):
        with suppress(OSError), socket.socket(socket.AF_UNIX) as line:
            line.settimeout(1.0)
            line.connect(str(path))
            return True
    return False
