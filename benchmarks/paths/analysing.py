"""From rows to scores with intervals, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from benchmarks.paths.base import BASELINE, OURS, HotPath, Prepared, Work

_OURS = "import sys; from clstudy.analysis.summary import summarise; summarise(sys.argv[1])"
_READ = "import sys; import pyarrow.parquet as pq; pq.read_table(sys.argv[1] + '/results').num_rows"


class Analysis(HotPath):
    """All scores and default intervals of a study of ten people, six strategies at three sizes."""

    title: ClassVar[str] = "analysis of 1 million rows"
    unit: ClassVar[str] = "million rows"
    baseline: ClassVar[str] = "the same files read by pyarrow"
    elapsed: ClassVar[bool] = True
    rounds: ClassVar[int] = 3
    warmed_up: ClassVar[bool] = False
    ROWS: ClassVar[int] = 1_000_000

    def prepare(self, folder: Path) -> Prepared:
        from benchmarks.analysis import write_study

        study = folder / "made_up"
        millions = write_study(study, self.ROWS) / 1e6

        def run(program: str) -> None:
            subprocess.run([sys.executable, "-c", program, str(study)], check=True, stdout=subprocess.DEVNULL)

        return Prepared(
            {OURS: Work(lambda: run(_OURS), millions), BASELINE: Work(lambda: run(_READ), millions)},
            {"million rows": millions},
        )


class LargeAnalysis(Analysis):
    """The same with ten times the rows (more seeds)."""

    title: ClassVar[str] = "analysis of 10 million rows"
    rounds: ClassVar[int] = 1
    ROWS: ClassVar[int] = 10_000_000
