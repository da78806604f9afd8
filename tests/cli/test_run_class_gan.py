"""Categories of one's own, one after the other, through the main command: orders, kills, tables, report, MLflow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from clstudy.generators.image_classifier import ClassifierFacts, save_classifier
from clstudy.generators.pretraining.classifier import classifier_of
from tests.support.main_command import ENVIRONMENT, killed_and_whole, rows_of, tracked_trials
from tests.workloads.test_class_gan import SIZE, shapes

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


@pytest.mark.slow
@pytest.mark.ci_slow
def test_own_categories_are_learned_and_a_killed_study_gives_the_same_rows(folder: Path) -> None:
    goes_on, _ = killed_and_whole(folder)
    assert "stages computed" in goes_on
    rows = rows_of(folder / "runs" / "whole")
    assert set(rows["strategy"].to_pylist()) == {"lower", "er_rand", "er_hull", "jtr", "dgr", "ra", "ewc", "upper"}
    assert rows_of(folder / "runs" / "killed").equals(rows)
    page = (folder / "runs" / "whole" / "report" / "index.html").read_text()
    for words in ("generated images of every category in the end", "Generated accuracy", "arXiv 1809.02058"):
        assert words in page
    trials = tracked_trials(folder, "shapes")
    assert trials and all("aip/generated_accuracy" in one.data.metrics or "ap/generated_accuracy" in one.data.metrics
                          for one in trials)  # fmt: skip
