"""Draws training data in chunks, by several processes; the chunks' numbers alone say what is in them."""

from __future__ import annotations

from collections.abc import Callable, Sized
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

P = TypeVar("P", bound=Sized)


def in_chunks(draw: Callable[[int], P], count: int, workers: int, what: str) -> list[P]:
    """Chunks 0, 1, … until they hold ``count`` or more, in order, whatever the number of workers.

    Args:
        draw: number of a chunk -> the chunk; sent to other processes.
        count: how much is wanted.
        workers: processes.
        what: of it, for what is printed.
    """
    parts: list[P] = []
    total, chunk = 0, 0
    with ProcessPoolExecutor(workers) as pool:
        while total < count:
            numbers = range(chunk, chunk + 2 * workers)
            for part in pool.map(draw, numbers):
                parts.append(part)
                total += len(part)
            chunk += len(numbers)
            print(f"{total} of {count} {what}", flush=True)
    return parts
