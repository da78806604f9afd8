"""Conditions of a photo (camera, age, class label): named numbers from JSON files beside it.

``<identity>/<timestamp>/conditions.json`` holds those of all photos of a timestamp (``{"age": 31.5, "camera": [1, 0,
…]}``), ``train/03.json`` adds to or replaces them for ``train/03.png``.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clstudy.storage.documents import DocumentError, is_number, read_json, shorten

FOR_ALL = "conditions.json"
"""Name of a timestamp's sidecar, in its folder."""

MOST_NUMBERS = 400
"""Upper bound on one photo's conditions, all together."""

NO_SIDECARS = ("cameras.json", "manifest.json", "prepared.json")
"""JSON files that may be beside photos without belonging to one: from earlier versions or other programs."""

_MOST_BYTES = 100_000
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LARGEST = 3.4028234663852886e38  # of float32, the type in which generators take them
_A_VALUE = "expected a finite number or a flat list of them"


class Conditions(Mapping[str, tuple[float, ...]]):
    """Name -> numbers, in sorted name order; read-only, hashable, and sent between processes with its photo."""

    def __init__(self, values: Mapping[str, Sequence[float]] | None = None):
        given = values or {}
        # + 0.0: -0.0 equals 0.0, so both must give one digest
        self._values = {name: tuple(float(number) + 0.0 for number in given[name]) for name in sorted(given)}

    def __getitem__(self, name: str) -> tuple[float, ...]:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        return f"Conditions({self._values!r})"


NO_CONDITIONS = Conditions()


class FoundPhoto(NamedTuple):
    """A readable photo, the sha256 of its file, and its conditions."""

    path: Path
    file_digest: str
    conditions: Conditions


class Sidecar(NamedTuple):
    """A sidecar's content, and what is wrong with it."""

    values: Mapping[str, tuple[float, ...]]
    problems: tuple[str, ...]


def parse_conditions(document: Any) -> Sidecar:
    """The conditions of a sidecar's JSON document."""
    if not isinstance(document, dict):
        return Sidecar({}, (f'{shorten(document)}; expected named numbers such as {{"age": 31.5}}',))
    values: dict[str, tuple[float, ...]] = {}
    problems = []
    for name, value in document.items():
        numbers = value if isinstance(value, list) else [value]
        wrong = [number for number in numbers if not (is_number(number) and abs(number) <= _LARGEST)]
        if not _NAME.fullmatch(name):
            problems.append(f"condition {shorten(name)}: expected a name of a-z, 0-9 and _ that begins with a letter")
        elif not numbers:
            problems.append(f"condition {name!r} is an empty list; {_A_VALUE}")
        elif wrong and isinstance(value, list):
            problems.append(f"condition {name!r} has {shorten(wrong[0])} in its list; {_A_VALUE}")
        elif wrong:
            problems.append(f"condition {name!r} is {shorten(value)}; {_A_VALUE}")
        else:
            values[name] = tuple(map(float, numbers))
    problems.extend(too_many(values))
    return Sidecar(values, tuple(problems))


def too_many(values: Mapping[str, tuple[float, ...]]) -> tuple[str, ...]:
    """A sentence if there are too many numbers; otherwise nothing."""
    count = sum(map(len, values.values()))
    return (f"{count:,} numbers in its conditions; expected at most {MOST_NUMBERS}",) if count > MOST_NUMBERS else ()


def read_sidecar(path: Path) -> Sidecar:
    """The conditions in a file; empty if there is none."""
    if not os.path.lexists(path):
        return Sidecar({}, ())
    try:
        return parse_conditions(read_json(path, _MOST_BYTES))
    except DocumentError as error:
        return Sidecar({}, (str(error),))
    except OSError as error:
        return Sidecar({}, (f"unreadable file ({error.strerror})",))


def conditions_beside(photo: Path) -> Conditions:
    """The conditions of a photo in an unchecked folder, as far as its sidecars can be read."""
    shared, own = read_sidecar(photo.parent.parent / FOR_ALL), read_sidecar(photo.with_suffix(".json"))
    return Conditions({**shared.values, **own.values})


def has_sidecars(identity: Path) -> bool:
    """Whether a person's folder contains conditions."""
    beside_photos = (path for path in identity.glob("*/*/*.json") if path.name not in NO_SIDECARS)
    return any(identity.glob(f"*/{FOR_ALL}")) or any(beside_photos)


def disagreements(photos: Sequence[FoundPhoto]) -> Iterator[tuple[Path, str]]:
    """Photos that differ from the others in the names or lengths of their conditions, with what is wrong."""
    for name in sorted({name for photo in photos for name in photo.conditions}):
        having = [photo for photo in photos if name in photo.conditions]
        lacking = [photo for photo in photos if name not in photo.conditions]
        if lacking:
            yield (
                lacking[0].path,
                f"no condition {name!r}{_as_others(lacking)}, which {len(having)} of {len(photos)} photos have; "
                "give it to all photos of the data set or to none",
            )
        widths = Counter(len(photo.conditions[name]) for photo in having)
        usual = widths.most_common(1)[0][0]
        for width in sorted(widths.keys() - {usual}):
            odd = [photo for photo in having if len(photo.conditions[name]) == width]
            yield (
                odd[0].path,
                f"condition {name!r} of length {width}{_as_others(odd)}; expected {usual}, as {widths[usual]} of "
                f"{len(photos)} photos have",
            )


def _as_others(photos: Sequence[FoundPhoto]) -> str:
    return f" (also for {len(photos) - 1} more)" if photos[1:] else ""
