"""A benchmark entry: one file with the cells R[t, k] of some strategies' trials, and what they were computed with.

A cell is a row of ``RESULT_SCHEMA`` whose ``value`` is the mean over the test photos of timestamp k and whose ``image``
is a digest of these photos: an entry holds no photo and is small, and cells of different photos are told apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clstudy.errors import UserError
from clstudy.records.results import parquet_bytes
from clstudy.records.rows import RESULT_SCHEMA, SORT_KEY
from clstudy.storage.places import Place, first_line, read_plain, write_atomically

_ABOUT, _DIGEST = b"clstudy.bench", b"clstudy.bench.sha256"
MOST_BYTES = 50_000_000
"""Largest size of a file that is read as an entry."""


@dataclass(frozen=True, kw_only=True)
class EntryFacts:
    """What an entry was computed with.

    Attributes:
        benchmark: its name, e.g. ``v1``.
        settings: digest of every setting that numbers depend on.
        generator: digest of the pretrained generator.
        data_digests: identity -> digest of all its photos.
        strategies: name -> sha256 of the file that defines it; None for one of the package.
        joint: the strategies that are joint training.
        versions: package -> version.
        git_commit: of clstudy's checkout, if there was one.
        processors: kinds of processor that computed it, as far as that is known.
    """

    benchmark: str
    settings: str
    generator: str
    data_digests: Mapping[str, str]
    strategies: Mapping[str, str | None]
    joint: tuple[str, ...] = ()
    versions: Mapping[str, Any] = field(default_factory=dict)
    git_commit: str | None = None
    processors: tuple[str, ...] = ()

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> EntryFacts:
        """From plain values.

        Raises:
            ValueError: a field is missing or of another type.
        """
        expected: dict[str, type | tuple[type, ...]] = {
            "benchmark": str, "settings": str, "generator": str, "data_digests": dict, "strategies": dict,
            "joint": list, "versions": dict, "git_commit": (str, type(None)), "processors": list,
        }  # fmt: skip
        for name, kind in expected.items():
            if not isinstance(document.get(name), kind):
                raise ValueError(f"it does not say {name}")
        values = {entry.name: document[entry.name] for entry in fields(cls)}
        return cls(**values | {"joint": tuple(document["joint"]), "processors": tuple(document["processors"])})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An entry: its facts and its cells (``RESULT_SCHEMA``, sorted)."""

    facts: EntryFacts
    cells: pa.Table

    @cached_property
    def digest(self) -> str:
        """sha256 of facts and cells, whatever the file around them looks like."""
        content = {"facts": asdict(self.facts), "cells": self.cells.to_pylist()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def encode(self) -> bytes:
        """As the file holds it."""
        about = json.dumps(asdict(self.facts), sort_keys=True).encode()
        return parquet_bytes(self.cells.replace_schema_metadata({_ABOUT: about, _DIGEST: self.digest.encode()}))


def write_entry(place: Place, entry: Entry) -> None:
    """Write its file.

    Raises:
        UserError: it cannot be written.
    """
    try:
        write_atomically(place, entry.encode())
    except OSError as error:
        raise UserError(f"{place} cannot be written ({first_line(error)}); name another file with --out") from error


def read_entry(place: Place) -> Entry:
    """Read an entry's file, which may come from anybody.

    Raises:
        UserError: there is no such file, it is no entry, or it is not what was written.
    """
    expected = "expected the file that `clstudy bench run` writes"
    try:
        content = read_plain(place, MOST_BYTES)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {place}; {expected}") from error
    except OSError as error:
        raise UserError(f"{place} cannot be read ({first_line(error)}); {expected}") from error
    try:
        table = pq.read_table(pa.BufferReader(content))
        told = table.schema.metadata or {}
        facts = EntryFacts.read(json.loads(told[_ABOUT]))
    except (pa.ArrowException, OSError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{place} is no entry of a benchmark ({first_line(error)}); {expected}") from error
    if table.schema.names != RESULT_SCHEMA.names or table.schema.types != RESULT_SCHEMA.types:
        raise UserError(f"{place} has the columns {', '.join(table.schema.names)}; {expected}")
    entry = Entry(facts=facts, cells=table.replace_schema_metadata(None).sort_by(SORT_KEY))
    if told.get(_DIGEST, b"").decode("ascii", "replace") != entry.digest:
        raise UserError(f"{place} does not match its own sha256: it was changed after it was written, or cut off")
    return entry
