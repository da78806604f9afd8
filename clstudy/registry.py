"""Names for the things a user may choose: one registry per kind, one line to add an entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from clstudy.errors import UserError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to entries; an unknown name is a ``UserError`` that gives the nearest known one."""

    def __init__(self, kind: str):
        self._kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds an entry.

        Raises:
            ValueError: the name is taken.
        """

        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self._kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            known = ", ".join(self._entries)
            raise UserError(f"unknown {self._kind} {name!r}.{nearest(name, self._entries)} Known: {known}.")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def items(self) -> list[tuple[str, T]]:
        """All (name, entry) pairs in the order of registration."""
        return list(self._entries.items())
