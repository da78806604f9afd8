"""One million rows to all scores and default intervals: seconds and peak memory.

Run: ``python benchmarks/analysis.py [--folder FOLDER]``. Writes a made-up study (ten people, ten timestamps, two
seeds, six strategies at three sizes between ``lower`` and ``upper``) into FOLDER, or a temporary one, and analyses it
in a fresh process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clstudy.records.failures import write_failures
from clstudy.records.rows import RESULT_SCHEMA, SORT_KEY
from clstudy.records.study_record import StudyRecord, TrialEntry, write_study_record

MILLION = 1_000_000
TIMESTAMPS, PHOTOS, SYNTHESES = 10, 10, 20
BUFFERED = ("er_rand", "er_hull", "kmeans", "gdumb", "herding", "k_center")
SIZES = (3, 5, 10)
# (protocol, metric, images per cell, value when fresh, drift per timestamp since)
MEASURES = (
    ("reconstruction", "lpips", PHOTOS, 0.09, 0.004),
    ("reconstruction", "id", PHOTOS, 0.93, -0.01),
    ("reconstruction", "psnr", PHOTOS, 24.0, -0.3),
    ("synthesis", "id", SYNTHESES, 0.85, -0.02),
    ("synthesis", "fid", 1, 80.0, 5.0),
)
LIMIT_SECONDS, LIMIT_BYTES = 3.0, 1_000_000_000


def write_study(folder: Path, rows: int = MILLION, *, people: int = 10, seed: int = 0) -> int:
    """Write ``study.yaml`` and ``results/`` of a made-up study with at least ``rows`` rows; return how many.

    Trial seeds are added until the rows suffice. A larger K drifts less, people differ, images differ: enough
    structure for intervals to mean something.
    """
    rng = np.random.default_rng(seed)
    (folder / "results").mkdir(parents=True)
    names = [f"person_{i:02d}" for i in range(people)]
    trials: list[dict[str, Any]] = []
    written = 0
    effects = dict(zip(names, rng.normal(0, 0.1, people), strict=True))
    for number in itertools.count():
        for spec in _round(names, number):
            table = _trial_rows(spec, effects[spec["identity"]], rng)
            pq.write_table(table, folder / "results" / f"{spec['trial']}.parquet")
            trials.append(spec)
            written += table.num_rows
        if written >= rows:
            break
    record = StudyRecord(
        name="made_up",
        description="made up by benchmarks/analysis.py",
        profile={"name": "made_up"},
        timestamps=dict.fromkeys(names, TIMESTAMPS),
        buffer_sizes=SIZES,
        trials=tuple(TrialEntry(**spec) for spec in trials),
    )
    write_study_record(folder, record)
    write_failures(folder, {})
    return written


def _round(people: Sequence[str], seed: int) -> Iterator[dict[str, Any]]:
    """Every trial of one seed."""
    arms = [("lower", None), *itertools.product(BUFFERED, SIZES), ("upper", None)]
    for person, (strategy, size) in itertools.product(people, arms):
        middle = "" if size is None else f"-k{size}"
        yield {
            "trial": f"{person}-{strategy}{middle}-lr0.0003-s{seed}",
            "identity": person,
            "strategy": strategy,
            "buffer_size": size,
            "learning_rate": 0.0003,
            "seed": seed,
        }


def _trial_rows(spec: dict[str, Any], effect: float, rng: np.random.Generator) -> pa.Table:
    joint = spec["strategy"] == "upper"
    forgets = 0.0 if joint else 1.0 if spec["buffer_size"] is None else 1 / (1 + spec["buffer_size"] / 5)
    t, k = np.tril_indices(TIMESTAMPS)
    keep = t == TIMESTAMPS - 1 if joint else np.full(t.shape, True)
    columns: list[tuple[Any, ...]] = []
    for protocol, metric, images, fresh, drift in MEASURES:
        at, of = np.repeat(t[keep], images), np.repeat(k[keep], images)
        image = np.tile(np.arange(images), keep.sum())
        noise = rng.normal(0, 0.1, at.size)
        value = fresh + drift * ((at - of) * forgets + effect * 5 + noise * 5)
        names = [f"{spec['identity']}-{metric}-{a:02d}-{b:02d}".ljust(64, "0") for a, b in zip(of, image, strict=True)]
        columns.append((at, of, [protocol] * at.size, [metric] * at.size, names, value))
    measured = [pa.array(np.concatenate([column[place] for column in columns])) for place in range(6)]
    n = len(measured[0])
    constant = [pa.array([spec[field.name]] * n, field.type) for field in list(RESULT_SCHEMA)[:6]]
    return pa.Table.from_arrays([*constant, *measured], schema=RESULT_SCHEMA).sort_by(SORT_KEY)


_MEASURE = """
import json, resource, sys, time
started = time.perf_counter()
from clstudy.analysis.summary import summarise
imported = time.perf_counter()
summary = summarise(sys.argv[1])
done = time.perf_counter()
print(json.dumps({"import": imported - started, "summarise": done - imported,
    "cells": summary.scores.num_rows, "paired": summary.paired.num_rows, "complete": summary.complete,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def measure(folder: Path) -> dict[str, float]:
    """Summarise a study in a fresh process; seconds of the import and of the work, peak resident bytes."""
    done = subprocess.run([sys.executable, "-c", _MEASURE, str(folder)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> int:
    """Print the figures; 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=MILLION)
    parser.add_argument("--folder", type=Path, help="where to write the study, and leave it (default: temporary)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch) / "made_up"
        rows = write_study(folder, arguments.rows)
        found = measure(folder)
    print(f"{rows:,} rows -> {found['cells']} scores and {found['paired']} paired differences with intervals")
    print(f"all scores and default intervals: {found['summarise']:.2f} s (limit {LIMIT_SECONDS:g} s)")
    print(f"imports before it: {found['import']:.2f} s")
    print(f"peak memory: {found['peak'] / 1e6:.0f} MB (limit {LIMIT_BYTES / 1e6:.0f} MB)")
    return int(found["summarise"] > LIMIT_SECONDS or found["peak"] > LIMIT_BYTES)


if __name__ == "__main__":
    sys.exit(main())
