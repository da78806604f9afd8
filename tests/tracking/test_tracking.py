from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clstudy.cli.tracking import main
from clstudy.images import encode_png
from clstudy.records.results import result_path
from clstudy.settings.trial_spec import TrialSpec
from clstudy.study.tracking_rebuild import StudyReplay, complete_runs
from clstudy.tracking.addresses import runs_page
from clstudy.tracking.local_database import sqlite_uri
from clstudy.tracking.run_contents import (
    ERROR_TAG,
    REPORT_TAG,
    TRIAL_TAG,
    VERSION_TAG,
    curve_metric,
    loss_curve,
    run_names,
    step_time_ms,
    trial_params,
)
from clstudy.tracking.writer import MlflowWriter
from tests.support.small_study import make_study

STUDY = "hull_sizes"
PARAMS = {"identity": "person_00", "strategy": "er_hull", "buffer_size": 10, "learning_rate": 0.003, "seed": 0}
FACE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    copy = tmp_path / "mlflow.db"
    copy.write_bytes(empty_database.read_bytes())
    return sqlite_uri(copy)


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs_of(uri: str, experiment: str = STUDY) -> list[Any]:
    api = client(uri)
    return list(api.search_runs([api.get_experiment_by_name(experiment).experiment_id]))


def history(uri: str, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(row.step, row.value) for row in client(uri).get_metric_history(run_id, key)]


def tell_trial(
    writer: MlflowWriter, trial_id: str = "a", stages: int = 3, name: str = "person_00 er_hull K=10"
) -> None:
    writer.start_trial(trial_id, name, PARAMS, {"profile": "smoke"})
    for t in range(stages):
        writer.log_stage(trial_id, t, {"lpips": 0.5 - 0.1 * t, "forgetting": float("nan")}, {"faces": FACE + t})


class Sometimes:
    """A real client behind a line that can be cut; counts what gets through."""

    def __init__(self, uri: str):
        self.real = client(uri)
        self.up, self.tries = True, 0
        self.sent: list[str] = []
        self.refuse: Callable[[str, tuple[Any, ...]], Exception | None] = lambda name, arguments: None

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.tries += 1
            if not self.up:
                raise ConnectionError(f"no route for {name}\nand more")
            if (error := self.refuse(name, arguments)) is not None:
                raise error
            self.sent.append(name)
            return getattr(self.real, name)(*arguments, **named)

        return call


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def line(uri: str) -> Sometimes:
    return Sometimes(uri)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def writer(uri: str, line: Sometimes, clock: Clock, tmp_path: Path) -> MlflowWriter:
    return MlflowWriter(
        uri,
        STUDY,
        {"space": STUDY},
        artifact_location=tmp_path / "my study" / "images",
        make_client=lambda _: line,  # type: ignore[arg-type,return-value]
        clock=clock,
        sleep=clock.sleep,
    )


def test_a_trial_is_one_flat_run_that_a_person_can_tell_apart(writer: MlflowWriter, uri: str):
    tell_trial(writer)
    writer.finish_trial("a")
    (run,) = runs_of(uri)
    assert run.info.run_name == "person_00 er_hull K=10"
    assert run.info.status == "FINISHED"
    assert run.data.params == {key: str(value) for key, value in PARAMS.items()}
    assert run.data.tags[TRIAL_TAG] == "a"
    assert run.data.tags["profile"] == "smoke"
    assert "mlflow.parentRunId" not in run.data.tags
    assert history(uri, run.info.run_id, "lpips") == [(0, 0.5), (1, 0.4), (2, pytest.approx(0.3))]
    assert client(uri).get_experiment_by_name(STUDY).tags["space"] == STUDY


def test_values_that_are_not_there_are_not_logged(writer: MlflowWriter, uri: str, line: Sometimes):
    writer.start_trial("a", "a", {"buffer_size": None, "seed": 0}, {})
    batches = line.sent.count("log_batch")
    writer.log_stage("a", 0, {"bwt": float("nan"), "psnr": float("inf")})
    assert line.sent.count("log_batch") == batches
    (run,) = runs_of(uri)
    assert run.data.metrics == {}
    assert run.data.params == {"seed": "0"}


