"""``ray up cluster.local.yaml`` for real: three machines made of namespaces, a study on two of them, ``ray down``."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from clstudy.analysis.matrix import load_rows
from clstudy.tracking.local_database import sqlite_uri
from clstudy.tracking.run_contents import TRIAL_TAG
from tests.support.namespace_hosts import Host, missing, namespace_hosts

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]

ROOT = Path(__file__).resolve().parents[2]
STORAGE = Path("/mnt/clstudy")
TRIALS = 6
"""Of the space `smoke`."""


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The folder that every machine sees as ``/mnt/clstudy``."""
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


@pytest.fixture
def hosts(tmp_path: Path, shared: Path) -> Iterator[dict[str, Host]]:
    """The user's machine and two that compute; all have this test's Python environment."""
    environment = {Path(sys.prefix), Path(sys.base_prefix), ROOT, *(Path(entry) for entry in sys.path if entry)}
    visible = sorted(path for path in environment if path.is_dir())
    with namespace_hosts(tmp_path / "hosts", ["laptop", "head", "worker"], {STORAGE: shared}, visible) as started:
        yield started


def write_cluster_file(laptop: Host, head: Host, worker: Host) -> None:
    """What a user does: change the values at the top of ``cluster.local.yaml``."""
    top, mark, rest = (ROOT / "cluster.local.yaml").read_text().partition("# ---- From here on nothing needs to change")
    assert mark
    for given, mine in (
        ("head_ip: 192.0.2.10", f"head_ip: {head.address}"),
        ("worker_ips: [192.0.2.11, 192.0.2.12]", f"worker_ips: [{worker.address}]"),
        ("ssh_user: me", "ssh_user: root"),
        ("CLSTUDY_PYTHON=$HOME/clstudy-python", f"CLSTUDY_PYTHON={sys.prefix}"),
    ):
        assert top.count(given) == 1, given
        top = top.replace(given, mine)
    assert f"CLSTUDY_STORAGE={STORAGE}'" in top
    (laptop.home / "cluster.local.yaml").write_text(top + mark + rest)


class Story:
    """The user at the laptop, who does one thing after another and looks at the clock."""

    def __init__(self, laptop: Host):
        self._laptop = laptop
        self._began = self._last = time.monotonic()

    def type(self, line: str, timeout: float = 120) -> str:
        """A line in the top folder of the clone; it must succeed."""
        done = self._laptop.run(f"cd {ROOT} && {line}", timeout=timeout)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def on_cluster(self, line: str, timeout: float = 120) -> str:
        return self.type(f"ray exec ~/cluster.local.yaml '{line}'", timeout)

    def until(self, is_so: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, f"after {seconds:.0f} s still not: {what}"
            time.sleep(1)

    def passed(self, what: str) -> None:
        now = time.monotonic()
        print(f"{now - self._began:6.1f} s  {what} ({now - self._last:.1f} s)")
        self._last = now


def reaches(host: Host, address: str, port: int) -> bool:
    return host.run(f"timeout 5 bash -c 'exec 3<> /dev/tcp/{address}/{port}'").returncode == 0


def finished_runs(head: Host, folder: Path) -> list[str]:
    """Trials with a finished run in the head's MLflow database."""
    copy = folder / "mlflow.db"
    shutil.copy(head.home / "clstudy-mlflow" / "mlflow.db", copy)
    client = MlflowClient(tracking_uri=sqlite_uri(copy))
    experiment = client.get_experiment_by_name("smoke")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`{TRIAL_TAG}` LIKE '%' AND status = 'FINISHED'")
    return sorted(run.data.tags[TRIAL_TAG] for run in runs)


def test_a_study_on_two_machines_and_back_down(hosts: dict[str, Host], shared: Path, tmp_path: Path):
    laptop, head, worker = hosts["laptop"], hosts["head"], hosts["worker"]
    write_cluster_file(laptop, head, worker)
    # Ray waits a minute for a head that is gone, and its agents another one: shortened, for the end of this test.
    (worker.home / ".bashrc").write_text("export RAY_gcs_rpc_server_reconnect_timeout_s=10\n")
    story = Story(laptop)

    story.type("ray get-auth-token --generate > /dev/null")
    story.type("ray up -y ~/cluster.local.yaml", timeout=240)
    story.passed("ray up: the head is there")
    story.until(lambda: " 2 local.cluster.node" in story.on_cluster("ray status"), 120, "two nodes")
    story.passed("ray status: both nodes are there")

    status = f"ray status --address {head.address}:6379"
    assert laptop.run(status, {"RAY_AUTH_MODE": "token"}).returncode == 0
    refused = laptop.run(status, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32})
    assert refused.returncode != 0 and "InvalidAuthToken" in refused.stdout, "who has no token must stay out"
    story.until(lambda: reaches(head, "127.0.0.1", 5000), 90, "MLflow answers on the head")
    assert not any(reaches(host, head.address, port) for host in (laptop, worker) for port in (5000, 8265))
    story.passed("closed to who has no token; MLflow and the dashboard only on the head itself")

    run = "python -m clstudy.run --space smoke --address auto --storage $CLSTUDY_STORAGE"
    study = subprocess.Popen(
        laptop.command(f"ray exec ~/cluster.local.yaml '{run}'"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    computing: set[str] = set()
    while study.poll() is None and time.monotonic() - story._last < 240:
        computing |= {host.name for host in (head, worker) if any("Trainable" in args for args in host.processes())}
        time.sleep(1)
    output, _ = study.communicate(timeout=5)
    assert study.returncode == 0, output
    story.passed(f"the study, computed on {' and '.join(sorted(computing))}")
    assert computing == {"head", "worker"}

    rows = load_rows(shared / "smoke")
    trials = sorted(set(rows.column("trial").to_pylist()))
    assert len(trials) == TRIALS
    assert (shared / "smoke" / "report" / "index.html").is_file()
    assert finished_runs(head, tmp_path) == trials, "MLflow's one writer reaches the server on the head"
    assert list((shared / "mlflow-images").rglob("*.png"))

    forwarding = subprocess.Popen(
        laptop.command("ray dashboard ~/cluster.local.yaml --port 5000 --remote-port 5000"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    story.until(lambda: reaches(laptop, "127.0.0.1", 5000), 30, "MLflow through SSH")
    forwarding.terminate()
    forwarding.wait(timeout=10)
    story.passed("results, MLflow runs and pictures; the tracking page through SSH")

    story.on_cluster("kill -- -$(cat ~/clstudy-mlflow/pid)")
    assert re.search("No nodes remaining", story.type("ray down -y ~/cluster.local.yaml"))
    story.passed("ray down")
    story.until(lambda: not ray_or_mlflow(head), 20, "nothing left on the head")
    story.until(lambda: not ray_or_mlflow(worker), 120, "nothing left on the worker")
    story.passed("nothing left on either machine")


def ray_or_mlflow(host: Host) -> list[str]:
    """What is left there, but for SSH connections that are still closing."""
    return [args for args in host.processes() if "ray" in args.lower() and "/ray_ssh_" not in args or "mlflow" in args]
