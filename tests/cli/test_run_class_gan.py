"""Categories of one's own, one after the other, through the main command: orders, kills, tables, report, MLflow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clstudy.generators.image_classifier import ClassifierFacts, save_classifier
from clstudy.generators.pretraining.classifier import classifier_of
from tests.support.processes import kill_after
from tests.workloads.test_class_gan import SIZE, shapes

ROOT = Path(__file__).parents[2]
SPACE = """\
name: shapes
profile: class_gan_small
data: orders
settings:
  class_gan:
    {classes: 3, width: 4, steps: 10, batch_size: 8, replay_batch_size: 8, scored_images: 12, reverse_steps: 20}
grid:
  identity: 2
  strategy: [lower, er_rand, er_hull, jtr, dgr, ra, ewc, upper]
  buffer_size: [4]
  learning_rate: [0.002]
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = shapes()
    for name, images in zip(source.names, source.images, strict=True):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "classes" / name / f"{number:03d}.png")
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "weights").mkdir()
    save_classifier(
        classifier_of(source, passes=40),
        ClassifierFacts(source.names, SIZE),
        tmp_path / "weights" / "classifier.safetensors",
    )
    command = [sys.executable, "-m", "clstudy.identities", "orders", "classes", "orders", "--orders", "2"]
    command += ["--timestamps", "3", "--train", "20", "--test", "6", "--size", str(SIZE)]
    subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, check=True, timeout=120)
    return tmp_path


def command(out: str) -> list[str]:
    return [sys.executable, "-m", "clstudy.run", "--space", "space.yaml", "--out", out]


def run(folder: Path, out: str) -> str:
    found = subprocess.run(
        command(out), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=400, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def rows_of(folder: Path, out: str) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted((folder / out / "results").glob("*.parquet")))


@pytest.mark.slow
@pytest.mark.ci_slow
def test_own_categories_are_learned_and_a_killed_study_gives_the_same_rows(folder: Path) -> None:
    stages = folder / "runs" / "killed" / "stages"

    def stored() -> list[Path]:
        return list(stages.glob("**/COMPLETE"))

    kill_after(command("runs/killed"), folder, stored, 3, ENVIRONMENT)
    assert len(stored()) >= 3
    assert "stages computed" in run(folder, "runs/killed")
    run(folder, "runs/whole")
    rows = rows_of(folder, "runs/whole")
    assert set(rows["strategy"].to_pylist()) == {"lower", "er_rand", "er_hull", "jtr", "dgr", "ra", "ewc", "upper"}
    assert rows_of(folder, "runs/killed").equals(rows)
    page = (folder / "runs" / "whole" / "report" / "index.html").read_text()
    for words in ("generated images of every category in the end", "Generated accuracy", "arXiv 1809.02058"):
        assert words in page
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments() if one.name == "shapes"]
    trials = [one for one in client.search_runs(experiments) if "strategy" in one.data.params]
    assert trials and all("aip/generated_accuracy" in one.data.metrics or "ap/generated_accuracy" in one.data.metrics
                          for one in trials)  # fmt: skip
