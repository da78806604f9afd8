"""The main job through the real command line: Ray, MLflow on SQLite, Parquet, real photos, real kills."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from clstudy.analysis.matrix import load_rows
from clstudy.cluster.ray_folder import PREFIX
from clstudy.identities.synthetic import make_synthetic
from clstudy.records.rows import RESULT_SCHEMA
from clstudy.strategies import STRATEGIES
from clstudy.tracking.local_database import sqlite_uri
from clstudy.tracking.run_contents import TRIAL_TAG
from tests.support.network_watch import Watched, run_watched
from tests.support.processes import family, kill_driver

TRIAL_RUNS = f"tags.`{TRIAL_TAG}` LIKE '%'"
"""Filter: all runs of an experiment but the one that holds the report."""
ENV = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "120"}
SMALL = ["--identities", "person_00", "--seeds", "3"]


def command(folder: Path, *options: str, space: str = "smoke") -> list[str]:
    return [sys.executable, "-m", "clstudy.run", "--space", space, "--out", str(folder / "runs" / "study"), *options]


def run(folder: Path, *options: str, space: str = "smoke") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *options, space=space), env=ENV, capture_output=True, text=True, timeout=900, cwd=folder
    )


def markers(folder: Path) -> dict[str, int]:
    """Every finished stage and the moment it was written."""
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in (folder / "runs" / "study" / "stages").glob("??/*/COMPLETE")
    }


def start_and_await_a_stage(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start the driver and return it as soon as it has finished a first stage."""
    driver = subprocess.Popen(
        command(folder, *options),
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
        driver = subprocess.Popen(
            command(folder, *options, space=space),
            env=ENV,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 450
        while len(markers(folder)) < wanted and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(wait)
        kill_driver(driver)
        now = markers(folder)
        assert len(now) >= wanted
        assert all(now[key] == seen[key] for key in seen), "a finished stage was computed twice"
        seen = now
    return seen


def ray_folders(temporary: Path) -> list[str]:
    """Folders for Ray's sessions, and clstudy's records in Ray's usual place."""
    places = {temporary: f"{PREFIX}*", temporary / "ray": "session_2*/artifacts/*/clstudy-*"}
    return [str(path) for place, names in places.items() for path in place.glob(names)]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Watched]:
    """A whole run of ``smoke`` as somebody who just installed clstudy has it: a new home, no setting of any library."""
    folder = tmp_path_factory.mktemp("smoke")
    (folder / "home").mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "COLUMNS": "120"}
    # a temporary folder that tests beside this one do not use; with a short name, for the sake of Ray's sockets
    temporary = Path(tempfile.mkdtemp(prefix="ct-"))
    environment["TMPDIR"] = str(temporary)
    done = run_watched(command(folder), env=environment, cwd=folder, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "left.txt").write_text("\n".join(ray_folders(temporary)))
    shutil.rmtree(temporary)
    (folder / "stdout.txt").write_text(done.stdout)
    return folder, done


@pytest.fixture(scope="module")
def finished(watched: tuple[Path, Watched]) -> Path:
    """The folder of a whole run of ``smoke``."""
    return watched[0]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One person, undisturbed; by a user whose home folder is not there and cannot be made."""
    folder = tmp_path_factory.mktemp("undisturbed")
    homeless = {"PATH": os.environ["PATH"], "HOME": "/proc/clstudy", "COLUMNS": "120"}
    done = subprocess.run(
        command(folder, *SMALL), env=homeless, capture_output=True, text=True, timeout=900, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_smoke_gives_rows_tables_and_says_where(finished: Path) -> None:
    study = finished / "runs" / "study"
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
    stdout = (finished / "stdout.txt").read_text()
    for expected in ("6 trials", "stages", "AIP", "Forgetting", "mlflow ui"):
        assert expected in stdout, stdout
    for name in ("index.html", "summary.csv", "paired.csv", "tables.md", "tables.tex", "evidence.csv"):
        assert (study / "report" / name).stat().st_size > 100
    settings = (study / "study.yaml").read_text()
    assert "data_digests" in settings and "versions" in settings


def test_no_process_of_a_run_reaches_beyond_this_machine(watched: tuple[Path, Watched]) -> None:
    """Driver, Ray's processes and workers; that the watch sees what leaves is shown in test_telemetry.py."""
    folder, done = watched
    assert not done.outside, "\n".join(map(str, done.outside))
    processes = {contact.process for contact in done.contacts}
    for kind in ("clstudy.run", "raylet", "gcs_server", "ray::"):  # else this would say nothing of them
        assert any(kind in process for process in processes), processes
    left = {path.name for path in (folder / "home").rglob("*") if path.is_file()}
    assert not left & {"deviceid", "onnxruntime.db", "telemetry.json"}, "an ID was made up to report under"
    assert "auth_token" not in left, "a run's token is its own"


