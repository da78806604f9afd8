"""Who computes what: one worker holds the lock of a stage while it computes it, the others wait for its value."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

T = TypeVar("T")


class StageLocks(Protocol):
    """Keeps two workers from computing one value at the same time. Correctness never rests on it."""

    def acquire(self, key: str) -> bool:
        """Take the key, or say False while somebody alive holds it."""

    def release(self, key: str) -> None:
        """Give the key back."""


class NoLocks:
    """For a single worker."""

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
        # it may have been finished between the look and the lock
        found = stored()
        return compute() if found is None else found
    finally:
        with suppress(Exception):  # a lost lock service must not lose the value
            locks.release(key)
