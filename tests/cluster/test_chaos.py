"""Chaos: workers and drivers are killed at random moments, thirty times and more, and no number changes.

    python -m pytest -m slow tests/cluster/test_chaos.py -k thirty -s          # about 15 minutes on 2 cores

prints the figures; ``-k six`` is the short one that ``.ci/run`` has. Everything is real: the main command, Ray,
SIGKILL, MLflow on SQLite, Parquet.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mlflow import MlflowClient

from clstudy.analysis.matrix import load_rows
from clstudy.storage.driver_lock import only_driver
from clstudy.tracking.local_database import sqlite_uri
from clstudy.tracking.run_contents import TRIAL_TAG
from tests.support.smoke_study import SmokeStudy, copy_smoke_photos

SEED = 20261121
DRIVER_SHARE = 0.3
DRIVERS_OF = 6
"""Of so many kills at least one is of a driver, however the dice fall."""
MARK = "CLSTUDY_CHAOS"
WORKER = "ray::ResourceTrainable"
"""How Ray calls the processes that run trials."""


@dataclass
class Figures:
    """What was done to the study."""

    workers: int = 0
    drivers: int = 0
    lost: int = 0
    runs: int = 0
    repeated: int = 0
    slowest_end: float = 0.0
    finished_at_kill: list[int] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return self.workers + self.drivers


def start(folder: Path, token: str, seeds: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", MARK: token}
    folder.mkdir(exist_ok=True)
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "clstudy.run", "--space", "smoke", "--seeds", seeds],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=log,
        )


def marked(token: str) -> dict[int, str]:
    """Living processes that the study has started, by pid, with the titles that Ray gives its workers."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if f"{MARK}={token}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found


def workers(token: str) -> dict[int, str]:
    return {pid: title for pid, title in marked(token).items() if WORKER in title}


def computing(found: dict[int, str]) -> int:
    """How many of the workers are in the middle of a step."""
    return sum(".train" in title for title in found.values())


def markers(study: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in (study / "stages").glob("??/*/COMPLETE")}


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def seconds_until_gone(token: str, at_most: float = 120) -> float:
    """How long processes outlive their driver (Ray's own watch each other, in steps of seconds)."""
    started = time.monotonic()
    while left := marked(token):
        assert time.monotonic() - started < at_most, f"left over: {left}"
        time.sleep(0.2)
    return time.monotonic() - started


def disturb(folder: Path, token: str, *, kills: int, seeds: str, patience: float) -> Figures:
    """Run the study to its end, killing as it goes, with at most ``patience`` seconds of work between two kills."""
    rng, figures, study = random.Random(SEED), Figures(), folder / "runs" / "smoke"
    seen: dict[str, int] = {}
    while True:
        driver = start(folder, token, seeds)
        figures.runs += 1
        while driver.poll() is None and figures.kills < kills:
            # time counts from the moment that there is something to disturb
            while driver.poll() is None and not workers(token):
                time.sleep(0.1)
            time.sleep(rng.uniform(patience / 10, patience))
            owed = kills // DRIVERS_OF - figures.drivers
            victims, whole_driver = workers(token), rng.random() < DRIVER_SHARE or owed >= kills - figures.kills
            if driver.poll() is not None or not victims:
                continue
            now = markers(study)
            figures.repeated += sum(now[key] != moment for key, moment in seen.items() if key in now)
            seen = now
            figures.finished_at_kill.append(len(now))
            if whole_driver:
                figures.lost += computing(victims)
                kill(driver.pid)
                figures.drivers += 1
            else:
                victim = rng.choice(sorted(victims))
                figures.lost += ".train" in victims[victim]
                kill(victim)
                figures.workers += 1
        code = driver.wait()
        figures.slowest_end = max(figures.slowest_end, seconds_until_gone(token))
        if code == 0:
            return figures
        assert code in (1, -signal.SIGKILL), (folder / "log.txt").read_text()[-4000:]
        assert figures.runs < 60, "no progress"


@pytest.mark.slow
def test_thirty_kills_change_no_number(tmp_path: Path) -> None:
    token, seeds = uuid.uuid4().hex, "0,1,2,3,4"
    quiet, disturbed = tmp_path / "quiet", tmp_path / "disturbed"
    assert start(quiet, token, seeds).wait() == 0, (quiet / "log.txt").read_text()
    figures = disturb(disturbed, token, kills=30, seeds=seeds, patience=5.0)
    require_same(quiet / "runs" / "smoke", disturbed, figures, kills=30)


@pytest.mark.slow
@pytest.mark.ci_slow
def test_six_kills_change_no_number(smoke_study: SmokeStudy, tmp_path: Path) -> None:
    """The quiet run is the session's own; kills follow each other sooner, because there is less to disturb."""
    disturbed = copy_smoke_photos(smoke_study, tmp_path)
    figures = disturb(disturbed, uuid.uuid4().hex, kills=6, seeds="0", patience=2.0)
    require_same(smoke_study.study, disturbed, figures, kills=6)


def require_same(quiet: Path, folder: Path, figures: Figures, *, kills: int) -> None:
    """The disturbed study has the quiet one's numbers, and MLflow has every step once."""
    disturbed = folder / "runs" / "smoke"
    print(
        f"\n{figures.kills} kills: {figures.workers} of workers, {figures.drivers} of drivers, in {figures.runs} runs "
        f"of the command; {figures.lost} stages were in flight and lost, {figures.repeated} finished stages were "
        f"computed again; no process was left {figures.slowest_end:.0f} s after a driver's end at the latest; stages "
        f"finished at each kill: {figures.finished_at_kill}"
    )
    assert figures.kills >= kills and figures.drivers >= kills // DRIVERS_OF and figures.repeated == 0
    before, after = load_rows(quiet), load_rows(disturbed)
    assert after.equals(before), "every number is the same, to the bit"
    names = sorted(path.name for path in (quiet / "results").iterdir())
    assert names == sorted(path.name for path in (disturbed / "results").iterdir())
    for name in names:
        assert (quiet / "results" / name).read_bytes() == (disturbed / "results" / name).read_bytes(), name
    with only_driver(disturbed):
        pass  # nobody holds it
    client = MlflowClient(sqlite_uri(folder / "runs" / "mlflow.db"))
    experiment = client.get_experiment_by_name("smoke")
    assert experiment is not None
    runs = [
        run for run in client.search_runs([experiment.experiment_id], max_results=1000) if TRIAL_TAG in run.data.tags
    ]
    trials = set(before["trial"].to_pylist())
    assert sorted(run.data.tags[TRIAL_TAG] for run in runs) == sorted(trials), "each run once"
    for run in runs:
        assert run.info.status == "FINISHED"
        steps = [entry.step for entry in client.get_metric_history(run.info.run_id, "ap/reconstruction_lpips")]
        wanted = [2] if run.data.params["strategy"] == "upper" else [0, 1, 2]
        assert steps == wanted, "each step once"
