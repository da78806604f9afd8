"""Locks for stages: one worker holds a stage's lock while it computes the stage, and others wait for the value."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

T = TypeVar("T")


class StageLocks(Protocol):
    """Keeps two workers from computing one value at the same time. Correctness never depends on it."""

    def acquire(self, key: str) -> bool:
        """Take the lock of a key; False while a live worker holds it."""

    def release(self, key: str) -> None:
        """Release the lock of a key."""


class NoLocks:
    """Locks for a single worker, which never has to wait."""

    def acquire(self, key: str) -> bool:
        return True

    def release(self, key: str) -> None:
        return


def stored_or_computed(
    locks: StageLocks, key: str, stored: Callable[[], T | None], compute: Callable[[], T], wait_seconds: float
) -> T:
    """A value from the store, or computed under its lock; waits while another worker computes it."""
    while True:
        found = stored()
        if found is not None:
            return found
        if locks.acquire(key):
            break
        time.sleep(wait_seconds)
    try:
        # another worker may have finished it between the check and the lock
        found = stored()
        return compute() if found is None else found
    finally:
        with suppress(Exception):  # a lost lock service must not lose the value
            locks.release(key)
