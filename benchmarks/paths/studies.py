"""Whole studies through the documented command: all of ``smoke``, a sample of ``hull_sizes``."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from benchmarks.paths.base import BASELINE, OURS, HotPath, Prepared, Work

WORKERS = 2


class Smoke(HotPath):
    """``python -m clstudy.run --space smoke`` from nothing: photos, Ray, six trials, report, MLflow."""

    title: ClassVar[str] = "smoke, from the command to the report"
    unit: ClassVar[str] = "study"
    baseline: ClassVar[str] = "its stages' own seconds, shared by two workers"
    elapsed: ClassVar[bool] = True
    comparable: ClassVar[bool] = True
    rounds: ClassVar[int] = 1
    warmed_up: ClassVar[bool] = False
    OPTIONS: ClassVar[tuple[str, ...]] = ("--space", "smoke")

    def prepare(self, folder: Path) -> Prepared:
        counter, last = itertools.count(), [folder]

        def ours() -> None:
            last[0] = folder / str(next(counter))
            run_study(last[0], self.OPTIONS)

        def computing() -> float:
            (study,) = (path.parent for path in (last[0] / "runs").glob("*/timings"))
            return stage_seconds(study) / WORKERS

        return Prepared({OURS: Work(ours), BASELINE: Work(computing)})


class HullSizes(Smoke):
    """One of the five people of ``hull_sizes``, at one seed, at full length."""

    title: ClassVar[str] = "hull_sizes, one person"
    unit: ClassVar[str] = "person"
    OPTIONS: ClassVar[tuple[str, ...]] = ("--space", "hull_sizes", "--identities", "1")


def run_study(folder: Path, options: tuple[str, ...], workers: int = WORKERS) -> None:
    """The command in a folder of its own.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    folder.mkdir()
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "clstudy.run", *options, "--max-concurrent", str(workers)],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("OMP_")} | quiet,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError((done.stdout + done.stderr)[-2000:])


def stage_seconds(study: Path) -> float:
    """Seconds that a study's stages took by their own records."""
    return sum(json.loads(path.read_text())["seconds"] for path in (study / "timings").glob("*.json"))
