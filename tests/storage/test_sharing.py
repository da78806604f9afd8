"""A store with other studies behind it: what it takes over, what it leaves, and that others are only read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from clstudy.records.stage_record import StageRecord, computed_on, owned_by
from clstudy.storage.content_addressed_store import MEMORY, STAGE_RECORD, WEIGHTS, StudyStore, Timing, digest_of
from clstudy.storage.places import open_place
from clstudy.trial.shared_store import shared_store
from tests.support.object_store import BUCKET, object_store
from tests.support.smoke_study import written_files

HERE, ELSEWHERE = "AMD AVX512", "Intel AVX2"
KEY = digest_of({"a": 1})


def memory(processor: str) -> dict[str, bytes]:
    return {MEMORY: json.dumps({"items": []}).encode(), **owned_by("ada", processor)}


def stage(processor: str) -> dict[str, bytes]:
    return {
        "rows.parquet": b"rows",
        "faces.png": b"faces",
        STAGE_RECORD: StageRecord(request={}, loss=1.0, computed_on=processor).encode(),
        **owned_by("ada"),  # as earlier versions wrote it: only the record says where it was computed
    }


@pytest.fixture
def other(tmp_path: Path) -> StudyStore:
    return StudyStore(tmp_path / "runs" / "other")


@pytest.fixture
def own(tmp_path: Path, other: StudyStore) -> StudyStore:
    return shared_store(tmp_path / "runs" / "own", [other.root], HERE, keep=True)


def test_a_value_of_another_study_is_copied_and_then_ones_own(own: StudyStore, other: StudyStore) -> None:
    other.memories.put(KEY, memory(HERE))
    before = written_files(Path(str(other.root)))
    assert own.memories.get(KEY) == memory(HERE)
    assert written_files(Path(str(other.root))) == before
    shutil.rmtree(str(other.root))
    assert own.memories.get(KEY) == memory(HERE) == StudyStore(own.root).memories.get(KEY)


@pytest.mark.parametrize("files", [memory(ELSEWHERE), memory(""), {MEMORY: b"{}"}])
def test_values_of_other_processors_or_of_unknown_ones_are_not_taken(
    own: StudyStore, other: StudyStore, files: Mapping[str, bytes]
) -> None:
    other.memories.put(KEY, files)
    assert own.memories.get(KEY) is None and not own.memories.looks_complete(KEY)


def test_ones_own_value_counts_wherever_it_was_computed(own: StudyStore, other: StudyStore) -> None:
    StudyStore(own.root).memories.put(KEY, memory(ELSEWHERE))
    other.memories.put(KEY, memory(HERE))
    assert own.memories.get(KEY) == memory(ELSEWHERE)


def test_a_damaged_value_of_ones_own_is_healed_from_another_study(own: StudyStore, other: StudyStore) -> None:
    for store in (own, other):
        store.memories.put(KEY, memory(HERE))
    damaged = own.memories.folder(KEY) / MEMORY
    damaged.write_bytes(b"damage")
    assert own.memories.get(KEY) == memory(HERE)
    assert damaged.read_bytes() == memory(HERE)[MEMORY]


def test_a_damaged_value_of_another_study_is_left_as_it_is(own: StudyStore, other: StudyStore) -> None:
    other.memories.put(KEY, memory(HERE))
    (other.memories.folder(KEY) / MEMORY).write_bytes(b"damage")
    before = written_files(Path(str(other.root)))
    assert own.memories.get(KEY) is None
    assert written_files(Path(str(other.root))) == before and before


def test_the_next_study_is_asked_if_the_first_has_a_damaged_value(tmp_path: Path) -> None:
    first, second = StudyStore(tmp_path / "first"), StudyStore(tmp_path / "second")
    for store in (first, second):
        store.memories.put(KEY, memory(HERE))
    (first.memories.folder(KEY) / MEMORY).unlink()
    own = shared_store(tmp_path / "own", [first.root, second.root], HERE, keep=True)
    assert own.memories.get(KEY) == memory(HERE)


def test_a_plan_looks_and_writes_nothing(tmp_path: Path, other: StudyStore) -> None:
    other.stages.put(KEY, stage(HERE))
    looking = shared_store(tmp_path / "runs" / "own", [other.root], HERE, keep=False)
    assert looking.stages.get(KEY) == stage(HERE)
    assert looking.elsewhere([KEY, digest_of({"b": 2})]) == {KEY: "other"}
    assert not (tmp_path / "runs" / "own").exists()
    elsewhere = shared_store(tmp_path / "runs" / "own", [other.root], ELSEWHERE, keep=False)
    assert elsewhere.elsewhere([KEY]) == {}


def test_weights_what_was_learned_and_seconds_come_along(own: StudyStore, other: StudyStore) -> None:
    learned = digest_of({"learned": 1})
    other.stages.put(KEY, stage(HERE))
    other.weights.put(KEY, {WEIGHTS: b"weights", **owned_by("ada", HERE)})
    other.learned.put(learned, {"learned.safetensors": b"fisher", **owned_by("ada", HERE)})
    timing = Timing(seconds=3.5, work=100.0, kind="kind")
    other.record_seconds(KEY, timing)
    assert own.stages.get(KEY) is not None
    own.take_along(KEY, learned)
    alone = StudyStore(own.root)
    assert alone.weights.file(KEY, WEIGHTS) == b"weights" and alone.learned.looks_complete(learned)
    assert alone.timing(KEY) == timing


def test_a_study_without_others_is_an_ordinary_one(tmp_path: Path) -> None:
    store = shared_store(tmp_path, [], HERE, keep=True)
    assert type(store) is StudyStore and store.elsewhere([KEY]) == {} and not store.weights_elsewhere(KEY)
    store.take_along(KEY, None)
    assert store.timing(KEY) is None


def test_the_processor_is_read_from_either_file() -> None:
    assert computed_on(stage(HERE)) == computed_on(memory(HERE)) == HERE
    assert computed_on({STAGE_RECORD: b"not json"}) == computed_on({}) == ""


def test_between_studies_of_an_object_store() -> None:
    with object_store() as query:
        storage = open_place(f"s3://{BUCKET}/clstudy?{query}")
        other = StudyStore(storage / "other")
        other.stages.put(KEY, stage(HERE))
        own = shared_store(storage / "own", [other.root], HERE, keep=True)
        assert own.elsewhere([KEY]) == {KEY: "other"}
        assert own.stages.get(KEY) == stage(HERE) == StudyStore(storage / "own").stages.get(KEY)
