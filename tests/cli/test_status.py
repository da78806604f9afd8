"""``clstudy status``: what a study has done, from its folder alone, while a driver is at work and after."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from clstudy.cli.commands import main
from clstudy.records import progress as progress_module
from clstudy.records.failures import write_failures
from clstudy.records.progress import read_progress
from clstudy.records.study_record import read_study_record, write_study_record
from clstudy.storage import driver_lock
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.storage.driver_lock import NAME, driver_at, only_driver
from clstudy.storage.places import open_place
from clstudy.storage.trees import copy_tree
from tests.support.object_store import BUCKET, object_store
from tests.support.small_study import TIMESTAMPS


@pytest.fixture
def study(small_study: Path, tmp_path: Path) -> Path:
    """A copy in which one trial is not finished."""
    copy = tmp_path / "small"
    shutil.copytree(small_study, copy)
    (next((copy / "results").glob("anna-er_rand-*.parquet"))).unlink()
    return copy


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_study(small_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything(small_study)
    assert main(["status", str(small_study)]) == 0
    said = capsys.readouterr().out
    assert "none is at work" in said and "3 of 3 finished, 0 to go" in said and "left" not in said
    assert "anna, t = " in said and " ago: " in said and "took" in said
    assert everything(small_study) == before


def test_an_unfinished_study(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read_progress(study)
    assert found.planned is not None and found.planned.stages == 2 * (TIMESTAMPS - 1) + 1 + 1
    assert (found.finished, found.open_trials, found.driver) == (2, 1, {})
    assert found.stages == len(StudyStore(study).stages.sizes()) == found.planned.stages and found.seconds_left == 0
    record = read_study_record(study)
    write_study_record(study, replace(record, chosen_rates=()))
    searched = read_progress(study)
    assert searched.planned is not None and searched.planned.stages is searched.seconds_left is None
    write_study_record(study, record)
    shutil.rmtree(sorted((study / "stages").glob("??"))[0])
    found = read_progress(study)
    seconds = StudyStore(study).seconds_per_stage()
    assert found.planned is not None and found.seconds_left == pytest.approx(
        (found.planned.stages - found.stages) * sum(seconds) / len(seconds)
    )
    trial = next(name for name in found.planned.trials if "er_rand" in name)
    write_failures(study, {trial: "the loss is NaN\x1b[31m", "no trial of the plan": "x"})
    assert main(["status", str(study)]) == 0
    said = capsys.readouterr().out
    assert "2 of 3 finished, 1 failed, 0 to go" in said and f"{trial}: the loss is NaN\\x1b[31m" in said


def test_while_a_driver_is_at_work(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(sorted((study / "stages").glob("??"))[0])
    now = time.time()
    for path in (study / "timings").glob("*.json"):
        os.utime(path, (now - 100, now - 100))
    with only_driver(study):
        assert driver_at(study)["pid"] == os.getpid()
        found = read_progress(study)
        assert found.seconds_left is None, "no stage was finished by this run"
        for number, path in enumerate(sorted((study / "timings").glob("*.json"))[:2]):
            os.utime(path, (now + 4 * (number + 1), now + 4 * (number + 1)))
        found = read_progress(study)
        assert found.planned is not None and found.seconds_left == pytest.approx(
            4 * (found.planned.stages - found.stages), abs=4
        )
        before = everything(study)
        assert main(["status", str(study)]) == 0
        said = capsys.readouterr().out
        assert f"process {os.getpid()} on " in said and "at the pace of this run" in said
        assert everything(study) == before
    assert driver_at(study) == {} == read_progress(study).driver


def test_a_killed_driver_is_not_at_work(study: Path) -> None:
    card = {"host": "elsewhere", "pid": 1, "since": "2026-01-01 00:00:00 UTC", "token": "x"}
    (study / NAME).write_text(json.dumps(card))
    assert driver_at(study) == {}
    (study / NAME).write_bytes(b"\xff{")
    assert driver_at(study) == {}
    with only_driver(study):
        pass


def test_watching_ends_with_the_driver(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = iter([{"host": "h", "pid": 1, "since": "x"}] * 2)
    monkeypatch.setattr(progress_module, "driver_at", lambda place: next(cards, {}))
    assert main(["status", str(study), "--watch", "0.01"]) == 0
    said = capsys.readouterr().out
    assert said.count("process 1 on h") == 2 and said.count("none is at work") == 1
    assert main(["status", str(study), "--watch", "0"]) == 2


def test_before_the_plan_is_written(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "study.yaml").unlink()
    assert main(["status", str(study)]) == 0
    assert "no study.yaml yet" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main(["status", str(tmp_path / "empty")]) == 2
    assert "is not a study" in capsys.readouterr().err


def test_a_damaged_plan_is_one_message(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("study.yaml", ".study.yaml.sha256"):
        (study / name).unlink()
    (study / "study.yaml").write_text("timestamps: [1]\ntrials: {a: b}\n")
    assert main(["status", str(study)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_study_in_an_object_store(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver_lock, "_SETTLE_SECONDS", 0.1)
    with object_store() as query:
        uri = f"s3://{BUCKET}/status/small?{query}"
        place = open_place(uri)
        copy_tree(study, place)
        assert main(["status", uri]) == 0
        said = capsys.readouterr().out
        assert "none is at work" in said and "2 of 3 finished, 1 to go" in said and "anna, t = " in said
        with only_driver(place):
            assert read_progress(place).driver["pid"] == os.getpid()
        assert main(["status", f"s3://{BUCKET}/nothing?{query}"]) == 2
        assert "no such study folder" in capsys.readouterr().err
