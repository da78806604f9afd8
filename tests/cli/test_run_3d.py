"""A 3D study through the main command, on a tiny EG3D in a file: cameras, resume, tables, turntables, MLflow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tests.support.main_command import plain_photos
from tests.support.tiny_eg3d import tiny_checkpoint

DIRECTION = np.random.default_rng(0).normal(size=32).astype(np.float32)
PROFILE = "from tests.support.tiny_eg3d import tiny_profile\n\n\ndef tiny():\n    return tiny_profile()\n"
SPACE = """\
name: tiny_3d
profile: "own_3d:tiny"
data: virtual_views
grid:
  identity: 1
  strategy: [lower, er_rand, er_hull, upper]
  buffer_size: [2]
  learning_rate: [0.003]
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own_3d.py").write_text(PROFILE)
    (tmp_path / "space.yaml").write_text(SPACE)
    tiny_checkpoint(tmp_path / "eg3d.safetensors")
    save_file({"smile": DIRECTION}, tmp_path / "directions.safetensors")
    return tmp_path


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clstudy.run", "--space", "space.yaml", "--weights", "generator=eg3d.safetensors"]
    command += ["--weights", "directions=directions.safetensors"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *options], cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False
    )


def artifacts(client: mlflow.MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    for file in client.list_artifacts(run_id, folder):
        yield file.path
        if file.is_dir:
            yield from artifacts(client, run_id, file.path)


def test_photos_without_cameras_are_refused_with_the_command_that_estimates_them(folder: Path) -> None:
    plain_photos(folder / "photos")
    found = run(folder, "--data", "photos", "--dry-run")
    assert found.returncode == 2 and found.stderr.count("\n") == 1, found.stdout
    assert "needs the condition 'camera' (25 numbers) of every photo" in found.stderr
    assert f"estimate the cameras: python -m clstudy.identities cameras {folder / 'photos'} --size 64" in found.stderr


@pytest.mark.slow
@pytest.mark.ci_slow
def test_a_3d_study_runs_to_its_report_and_is_read_the_second_time(folder: Path) -> None:
    found = run(folder, "--out", "runs/tiny_3d")
    assert found.returncode == 0, found.stderr
    assert re.search(r"[78] stages computed, [23] reused", found.stdout), "lower's first stage is everybody's"
    study = folder / "runs" / "tiny_3d"
    rows = {path.name: pq.read_table(path) for path in sorted((study / "results").glob("*.parquet"))}
    assert len(rows) == 4
    again = run(folder, "--out", "runs/tiny_3d")
    assert again.returncode == 0 and "every trial is finished already" in again.stdout
    assert all(pq.read_table(study / "results" / name).equals(table) for name, table in rows.items())
    page = (study / "report" / "index.html").read_text()
    for words in ("er_hull, K = 2", "the last model from five sides", "the last model, turning", "data:image/gif"):
        assert words in page
    assert "the oldest face edited, before and after" in page
    tables = (study / "report" / "tables.md").read_text()
    for title in ("Novel view LPIPS", "Edited effect", "Reconstruction depth correlation"):
        assert f"## {title}" in tables
    with Image.open(study / "report" / "turning_person_00.gif") as moving:
        assert getattr(moving, "n_frames", 1) == 8
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == "tiny_3d"]
    trials = [one for one in client.search_runs([experiment.experiment_id]) if "strategy" in one.data.params]
    assert len(trials) == 4
    for trial in trials:
        paths = list(artifacts(client, trial.info.run_id))
        assert any("turntable" in path for path in paths) and any("edited" in path for path in paths)
