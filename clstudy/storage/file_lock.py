"""A file that only one process holds at a time. The kernel keeps the lock and frees it however the process ends.

This also works on shared disks that support locks; on a file system without them, work continues unguarded.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from clstudy.storage.documents import json_object

_PATIENCE_S = 10.0  # for a folder that other processes keep removing


def process_card() -> dict[str, Any]:
    """Data about the holder of a lock: host, process, since when."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "token": uuid.uuid4().hex,
    }


def holder(card: Mapping[str, Any]) -> str:
    """A card in words."""
    return f"process {card.get('pid', '?')} on {card.get('host', '?')}, since {card.get('since', '?')}"


def read_card(text: str) -> dict[str, Any]:
    """A card from its text; empty if the text is not a card."""
    try:
        return json_object(text)
    except ValueError:
        return {}


@contextmanager
def file_lock(path: Path, busy: Callable[[dict[str, Any]], Exception], *, remove: bool = False) -> Iterator[None]:
    """Hold a file for as long as the block runs.

    Args:
        path: created with its folders if it does not exist.
        busy: makes the error to raise if another process holds it, from that process's card.
        remove: remove the file at the end.

    Raises:
        OSError: it cannot be written.
    """
    while True:
        with _opened(path) as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy(_card_in(handle)) from None
            except OSError:  # a file system without locks: better unguarded than unusable
                yield
                return
            if not _is_at(handle, path):  # removed by its last holder before we had it
                continue
            handle.truncate(0)
            handle.write(json.dumps(process_card()))
            handle.flush()
            try:
                yield
            finally:
                handle.truncate(0)
                if remove:
                    path.unlink(missing_ok=True)
            return


def is_held(path: Path) -> bool:
    """Whether a process holds a file's lock; writes nothing. On a file system without locks the answer is no.

    Raises:
        OSError: it cannot be read.
    """
    with path.open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


def _opened(path: Path) -> IO[str]:
    """Open the lock's file; raises OSError if its folder cannot be created, or vanishes each time it is."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("a+")
        except (FileNotFoundError, FileExistsError):  # its last holder has just removed it
            if _is_in_the_way(path.parent) or time.monotonic() > end:
                raise


def _is_in_the_way(folder: Path) -> bool:
    """Whether something else is where the folder should be."""
    try:
        return not stat.S_ISDIR(folder.lstat().st_mode)
    except FileNotFoundError:
        return False


def _card_in(handle: IO[str]) -> dict[str, Any]:
    """The card of the lock's holder, who writes it a moment after taking the lock."""
    for _ in range(50):
        handle.seek(0)
        if card := read_card(handle.read()):
            return card
        time.sleep(0.02)
    return {}


def _is_at(handle: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False
