"""``python -m clstudy.run`` in a folder with a ``space.yaml``, and what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.entities import Run
from PIL import Image

from tests.support.processes import kill_after

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def command(*options: str) -> list[str]:
    """The command, with options."""
    return [sys.executable, "-m", "clstudy.run", "--space", "space.yaml", *options]


def run_command(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run it in a folder."""
    return subprocess.run(
        command(*options), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=400, check=False
    )


def killed_and_whole(folder: Path, stages: int = 3) -> tuple[str, str]:
    """Study in ``runs/killed`` (SIGKILL after so many stages, then on) and in ``runs/whole``; what both printed."""

    def complete() -> list[Path]:
        return list((folder / "runs" / "killed" / "stages").glob("**/COMPLETE"))

    kill_after(command("--out", "runs/killed"), folder, complete, stages, ENVIRONMENT)
    assert len(complete()) >= stages
    printed = []
    for out in ("runs/killed", "runs/whole"):
        found = run_command(folder, "--out", out)
        assert found.returncode == 0, found.stdout + found.stderr
        printed.append(found.stdout)
    return printed[0], printed[1]


def rows_of(study: Path) -> pa.Table:
    """The rows of all its trials, in the order of their names."""
    return pa.concat_tables(pq.read_table(path) for path in sorted((study / "results").glob("*.parquet")))


def tracked_trials(folder: Path, name: str) -> Sequence[Run]:
    """Runs of the trials of the study of that name in a folder's MLflow database."""
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments() if one.name == name]
    return [one for one in client.search_runs(experiments) if "strategy" in one.data.params]


def plain_photos(root: Path) -> None:
    """Three photos of noise of one person at one timestamp, of which nothing is known."""
    rng = np.random.default_rng(0)
    for name in ("t0/train/0", "t0/train/1", "t0/test/0"):
        path = root / "anna" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(path)
