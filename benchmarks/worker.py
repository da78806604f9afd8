"""A process that does the work of paths with one checkout's clstudy: a line of JSON in, a line of JSON out.

    python -P -m benchmarks.worker      (started by ``python -m benchmarks``)

``{"prepare": PATH}`` (and ``"only": SIDE``, where the other is never measured), ``{"measure": SIDE}``,
``{"peak": true}``, ``{"describe": true}``. Two such processes measure two checkouts by turns, each with everything in
memory.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import describe, matrix_product
from benchmarks.paths import PATHS
from benchmarks.paths.base import HotPath, Prepared


class Worker:
    """What the process holds between two lines."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: HotPath | None = None
        self._prepared: Prepared | None = None
        self._peak = matrix_product()

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what a line says."""
        if "describe" in asked:
            return describe()
        if "peak" in asked:
            return {"flops": self._peak()}
        if "prepare" in asked:
            return self._prepare(asked["prepare"], asked.get("only"))
        return {"seconds": self._seconds(asked["measure"])}

    def _prepare(self, name: str, only: str | None) -> dict[str, Any]:
        self._prepared = None
        gc.collect()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        self._path = PATHS[name]()
        self._prepared = self._path.prepare(self._folder)
        sides = {side: work for side, work in self._prepared.sides.items() if only in (None, side)}
        for work in sides.values() if self._path.warmed_up else ():  # first calls set up libraries and fill caches
            work.run()
        return {
            "units": {side: work.units for side, work in sides.items()},
            "flop": {side: work.flop for side, work in sides.items()},
            "facts": dict(self._prepared.facts),
        }

    def _seconds(self, side: str) -> float:
        assert self._path is not None and self._prepared is not None
        clock = time.perf_counter if self._path.elapsed else time.process_time
        started = clock()
        reported = self._prepared.sides[side].run()
        return reported if isinstance(reported, float) else clock() - started


def main() -> int:
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not end up between the answers
    with tempfile.TemporaryDirectory() as scratch:
        worker = Worker(Path(scratch) / "path")
        for line in sys.stdin:
            try:
                answer = worker.answer(json.loads(line))
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=replies)
    return 0


if __name__ == "__main__":
    sys.exit(main())
