"""A light install: reading studies needs neither torch nor Ray nor MLflow, nor that they are there."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.analysis.test_report import Study
from tests.support.furnished import furnish

ROOT = Path(__file__).parents[1]
HEAVY = ("ray[tune]", "torch", "optuna", "mlflow", "onnxruntime")
FILE = ROOT / "requirements-report.txt"


def listed() -> list[str]:
    return [line for line in FILE.read_text().splitlines() if line and not line.startswith("#")]


def test_the_list_is_that_of_the_package_without_what_computes() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    light = [line for line in wanted if line.partition(">")[0] not in HEAVY]
    assert listed() == light and len(light) == len(wanted) - len(HEAVY)


@pytest.mark.network
def test_with_these_packages_alone_a_study_is_reported_compared_and_opened(tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = str(environment / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--no-compile"]
    subprocess.run([*install, "--no-deps", str(ROOT)], check=True)
    subprocess.run([*install, "-c", str(ROOT / "constraints.txt"), "-r", str(FILE)], check=True)
    studies = [Study(tmp_path / name, identities=("ann", "bob"), seeds=(0,)) for name in ("one", "two")]
    for study in studies:
        furnish(study)
    script = (
        "import importlib.util, clstudy\n"
        "for name in ('torch', 'ray', 'mlflow', 'optuna', 'onnxruntime'):\n"
        "    assert importlib.util.find_spec(name) is None, name\n"
        "study = clstudy.open_study('one')\n"
        "print(study.complete, study.scores.num_rows > 0, len(study.answer()) > 0)\n"
    )
    said = subprocess.run([python, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said == "True True True\n"
    for words in (["report", "one"], ["compare", "one", "two"], ["bench", "board"]):
        done = subprocess.run(
            [python, "-m", "clstudy", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "one" / "report" / "index.html").is_file() and (tmp_path / "comparison.html").is_file()
