"""Who computes what: a key is claimed by one worker while it is computed, and the others wait for its value."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

T = TypeVar("T")


class Claims(Protocol):
    """Keeps two workers from computing one value at the same time. Correctness never rests on it."""

    def acquire(self, key: str) -> bool:
        """Take the key, or say False while somebody alive holds it."""

    def release(self, key: str) -> None:
        """Give the key back."""


class NoClaims:
    """For a single worker."""

    def acquire(self, key: str) -> bool:
        return True

    def release(self, key: str) -> None:
        return


def stored_or_computed(
    claims: Claims, key: str, stored: Callable[[], T | None], compute: Callable[[], T], wait_seconds: float
) -> T:
    """A value from the store, or computed under a claim; waits while another worker computes it."""
    while True:
        found = stored()
        if found is not None:
            return found
        if claims.acquire(key):
            break
        time.sleep(wait_seconds)
    try:
        # it may have been finished between the look and the claim
        found = stored()
        return compute() if found is None else found
    finally:
        with suppress(Exception):  # a lost claim service must not lose the value
            claims.release(key)
