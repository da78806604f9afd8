"""Finds out which person every file in a study's folder belongs to: from marks, or from the stages' records."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, TypeVar

from clstudy.errors import UserError
from clstudy.records.results import result_identity
from clstudy.records.stage_record import OWNER, StageInputs, StageRecord, owner_in
from clstudy.records.study_record import TrialEntry
from clstudy.storage.content_addressed_store import MARKER, MEMORY, STAGE_RECORD, StudyStore, digest_of
from clstudy.storage.documents import json_object
from clstudy.storage.patience import patiently
from clstudy.storage.places import Place
from clstudy.storage.trees import list_files, together
from clstudy.strategies.lookup import strategy_document
from clstudy.study.privacy.names import file_name, with_derived
from clstudy.study.privacy.study_layout import is_result, is_value
from clstudy.study.search.validation_people import VALIDATION_MARK
from clstudy.trial.requests import HOOKS_VERSION

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class StageFacts:
    """What a stage's record (``stage.json``) says: its person, the photos it has seen, the values that belong to it.

    ``anchors`` and ``learned`` are keys; ``learned`` includes keys of what may have been learned after the stage.
    """

    identity: str
    photos: frozenset[str]
    anchors: frozenset[str]
    learned: frozenset[str]


def stage_facts(key: str, asked: StageInputs, strategies: Sequence[Mapping[str, Any]]) -> StageFacts | None:
    """What a stage's request says about people; None if its ``support`` cannot be understood.

    Args:
        key: the stage's.
        asked: its request, as its record has it.
        strategies: documents of strategies that may have learned from a first stage (later stages name theirs).
    """
    try:
        before = asked.support
        after = strategies if before is None else [before["strategy"]]
        learned = {_learned_key(key, strategy, before) for strategy in after}
        if before is not None and before["learned"] is not None:
            learned.add(before["learned"])
        return StageFacts(
            identity=asked.identity,
            photos=frozenset(chain(*asked.anchored, *asked.tested)),
            anchors=frozenset(asked.anchors_key(k) for k in range(len(asked.anchored))),
            learned=frozenset(learned),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None


def _learned_key(stage: str, strategy: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    """As ``clstudy.trial.requests.LearnedRequest.key``, from a stage's record (tested)."""
    return digest_of(
        {"what": "learned", "version": HOOKS_VERSION, "strategy": strategy, "stage": stage, "before": before}
    )


@dataclass(frozen=True, kw_only=True)
class Census:
    """Which person everything in a study's folder belongs to.

    Attributes:
        files: path -> bytes.
        planned: trial of ``study.yaml`` -> person.
        unplanned: result file of a trial that is no longer planned -> person (empty: the file does not say).
        owners: (kind, key) of every value -> people; empty if they are not known, or the value is incomplete.
        photos: person -> digests of those of their photos that stages have seen.
    """

    files: Mapping[str, int]
    planned: Mapping[str, str]
    unplanned: Mapping[str, str]
    owners: Mapping[tuple[str, str], frozenset[str]]
    photos: Mapping[str, frozenset[str]]

    @cached_property
    def people(self) -> tuple[str, ...]:
        """Everybody who is named anywhere; people derived for a search count as the person they are derived from."""
        found = {*self.planned.values()}
        for name in chain(self.unplanned.values(), *self.owners.values()):
            found.add(name if name in found else name.removesuffix(VALIDATION_MARK))
        return tuple(sorted(found - {""}))

    def of_trial(self, trial: str) -> str:
        """The person of a trial, from the trial's name; empty if nobody known matches."""
        if trial in self.planned:
            return self.planned[trial]
        known = [name for name in self._everybody if trial.startswith(f"{file_name(name)}-")]
        return max(known, key=lambda name: len(file_name(name)), default="")

    def of_rows(self, path: str) -> str:
        """The person of a result file, from its rows or, failing that, its name."""
        return self.unplanned.get(path) or self.of_trial(PurePosixPath(path).stem)

    @cached_property
    def _everybody(self) -> tuple[str, ...]:
        return tuple(chain.from_iterable(with_derived(name) for name in self.people))


