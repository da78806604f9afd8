"""The main job through the real command line: Ray, MLflow on SQLite, Parquet, real photos, real kills.

What needs no Ray is asked of ``main`` in this process. Kills, signals, damage, budgets and full disks, each a driver of
its own, are slow, and ``.ci/run`` has some of them.
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from clstudy.analysis.matrix import load_rows
from clstudy.cli.run import main
from clstudy.identities.synthetic import make_synthetic
from clstudy.records.rows import RESULT_SCHEMA
from clstudy.strategies import STRATEGIES
from clstudy.tracking.local_database import sqlite_uri
from clstudy.tracking.run_contents import TRIAL_TAG
from tests.support.processes import family, kill_after
from tests.support.smoke_study import (
    SmokeStudy,
    copy_smoke_photos,
    copy_smoke_study,
    smoke_arguments,
    smoke_command,
    written_files,
)

TRIAL_RUNS = f"tags.`{TRIAL_TAG}` LIKE '%'"
"""Filter: all runs of an experiment but the one that holds the report."""
ENV = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "120"}
PERSON = "person_00"
SMALL = ["--identities", PERSON]
"""Half of ``smoke``: the rows must be those that the whole of it has of this person."""


def run(
    folder: Path, *options: str, space: str = "smoke", env: Mapping[str, str] = ENV
) -> subprocess.CompletedProcess[str]:
    command = smoke_command(folder, *options, space=space)
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, cwd=folder)


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run`` without a process of its own, for what starts no Ray."""

    def run_main(folder: Path, *options: str, space: str = "smoke") -> subprocess.CompletedProcess[str]:
        arguments = smoke_arguments(folder, *options, space=space)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("COLUMNS", "120")
        capsys.readouterr()
        code = main(arguments)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run_main


def rows_of_person(given: SmokeStudy) -> pa.Table:
    """What a run with ``SMALL`` must give."""
    rows = load_rows(given.study)
    return rows.filter(pa.compute.equal(rows["identity"], PERSON))


@pytest.fixture
def photos(smoke_study: SmokeStudy, tmp_path: Path) -> Path:
    """A folder with the photos of ``smoke`` and nothing else."""
    return copy_smoke_photos(smoke_study, tmp_path)


def markers(folder: Path) -> dict[str, int]:
    """Every finished stage and the moment it was written."""
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in (folder / "runs" / "study" / "stages").glob("??/*/COMPLETE")
    }


