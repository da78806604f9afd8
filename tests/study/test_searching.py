"""The learning-rate search through the real command line: search, choose, run in full on the reported people.

The pieces, without Ray: tests/study/test_rate_search.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow import MlflowClient

from clstudy.analysis.matrix import load_rows
from clstudy.cli.run import main
from clstudy.tracking.local_database import sqlite_uri
from tests.support.smoke_study import SmokeStudy, copy_smoke_photos

ENV = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "120"}
SPACE = """\
name: rates
profile: smoke
grid:
  identity: [person_00]
  strategy: [lower, er_rand]
  buffer_size: [2]
  learning_rate: {low: 0.001, high: 0.01, trials: 2}
"""


def command(folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "clstudy.run", "--space", str(folder / "rates.yaml"), *options]


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, *options), env=ENV, cwd=folder, capture_output=True, text=True, timeout=900)


def proposals(folder: Path) -> str:
    return (folder / "runs" / "rates" / "search" / "proposals.csv").read_text()


def markers(folder: Path) -> dict[str, int]:
    found = (folder / "runs" / "rates" / "stages").glob("??/*/COMPLETE")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def test_a_search_is_planned_without_running(
    smoke_study: SmokeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_smoke_photos(smoke_study, tmp_path)
    (tmp_path / "rates.yaml").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["--space", "rates.yaml", "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert "2 cells x 2 learning rates" in planned and "at most 4 left" in planned, planned
    assert not (tmp_path / "runs" / "rates").exists()


@pytest.fixture(scope="module")
def searched(smoke_study: SmokeStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_smoke_photos(smoke_study, tmp_path_factory.mktemp("search"))
    (folder / "rates.yaml").write_text(SPACE)
    done = run(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "chosen   er_rand K=2: learning rate" in done.stdout
    return folder


@pytest.mark.slow
@pytest.mark.ci_slow
def test_every_cell_runs_in_full_at_the_rate_that_was_best_on_validation_photos(searched: Path) -> None:
    study = searched / "runs" / "rates"
    tried = [line.split(",") for line in proposals(searched).replace('"', "").splitlines()[1:]]
    best: dict[str, tuple[float, float]] = {}
    for strategy, _, _, rate, objective, state in tried:
        assert state == "finished"
        best[strategy] = min(best.get(strategy, (9.0, 0.0)), (float(objective), float(rate)))
    rows = load_rows(study)
    found = set(zip(rows["strategy"].to_pylist(), rows["learning_rate"].to_pylist(), strict=True))
    assert found == {(strategy, rate) for strategy, (_, rate) in best.items()}
    assert set(rows["identity"].to_pylist()) == {"person_00"}, "rows of the search are kept apart"
    settings = yaml.safe_load((study / "study.yaml").read_text())
    assert {(one["strategy"], one["learning_rate"]) for one in settings["chosen_rates"]} == found
    tables = (study / "report" / "tables.md").read_text()
    assert "Every cell at the learning rate that a search chose for it" in tables
    assert "er_rand minus" in tables or "AIP minus lower" in tables, "cells at different rates are compared"
    assert "Learning rate chosen for every cell" in (study / "report" / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.ci_slow
def test_the_search_saw_no_test_photo(searched: Path) -> None:
    study = searched / "runs" / "rates"
    reported, judged = set(), set()
    for path in (study / "stages").glob("??/*/stage.json"):
        request = json.loads(path.read_text())["request"]
        target = judged if request["stream"][1].endswith("+validation") else reported
        target |= {digest for timestamp in request["tested"] for digest in timestamp}
    assert reported and judged and not reported & judged
    results = [pq.read_table(path) for path in (study / "search").glob("*.parquet")]
    assert len(results) == 4 and {name for table in results for name in table["identity"].to_pylist()} == {
        "person_00+validation"
    }


@pytest.mark.slow
@pytest.mark.ci_slow
def test_optuna_and_mlflow_show_the_search(searched: Path) -> None:
    storage = f"sqlite:///{searched / 'runs' / 'rates' / 'search' / 'optuna.db'}"
    names = optuna.get_all_study_names(storage)
    assert names == ["rates: lower", "rates: er_rand K=2"]
    assert all(len(optuna.load_study(study_name=name, storage=storage).trials) == 2 for name in names)
    client = MlflowClient(sqlite_uri(searched / "runs" / "mlflow.db"))
    experiments = [client.get_experiment_by_name(name) for name in ("rates", "rates (search)")]
    assert all(experiments)
    assert len(client.search_runs([experiments[1].experiment_id])) == 4  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_search_that_was_killed_proposes_and_chooses_the_same(searched: Path, tmp_path: Path) -> None:
    shutil.copytree(searched / "runs" / "data", tmp_path / "runs" / "data")
    (tmp_path / "rates.yaml").write_text(SPACE)
    seen: dict[str, int] = {}
    for wanted in (2, 5, 9):
        driver = subprocess.Popen(
            command(tmp_path), env=ENV, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 450
        while len(markers(tmp_path)) < wanted and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        time.sleep(4)
        assert seen.items() <= markers(tmp_path).items(), "a finished stage was computed again"
        seen = markers(tmp_path)
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert seen.items() <= markers(tmp_path).items()
    assert proposals(tmp_path) == proposals(searched)
    assert load_rows(tmp_path / "runs" / "rates").equals(load_rows(searched / "runs" / "rates"))