def test_nobody_else_can_read_what_a_study_writes_and_ray_leaves_nothing(finished: Path) -> None:
    """Of all writers: driver, workers, MLflow's, the report's; the usual umask of a shell lets others read."""
    written = [finished / "runs", *(finished / "runs").rglob("*")]
    assert {"mlflow.db", "data", "study"} <= {path.name for path in written}
    assert [f"{path} {path.lstat().st_mode:o}" for path in written if path.lstat().st_mode & 0o077] == []
    assert (finished / "left.txt").read_text() == ""
    assert not (finished / "runs" / "study" / "ray").exists()


@pytest.mark.slow
def test_a_tracking_servers_password_is_nowhere(tmp_path: Path) -> None:
    """A whole study with a server that is away (every message of an outage is said), and again when it is finished."""
    canary, token = "kanarienvogel", "tok3n-of-nobody"
    environment = {**ENV, "MLFLOW_TRACKING_URI": f"http://someone:{canary}@127.0.0.1:9/x?access_token={token}"}
    for _ in range(2):
        done = subprocess.run(
            command(tmp_path, *SMALL), env=environment, capture_output=True, text=True, timeout=900, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said = done.stdout + done.stderr
        assert "MLflow    http://***@127.0.0.1:9/x?access_token=***" in said
        assert canary not in said and token not in said
    for path in tmp_path.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert canary.encode() not in content and token.encode() not in content, path


def test_mlflow_has_one_flat_run_per_trial_with_steps_and_images(finished: Path) -> None:
    client = MlflowClient(sqlite_uri(finished / "runs" / "mlflow.db"))
    experiment = client.get_experiment_by_name("smoke")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], TRIAL_RUNS)
    assert len({run.data.tags[TRIAL_TAG] for run in runs}) == len(runs) == 6
    rows = load_rows(finished / "runs" / "study")
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


def test_the_same_command_again_computes_nothing(finished: Path) -> None:
    before = markers(finished)
    done = run(finished)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing to compute" in done.stdout and markers(finished) == before


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["truncate", "delete"])
def test_only_a_damaged_stage_is_computed_again(undisturbed: Path, tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(undisturbed, folder)
    before, rows = markers(folder), load_rows(folder / "runs" / "study")
    victim = sorted(before)[len(before) // 2]
    file = folder / "runs" / "study" / "stages" / victim[:2] / victim / "rows.parquet"
    if harm == "delete":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:1000])
    # the data set's photos lie beside the study and were copied with it
    done = run(folder, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 stages computed" in done.stdout, done.stdout
    after = markers(folder)
    assert {key for key in after if after[key] != before.get(key)} == {victim}
    assert load_rows(folder / "runs" / "study").equals(rows)


def test_killed_drivers_go_on_and_the_rows_are_the_same(undisturbed: Path, tmp_path: Path) -> None:
    """A SIGKILL at a seeded moment inside a stage (three: the next test; thirty: tests/cluster/test_chaos.py)."""
    folder = tmp_path / "killed"
    folder.mkdir()
    shutil.copytree(undisturbed / "runs" / "data", folder / "runs" / "data")
    rng = random.Random(20261121)
    moments = [(3, rng.uniform(0.3, 0.9))]
    seen = kill_at(folder, moments, *SMALL, "--max-concurrent", "1")
    done = run(folder, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    now = markers(folder)
    assert all(now[key] == seen[key] for key in seen), "a finished stage was computed twice"
    assert load_rows(folder / "runs" / "study").equals(load_rows(undisturbed / "runs" / "study"))
    client = MlflowClient(sqlite_uri(folder / "runs" / "mlflow.db"))
    experiment = client.get_experiment_by_name("smoke")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], TRIAL_RUNS)
    assert len(runs) == 3 and {one.info.status for one in runs} == {"FINISHED"}
    for one in runs:
        steps = [entry.step for entry in client.get_metric_history(one.info.run_id, "ap/reconstruction_id")]
        assert len(steps) == len(set(steps))