def start_and_await_a_stage(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start the driver and return it as soon as it has finished a first stage."""
    driver = subprocess.Popen(
        smoke_command(folder, *options),
        env=ENV,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 450
    while not markers(folder) and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return driver


def listeners(pid: int) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Addresses on which a process and its descendants accept connections."""
    inodes = set()
    for member in family(pid):
        with suppress(OSError):
            links = [os.readlink(file) for file in Path(f"/proc/{member}/fd").iterdir()]
            inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                words = bytes.fromhex(fields[1].partition(":")[0])
                raw = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                address = ipaddress.ip_address(raw)
                found.append(getattr(address, "ipv4_mapped", None) or address)
    return found


def kill_at(folder: Path, moments: Sequence[tuple[int, float]], *options: str, space: str = "smoke") -> dict[str, int]:
    """Start the driver and SIGKILL it, once for each (finished stages, seconds after that); return all markers.

    Asserts that no stage that was finished before a kill is computed again after it.
    """
    seen: dict[str, int] = {}
    for wanted, wait in moments:
        kill_after(
            smoke_command(folder, *options, space=space), folder, partial(markers, folder), wanted, ENV, wait=wait
        )
        now = markers(folder)
        assert len(now) >= wanted
        assert all(now[key] == seen[key] for key in seen), "a finished stage was computed twice"
        seen = now
    return seen


def test_smoke_gives_rows_tables_and_says_where(smoke_study: SmokeStudy) -> None:
    study = smoke_study.study
    rows = load_rows(study)
    assert rows.schema.equals(RESULT_SCHEMA)
    trials = set(rows["trial"].to_pylist())
    assert len(trials) == 6
    cells = rows.group_by(["trial", "train_timestamp", "test_timestamp", "protocol", "metric"]).aggregate(
        [([], "count_all")]
    )
    # lower and er_hull: 6 cells of t >= k; upper: the last row; 3 reconstruction metrics and 1 synthesis metric
    assert cells.num_rows == 2 * (6 + 6 + 3) * 4
    reconstruction = cells.filter(pa.compute.equal(cells["protocol"], "reconstruction"))
    assert set(reconstruction["count_all"].to_pylist()) == {2}, "one row per test photo"
    for expected in ("6 trials", "stages", "AIP", "Forgetting", "mlflow ui"):
        assert expected in smoke_study.stdout, smoke_study.stdout
    for name in ("index.html", "summary.csv", "paired.csv", "tables.md", "tables.tex", "evidence.csv"):
        assert (study / "report" / name).stat().st_size > 100
    settings = (study / "study.yaml").read_text()
    assert "data_digests" in settings and "versions" in settings


@pytest.fixture
def neighbour(smoke_study: SmokeStudy, tmp_path: Path) -> Path:
    """The finished study as ``last_week``, beside where a study of this test goes; its folder."""
    folder = copy_smoke_photos(smoke_study, tmp_path)
    return shutil.copytree(smoke_study.study, folder / "runs" / "last_week")


def test_a_plan_says_what_other_studies_have(
    neighbour: Path, run_here: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    folder = neighbour.parents[1]
    planned = run_here(folder, "--dry-run")
    assert "12 done already, 0 to compute" in planned.stdout, planned.stdout
    assert "12 of those done already are taken over from other studies in this storage: 12 in last_week" in (
        " ".join(planned.stdout.split())
    )
    alone = run_here(folder, "--dry-run", "--alone")
    assert "0 done already" in alone.stdout and "taken over" not in alone.stdout
    other_numbers = run_here(folder, "--dry-run", "--set", "trainer.epochs=1")
    assert "0 done already" in other_numbers.stdout, "other settings are other keys"
    on_a_cluster = run_here(folder, "--dry-run", "--address", "127.0.0.1:1")
    assert "0 done already" in on_a_cluster.stdout, "its processors are not known yet"
    assert not (folder / "runs" / "study").exists()


def test_finished_stages_of_another_study_are_taken_over(smoke_study: SmokeStudy, neighbour: Path) -> None:
    folder = neighbour.parents[1]
    before = written_files(neighbour)
    ran = run(folder, *SMALL)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "0 stages computed" in ran.stdout, ran.stdout
    assert written_files(neighbour) == before, "the other study is only read"
    shutil.rmtree(neighbour)
    study = folder / "runs" / "study"
    assert load_rows(study).equals(rows_of_person(smoke_study))
    theirs, ours = (
        {path.parent.name for path in (given / "weights").glob("??/*/COMPLETE")} for given in (smoke_study.study, study)
    )
    assert ours and ours <= theirs, "the weights of last stages come along: an export needs them"
    again = run(folder, *SMALL, "--dry-run")
    assert "0 to compute" in again.stdout and "taken over" not in again.stdout, again.stdout


def test_no_process_of_a_run_reaches_beyond_this_machine(smoke_study: SmokeStudy) -> None:
    """Driver, Ray's processes and workers; that the watch sees what leaves is shown in test_telemetry.py."""
    outside = [contact for contact in smoke_study.contacts if not contact.local]
    assert not outside, "\n".join(map(str, outside))
    processes = {contact.process for contact in smoke_study.contacts}
    for kind in ("clstudy.run", "raylet", "gcs_server", "ray::"):  # else this would say nothing of them
        assert any(kind in process for process in processes), processes
    left = {path.name for path in smoke_study.home.rglob("*") if path.is_file()}
    assert not left & {"deviceid", "onnxruntime.db", "telemetry.json"}, "an ID was made up to report under"
    assert "auth_token" not in left, "a run's token is its own"


def test_nobody_else_can_read_what_a_study_writes_and_ray_leaves_nothing(smoke_study: SmokeStudy) -> None:
    """Of all writers: driver, workers, MLflow's, the report's; the usual umask of a shell lets others read."""
    written = [smoke_study.folder / "runs", *(smoke_study.folder / "runs").rglob("*")]
    assert {"mlflow.db", "data", "study"} <= {path.name for path in written}
    assert [f"{path} {path.lstat().st_mode:o}" for path in written if path.lstat().st_mode & 0o077] == []
    assert smoke_study.left_by_ray == ()
    assert not (smoke_study.study / "ray").exists()


@pytest.mark.slow
def test_a_tracking_servers_password_is_nowhere(tmp_path: Path) -> None:
    """A whole study with a server that is away (every message of an outage is said), and again when it is finished."""
    canary, token = "kanarienvogel", "tok3n-of-nobody"
    environment = {**ENV, "MLFLOW_TRACKING_URI": f"http://someone:{canary}@127.0.0.1:9/x?access_token={token}"}
    for _ in range(2):
        done = subprocess.run(
            smoke_command(tmp_path, *SMALL), env=environment, capture_output=True, text=True, timeout=900, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said = done.stdout + done.stderr
        assert "MLflow    http://***@127.0.0.1:9/x?access_token=***" in said
        assert canary not in said and token not in said
    for path in tmp_path.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert canary.encode() not in content and token.encode() not in content, path


def test_mlflow_has_one_flat_run_per_trial_with_steps_and_images(smoke_study: SmokeStudy) -> None:
    client = MlflowClient(sqlite_uri(smoke_study.folder / "runs" / "mlflow.db"))
    experiment = client.get_experiment_by_name("smoke")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], TRIAL_RUNS)
    assert len({run.data.tags[TRIAL_TAG] for run in runs}) == len(runs) == 6
    rows = load_rows(smoke_study.study)
    for one in runs:
        assert one.info.status == "FINISHED"
        joint = one.data.params["strategy"] == "upper"
        history = client.get_metric_history(one.info.run_id, "ap/reconstruction_lpips")
        assert [entry.step for entry in history] == ([2] if joint else [0, 1, 2])
        mine = rows.filter(pa.compute.equal(rows["trial"], one.data.tags[TRIAL_TAG])).to_pandas()
        last = mine[(mine.train_timestamp == 2) & (mine.metric == "lpips")]
        assert history[-1].value == pytest.approx(last.groupby("test_timestamp").value.mean().mean())
        assert ("aip/reconstruction_lpips" in one.data.metrics) != joint
        faces = [file.path for file in client.list_artifacts(one.info.run_id, "faces")]
        assert len(faces) == (1 if joint else 3)
    assert len({one.info.run_name for one in runs}) == 6
    (report,) = [run for run in client.search_runs([experiment.experiment_id]) if TRIAL_TAG not in run.data.tags]
    assert not report.data.metrics and not report.data.params, "charts and comparisons leave it out"
    assert "report/index.html" in [file.path for file in client.list_artifacts(report.info.run_id, "report")]


def test_the_same_command_again_computes_nothing(
    smoke_study: SmokeStudy, tmp_path: Path, run_here: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    folder = copy_smoke_study(smoke_study, tmp_path)
    before = markers(folder)
    done = run_here(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing to compute" in done.stdout and markers(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("harm", [pytest.param("truncate", marks=pytest.mark.ci_slow), "delete"])
def test_only_a_damaged_stage_is_computed_again(smoke_study: SmokeStudy, tmp_path: Path, harm: str) -> None:
    folder = copy_smoke_study(smoke_study, tmp_path)
    before, rows = markers(folder), load_rows(folder / "runs" / "study")
    victim = sorted(before)[len(before) // 2]
    file = folder / "runs" / "study" / "stages" / victim[:2] / victim / "rows.parquet"
    if harm == "delete":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:1000])
    # the data set's photos lie beside the study and were copied with it
    done = run(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 stages computed" in done.stdout, done.stdout
    after = markers(folder)
    assert {key for key in after if after[key] != before.get(key)} == {victim}
    assert load_rows(folder / "runs" / "study").equals(rows)


@pytest.mark.slow
def test_a_killed_driver_goes_on_and_the_rows_are_the_same(smoke_study: SmokeStudy, photos: Path) -> None:
    """A SIGKILL at a seeded moment inside a stage (three: the next test; thirty: tests/cluster/test_chaos.py).

    Gone on by a user whose home folder is not there and cannot be made.
    """
    rng = random.Random(20261121)
    moments = [(3, rng.uniform(0.3, 0.9))]
    seen = kill_at(photos, moments, *SMALL, "--max-concurrent", "1")
    homeless = {"PATH": os.environ["PATH"], "HOME": "/proc/clstudy", "COLUMNS": "120"}
    done = run(photos, *SMALL, env=homeless)
    assert done.returncode == 0, done.stdout + done.stderr
    now = markers(photos)
    assert all(now[key] == seen[key] for key in seen), "a finished stage was computed twice"
    assert load_rows(photos / "runs" / "study").equals(rows_of_person(smoke_study))
    client = MlflowClient(sqlite_uri(photos / "runs" / "mlflow.db"))
    experiment = client.get_experiment_by_name("smoke")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], TRIAL_RUNS)
    assert len(runs) == 3 and {one.info.status for one in runs} == {"FINISHED"}
    for one in runs:
        steps = [entry.step for entry in client.get_metric_history(one.info.run_id, "ap/reconstruction_id")]
        assert len(steps) == len(set(steps))


@pytest.mark.slow
def test_every_strategy_goes_on_after_kills_with_the_same_rows(smoke_study: SmokeStudy, tmp_path: Path) -> None:
    """All of ``replay_families`` at the size of ``smoke``: replays, Fisher terms and memories are resumed too."""
    options = ["--profile", "smoke", "--identities", "person_00", "--data", "synthetic"]
    options += ["--timestamps", "3", "--set", "data.train=4", "--set", "data.test=2"]
    space = "replay_families"
    folders = [tmp_path / "whole", tmp_path / "killed"]
    for folder in folders:
        copy_smoke_photos(smoke_study, folder)
    whole, killed = folders
    rng = random.Random(3)
    seen = kill_at(killed, [(wanted, rng.uniform(0.0, 2.0)) for wanted in (2, 7, 11)], *options, space=space)
    for folder in folders:
        done = run(folder, *options, space=space)
        assert done.returncode == 0, done.stdout + done.stderr
    assert all(markers(killed)[key] == moment for key, moment in seen.items()), "a finished stage was computed twice"
    rows = load_rows(whole / "runs" / "study")
    faces = {name for name, kind in STRATEGIES.items() if not kind.needs_prior}  # the others: test_run_class_gan
    assert set(rows["strategy"].to_pylist()) == faces
    assert load_rows(killed / "runs" / "study").equals(rows)


def press_ctrl_c(driver: subprocess.Popen[str]) -> None:
    os.killpg(driver.pid, signal.SIGINT)  # a terminal's goes to all of a session's foreground processes


@pytest.mark.slow
@pytest.mark.parametrize(
    "tell",
    [pytest.param(press_ctrl_c, marks=pytest.mark.ci_slow), subprocess.Popen.terminate],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_signal_lets_the_stages_in_flight_finish_and_ends_with_130(
    smoke_study: SmokeStudy, photos: Path, tell: Callable[[subprocess.Popen[str]], None]
) -> None:
    driver = start_and_await_a_stage(photos, *SMALL, "--max-concurrent", "1")
    listening = listeners(driver.pid)
    before = len(markers(photos))
    tell(driver)
    stdout, _ = driver.communicate(timeout=400)
    assert driver.returncode == 130, stdout
    assert "finishing the stages in flight" in stdout and "run the same command to go on" in stdout
    # one trial at a time, so one stage was in flight (another may have ended just before it was told to stop)
    assert "Traceback" not in stdout and before < len(markers(photos)) <= before + 2, stdout
    assert listening and all(address.is_loopback for address in listening), "nothing is open to other machines"
    (session,) = json.loads((photos / "runs" / "study" / "sessions.json").read_text())
    assert session["ended"] == "interrupted" and session["stages_computed"] == len(markers(photos))
    seen = markers(photos)
    done = run(photos, *SMALL)
    assert done.returncode == 0 and seen.items() <= markers(photos).items(), "nothing was computed again"
    assert load_rows(photos / "runs" / "study").equals(rows_of_person(smoke_study))


@pytest.mark.slow
def test_ctrl_c_twice_ends_at_once(photos: Path) -> None:
    driver = start_and_await_a_stage(photos, *SMALL)
    press_ctrl_c(driver)
    time.sleep(0.2)
    press_ctrl_c(driver)
    stdout, _ = driver.communicate(timeout=300)
    assert driver.returncode == 130 and "run the same command to go on" in stdout and "Traceback" not in stdout, stdout


def scores_in_mlflow(folder: Path) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """(step, value) of every LPIPS and ID score of every trial, all of them finished."""
    client = MlflowClient(sqlite_uri(folder / "runs" / "mlflow.db"))
    experiment = client.get_experiment_by_name("smoke")
    assert experiment is not None
    told = {}
    for one in client.search_runs([experiment.experiment_id], TRIAL_RUNS):
        assert one.info.status == "FINISHED"
        for name in one.data.metrics:
            if name.endswith(("_lpips", "_id")):
                history = client.get_metric_history(one.info.run_id, name)
                told[one.data.tags[TRIAL_TAG], name] = sorted((entry.step, entry.value) for entry in history)
    assert told
    return told


@pytest.mark.slow
def test_mlflow_is_made_whole_where_its_database_is_deleted_during_a_run(smoke_study: SmokeStudy, photos: Path) -> None:
    driver = start_and_await_a_stage(photos, *SMALL)
    database = photos / "runs" / "mlflow.db"
    while not database.exists() and driver.poll() is None:
        time.sleep(0.05)
    before = len(markers(photos))
    for file in database.parent.glob("mlflow.db*"):
        file.unlink()
    stdout, _ = driver.communicate(timeout=900)
    assert driver.returncode == 0 and before < len(markers(photos)), stdout
    # the driver looks twice a second; what it did not see, the recorder could not deliver
    assert "was deleted or replaced" in stdout or "MLflow calls were not delivered" in stdout, stdout
    assert "in MLflow completed from the rows" in stdout, stdout
    whole = scores_in_mlflow(smoke_study.folder)
    assert scores_in_mlflow(photos) == {key: told for key, told in whole.items() if key[0].startswith(PERSON)}


@pytest.mark.slow
def test_a_second_driver_is_told_and_changes_nothing(photos: Path) -> None:
    first = start_and_await_a_stage(photos, *SMALL)
    second = run(photos, *SMALL)
    assert second.returncode == 4 and f"process {first.pid} on" in second.stderr, second.stderr
    stdout, _ = first.communicate(timeout=900)
    assert first.returncode == 0, stdout


@pytest.mark.slow
def test_a_rate_that_explodes_fails_its_trials_only_and_says_when(photos: Path) -> None:
    space = photos / "mine.yaml"
    space.write_text(GOOD_YAML.format(identity="[person_00]", strategy="[lower]", size="[3]", rate="[0.003, 1000.0]"))
    done = run(photos, "--seeds", "3", space=str(space))
    assert done.returncode == 1, done.stdout
    study = photos / "runs" / "study"
    (message,) = json.loads((study / "failures.json").read_text()).values()
    assert "timestamp 0" in message and "step" in message and "smaller learning rate" in message
    assert [path.stem for path in (study / "results").glob("*.parquet")] == ["person_00-lower-lr0.003-s3"]


@pytest.mark.slow
def test_a_budget_refuses_or_stops_cleanly(smoke_study: SmokeStudy, photos: Path) -> None:
    refused = run(photos, *SMALL, "--budget-hours", "0.001")
    assert refused.returncode == 2 and "--budget-hours is 0.001" in refused.stderr and "--yes" in refused.stderr
    assert not (photos / "runs" / "study" / "stages").exists()
    # 0.0012 hours are 4 s: not enough for six stages one after another
    stopped = run(photos, *SMALL, "--budget-hours", "0.0012", "--yes", "--max-concurrent", "1")
    assert stopped.returncode == 3 and "the budget is used up" in stopped.stdout, stopped.stdout
    assert len(markers(photos)) < len(markers(smoke_study.folder)) // 2


@pytest.mark.slow
def test_a_pilot_measures_one_stage_and_keeps_it(photos: Path) -> None:
    done = run(photos, *SMALL, "--pilot", "--price-per-hour", "2")
    assert done.returncode == 0 and len(markers(photos)) == 1, done.stdout + done.stderr
    before, after = done.stdout.split("pilot: one stage in")
    assert "from the profile's figure" in before and "from the stages computed so far" in after
    assert " at 2 each" in after and "1 done already" in after


def test_weights_stay_for_first_and_last_stages_only_and_extensions_train_the_rest_again(
    smoke_study: SmokeStudy,
) -> None:
    study = smoke_study.study
    first_and_last = set()
    for path in (study / "results").glob("*.parquet"):
        keys = json.loads((pq.read_schema(path).metadata or {})[b"clstudy.stage_keys"])
        first_and_last |= {keys[0], keys[-1]}
    kept = {path.parent.name for path in (study / "weights").glob("??/*/COMPLETE")}
    assert kept == first_and_last and len(kept) < len(markers(smoke_study.folder))


@pytest.mark.slow
def test_a_photo_that_turns_unreadable_fails_only_its_trials(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_synthetic(photos, people=2, timestamps=3, train=4, test=2, data_seed=5)
    driver = start_and_await_a_stage(tmp_path, "--data", str(photos), "--max-concurrent", "1")
    victim = sorted((photos / "person_01" / "t02" / "test").glob("*.png"))[0]
    victim.write_bytes(b"no picture any more")
    stdout, _ = driver.communicate(timeout=900)
    assert driver.returncode == 1, stdout
    assert victim.name in stdout and "person_01-lower" in stdout
    study = tmp_path / "runs" / "study"
    assert {path.name for path in (study / "results").glob("*.parquet")} == {
        "person_00-lower-lr0.003-s0.parquet",
        "person_00-er_hull-k3-lr0.003-s0.parquet",
        "person_00-upper-lr0.003-s0.parquet",
    }
    failures = json.loads((study / "failures.json").read_text())
    assert len(failures) == 3 and all(str(victim) in message for message in failures.values())
    assert all(pq.read_table(path).num_rows for path in (study / "results").glob("*.parquet"))


BAD_YAML = "name: x\nprofile: smoke\ngrid:\n  identity: [a\nseeds: [0]\n"
GOOD_YAML = """name: mine
profile: smoke
grid:
  identity: {identity}
  strategy: {strategy}
  buffer_size: {size}
  learning_rate: {rate}
seeds: [0]
"""


@pytest.mark.parametrize(
    ("change", "options", "expected"),
    [
        ({"strategy": "[er_hul]"}, [], ["er_hul", "Did you mean 'er_hull'"]),
        ({"size": "[0]"}, [], ["0 is not a buffer size", "line"]),
        ({"size": "[99]"}, [], ["99", "larger than all training photos", "12"]),
        ({"identity": "[nobody]"}, [], ["nobody"]),
        ({"rate": "[0.0]"}, [], ["learning rate", "0"]),
        ({"rate": "[]"}, [], ["expands to no trial"]),
        ({}, ["--data", "no/such/folder"], ["no/such/folder"]),
        ({}, ["--seeds", ",".join(map(str, range(600)))], ["600 trials", "--yes"]),
        (None, [], ["line 5", "not valid YAML"]),
    ],
)
def test_bad_input_is_one_clear_message_and_exit_2(
    photos: Path,
    change: dict[str, str] | None,
    options: list[str],
    expected: list[str],
    run_here: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    values = {"identity": f"[{PERSON}]", "strategy": "[er_rand]", "size": "[3]", "rate": "[0.003]", **(change or {})}
    space = photos / "mine.yaml"
    space.write_text(BAD_YAML if change is None else GOOD_YAML.format(**values))
    # one through the real command: its exit code, and that no traceback gets past it
    done = (run if change is None else run_here)(photos, *options, space=str(space))
    assert done.returncode == 2, done.stdout + done.stderr
    assert all(part in done.stderr for part in expected), done.stderr
    assert "Traceback" not in done.stderr and "live in MLflow" not in done.stdout


def test_dry_run_plans_without_running(photos: Path, run_here: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run_here(photos, "--dry-run")
    assert done.returncode == 0, done.stderr
    for expected in ("6 trials", "at most", "shared between trials", "time", "disk"):
        assert expected in done.stdout
    assert not (photos / "runs" / "study").exists()


def test_list_and_version_and_no_space(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    for name in ("hull_sizes", "smoke", "er_hull", "kmeans", "embedded", "synthetic", "orl"):
        assert name in listed
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("clstudy 0.")
    nothing = subprocess.run([sys.executable, "-m", "clstudy.run"], capture_output=True, text=True, env=ENV)
    assert nothing.returncode == 2 and "--list" in nothing.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a disk of its own needs root (mount)")
def test_a_nearly_full_disk_pauses_new_trials_until_there_is_room(smoke_study: SmokeStudy, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=560m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        copy_smoke_photos(smoke_study, disk)
        driver = start_and_await_a_stage(disk, *SMALL, "--max-concurrent", "1")
        (disk / "ballast").write_bytes(bytes(120_000_000))
        time.sleep(25)  # the trial under way ends, the next one waits
        paused = len(list((disk / "runs" / "study" / "results").glob("*.parquet")))
        assert driver.poll() is None and paused < 3
        (disk / "ballast").unlink()
        stdout, _ = driver.communicate(timeout=900)
        assert driver.returncode == 0, stdout
        assert "no new trial begins below 0.50 GB" in stdout and "there is room again" in stdout
        assert load_rows(disk / "runs" / "study").equals(rows_of_person(smoke_study))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
