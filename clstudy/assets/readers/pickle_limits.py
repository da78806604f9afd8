"""Bounds on the cost of reading a pickle, whatever it contains.

A few hundred bytes of pickle can demand years of work: a tuple of tuples that are one object, used as a key, is hashed
again at every level; an object copied by every call grows the memory without growing the file; a key nested deep enough
overflows the C stack. So instructions are counted, every call is charged with the length of its arguments, and only
values whose hash costs nothing may be keys. Published checkpoints need a small part of each bound.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np

MOST_INSTRUCTIONS = 500_000
"""In all pickles of a file together; a training snapshot of a 1024 px network has about 100,000."""

MOST_DIMENSIONS = 32
_LONGEST_KEY = 4096
_LONGEST_TUPLE = 16


class BeyondLimits(ValueError):
    """Reading on would cost more than any published file needs; the message says why."""


class Limits:
    """The budget that is left while a file is read.

    Args:
        size: bytes of the file.
    """

    def __init__(self, size: int):
        self._instructions = MOST_INSTRUCTIONS
        # A storage passes through at most two calls (text to bytes, bytes to a storage); the rest is small.
        self._handed = 4 * size + 1_000_000

    def instructions(self, stream: IO[bytes]) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
        """``pickletools.genops``, counted.

        Raises:
            BeyondLimits: too many.
        """
        for instruction in pickletools.genops(stream):
            self._instructions -= 1
            if self._instructions < 0:
                raise BeyondLimits(f"it has more than {MOST_INSTRUCTIONS:,} pickle instructions")
            yield instruction

    def charge(self, values: Iterable[Any]) -> None:
        """Count the arguments of a call, and the values in them.

        Raises:
            BeyondLimits: calls were given far more than the file holds, by giving the same values again and again.
        """
        for value in values:
            self._handed -= 1 + (len(value) if isinstance(value, str | bytes | tuple | list | dict | set) else 0)
        if self._handed < 0:
            raise BeyondLimits("it uses the same parts again and again, so that they grow far beyond its own size")


def check_keys(keys: Iterable[Any]) -> None:
    """Raise BeyondLimits unless all keys are numbers, short strings, None, or short tuples of these."""
    for key in keys:
        if not _is_leaf(key) and not (
            type(key) is tuple and len(key) <= _LONGEST_TUPLE and all(_is_leaf(part) for part in key)
        ):
            raise BeyondLimits(f"it uses a {type(key).__name__} as a key of a dictionary or in a set")


def _is_leaf(value: Any) -> bool:
    if isinstance(value, str | bytes):
        return len(value) <= _LONGEST_KEY
    if type(value) is int:  # a larger one is hashed anew every time, and can collide with any other
        return -(2**63) <= value < 2**64
    return value is None or isinstance(value, bool | float | np.number | np.bool_)
