"""Reads YAML and JSON from files within bounds on size, nesting and the expansion of aliases.

A YAML file of 400 bytes can stand for gigabytes: aliases of aliases of aliases (Wikipedia: "billion laughs attack"). So
the parser's events are counted before anything is built; an alias counts as much as everything it stands for.
"""

from __future__ import annotations

import json
import re
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from clstudy.storage.places import NoPlainFileError, read_plain

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBER = re.compile(r"[-+0-9a-fA-FxXoO_:.]+")
_LONGEST_NUMBER = 1000


class DocumentError(ValueError):
    """A document is damaged or exceeds its bounds. ``line`` (from 1) says where; 0: nowhere in particular."""

    def __init__(self, message: str, line: int = 0):
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Upper bounds of a document.

    Attributes:
        size: bytes of the file.
        values: number of keys and values; an alias counts as everything it stands for.
        depth: of nested lists and groups.
    """

    size: int
    values: int
    depth: int


SPACE = Bounds(size=1_000_000, values=20_000, depth=20)
"""A search space, written by hand."""

STUDY = Bounds(size=200_000_000, values=400_000, depth=50)
"""What a study writes: about 13 values per trial and 2 per photo, so 20,000 trials and more."""

MOST_JSON_BYTES = 40_000_000


def read_text(path: Path, most: int) -> str:
    """The text of a file of at most ``most`` bytes.

    Raises:
        DocumentError: it is larger, not UTF-8, or a pipe or a device (which may never end).
        OSError: it cannot be read.
    """
    try:
        return read_plain(path, most).decode("utf-8-sig")
    except NoPlainFileError as error:
        raise DocumentError(str(error.strerror)) from error
    except UnicodeDecodeError as error:
        raise DocumentError(f"it is not a text file in UTF-8 (byte {error.start})") from None


def check_yaml(text: str, bounds: Bounds, loader: Any = _LOADER) -> None:
    """Check a YAML document against its bounds without building it. ``loader``: the one that will read it afterwards.

    Raises:
        DocumentError: it exceeds one of them.
        yaml.YAMLError: it is not YAML.
    """
    # Open collections, outermost first: anchor, count before it, depth it reaches. For each closed anchor: how many
    # values it stands for, and how deep they are nested.
    opened: list[tuple[str | None, int]] = []
    reached = [0]
    anchored: dict[str, tuple[int, int]] = {}
    total = 0
    # Characters count too: a long string behind many aliases is as large as many values.
    characters_per_value = max(1, bounds.size // bounds.values)
    for event in yaml.parse(text, Loader=loader):
        size = 0
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.ScalarEvent):
            size = 1 + len(event.value) // characters_per_value
            is_plain = event.implicit[0] or event.tag
            if is_plain and len(event.value) > _LONGEST_NUMBER and _NUMBER.fullmatch(event.value):
                raise DocumentError(f"a number with {len(event.value):,} digits", line)
            if event.anchor:
                anchored[event.anchor] = (size, 0)
        elif isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            # an alias of something that is still open would contain itself
            if any(anchor == name for anchor, _ in opened):
                raise DocumentError(f"the alias *{name[:40]} contains itself", line)
            size, height = anchored.get(name, (1, 0))
            reached[-1] = max(reached[-1], len(opened) + height)
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, total))
            reached.append(len(opened))
            size = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            depth = reached.pop()
            reached[-1] = max(reached[-1], depth)
            if anchor:
                anchored[anchor] = (total - before, depth - len(opened))
        total += size
        if reached[-1] > bounds.depth:
            raise DocumentError(f"lists or groups nested more than {bounds.depth} deep", line)
        if total > bounds.values:
            raise DocumentError(
                f"more than {bounds.values:,} values (an alias counts as all that it stands for)",
                line,
            )


def load_yaml(text: str, bounds: Bounds = STUDY) -> Any:
    """Plain values of a YAML document.

    Raises:
        DocumentError: it is not YAML, or exceeds the bounds.
    """
    try:
        check_yaml(text, bounds)
        return yaml.load(text, _LOADER)
    except DocumentError:
        raise
    except Exception as error:  # PyYAML's constructors raise many kinds: KeyError for !!bool x, AttributeError, ...
        raise DocumentError(f"not valid YAML ({' '.join(str(error).split())[:200] or type(error).__name__})") from error


def read_yaml(path: Path, bounds: Bounds = STUDY) -> Any:
    """Plain values of a YAML file.

    Raises:
        DocumentError: it is not YAML in UTF-8, or exceeds the bounds.
        OSError: it cannot be read.
    """
    return load_yaml(read_text(path, bounds.size), bounds)


def read_json(path: Path, most: int = MOST_JSON_BYTES) -> Any:
    """Plain values of a JSON file of at most ``most`` bytes.

    Raises:
        DocumentError: it is not JSON in UTF-8, too large, or nested without end.
        OSError: it cannot be read.
    """
    return load_json(read_text(path, most))


def load_json(text: str | bytes) -> Any:
    """Plain values of a JSON document.

    Raises:
        DocumentError: it is not JSON, or nested without end.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise DocumentError("not valid JSON (lists or groups nested without end)") from None
    except ValueError as error:
        raise DocumentError(f"not valid JSON ({str(error)[:200]})") from None


def json_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DocumentError: it is not JSON, or not an object.
    """
    found = load_json(text)
    if not isinstance(found, dict):
        raise DocumentError(f"expected a JSON object, got {type(found).__name__}")
    return found


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of a document is a finite number (and not a bool)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = self.maxlong = 100
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 6


_SHORT = _Short()


def shorten(value: Any) -> str:
    """``repr`` of a value from a file, in about a line: never builds more than it returns."""
    text = _SHORT.repr(value)
    return text if len(text) <= 200 else text[:199] + "…"
