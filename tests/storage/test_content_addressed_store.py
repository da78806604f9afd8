"""The content-addressed store: integrity, races, atomic replacement."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clstudy.storage.content_addressed_store import MARKER, StudyStore, ValueStore, digest_of
from clstudy.storage.places import write_atomically

FILES = {"weights.bin": b"w" * 5000, "rows.bin": b"rows"}
KEY = digest_of({"what": "test", "n": 1})


def test_a_value_comes_back_and_only_when_whole(tmp_path: Path) -> None:
    store = ValueStore(tmp_path / "stages")
    assert store.get(KEY) is None and not store.looks_complete(KEY)
    store.put(KEY, FILES)
    assert store.get(KEY) == FILES and store.looks_complete(KEY)
    assert not list((store.root / "drafts").iterdir())


@pytest.mark.parametrize("harm", ["delete", "truncate", "alter", "delete marker", "truncate marker"])
def test_damage_is_detected_said_and_mended(tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str) -> None:
    store = ValueStore(tmp_path / "stages")
    store.put(KEY, FILES)
    path = store.folder(KEY) / (MARKER if "marker" in harm else "weights.bin")
    if harm.startswith("delete"):
        path.unlink()
    elif harm.startswith("truncate"):
        path.write_bytes(path.read_bytes()[:10])
    else:
        path.write_bytes(b"x" + path.read_bytes()[1:])
    if harm != "alter":  # an altered file of equal size is found when it is read
        assert not store.looks_complete(KEY)
    assert store.get(KEY) is None
    assert "computed again" in caplog.text
    store.put(KEY, FILES)
    assert store.get(KEY) == FILES


def test_many_writers_of_one_value(tmp_path: Path) -> None:
    store = ValueStore(tmp_path / "stages")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.put(KEY, FILES), range(32)))
    assert store.get(KEY) == FILES


def test_interrupted_writers_leave_nothing_that_counts(tmp_path: Path) -> None:
    store = StudyStore(tmp_path)
    draft = store.stages.root / "drafts" / "abc"
    draft.mkdir(parents=True)
    (draft / "weights.bin").write_bytes(b"half")
    store.drop_drafts()
    assert not draft.exists() and store.stages.get(KEY) is None


def test_keys_depend_on_content_not_on_order() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})
    assert digest_of({"b": [2, 1]}) != digest_of({"b": [1, 2]})
    with pytest.raises(ValueError, match="JSON"):
        digest_of({"x": float("nan")})


def test_atomic_write_replaces_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "file.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two" and [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_a_key_that_is_a_path_leads_nowhere(tmp_path: Path) -> None:
    """Keys are read from files, which may come from elsewhere; a "damaged" folder is removed."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("all of it")
    store = ValueStore(tmp_path / "study" / "stages")
    for key in (str(tmp_path / "precious"), "../../precious", "", "0" * 63, "Z" * 64):
        for use in (store.get, store.looks_complete, store.remove, store.names, lambda key: store.put(key, FILES)):
            with pytest.raises(ValueError, match="not a key"):
                use(key)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "all of it"