@pytest.mark.slow
def test_every_strategy_goes_on_after_kills_with_the_same_rows(undisturbed: Path, tmp_path: Path) -> None:
    """All of ``replay_families`` at the size of ``smoke``: replays, Fisher terms and memories are resumed too."""
    options, space = ["--profile", "smoke", "--identities", "person_00"], "replay_families"
    folders = [tmp_path / "whole", tmp_path / "killed"]
    for folder in folders:
        shutil.copytree(undisturbed / "runs" / "data", folder / "runs" / "data")
    whole, killed = folders
    rng = random.Random(3)
    seen = kill_at(killed, [(wanted, rng.uniform(0.0, 2.0)) for wanted in (2, 7, 11)], *options, space=space)
    for folder in folders:
        done = run(folder, *options, space=space)
        assert done.returncode == 0, done.stdout + done.stderr
    assert all(markers(killed)[key] == moment for key, moment in seen.items()), "a finished stage was computed twice"
    rows = load_rows(whole / "runs" / "study")
    assert set(rows["strategy"].to_pylist()) == set(STRATEGIES)
    assert load_rows(killed / "runs" / "study").equals(rows)


def press_ctrl_c(driver: subprocess.Popen[str]) -> None:
    os.killpg(driver.pid, signal.SIGINT)  # a terminal's goes to all of a session's foreground processes


