"""An ageing study through the main command: kills, tables, strips of ages, MLflow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.processes import kill_after

ROOT = Path(__file__).parents[2]
SPACE = """\
name: ages
profile: embedded_ageing
settings:
  data: {timestamps: 3, train: 3, test: 8}
  trainer: {epochs: 1}
  ageing: {neck: 4, shared: 8, age_width: 4, hidden: 8, beyond_batch_size: 1}
grid:
  identity: 1
  strategy: [lower, er_rand, er_hull, kmeans, herding, mergan_jtr, ewc, upper]
  buffer_size: [2]
  learning_rate: [0.002]
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def command(out: str) -> list[str]:
    return [sys.executable, "-m", "clstudy.run", "--space", "space.yaml", "--out", out]


def run(folder: Path, *options: str, out: str = "runs/whole") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command(out), *options],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def rows_of(folder: Path, out: str) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted((folder / out / "results").glob("*.parquet")))


def test_photos_without_ages_are_refused(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE.replace("  data: {timestamps: 3, train: 3, test: 8}\n", ""))
    rng = np.random.default_rng(0)
    for name in ("t0/train/0", "t0/train/1", "t0/test/0"):
        path = tmp_path / "photos" / "anna" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    found = run(tmp_path, "--data", "photos", "--dry-run")
    assert found.returncode == 2 and found.stderr.count("\n") == 1, found.stdout
    assert "needs the condition 'age' (1 number) of every photo" in found.stderr
    assert "write it into a sidecar file" in found.stderr


@pytest.mark.slow
@pytest.mark.ci_slow
def test_ages_are_learned_and_a_killed_study_gives_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    stages = tmp_path / "runs" / "killed" / "stages"

    def stored() -> list[Path]:
        return list(stages.glob("**/COMPLETE"))

    kill_after(command("runs/killed"), tmp_path, stored, 3, ENVIRONMENT)
    assert len(stored()) >= 3
    for out in ("runs/killed", "runs/whole"):
        found = run(tmp_path, out=out)
        assert found.returncode == 0, found.stdout + found.stderr
    rows = rows_of(tmp_path, "runs/whole")
    assert len(set(rows["strategy"].to_pylist())) == 8
    assert rows_of(tmp_path, "runs/killed").equals(rows)
    report = tmp_path / "runs" / "whole" / "report"
    page = (report / "index.html").read_text()
    for words in (
        "at 20 to 80 years",
        "identity at that age",
        "arXiv 2411.14521",
        "what a photo of another age becomes",
    ):
        assert words in page
    assert list(report.glob("ages_person_00.*")), "the strips of ages are files, too"
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments() if one.name == "ages"]
    trials = [one for one in client.search_runs(experiments) if "strategy" in one.data.params]
    assert len(trials) == 8
    for trial in trials:
        names = set(trial.data.metrics)
        assert names & {"aip/aged_learned_aged_id", "ap/aged_learned_aged_id"}, sorted(names)
