"""What is written and read around a stage: its value in the store, its run in MLflow, a trial from stored stages."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmarks.paths.base import BASELINE, OURS, HotPath, Prepared, Work

_WEIGHTS, _ROWS = 5_800_000, 40_000
"""Bytes of a stage of the embedded profile."""
TIMESTAMPS, METRICS = 5, 30


class Store(HotPath):
    """A stage put into the store with checksums and fsync, and read again."""

    title: ClassVar[str] = "store: a stage with weights, put and read"
    unit: ClassVar[str] = "stage"
    baseline: ClassVar[str] = "the same bytes written, synced and read as plain files"
    elapsed: ClassVar[bool] = True

    def prepare(self, folder: Path) -> Prepared:
        from clstudy.storage.content_addressed_store import StudyStore, digest_of

        rng = np.random.default_rng(0)
        weights, rows = rng.bytes(_WEIGHTS), rng.bytes(_ROWS)
        store, counter = StudyStore(folder / "study"), itertools.count()
        plain = folder / "plain"
        plain.mkdir()

        def ours() -> None:
            key = digest_of({"stage": next(counter)})
            store.weights.put(key, {"weights.safetensors": weights})
            store.stages.put(key, {"rows.parquet": rows, "stage.json": b"{}"})
            assert store.weights.get(key) and store.stages.file(key, "rows.parquet") == rows

        def files() -> None:
            number = next(counter)
            for name, content in (("weights", weights), ("rows", rows), ("json", b"{}")):
                with (plain / f"{number}.{name}").open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                assert (plain / f"{number}.{name}").read_bytes() == content

        return Prepared({OURS: Work(ours), BASELINE: Work(files)}, {"bytes": float(_WEIGHTS + _ROWS)})


class Tracking(HotPath):
    """A trial of five timestamps with 30 metrics each, into MLflow on SQLite."""

    title: ClassVar[str] = "MLflow: a trial of 5 timestamps, 30 metrics"
    unit: ClassVar[str] = "trial"
    baseline: ClassVar[str] = "the same numbers inserted into a SQLite table"
    elapsed: ClassVar[bool] = True

    def prepare(self, folder: Path) -> Prepared:
        from clstudy.tracking.local_database import sqlite_uri
        from clstudy.tracking.writer import MlflowWriter

        writer = MlflowWriter(sqlite_uri(folder / "mlflow.db"), "benchmark", artifact_location=folder / "images")
        counter = itertools.count()
        values = {f"ap/metric_{index}": 0.1 * index for index in range(METRICS)}
        with closing(sqlite3.connect(folder / "plain.db")) as database:
            database.execute("CREATE TABLE metrics (run INT, step INT, name TEXT, value REAL)")
            database.commit()

        def ours() -> None:
            name = f"trial-{next(counter)}"
            writer.start_trial(name, name, {"strategy": "lower", "seed": 0}, {})
            for t in range(TIMESTAMPS):
                writer.log_stage(name, t, values)
            writer.finish_trial(name)
            assert writer.flush() == 0

        def plain() -> None:
            number = next(counter)
            with closing(sqlite3.connect(folder / "plain.db")) as database:
                for t in range(TIMESTAMPS):
                    rows = [(number, t, name, value) for name, value in values.items()]
                    database.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?)", rows)
                    database.commit()

        return Prepared({OURS: Work(ours), BASELINE: Work(plain)})


class Orchestration(HotPath):
    """Trials whose stages are all stored, through Ray Tune with two workers; the start of Ray is part of a round."""

    title: ClassVar[str] = "orchestration: 40 trials of stored stages"
    unit: ClassVar[str] = "trial"
    baseline: ClassVar[str] = "a loop in one process that reads the same stages and writes the same rows"
    elapsed: ClassVar[bool] = True
    rounds: ClassVar[int] = 2
    warmed_up: ClassVar[bool] = False
    TRIALS: ClassVar[int] = 40

    def prepare(self, folder: Path) -> Prepared:
        from benchmarks.orchestration import Clock, make_stored_study, plain_loop, run_stored
        from clstudy.settings.profiles import Resources
        from clstudy.storage.places import open_place
        from clstudy.tracking.local_database import sqlite_uri

        counter = itertools.count()

        def ours() -> None:
            place = folder / f"run-{next(counter)}"
            study = make_stored_study(open_place(place) / "stored", self.TRIALS, Resources(cpus=1.0))
            outcome = run_stored(study, sqlite_uri(place / "mlflow.db"), Clock().show, max_concurrent=2)
            assert len(outcome.finished) == self.TRIALS, json.dumps(dict(outcome.failures))

        study = make_stored_study(open_place(folder / "plain") / "stored", self.TRIALS, Resources(cpus=1.0))

        def plain() -> None:
            plain_loop(study, folder / f"plain-{next(counter)}")

        return Prepared({OURS: Work(ours, self.TRIALS), BASELINE: Work(plain, self.TRIALS)})
