"""Lists what a study's folder holds about one person, and what must be removed with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath

from clstudy.storage.checksum_names import checked_name
from clstudy.storage.places import Place
from clstudy.study.privacy.census import Census
from clstudy.study.privacy.names import names_somebody, with_derived
from clstudy.study.privacy.study_layout import KINDS, PHOTO_SUFFIXES, VIEW, is_draft, is_result, is_value, read_small

_SEARCHED = ("search/", "optuna.db")
"""Folder of a learning-rate search's rows and record."""


@dataclass(frozen=True, kw_only=True)
class Traces:
    """What a study's folder holds about a person.

    Attributes:
        names: the person's, and that of the person a search derives from them.
        values: kind -> keys.
        files: what they are -> paths, in the order of removal.
        failures: their failed trials.
        trials: how many of the planned trials are theirs.
        digests: of their photos.
        size: bytes of values and files.
        others: people who stay in the plan.
        strangers: people who are no longer planned but still have values here.
    """

    names: frozenset[str]
    values: Mapping[str, tuple[str, ...]]
    files: Mapping[str, tuple[str, ...]]
    failures: tuple[str, ...]
    trials: int
    digests: frozenset[str]
    size: int
    others: tuple[str, ...]
    strangers: tuple[str, ...]


def find_traces(study: Place, census: Census, name: str) -> Traces:
    """Everything that belongs to a person, who must be one of ``census.people``."""
    names = with_derived(name)
    goes = {value for value, owners in census.owners.items() if owners <= names}
    values = {kind: tuple(sorted(key for found, key in goes if found == kind)) for kind in KINDS}
    stays = {key for kind, key in census.owners.keys() - goes if kind == "stages"}
    elsewhere = frozenset(chain.from_iterable(seen for other, seen in census.photos.items() if other not in names))
    groups: dict[str, list[str]] = {
        what: [] for what in ("photos for workers", "search", "rows", "logs", "timings", "unfinished writes")
    }
    for path in sorted(census.files):
        what = _group_of(path, census, names, elsewhere, stays)
        if what:
            groups[what].append(path)
    groups["search"] = _search_records(study, census, names)
    theirs = [path for path in census.files if is_value(parts := PurePosixPath(path).parts) and parts[::2][:2] in goes]
    planned = set(census.planned.values())
    return Traces(
        names=names,
        values=values,
        files={what: tuple(paths) for what, paths in groups.items()},
        failures=tuple(trial for trial in read_small(study / "failures.json") if census.of_trial(trial) in names),
        trials=sum(person in names for person in census.planned.values()),
        digests=frozenset(chain.from_iterable(census.photos.get(one, ()) for one in names)),
        size=sum(census.files[path] for path in chain(theirs, *groups.values())),
        others=tuple(sorted(planned - names)),
        strangers=tuple(sorted({*census.people} - planned - names)),
    )


def _group_of(
    path: str, census: Census, names: frozenset[str], elsewhere: frozenset[str], stays: Collection[str]
) -> str:
    """Why a file outside values is removed; empty if it stays. A checksum is removed with its file."""
    path = checked_name(path) or path
    place = PurePosixPath(path)
    top, stem = place.parts[0], place.stem
    if top in ("ray", VIEW) or (top in KINDS and place.parts[1] in ("drafts", "damaged")) or is_draft(path):
        return "unfinished writes"
    if top == "inputs" and place.suffix.lower() in PHOTO_SUFFIXES and stem not in elsewhere:
        return "photos for workers"
    if is_result(path):
        return "rows" if census.of_rows(path) in names else ""
    if top == "logs" and census.of_trial(stem) in names:
        return "logs"
    return "timings" if top == "timings" and stem not in stays else ""


def _search_records(study: Place, census: Census, names: frozenset[str]) -> list[str]:
    """The files that record a search in which the person took part; the one that names them comes last.

    A rate's objective is a mean over people, so the record cannot be edited, only made again.
    """
    found = [
        path
        for path in sorted(census.files)
        if path.startswith(_SEARCHED) and not (is_result(checked_name(path) or path) or is_draft(path))
    ]
    found += [path for path in census.unplanned if path.startswith("search/") and not census.of_rows(path)]
    naming = [path for path in found if names_somebody((study / path).read_bytes(), names)]
    took_part = naming or any(
        census.of_rows(path) in names for path in census.files if path.startswith("search/") and is_result(path)
    )
    return [*(path for path in found if path not in naming), *naming] if took_part else []
