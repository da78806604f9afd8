"""Make one study of several that asked the same of different people.

For a study that is computed in pieces, or where each person's photos are. Rows, stages, memories and timings are
copied, weights are not: a pooled study is reported, not extended. What is not about people must be equal: settings,
generator, metrics, grid, claims, and the arithmetic that may change a bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from clstudy.errors import UserError
from clstudy.records.study_record import CompleteRecord, read_complete_record, write_study_record
from clstudy.settings.claims import Statement
from clstudy.settings.profile_documents import BESIDE_THE_POINT
from clstudy.storage.places import Place, require_writable
from clstudy.storage.trees import copy_tree

PARTS = ("results", "stages", "memories", "anchors", "timings")
"""Folders of a study that its report reads."""

_EQUAL = (
    ("profile", "settings"),
    ("generator", "pretrained generator"),
    ("metric_files", "weights of metrics"),
    ("metrics", "metrics"),
    ("buffer_sizes", "buffer sizes"),
    ("horizons", "numbers of timestamps"),
    ("fingerprint", "arithmetic"),
    ("objective", "aim of searches"),
    ("chosen_rates", "learning rates of a search"),
)
"""Fields of a record that must be equal, and what they are in words."""

_MAY_DIFFER = BESIDE_THE_POINT | {"resources"}
"""Keys of a profile that pieces need not share; threads, which are among the resources, are in the fingerprint."""


def pool_studies(studies: Sequence[Place], out: Place) -> CompleteRecord:
    """Write the study of everybody in ``studies`` to ``out``; returns its record.

    Raises:
        UserError: fewer than two studies, one that is none or is incomplete, a person in two of them, they differ in
            more than people, or ``out`` holds another study already.
    """
    if len(studies) < 2:
        raise UserError(f"{len(studies)} study to pool; expected two or more")
    records = [read_complete_record(study) for study in studies]
    for study, record in zip(studies[1:], records[1:], strict=True):
        _require_equal(studies[0], records[0], study, record)
    _require_other_people(studies, records)
    pooled = _pooled(records)
    require_writable(out, "the folder", "name another one with --out")
    if out.is_dir() and (out / "study.yaml").is_file():
        there = read_complete_record(out)
        if there.trials != pooled.trials:
            raise UserError(f"{out} holds another study ({there.name}); name another folder with --out")
    for study in studies:
        copy_tree(study, out, lambda name: name.split("/")[0] in PARTS)
    write_study_record(out, pooled)
    return pooled


def _require_equal(first: Place, mine: CompleteRecord, second: Place, theirs: CompleteRecord) -> None:
    for name, words in _EQUAL:
        a, b = _told(mine, name), _told(theirs, name)
        if a != b:
            raise UserError(
                f"{first} and {second} differ in {words}: {_difference(a, b)}; only studies that differ in nothing but "
                "their people can be pooled"
            )
    if _grid(mine) != _grid(theirs):
        only = sorted(map(str, _grid(mine) ^ _grid(theirs)))[0]
        raise UserError(
            f"{first} and {second} have other trials: {only} is in one of them alone; run what is missing first"
        )
    if _claims(mine.claims) != _claims(theirs.claims):
        raise UserError(f"{first} and {second} claim different things (primary, effects); they are different studies")


def _told(record: CompleteRecord, name: str) -> Any:
    value = getattr(record, name)
    if name == "profile":
        return {key: part for key, part in value.items() if key not in _MAY_DIFFER}
    return value


def _difference(a: Any, b: Any) -> str:
    """The first thing in which two values differ, at most a line long."""
    place = ""
    while isinstance(a, Mapping) and isinstance(b, Mapping):
        name = next(key for key in [*a, *b] if a.get(key) != b.get(key))
        place, a, b = f"{place}.{name}".lstrip("."), a.get(name), b.get(name)
    return f"{place + ' is ' if place else ''}{str(a)[:60]} and {str(b)[:60]}"


def _grid(record: CompleteRecord) -> set[tuple[Any, ...]]:
    """Trials without their people."""
    return {(t.strategy, t.buffer_size, t.learning_rate, t.seed, t.timestamps) for t in record.trials}


def _claims(statements: Sequence[Statement]) -> object:
    return statements[-1].claims() if statements else (None, None)


def _require_other_people(studies: Sequence[Place], records: Sequence[CompleteRecord]) -> None:
    counted = Counter(name for record in records for name in record.timestamps)
    twice = sorted(name for name, count in counted.items() if count > 1)
    if twice:
        where = [str(study) for study, record in zip(studies, records, strict=True) if twice[0] in record.timestamps]
        raise UserError(
            f"{twice[0]} is in {' and in '.join(where)}; expected every person in one study. Rename the person's "
            "folder if it is somebody else, or leave one of the studies out"
        )
    photos = Counter(digest for record in records for digest in record.data_digests.values())
    if max(photos.values()) > 1:
        same = next(digest for digest, count in photos.items() if count > 1)
        names = [name for record in records for name, digest in record.data_digests.items() if digest == same]
        raise UserError(f"{' and '.join(names)} have the same photos; expected every person once")


def _pooled(records: Sequence[CompleteRecord]) -> CompleteRecord:
    """The record of all people: trials grouped as a run writes them; the claims of whoever knew most when claiming."""
    first = records[0]
    places = {key: place for place, key in enumerate(_order(first))}
    trials = sorted(
        (trial for record in records for trial in record.trials),
        key=lambda trial: places[trial.strategy, trial.buffer_size, trial.learning_rate, trial.seed],
    )
    return replace(
        first,
        data_set=", ".join(dict.fromkeys(str(record.data_set) for record in records)),
        timestamps={name: count for record in records for name, count in record.timestamps.items()},
        data_digests={name: digest for record in records for name, digest in record.data_digests.items()},
        trials=tuple(trials),
        claims=max((record.claims for record in records), key=_knew),
        versions=_versions(records),
        git_commit=first.git_commit if len({record.git_commit for record in records}) == 1 else None,
    )


def _order(record: CompleteRecord) -> dict[tuple[Any, ...], None]:
    return dict.fromkeys((t.strategy, t.buffer_size, t.learning_rate, t.seed) for t in record.trials)


def _knew(statements: Sequence[Statement]) -> tuple[int, int]:
    return (len(statements), statements[-1].measured_stages if statements else 0)


def _versions(records: Sequence[CompleteRecord]) -> dict[str, str | None]:
    """Package -> version; all of them where they differ."""
    names = dict.fromkeys(name for record in records for name in record.versions or {})
    found = {}
    for name in names:
        different = dict.fromkeys(str(version) for record in records if (version := (record.versions or {}).get(name)))
        found[name] = ", ".join(different) or None
    return found
