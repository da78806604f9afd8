"""Two drivers on one study: the second is told, a dead one holds nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clstudy.storage import driver_lock
from clstudy.storage.driver_lock import NAME, StudyBusyError, only_driver
from clstudy.storage.places import Place, open_place, write_atomically
from tests.support.object_store import BUCKET, object_store

HOLD = """
import signal, sys, time
from clstudy.storage.driver_lock import only_driver
from clstudy.storage.places import open_place
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests may ignore it
with only_driver(open_place(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def query() -> Iterator[str]:
    with object_store() as found:
        yield found


@pytest.fixture(params=["disk", "s3"])
def study(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(driver_lock, "_SETTLE_SECONDS", 0.1)
    if request.param == "disk":
        return str(tmp_path / "study")
    return f"s3://{BUCKET}/{tmp_path.name}/study?{request.getfixturevalue('query')}"


def holder(study: str) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, study], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_the_second_driver_is_told_who_holds_the_study_and_the_next_one_gets_it(study: str, ending: int) -> None:
    process = holder(study)
    try:
        with (
            pytest.raises(StudyBusyError, match=f"process {process.pid} on .*--out") as caught,
            only_driver(open_place(study)),
        ):
            pass
        assert "endpoint" not in str(caught.value)
    finally:
        process.send_signal(ending)
        process.wait()
    with only_driver(open_place(study)):
        pass
    with only_driver(open_place(study)):
        pass


def card(place: Place, **changes: object) -> None:
    document = {"host": "elsewhere", "pid": 1, "since": "then", "token": "t", "beat": time.time(), **changes}
    write_atomically(place / NAME, json.dumps(document).encode())


def test_a_silent_driver_on_another_machine_is_forgotten(query: str, tmp_path: Path) -> None:
    place = open_place(f"s3://{BUCKET}/{tmp_path.name}/silent?{query}")
    card(place)
    with pytest.raises(StudyBusyError, match="process 1 on elsewhere, since then"), only_driver(place):
        pass
    card(place, beat=time.time() - driver_lock.STALE_SECONDS - 1)
    with only_driver(place):
        assert json.loads((place / NAME).read_text())["pid"] == os.getpid()
    assert not (place / NAME).exists()


def test_the_record_is_always_as_long(query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for its size, then for so many bytes: of a record that grew meanwhile a reader saw no holder at all."""
    place = open_place(f"s3://{BUCKET}/{tmp_path.name}/lengths?{query}")
    lengths = set()
    for beat in (1795933451.2, 1795933451.2063046, 1795933451.0):
        monkeypatch.setattr(driver_lock.time, "time", lambda beat=beat: beat)
        driver_lock._beat(place / NAME, driver_lock.process_card())
        text = (place / NAME).read_text()
        lengths.add(len(text))
        assert json.loads(text)["beat"] == beat
    assert len(lengths) == 1


def test_the_record_is_renewed_while_the_study_is_held(
    query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_lock, "BEAT_SECONDS", 0.05)
    place = open_place(f"s3://{BUCKET}/{tmp_path.name}/beats?{query}")
    with only_driver(place):
        first = json.loads((place / NAME).read_text())["beat"]
        deadline = time.monotonic() + 30
        while json.loads((place / NAME).read_text())["beat"] == first and time.monotonic() < deadline:
            time.sleep(0.05)
        assert json.loads((place / NAME).read_text())["beat"] > first