def test_one_batch_per_timestamp(writer: MlflowWriter, line: Sometimes):
    writer.start_trial("a", "a", PARAMS, {})
    before = line.sent.count("log_batch")
    writer.log_stage("a", 0, {f"metric_{i}": float(i) for i in range(30)})
    assert line.sent.count("log_batch") == before + 1
    assert "log_metric" not in line.sent


def test_images_load_and_lie_under_the_study(writer: MlflowWriter, uri: str, tmp_path: Path):
    tell_trial(writer, stages=4)
    (run,) = runs_of(uri)
    assert sorted(item.path for item in client(uri).list_artifacts(run.info.run_id, "faces")) == [
        f"faces/t{t:02d}.png" for t in range(4)
    ]
    local = Path(client(uri).download_artifacts(run.info.run_id, "faces/t03.png"))
    with Image.open(local) as image:
        assert np.array_equal(np.asarray(image), FACE + 3)
    assert list((tmp_path / "my study" / "images").rglob("t03.png"))


def test_without_a_folder_images_go_beside_the_database_not_into_the_current_directory(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    tell_trial(MlflowWriter(uri, STUDY), stages=1)
    assert list(elsewhere.iterdir()) == []
    assert list((tmp_path / "mlflow-images").rglob("t00.png"))


@pytest.mark.parametrize("wrong", [FACE.astype(np.float32), FACE[..., :2], FACE[0, 0]])
def test_wrong_images_are_refused(writer: MlflowWriter, wrong: np.ndarray):
    with pytest.raises(ValueError, match="expected uint8 pixels"):
        writer.log_stage("a", 0, {}, {"faces": wrong})
    assert encode_png(FACE[..., 0])


def test_a_killed_and_repeated_study_has_one_run_per_trial_and_one_row_per_step(uri: str, tmp_path: Path):
    for attempt, stages in enumerate((1, 2, 4, 4)):  # each attempt starts anew, logs everything again and goes further
        writer = MlflowWriter(uri, STUDY, artifact_location=tmp_path / "images")
        for trial_id in ("a", "b"):
            tell_trial(writer, trial_id, stages)
            if attempt >= 2:
                writer.finish_trial(trial_id)
        assert (writer.pending(), writer.dropped()) == (0, 0)
    runs = runs_of(uri)
    assert sorted(run.data.tags[TRIAL_TAG] for run in runs) == ["a", "b"]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert [step for step, _ in history(uri, run.info.run_id, "lpips")] == [0, 1, 2, 3]
        assert len(client(uri).list_artifacts(run.info.run_id, "faces")) == 4


def test_a_writer_that_joins_midway_finds_the_run(uri: str):
    MlflowWriter(uri, STUDY).start_trial("a", "nice name", PARAMS, {})
    MlflowWriter(uri, STUDY).log_stage("a", 0, {"lpips": 0.5})
    (run,) = runs_of(uri)
    assert (run.info.run_name, run.data.metrics) == ("nice name", {"lpips": 0.5})


def test_other_parameters_are_another_trial(uri: str):
    for steps in (48, 48, 96):
        writer = MlflowWriter(uri, STUDY)
        writer.start_trial("a", "a", {**PARAMS, "steps": steps}, {})
        writer.log_stage("a", 0, {"lpips": 1 / steps})
    (run,) = runs_of(uri)
    assert run.data.params["steps"] == "96"
    assert history(uri, run.info.run_id, "lpips") == [(0, 1 / 96)]


def test_failure_says_why_and_a_later_success_forgets_it(writer: MlflowWriter, uri: str):
    writer.start_trial("a", "a", PARAMS, {})
    writer.fail_trial("a", "photo t2/train/3.png is unreadable" + "!" * 9000)
    (run,) = runs_of(uri)
    assert run.info.status == "FAILED"
    assert run.data.tags[ERROR_TAG].startswith("photo t2/train/3.png is unreadable")
    writer.start_trial("a", "a", PARAMS, {})
    writer.finish_trial("a")
    (run,) = runs_of(uri)
    assert run.info.status == "FINISHED"
    assert ERROR_TAG not in run.data.tags
    with pytest.raises(ValueError, match="status is 'done'"):
        writer.finish_trial("a", "done")


def test_an_experiment_in_the_bin_is_restored(writer: MlflowWriter, uri: str, tmp_path: Path):
    api = client(uri)
    api.delete_experiment(api.create_experiment(STUDY, (tmp_path / "images").as_uri()))
    tell_trial(writer)
    assert len(runs_of(uri)) == 1


def test_an_outage_keeps_calls_in_order_and_is_said_once(
    writer: MlflowWriter, uri: str, line: Sometimes, clock: Clock, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING, "clstudy.tracking")
    writer.start_trial("a", "a", PARAMS, {})
    line.up = False
    tell_trial(writer, "a", stages=3)
    tell_trial(writer, "b", stages=2)
    writer.finish_trial("b")
    waiting = (1 + 2 * 3) + (1 + 2 * 2) + 1
    assert writer.pending() == waiting
    assert writer.flush(timeout_s=60) == waiting
    assert clock.now == 60
    assert len(caplog.messages) == 1
    assert "does not answer; the study goes on" in caplog.messages[0]
    assert "ConnectionError: no route" in caplog.messages[0]

    line.up, line.sent = True, []
    assert writer.flush() == 0
    assert writer.dropped() == 0
    assert len(caplog.messages) == 2
    assert [name for name in line.sent if name in ("create_run", "log_artifact", "set_terminated")] == [
        *["log_artifact"] * 3,
        "create_run",
        *["log_artifact"] * 2,
        "set_terminated",
    ]
    assert len(runs_of(uri)) == 2
    for run in runs_of(uri):
        stages = 3 if run.data.tags[TRIAL_TAG] == "a" else 2
        assert [step for step, _ in history(uri, run.info.run_id, "lpips")] == list(range(stages))


def test_during_an_outage_trials_do_not_wait(writer: MlflowWriter, line: Sometimes, clock: Clock):
    line.up = False
    for _ in range(10):
        tell_trial(writer, stages=1)
    assert line.tries == 1  # within the pause nothing knocks again
    assert clock.now == 0  # and nobody slept
    clock.now = 1.0
    line.up = True
    writer.log_stage("a", 9, {"lpips": 0.1})
    assert writer.pending() == 0  # the first call after the pause delivers everything


def test_a_run_created_just_before_the_line_broke_is_not_created_twice(
    writer: MlflowWriter, uri: str, line: Sometimes, clock: Clock
):
    real_create = line.real.create_run

    def create_then_lose_the_answer(*arguments: Any, **named: Any) -> Any:
        real_create(*arguments, **named)
        line.real.create_run = real_create
        raise ConnectionError("timed out")

    line.real.create_run = create_then_lose_the_answer
    tell_trial(writer)
    assert writer.pending() > 0
    assert writer.flush() == 0
    assert len(runs_of(uri)) == 1


def test_a_call_that_mlflow_refuses_is_dropped_and_said(
    writer: MlflowWriter, uri: str, caplog: pytest.LogCaptureFixture
):
    writer.start_trial("a", "a", PARAMS, {})
    writer.log_stage("a", 0, {"bad*name": 1.0})
    writer.log_stage("a", 1, {"lpips": 0.4})
    assert (writer.pending(), writer.dropped()) == (0, 1)
    assert "does not take the metrics of t=0 of trial a" in caplog.text
    (run,) = runs_of(uri)
    assert run.data.metrics == {"lpips": 0.4}


def test_a_call_that_always_breaks_does_not_hold_up_the_rest(writer: MlflowWriter, uri: str, line: Sometimes):
    line.refuse = lambda name, arguments: OSError("disk full") if name == "log_artifact" else None
    tell_trial(writer, stages=2)
    assert writer.flush(timeout_s=120) == 0
    assert writer.dropped() == 2
    (run,) = runs_of(uri)
    assert [step for step, _ in history(uri, run.info.run_id, "lpips")] == [0, 1]


def test_a_loss_curve_is_one_batch_with_the_stage_and_few_points(writer: MlflowWriter, uri: str, line: Sometimes):
    losses = np.linspace(1.0, 0.0, 1000, dtype=np.float32)
    writer.start_trial("a", "a", PARAMS, {})
    before = len(line.sent)
    for _ in range(2):  # as after a kill
        writer.log_stage("a", 3, {"lpips": 0.5}, losses=losses)
    assert line.sent[before:] == ["log_batch"] * 2
    (run,) = runs_of(uri)
    points = history(uri, run.info.run_id, curve_metric(3))
    steps, values = zip(*points, strict=True)
    assert len(points) == 60 and steps[-1] == 1000 and list(steps) == sorted(set(steps))
    starts = (0, *steps[:-1])
    expected = [float(np.mean(losses[a:b].astype(float))) for a, b in zip(starts, steps, strict=True)]
    assert values == pytest.approx(expected)
    assert history(uri, run.info.run_id, "lpips") == [(3, 0.5)]
    assert loss_curve(losses[:3]) == {1: 1.0, 2: pytest.approx(0.999, abs=1e-3), 3: pytest.approx(0.998, abs=1e-3)}
    assert loss_curve(losses[:0]) == {}


def test_joint_training_has_no_buffer_size_and_lower_has_none_stored():
    spec = TrialSpec(identity="a", strategy="x", buffer_size=None, learning_rate=0.1, seed=0)
    assert trial_params(spec, profile="p", timestamps=3, joint=True)["buffer_size"] is None
    assert trial_params(spec, profile="p", timestamps=3, joint=False)["buffer_size"] == 0
    assert "version" not in trial_params(spec, profile="p", timestamps=3, joint=False)


def test_another_version_is_another_run_also_where_an_earlier_clstudy_had_it_as_a_parameter(uri: str):
    old = MlflowWriter(uri, STUDY)
    old.start_trial("a", "a", {**PARAMS, "version": "v1"}, {})
    (first,) = runs_of(uri)
    for version, same in (("v1", True), ("v1", True), ("v2", False)):
        MlflowWriter(uri, STUDY).start_trial("a", "a", PARAMS, {VERSION_TAG: version})
        (run,) = runs_of(uri)
        assert (run.info.run_id == first.info.run_id) is same
        assert run.data.tags[VERSION_TAG] == version
    assert "version" not in run.data.params


def test_the_report_comes_last_also_where_an_earlier_clstudy_had_put_it_first(uri: str, tmp_path: Path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("<p>answer</p>")
    api = client(uri)
    writer = MlflowWriter(uri, STUDY)
    tell_trial(writer)
    api.create_run(writer.experiment_id(), int(time.time() * 1000), {REPORT_TAG: "yes"}, "report")
    for _ in range(2):
        MlflowWriter(uri, STUDY).attach_report(tmp_path / "report")
        runs = api.search_runs([writer.experiment_id()], order_by=["attributes.start_time DESC"])
        assert [run.info.run_name for run in runs] == ["person_00 er_hull K=10", "report"]
    assert api.list_artifacts(runs[-1].info.run_id, "report")


def test_the_address_of_an_experiments_runs(writer: MlflowWriter, uri: str, line: Sometimes):
    tell_trial(writer)
    experiment = client(uri).get_experiment_by_name(STUDY)
    assert runs_page("http://127.0.0.1:5000/", writer.experiment_id()).endswith(
        f"/#/experiments/{experiment.experiment_id}/runs"
    )
    line.up = False
    assert MlflowWriter(uri, "other", make_client=lambda _: line).experiment_id() is None  # type: ignore[arg-type,return-value]
    assert runs_page("http://server:5000/", None) == "http://server:5000"


def test_the_time_of_a_step_is_no_clock():
    assert [step_time_ms(t) - step_time_ms(0) for t in range(3)] == [0, 1000, 2000]
    assert step_time_ms(0) == step_time_ms(0)


# --- rebuilding from Parquet -----------------------------------------------------------------------------------------

TRIALS = {
    "anna-lower-lr0.003-s0": 3,
    "anna-er_rand-k2-lr0.003-s0": 3,
    "anna-mergan_jtr-k2-lr0.003-s0": 3,
    "anna-upper-lr0.003-s0": 1,
}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A study that was tracked while it ran (in ``live.db`` beside its photos), with a report."""
    folder = tmp_path_factory.mktemp("live")
    shutil.copy(empty_database, folder / "live.db")
    strategies = ("lower", "er_rand", "mergan_jtr", "upper")
    study = make_study(folder, strategies, mlflow=sqlite_uri(folder / "live.db"))
    (study / "report").mkdir()
    (study / "report" / "index.html").write_text("<p>answer</p>")
    return study


@pytest.fixture
def copy(live: Path, tmp_path: Path) -> Path:
    """The study somewhere else, to be harmed; its photos are not beside it."""
    shutil.copytree(live, tmp_path / "copy", ignore=shutil.ignore_patterns("mlflow-artifacts"))
    return tmp_path / "copy"


def photos(live: Path) -> str:
    return str(live.parents[1] / "photos")


def told(uri: str) -> dict[str, dict[str, Any]]:
    """Everything about a study's runs but ids and clock: trial -> name, status, params, tags, metrics, pictures."""
    found = {}
    for run in runs_of(uri, "small"):
        root = Path(run.info.artifact_uri.removeprefix("file://"))
        found[run.data.tags.get(TRIAL_TAG, run.info.run_name)] = {
            "name": run.info.run_name,
            "status": run.info.status,
            "params": run.data.params,
            "tags": run.data.tags,
            "metrics": {
                key: [
                    (row.step, row.timestamp, row.value) for row in client(uri).get_metric_history(run.info.run_id, key)
                ]
                for key in run.data.metrics
            },
            "files": {
                file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
                for file in sorted(root.rglob("*"))
                if file.is_file()
            },
        }
    return found


def test_rebuilt_runs_equal_the_live_ones_and_again_changes_nothing(live: Path, uri: str):
    during = told(sqlite_uri(live.parents[1] / "live.db"))
    assert set(during) == set(TRIALS)
    assert "buffer/t01.png" in during["anna-er_rand-k2-lr0.003-s0"]["files"]
    assert "buffer/t01.png" in during["anna-mergan_jtr-k2-lr0.003-s0"]["files"]
    assert "buffer_size" not in during["anna-upper-lr0.003-s0"]["params"], "it would stretch the axis of every chart"
    assert during["anna-lower-lr0.003-s0"]["params"]["buffer_size"] == "0"
    for trial, stages in TRIALS.items():
        one = during[trial]
        assert "version" not in one["params"] and len(one["tags"][VERSION_TAG]) == 12
        curves = [key for key in one["metrics"] if key.startswith("loss_by_step/")]
        assert len(curves) == stages
        for key in curves:
            steps = [step for step, _, _ in one["metrics"][key]]
            assert steps == list(range(1, len(steps) + 1)) and len(steps) >= 4, "a point per optimiser step"
    ids = []
    for _ in range(2):
        assert main(["rebuild", str(live), "--to", uri, "--data", photos(live)]) == 0
        rebuilt = told(uri)
        report = rebuilt.pop("report")
        assert rebuilt == during, "bit for bit: values, times, pictures"
        assert (report["status"], report["params"], report["metrics"]) == ("FINISHED", {}, {})
        assert list(report["files"]) == ["report/index.html"]
        ids.append({run.info.run_id for run in runs_of(uri, "small")})
    assert ids[0] == ids[1]
    tags = client(uri).get_experiment_by_name("small").tags
    (report_run,) = [run for run in runs_of(uri, "small") if REPORT_TAG in run.data.tags]
    assert report_run.info.run_id in tags[REPORT_TAG] and tags["clstudy.profile"] == "small"


def test_rebuilding_into_the_live_database_goes_on_with_its_runs(live: Path, tmp_path: Path):
    other = tmp_path / "live.db"
    shutil.copy(live.parents[1] / "live.db", other)
    uri = sqlite_uri(other)
    before, runs = told(uri), {run.info.run_id for run in runs_of(uri, "small")}
    assert main(["rebuild", str(live), "--to", uri, "--data", photos(live)]) == 0
    after = told(uri)
    assert after.pop("report")["files"]
    assert after == before
    assert {run.info.run_id for run in runs_of(uri, "small")} > runs


def test_what_is_not_there_is_left_out_and_said(copy: Path, uri: str, capsys: pytest.CaptureFixture[str]):
    failed, gone = "anna-lower-lr0.003-s0", "anna-mergan_jtr-k2-lr0.003-s0"
    (copy / "failures.json").write_text(json.dumps({failed: "photo t2/train/0.png is unreadable"}))
    for trial in (failed, gone):
        result_path(copy, trial).unlink()
    shutil.rmtree(copy / "report")
    stages = sorted((copy / "stages").glob("??/*/stage.json"))
    joint = next(file for file in stages if len(json.loads(file.read_text())["request"]["new"]) == 3)
    shutil.rmtree(joint.parent)
    assert main(["rebuild", str(copy), "--to", uri]) == 1, "a trial without rows"
    said = capsys.readouterr().out
    assert "2 finished and 1 failed trials" in said
    assert "the picture of a buffer whose photos are not here (say where: --data FOLDER)" in said
    assert "the training loss and pictures of a stage that is not stored any more" in said
    assert "the report, which is not there" in said
    assert f"1 trials are unfinished and have no run: {gone}" in said
    runs = told(uri)
    assert set(runs) == set(TRIALS) - {gone}
    assert runs[failed]["status"] == "FAILED" and "t2/train/0.png" in runs[failed]["tags"][ERROR_TAG]
    upper = runs["anna-upper-lr0.003-s0"]
    assert upper["files"] == {} and "train/loss" not in upper["metrics"]
    assert len(upper["metrics"]["ap/reconstruction_lpips"]) == 1, "metrics come from the rows"


def test_a_rebuild_that_cannot_be_is_one_message(live: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for arguments, expected in (
        ([str(tmp_path), "--to", "sqlite:///x.db"], "is not a study"),
        ([str(live), "--to", "mlflow.db"], "'mlflow.db' is not a tracking URI; expected sqlite:///FILE"),
        ([str(live), "--to", sqlite_uri(tmp_path / "x.db"), "--data", str(tmp_path / "none")], "unknown data set"),
    ):
        assert main(["rebuild", *arguments]) == 2
        assert expected in capsys.readouterr().err


def test_run_names_are_those_of_a_study():
    for rates, seeds in (((0.1,), (0,)), ((0.1, 0.003), (0, 1))):
        specs = tuple(
            TrialSpec(identity="anna", strategy=strategy, buffer_size=size, learning_rate=rate, seed=seed)
            for strategy, size in (("lower", None), ("er_rand", 3))
            for rate in rates
            for seed in seeds
        )
        assert len(set(run_names(specs).values())) == len(specs)


def test_rebuilding_needs_neither_torch_nor_ray():
    code = "import sys, clstudy.study.tracking_rebuild; print(sorted({'torch', 'ray', 'mlflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# --- a real server ---------------------------------------------------------------------------------------------------


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_not_there_costs_little(port: int):
    writer = MlflowWriter(f"http://127.0.0.1:{port}", STUDY)
    started = time.monotonic()
    tell_trial(writer)
    assert writer.flush(timeout_s=1.0) == 7
    assert time.monotonic() - started < 10


@pytest.fixture
def start_server(port: int, tmp_path: Path, empty_database: Path) -> Iterator[Callable[[], str]]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> str:
        copy = tmp_path / "server.db"
        copy.write_bytes(empty_database.read_bytes())
        options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        options += ["--backend-store-uri", sqlite_uri(copy), "--artifacts-destination", str(tmp_path / "served")]
        quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        command = [sys.executable, "-m", "mlflow", "server", *options]
        with (tmp_path / "server.log").open("wb") as log:
            started.append(subprocess.Popen(command, env=quiet, stdout=log, stderr=log, start_new_session=True))
        return f"http://127.0.0.1:{port}"

    yield start
    for process in started:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def test_a_server_that_comes_later_gets_everything(port: int, start_server: Callable[[], str]):
    uri = f"http://127.0.0.1:{port}"
    writer = MlflowWriter(uri, STUDY)
    tell_trial(writer)
    writer.finish_trial("a")
    assert writer.pending() == 8
    assert start_server() == uri
    assert writer.flush(timeout_s=90) == 0
    assert writer.dropped() == 0
    (run,) = runs_of(uri)
    assert run.info.status == "FINISHED"
    assert [step for step, _ in history(uri, run.info.run_id, "lpips")] == [0, 1, 2]
    with Image.open(client(uri).download_artifacts(run.info.run_id, "faces/t02.png")) as image:
        assert np.array_equal(np.asarray(image), FACE + 2)


def test_a_database_that_was_begun_by_a_killed_process_does_not_stand_in_the_way(tmp_path: Path) -> None:
    """MLflow's migrations take seconds; half done at the final place they would never be finished."""
    file = tmp_path / "mlflow.db"
    code = "import sys; from clstudy.tracking.writer import MlflowWriter as W; W(sys.argv[1], 'x').attach_report(None)"
    process = subprocess.Popen([sys.executable, "-c", code, sqlite_uri(file)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(
        path.stat().st_size > 50_000 for path in tmp_path.rglob("*.db") if path.exists()
    ):
        time.sleep(0.005)
    process.kill()
    process.wait()
    begun = [path.stat().st_size for path in tmp_path.rglob("*.db")]
    assert begun and max(begun) < 800_000, "it was killed in the middle"
    writer = MlflowWriter(sqlite_uri(file), STUDY)
    writer.start_trial("a", "a", {}, {})
    assert writer.flush(60) == 0
    assert [run.info.run_name for run in runs_of(sqlite_uri(file))] == ["a"]


class Bereaved(MlflowWriter):
    """Loses its database under way."""

    def __init__(self, uri: str, study: Path, at_stage: int, *, empty: bool):
        super().__init__(uri, "small", artifact_location=study.parent / "pictures")
        self._file, self._left, self._empty = Path(uri.removeprefix("sqlite:///")), at_stage, empty

    def log_stage(self, *arguments: Any, **named: Any) -> None:
        self._left -= 1
        if self._left == 0:
            self._file.unlink()
            if self._empty:  # as SQLite leaves it, where something else opens it
                self._file.touch()
        super().log_stage(*arguments, **named)


@pytest.mark.parametrize(("at_stage", "empty"), [(1, False), (5, True)])
def test_a_database_that_is_deleted_under_a_study_is_made_whole_from_the_rows(
    live: Path, uri: str, caplog: pytest.LogCaptureFixture, at_stage: int, empty: bool
):
    during = told(sqlite_uri(live.parents[1] / "live.db"))
    writer = Bereaved(uri, live, at_stage, empty=empty)
    StudyReplay(live, writer, photos(live)).run()
    assert writer.flush(60) == 0 and writer.dropped() == 0
    assert "deleted or replaced" in caplog.text
    assert told(uri) != during, "what was in it is gone"
    assert complete_runs(live, MlflowWriter(uri, "small"), photos(live)) > 0
    assert told(uri) == during
    assert complete_runs(live, MlflowWriter(uri, "small"), photos(live)) == 0


def test_a_driver_says_that_the_database_was_deleted(tmp_path: Path):
    from clstudy.cluster.watcher import Watcher

    uri, heard = sqlite_uri(tmp_path / "mlflow.db"), []
    settings = SimpleNamespace(tracking_uri=uri, out=tmp_path / "study")
    watcher = Watcher(settings, None, None, None, None, heard.append)  # type: ignore[arg-type]
    watcher._check_database()  # before the recorder made it
    (tmp_path / "mlflow.db").write_bytes(b"a database")
    watcher._check_database()
    assert not heard
    (tmp_path / "mlflow.db").unlink()
    for _ in range(3):
        watcher._check_database()
    assert len(heard) == 1 and f"clstudy.tracking rebuild {tmp_path / 'study'} --to {uri}" in heard[0]