@pytest.mark.parametrize(
    "tell", [press_ctrl_c, pytest.param(subprocess.Popen.terminate, marks=pytest.mark.slow)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_signal_lets_the_stages_in_flight_finish_and_ends_with_130(
    undisturbed: Path, tmp_path: Path, tell: Callable[[subprocess.Popen[str]], None]
) -> None:
    shutil.copytree(undisturbed / "runs" / "data", tmp_path / "runs" / "data")
    driver = start_and_await_a_stage(tmp_path, *SMALL, "--max-concurrent", "1")
    listening = listeners(driver.pid)
    before = len(markers(tmp_path))
    tell(driver)
    stdout, _ = driver.communicate(timeout=400)
    assert driver.returncode == 130, stdout
    assert "finishing the stages in flight" in stdout and "run the same command to go on" in stdout
    # one trial at a time, so one stage was in flight (another may have ended just before it was told to stop)
    assert "Traceback" not in stdout and before < len(markers(tmp_path)) <= before + 2, stdout
    assert listening and all(address.is_loopback for address in listening), "nothing is open to other machines"
    (session,) = json.loads((tmp_path / "runs" / "study" / "sessions.json").read_text())
    assert session["ended"] == "interrupted" and session["stages_computed"] == len(markers(tmp_path))
    seen = markers(tmp_path)
    done = run(tmp_path, *SMALL)
    assert done.returncode == 0 and seen.items() <= markers(tmp_path).items(), "nothing was computed again"
    assert load_rows(tmp_path / "runs" / "study").equals(load_rows(undisturbed / "runs" / "study"))


@pytest.mark.slow
def test_ctrl_c_twice_ends_at_once(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed / "runs" / "data", tmp_path / "runs" / "data")
    driver = start_and_await_a_stage(tmp_path, *SMALL)
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
def test_mlflow_is_made_whole_where_its_database_is_deleted_during_a_run(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed / "runs" / "data", tmp_path / "runs" / "data")
    driver = start_and_await_a_stage(tmp_path, *SMALL)
    database = tmp_path / "runs" / "mlflow.db"
    while not database.exists() and driver.poll() is None:
        time.sleep(0.05)
    before = len(markers(tmp_path))
    for file in database.parent.glob("mlflow.db*"):
        file.unlink()
    stdout, _ = driver.communicate(timeout=900)
    assert driver.returncode == 0 and before < len(markers(tmp_path)), stdout
    # the driver looks twice a second; what it did not see, the recorder could not deliver
    assert "was deleted or replaced" in stdout or "MLflow calls were not delivered" in stdout, stdout
    assert "in MLflow completed from the rows" in stdout, stdout
    assert scores_in_mlflow(tmp_path) == scores_in_mlflow(undisturbed)


@pytest.mark.slow
def test_a_second_driver_is_told_and_changes_nothing(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed / "runs" / "data", tmp_path / "runs" / "data")
    first = start_and_await_a_stage(tmp_path, *SMALL)
    second = run(tmp_path, *SMALL)
    assert second.returncode == 4 and f"process {first.pid} on" in second.stderr, second.stderr
    stdout, _ = first.communicate(timeout=900)
    assert first.returncode == 0, stdout


@pytest.mark.slow
def test_a_rate_that_explodes_fails_its_trials_only_and_says_when(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed / "runs" / "data", tmp_path / "runs" / "data")
    space = tmp_path / "mine.yaml"
    space.write_text(GOOD_YAML.format(identity="[person_00]", strategy="[lower]", size="[3]", rate="[0.003, 1000.0]"))
    done = run(tmp_path, "--seeds", "3", space=str(space))
    assert done.returncode == 1, done.stdout
    study = tmp_path / "runs" / "study"
    (message,) = json.loads((study / "failures.json").read_text()).values()
    assert "timestamp 0" in message and "step" in message and "smaller learning rate" in message
    assert [path.stem for path in (study / "results").glob("*.parquet")] == ["person_00-lower-lr0.003-s3"]


@pytest.mark.slow
def test_a_budget_refuses_or_stops_cleanly(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed / "runs" / "data", tmp_path / "runs" / "data")
    refused = run(tmp_path, *SMALL, "--budget-hours", "0.001")
    assert refused.returncode == 2 and "--budget-hours is 0.001" in refused.stderr and "--yes" in refused.stderr
    assert not (tmp_path / "runs" / "study" / "stages").exists()
    # 0.0012 hours are 4 s: not enough for six stages one after another
    stopped = run(tmp_path, *SMALL, "--budget-hours", "0.0012", "--yes", "--max-concurrent", "1")
    assert stopped.returncode == 3 and "the budget is used up" in stopped.stdout, stopped.stdout
    assert len(markers(tmp_path)) < len(markers(undisturbed))


@pytest.mark.slow
def test_a_pilot_measures_one_stage_and_keeps_it(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed / "runs" / "data", tmp_path / "runs" / "data")
    done = run(tmp_path, *SMALL, "--pilot", "--price-per-hour", "2")
    assert done.returncode == 0 and len(markers(tmp_path)) == 1, done.stdout + done.stderr
    before, after = done.stdout.split("pilot: one stage in")
    assert "from the profile's figure" in before and "from the stages computed so far" in after
    assert " at 2 each" in after and "1 done already" in after


def test_weights_stay_for_first_and_last_stages_only_and_extensions_train_the_rest_again(undisturbed: Path) -> None:
    study = undisturbed / "runs" / "study"
    first_and_last = set()
    for path in (study / "results").glob("*.parquet"):
        keys = json.loads((pq.read_schema(path).metadata or {})[b"clstudy.stage_keys"])
        first_and_last |= {keys[0], keys[-1]}
    kept = {path.parent.name for path in (study / "weights").glob("??/*/COMPLETE")}
    assert kept == first_and_last and len(kept) < len(markers(undisturbed))


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
    undisturbed: Path, change: dict[str, str] | None, options: list[str], expected: list[str]
) -> None:
    values = {"identity": "[person_00]", "strategy": "[er_rand]", "size": "[3]", "rate": "[0.003]", **(change or {})}
    space = undisturbed / "mine.yaml"
    space.write_text(BAD_YAML if change is None else GOOD_YAML.format(**values))
    done = run(undisturbed, *options, space=str(space))
    assert done.returncode == 2, done.stdout + done.stderr
    assert all(part in done.stderr for part in expected), done.stderr
    assert "Traceback" not in done.stderr and "live in MLflow" not in done.stdout


def test_dry_run_plans_without_running(tmp_path: Path) -> None:
    done = run(tmp_path, "--dry-run")
    assert done.returncode == 0, done.stderr
    for expected in ("6 trials", "at most", "shared between trials", "time", "disk"):
        assert expected in done.stdout
    assert not (tmp_path / "runs" / "study").exists()


def test_list_and_version_and_no_space(tmp_path: Path) -> None:
    listed = subprocess.run([sys.executable, "-m", "clstudy.run", "--list"], capture_output=True, text=True, env=ENV)
    assert listed.returncode == 0
    for name in ("hull_sizes", "smoke", "er_hull", "kmeans", "embedded", "synthetic", "orl"):
        assert name in listed.stdout
    shown = subprocess.run([sys.executable, "-m", "clstudy.run", "--version"], capture_output=True, text=True, env=ENV)
    assert shown.stdout.startswith("clstudy 0.")
    nothing = subprocess.run([sys.executable, "-m", "clstudy.run"], capture_output=True, text=True, env=ENV)
    assert nothing.returncode == 2 and "--list" in nothing.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a disk of its own needs root (mount)")
def test_a_nearly_full_disk_pauses_new_trials_until_there_is_room(undisturbed: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=560m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        shutil.copytree(undisturbed / "runs" / "data", disk / "runs" / "data")
        driver = start_and_await_a_stage(disk, *SMALL, "--max-concurrent", "1")
        (disk / "ballast").write_bytes(bytes(120_000_000))
        time.sleep(25)  # the trial under way ends, the next one waits
        paused = len(list((disk / "runs" / "study" / "results").glob("*.parquet")))
        assert driver.poll() is None and paused < 3
        (disk / "ballast").unlink()
        stdout, _ = driver.communicate(timeout=900)
        assert driver.returncode == 0, stdout
        assert "no new trial begins below 0.50 GB" in stdout and "there is room again" in stdout
        assert load_rows(disk / "runs" / "study").equals(load_rows(undisturbed / "runs" / "study"))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
