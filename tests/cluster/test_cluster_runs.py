"""A study beyond one machine: a cluster that loses a node, an object store, a tracking server that goes away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from ray.cluster_utils import Cluster

from benchmarks.orchestration import TIMESTAMPS, made_up_rows, make_stored_study, run_stored
from clstudy.analysis.matrix import load_rows
from clstudy.records.rows import stage_table
from clstudy.settings.profiles import Resources
from clstudy.storage.places import Place, open_place
from clstudy.storage.trees import list_files
from clstudy.tracking.local_database import sqlite_uri
from clstudy.tracking.run_contents import TRIAL_TAG
from tests.support.object_store import BUCKET, running_object_store
from tests.support.processes import kill_driver
from tests.support.smoke_study import SmokeStudy

ENV = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "120"}
PERSON = "person_00"
ONE_PERSON = ["--space", "smoke", "--identities", PERSON]


def main_command(folder: Path, *options: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "clstudy.run", *ONE_PERSON, *options],
        env=ENV,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until(happened: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 450.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert happened()


def stage_count(study: Place) -> int:
    return sum(name.endswith("/COMPLETE") for name in list_files(study / "stages"))


@pytest.fixture(scope="module")
def undisturbed(smoke_study: SmokeStudy) -> pa.Table:
    """The person's rows of an ordinary run on this machine."""
    rows = load_rows(smoke_study.study)
    return rows.filter(pa.compute.equal(rows["identity"], PERSON))


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_in_mid_study_gives_the_same_rows(undisturbed: pa.Table, tmp_path: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        process = main_command(tmp_path, "--address", cluster.address, "--storage", str(tmp_path / "shared"))
        study = tmp_path / "shared" / "smoke"
        until(lambda: stage_count(study) >= 2, process)
        cluster.remove_node(nodes[0], allow_graceful=False)
        cluster.add_node(num_cpus=1)  # as an autoscaler would
        stdout, _ = process.communicate(timeout=900)
        assert process.returncode == 0, stdout
        sessions = {Path(node.get_session_dir_path()) for node in cluster.list_all_nodes()}
        assert [path for session in sessions for path in session.glob("artifacts/*/clstudy-*")] == []
    finally:
        cluster.shutdown()
    assert not (study / "ray").exists()
    assert load_rows(study).equals(undisturbed)
    assert any(name.endswith(".png") for name in list_files(study / "inputs")), "photos for nodes that lack them"


@pytest.mark.slow
def test_a_second_driver_without_local_files_goes_on_from_the_object_store(
    undisturbed: pa.Table, tmp_path: Path
) -> None:
    with running_object_store() as store:
        uri = f"s3://{BUCKET}/clstudy?{store.query}"
        study = open_place(uri) / "smoke"
        ENV.update({name: value for name, value in os.environ.items() if name.startswith("AWS_")})
        first = main_command(tmp_path / "here", "--storage", uri)
        until(lambda: stage_count(study) >= 2, first)
        second = main_command(tmp_path / "there", "--storage", uri)
        stdout, _ = second.communicate(timeout=400)
        assert second.returncode == 4 and f"process {first.pid} on" in stdout, stdout
        kill_driver(first)
        before = stage_count(study)
        third = main_command(tmp_path / "there", "--storage", uri)
        until(lambda: stage_count(study) > before, third)
        store.stop()  # and the storage is away for a while
        time.sleep(10)
        store.start()
        stdout, _ = third.communicate(timeout=900)
        assert third.returncode == 0, stdout
        assert f"{before} done already" in stdout and "index.html" in stdout and "Traceback" not in stdout
        files = list_files(study)
        rows = [
            pq.read_table(pa.BufferReader((study / name).read_bytes()))
            for name in sorted(files)
            if name.startswith("results/") and name.endswith(".parquet")
        ]
        assert "report/index.html" in files and "report/tables.md" in files and "study.yaml" in files
    assert not (tmp_path / "there" / "runs" / "smoke").exists(), "nothing of the study is left on this disk"
    key = ["trial", "train_timestamp", "test_timestamp", "protocol", "metric", "image"]
    found = pa.concat_tables([table.replace_schema_metadata(None) for table in rows])
    assert found.sort_by([(name, "ascending") for name in key]).equals(
        undisturbed.sort_by([(name, "ascending") for name in key])
    )


class TrackingServer:
    """A real MLflow server that can be stopped and started again."""

    def __init__(self, folder: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
                *("--workers", "1", "--backend-store-uri", sqlite_uri(self._folder / "server.db")),
                *("--artifacts-destination", str(self._folder / "artifacts")),
            ],
            env={**ENV, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def await_answer(self) -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2)
                return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError("the MLflow server does not answer")

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TrackingServer]:
    found = TrackingServer(tmp_path)
    found.start()
    found.await_answer()
    yield found
    found.stop()


@pytest.mark.slow
def test_eight_trials_at_a_time_and_a_tracking_server_that_is_gone_for_the_middle_third(
    server: TrackingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages are there already, so that all load is on the one writer and the one folder."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    study = make_stored_study(tmp_path / "runs" / "stored", 180, Resources(cpus=0.25))
    most = 0

    def show(snapshot) -> None:
        nonlocal most
        most = max(most, len(snapshot["running"]))
        finished = len(snapshot["finished"])
        if finished >= 60 and server._process is not None and not hasattr(server, "gone"):
            server.stop()
            server.gone = True  # type: ignore[attr-defined]
        if finished >= 120 and server._process is None:
            server.start()

    outcome = run_stored(study, server.uri, show, images=False, tracking_patience_s=180)
    assert server.gone and server._process is not None  # type: ignore[attr-defined]
    assert len(outcome.finished) == 180 and not outcome.failures and outcome.undelivered == 0
    assert most >= 8 and outcome.worker_deaths == 0
    for trial, requests in study.requests.items():
        table = pq.read_table(tmp_path / "runs" / "stored" / "results" / f"{trial}.parquet")
        expected = pa.concat_tables([stage_table(made_up_rows(request)) for request in requests])
        assert sorted(map(str, table.select(expected.column_names).to_pylist())) == sorted(
            map(str, expected.to_pylist())
        )
    server.await_answer()
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("stored")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert Counter(run.data.tags[TRIAL_TAG] for run in runs) == dict.fromkeys(study.requests, 1)
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        history = client.get_metric_history(run.info.run_id, "ap/reconstruction_lpips")
        assert [entry.step for entry in history] == list(range(TIMESTAMPS)), "each step once"
