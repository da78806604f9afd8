"""``python -m benchmarks``: ratios within rounds, and the command from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.__main__ import Measured, seconds_text
from benchmarks.footage import Photos, measured
from benchmarks.paths import PATHS
from benchmarks.paths.base import BASELINE, OURS
from tests.support.small_study import run_in_process

ROOT = Path(__file__).parents[1]


def test_a_ratio_is_the_median_of_the_rounds_ratios_not_the_ratio_of_medians() -> None:
    busy = Measured("store", {OURS: [1.0, 10.0, 2.0], BASELINE: [3.0, 30.0, 4.0], "other": [1.0, 5.0, 2.0]})
    assert busy.ratio(BASELINE) == 3.0 and busy.ratio("other") == 1.0 and busy.median(OURS) == 2.0
    document = json.loads(json.dumps(busy.document()))
    assert document["baseline_over_ours"] == 3.0 and document["clock"] == "elapsed"
    assert Measured("store", {}, problem="no such thing").document()["median_seconds"] == {}


def test_seconds_have_a_fitting_unit() -> None:
    assert [seconds_text(one) for one in (None, 2e-6, 0.0123, 4.5, 90.0)] == ["–", "2 µs", "12.3 ms", "4.5 s", "90 s"]


def test_occasions_of_the_same_photos_are_no_further_apart_than_their_own() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 64, 64, 3), dtype=np.uint8)
    photos = Photos(train=pixels[:4], test=pixels[4:])
    for found in measured([photos, photos], np.random.default_rng(0)):
        assert 0 < found.nearest < found.mean < found.farthest
        assert found.ratio == pytest.approx(1)
        assert 0 <= found.gain < 1


def test_every_path_says_what_it_measures_against_what() -> None:
    for kind in PATHS.values():
        assert kind.title and kind.unit and kind.baseline and kind.rounds >= 1 and kind.__doc__


@pytest.mark.slow
def test_paths_are_measured_beside_another_commit(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--only",
        "hull",
        "store",
        "lpips",
        "--rounds",
        "1",
        "--json",
        str(file),
    ]
    done = subprocess.run([*command, "--compare", "HEAD"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {one["path"]: one for one in json.loads(file.read_text())["paths"]}
    assert list(found) == ["lpips", "hull", "store"] and "baseline / ours" in done.stdout
    assert all(one["baseline_over_ours"] > 0 for one in found.values())
    assert found["hull"]["other_over_ours"] == pytest.approx(1.0, rel=0.5) and found["store"]["other_over_ours"] is None
    assert 0 < found["lpips"]["median_peak_share"] < 1.5


SPACE = {
    "name": "two",
    "profile": "smoke",
    "grid": {"identity": 1, "strategy": ["lower", "er_rand"], "buffer_size": [3], "learning_rate": [0.003]},
    "seeds": [0],
}


@pytest.mark.slow
@pytest.mark.ci_slow
def test_scripts_that_read_a_finished_study_still_do(tmp_path: Path) -> None:
    """They use the stages' own parts, whose names change more easily than the commands'."""
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(SPACE))
    study = run_in_process(tmp_path / "two.yaml", out=str(tmp_path / "runs" / "two"))
    for script, said in (("learning", "mean saved by personalising"), ("procedure", "W+, normalised weights")):
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{script}", str(study)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert said in done.stdout and "nan" not in done.stdout, done.stdout
