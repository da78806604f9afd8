"""Places: a local folder and an object store behave alike; a storage that fails for a while is waited for."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clstudy.cli.storage import main
from clstudy.errors import UserError
from clstudy.storage.content_addressed_store import MARKER, ValueStore, digest_of
from clstudy.storage.patience import patiently
from clstudy.storage.places import (
    Place,
    RemotePath,
    free_bytes,
    open_place,
    require_writable,
    write_atomically,
)
from clstudy.storage.trees import copy_tree, list_files, local_view, remove_tree
from tests.support.object_store import BUCKET, object_store

KEY = digest_of({"what": "test", "n": 1})
FILES = {"weights.bin": b"w" * 5000, "rows.bin": b"rows"}


@pytest.fixture(scope="module")
def query() -> Iterator[str]:
    with object_store() as found:
        yield found


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "disk":
        return open_place(str(tmp_path / "runs"))
    return open_place(f"s3://{BUCKET}/{tmp_path.name}/runs?{request.getfixturevalue('query')}")


def test_files_and_folders(place: Place) -> None:
    study = place / "study"
    assert not study.exists() and list_files(study) == {}
    write_atomically(study / "results" / "a.parquet", b"one")
    write_atomically(study / "results" / "a.parquet", b"three")
    write_atomically(study / "study.yaml", "name: é".encode())
    assert list_files(study) == {"results/a.parquet": 5, "study.yaml": 8}
    assert (study / "study.yaml").read_text(encoding="utf-8") == "name: é"
    assert study.is_dir() and not study.is_file() and (study / "study.yaml").is_file()
    assert (study / "results").parent.name == "study"
    with pytest.raises(FileNotFoundError):
        (study / "absent").read_bytes()
    (study / "study.yaml").unlink()
    (study / "study.yaml").unlink(missing_ok=True)
    remove_tree(study)
    remove_tree(study)
    assert list_files(place) == {}


def test_a_place_travels_to_another_process(place: Place) -> None:
    write_atomically(place / "x", b"1")
    again = pickle.loads(pickle.dumps(place))
    assert again == place and str(again) == str(place) and (again / "x").read_bytes() == b"1"


def test_values_are_whole_or_not_there(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    store = ValueStore(place / "stages")
    assert store.get(KEY) is None and not store.looks_complete(KEY) and store.complete([KEY]) == set()
    # an interrupted writer: files, but no marker
    write_atomically(store.folder(KEY) / "weights.bin", b"half")
    assert not store.looks_complete(KEY) and store.complete([KEY]) == set() and store.get(KEY) is None
    store.put(KEY, FILES)
    assert store.get(KEY) == FILES and store.looks_complete(KEY) and store.complete([KEY, "0" * 64]) == {KEY}
    assert set(store.sizes()) == {KEY} and store.sizes()[KEY] > 5000 and store.names(KEY) == tuple(FILES)
    # altered behind our back: found by the checksum, said, and mended by writing it again
    write_atomically(store.folder(KEY) / "weights.bin", b"x" * 5000)
    assert store.get(KEY) is None and "computed again" in caplog.text
    store.put(KEY, FILES)
    assert store.get(KEY) == FILES
    (store.folder(KEY) / MARKER).unlink()
    assert store.get(KEY) is None
    store.put(KEY, FILES)
    store.remove(KEY)
    assert store.sizes() == {} and list_files(store.folder(KEY)) == {}


def test_copies_take_what_is_missing_and_views_do_not_stay(place: Place, tmp_path: Path) -> None:
    for name in ("a/one", "a/COMPLETE", "b/two"):
        write_atomically(place / "study" / name, name.encode())
    assert copy_tree(place / "study", tmp_path / "copy") == 3 and copy_tree(place / "study", tmp_path / "copy") == 0
    assert list_files(tmp_path / "copy") == list_files(place / "study")
    with local_view(place / "study", lambda name: name.startswith("a/")) as view:
        assert (view / "a" / "one").read_bytes() == b"a/one"
        assert (view / "b" / "two").exists() == isinstance(place, Path)
    assert view.exists() == isinstance(place, Path)


def test_a_whole_study_is_copied_by_the_command(query: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_atomically(tmp_path / "study" / "results" / "a.parquet", b"rows")
    uri = f"s3://{BUCKET}/{tmp_path.name}/copied?{query}"
    assert main(["copy", str(tmp_path / "study"), uri]) == 0
    assert main(["copy", uri, str(tmp_path / "back")]) == 0
    assert (tmp_path / "back" / "results" / "a.parquet").read_bytes() == b"rows"
    assert "1 files copied" in capsys.readouterr().out
    assert main(["copy", str(tmp_path / "absent"), uri]) == 2 and "absent" in capsys.readouterr().err


def test_addresses_that_will_not_do_are_refused_in_words(query: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="credentials") as caught:
        open_place("s3://AKIAX:hush@bucket/x")
    assert "hush" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be used"):
        open_place("nosuch://bucket/x")
    with pytest.raises(UserError, match="names no bucket"):
        open_place("s3:///x")
    with pytest.raises(UserError, match="cannot be written.*--storage"):
        require_writable(open_place(f"s3://not-there/x?{query}"))
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="cannot be written"):
        require_writable(file / "folder")
    require_writable(tmp_path / "new")


def test_only_a_disk_has_an_end(query: str, tmp_path: Path) -> None:
    free = free_bytes(tmp_path / "not" / "there" / "yet")
    assert free is not None and free > 0
    assert free_bytes(open_place(f"s3://{BUCKET}/x?{query}")) is None


class Flaky:
    """Fails as often as it is told to."""

    def __init__(self, *errors: OSError):
        self.errors = list(errors)
        self.now = 0.0

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_storage_that_does_not_answer_is_tried_again_for_a_minute() -> None:
    heard: list[str] = []
    flaky = Flaky(*[OSError("When reading: AWS Error NETWORK_CONNECTION")] * 7)
    assert patiently(flaky, heard.append, sleep=flaky.sleep, clock=lambda: flaky.now) == "done"
    assert 60 < flaky.now < 120 and len(heard) == 1 and "did not answer" in heard[0]
    flaky = Flaky(*[OSError("gone")] * 8)
    with pytest.raises(OSError, match="gone"):
        patiently(flaky, sleep=flaky.sleep, clock=lambda: flaky.now)


def test_a_full_disk_is_waited_for_and_then_said() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    heard: list[str] = []
    flaky = Flaky(*[full] * 20)
    assert patiently(flaky, heard.append, sleep=flaky.sleep, clock=lambda: flaky.now) == "done"
    assert "No space left" in heard[0] and flaky.now >= 200
    flaky = Flaky(*[full] * 1000)
    with pytest.raises(UserError, match="make room and run the same command again"):
        patiently(flaky, sleep=flaky.sleep, clock=lambda: flaky.now)


@pytest.mark.parametrize("error", [FileNotFoundError("x"), PermissionError("x")])
def test_what_waiting_does_not_mend_is_not_waited_for(error: OSError) -> None:
    flaky = Flaky(error)
    with pytest.raises(type(error)):
        patiently(flaky, sleep=flaky.sleep)
    assert flaky.now == 0


def _can_mount() -> bool:
    return os.geteuid() == 0 and sys.platform == "linux"


@pytest.mark.skipif(not _can_mount(), reason="a small disk of its own needs root (mount)")
def test_a_disk_that_is_really_full_loses_nothing(tmp_path: Path) -> None:
    """A 2 MB tmpfs: the value is written once somebody makes room, and no draft is left behind."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        (disk / "ballast").write_bytes(bytes(1_500_000))
        heard: list[str] = []

        def make_room(text: str) -> None:
            heard.append(text)
            assert list_files(disk) == {"ballast": 1_500_000}, "what did not fit was removed again"
            (disk / "ballast").unlink()

        from clstudy.storage import patience

        pause, patience._FULL_PAUSE_S = patience._FULL_PAUSE_S, 0.0
        try:
            ValueStore(disk / "stages", make_room).put(KEY, {"weights.bin": bytes(1_000_000)})
        finally:
            patience._FULL_PAUSE_S = pause
        assert len(heard) == 1 and "the disk is full" in heard[0]
        assert ValueStore(disk / "stages").get(KEY) == {"weights.bin": bytes(1_000_000)}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_reading_while_the_store_is_down_does_not_throw_values_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ValueStore(tmp_path / "stages")
    store.put(KEY, FILES)
    real: Callable[[Path], bytes] = Path.read_bytes
    failing = [2]

    def unsteady(path: Path) -> bytes:
        if path.name == "rows.bin" and failing[0]:
            failing[0] -= 1
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", unsteady)
    monkeypatch.setattr("clstudy.storage.patience._PAUSES_S", (0.0, 0.0, 0.0))
    assert store.get(KEY) == FILES and failing == [0]
    assert isinstance(store.root, Path) and not (store.root / "damaged").exists()


def test_remote_paths_do_not_show_their_query(query: str) -> None:
    place = open_place(f"s3://{BUCKET}/a/b?{query}")
    assert isinstance(place, RemotePath) and str(place / "c") == f"s3://{BUCKET}/a/b/c"