def take_census(study: Place, trials: Sequence[TrialEntry]) -> Census:
    """Take the census from the listing and one small file per value. ``trials``: those of the study's record."""
    files = list_files(study)
    planned = {entry.trial: entry.identity for entry in trials}
    values: dict[tuple[str, str], set[str]] = {}
    for parts in (PurePosixPath(name).parts for name in files):
        if is_value(parts):
            values.setdefault((parts[0], parts[2]), set()).add(parts[3])
    whole = {value for value, held in values.items() if MARKER in held}
    strategies = _strategy_documents({entry.strategy for entry in trials})
    stages = [value for value in values if value[0] == "stages"]
    requests = _read_values(study, stages, STAGE_RECORD, lambda content: StageRecord.decode(content).asked)
    facts = {
        key: found for (_, key), asked in requests.items() if (found := stage_facts(key, asked, strategies)) is not None
    }
    photos: dict[str, frozenset[str]] = {}
    for stage in facts.values():
        photos[stage.identity] = photos.get(stage.identity, frozenset()) | stage.photos
    said = _read_values(study, [value for value in whole if OWNER in values[value]], OWNER, owner_in)
    named = {value: frozenset({owner}) for value, owner in said.items()}
    rows = [name for name in files if is_result(name) and PurePosixPath(name).stem not in planned]

    def identity_of_rows(name: str) -> str:
        return patiently(lambda: result_identity(study / name))

    return Census(
        files=files,
        planned=planned,
        unplanned=dict(zip(rows, together(identity_of_rows, rows, study), strict=True)),
        owners={
            **dict.fromkeys(values, frozenset()),
            **_legacy_owners(study, whole - named.keys(), facts, photos),
            **named,
        },
        photos=photos,
    )


def _read_values(
    study: Place, values: Sequence[tuple[str, str]], name: str, decode: Callable[[bytes], T]
) -> dict[tuple[str, str], T]:
    """This small file of each value that has it whole; many at a time where each read is a request."""
    store = StudyStore(study)

    def read(value: str) -> T | None:
        kind, key = value.split("/")
        try:  # checked: a name that changed by itself must not keep (or lose) somebody else's value
            return decode(getattr(store, kind).read_file(key, name) or b"")
        except ValueError:
            return None

    found = together(read, [f"{kind}/{key}" for kind, key in values], study)
    return {value: content for value, content in zip(values, found, strict=True) if content is not None}


def _strategy_documents(names: Iterable[str]) -> list[dict[str, Any]]:
    found = []
    for name in sorted(names):
        with suppress(UserError):  # one of the user's own that is not here: what it learned belongs to nobody known
            found.append(json.loads(json.dumps(strategy_document(name))))
    return found


def _legacy_owners(
    study: Place,
    values: Collection[tuple[str, str]],
    facts: Mapping[str, StageFacts],
    photos: Mapping[str, frozenset[str]],
) -> dict[tuple[str, str], frozenset[str]]:
    """The people of values without ``about.json``, from the stages' records."""
    owners: dict[tuple[str, str], set[str]] = {}
    for key, stage in facts.items():
        named = [("stages", key), ("weights", key)]
        named += [("anchors", other) for other in stage.anchors] + [("learned", other) for other in stage.learned]
        for value in named:
            owners.setdefault(value, set()).add(stage.identity)
    memories = _read_values(study, [value for value in values if value[0] == "memories"], MEMORY, json_object)
    for value, memory in memories.items():
        stored = {item.get("digest") for item in memory.get("items", [])}
        owners[value] = {name for name, seen in photos.items() if stored and stored <= seen}
    return {value: frozenset(owners.get(value, ())) for value in values}
