"""One driver at a time: a second driver started on a study says so and ends, and a dead one blocks nobody.

On a disk (also a shared one) the kernel keeps the lock and frees it with the process, however that ends. An object
store has no locks: there a small record is renewed every few seconds, and a stale record is ignored.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from clstudy.errors import UserError
from clstudy.storage.file_lock import file_lock, holder, is_held, process_card, read_card
from clstudy.storage.places import Place, RemotePath, read_plain, write_atomically

NAME = "driver.lock"
BEAT_SECONDS = 10.0
STALE_SECONDS = 45.0
_RECORD_BYTES = 1000
_SETTLE_SECONDS = 1.0
_LONGEST_CARD = 10_000


class StudyBusyError(UserError):
    """Another driver is at work on the study."""


@contextmanager
def only_driver(study: Place) -> Iterator[None]:
    """Hold a study for as long as the block runs.

    Raises:
        StudyBusyError: another driver holds it; the message says which, and since when.
        UserError: the study's folder cannot be written.
    """
    with _remote(study / NAME) if isinstance(study, RemotePath) else _local(study / NAME):
        yield


def driver_at(study: Place) -> dict[str, Any]:
    """The card of the driver at work on a study (``clstudy.storage.file_lock.process_card``); empty if there is none.

    Nothing is written.

    Raises:
        OSError: the storage does not answer.
    """
    path = study / NAME
    if isinstance(path, RemotePath):
        return _fresh_holder(path)
    try:
        card = read_card(read_plain(path, _LONGEST_CARD).decode(errors="replace"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return {}
    # A driver that ends clears its card: only a killed one leaves a card without a lock. Then the lock is tried for a
    # moment, but not if the process is known to be gone: a new driver must not find the lock taken.
    return {} if not card or _is_gone(card) or not is_held(path) else card


def _is_gone(card: Mapping[str, Any]) -> bool:
    """Whether a card's process was on this machine and has ended."""
    return card.get("host") == socket.gethostname() and not Path(f"/proc/{card.get('pid')}").exists()


def _busy(study: Place, card: dict[str, Any], after: str) -> StudyBusyError:
    return StudyBusyError(
        f"another driver is at work on {study} ({holder(card)}); wait until it ends, stop it, or give this study "
        f"another folder with --out. {after}"
    )


@contextmanager
def _local(path: Path) -> Iterator[None]:
    def busy(card: dict[str, Any]) -> StudyBusyError:
        return _busy(path.parent, card, "A driver that was killed holds nothing.")

    with ExitStack() as held:
        try:
            held.enter_context(file_lock(path, busy))
        except OSError as error:
            raise UserError(
                f"the study {path.parent} cannot be locked ({error.strerror}: {error.filename}); mend its permissions, "
                "or work on a copy of it"
            ) from error
        yield


@contextmanager
def _remote(path: RemotePath) -> Iterator[None]:
    card = process_card()
    other = _fresh_holder(path)
    if other:
        raise _busy(path.parent, other, f"One that was killed is forgotten after {STALE_SECONDS:.0f} s.")
    _beat(path, card)
    time.sleep(_SETTLE_SECONDS)  # of two that wrote at once, the one whose record is there now goes on
    found = read_card(path.read_text())
    if found.get("token") != card["token"]:
        raise _busy(path.parent, found, "Both began in the same moment.")
    over = threading.Event()

    def renew() -> None:
        while not over.wait(BEAT_SECONDS):
            with suppress(OSError):
                _beat(path, card)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5)
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _beat(path: RemotePath, card: dict[str, Any]) -> None:
    """Write the record with a fixed length: readers ask an object store for the size first, then for that many bytes,
    so the end of a record that grew by a digit in between would be missing."""
    write_atomically(path, json.dumps({**card, "beat": time.time()}).ljust(_RECORD_BYTES).encode())


def _fresh_holder(path: RemotePath) -> dict[str, Any]:
    """The current holder, unless silent for too long (or known to be dead, on this machine)."""
    try:
        card = read_card(path.read_text())
    except FileNotFoundError:
        return {}
    if time.time() - float(card.get("beat", 0.0)) > STALE_SECONDS:
        return {}
    return {} if _is_gone(card) else card
