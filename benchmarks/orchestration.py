"""What running trials costs besides the trials: seconds per trial with stages that are there already.

    python benchmarks/orchestration.py [--trials 200] [--workers 2] [--storage FOLDER|URI] [--tracking URI]

Every trial of the study finds its stages in the store, so that all that is left is orchestration: Ray Tune, workers
(reused), claims, progress, rows to Parquet, MLflow with pictures. Printed as seconds per trial, with and without the
start of Ray and the workers, and as a ratio to the plain loop that reads the same stages and writes the same rows in
one process.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clstudy.assets import manifest
from clstudy.cluster.driver import Outcome, run_study
from clstudy.cluster.study_settings import StudySettings
from clstudy.identities.dataset import DataSet, Identity, Photo, Timestamp
from clstudy.images import encode_png
from clstudy.records.results import parquet_bytes, result_path, trial_table, write_result
from clstudy.records.rows import Row, stage_table
from clstudy.settings.profiles import Profile, Resources, smoke
from clstudy.settings.space import SearchSpace
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.content_addressed_store import StudyStore, digest_of
from clstudy.storage.places import Place, open_place
from clstudy.study.plan import Plan, make_plan
from clstudy.study.trial_sources import TrialSource
from clstudy.tracking.local_database import sqlite_uri
from clstudy.trial.requests import Basis, StageRequest, stage_requests

TIMESTAMPS, PHOTOS = 5, 4
LIMIT_SECONDS = 1.0


@dataclass(frozen=True)
class StoredStudy:
    """A study whose stages are all in the store, and nothing else."""

    space: SearchSpace
    basis: Basis
    data: DataSet
    out: Place
    plan: Plan
    requests: Mapping[str, Sequence[StageRequest]]


def unseen(name: str) -> Identity:
    """A person whose photos exist by digest only: nothing reads them."""

    def photos(t: int, kind: str) -> tuple[Photo, ...]:
        return tuple(
            Photo(Path(f"{name}/{t}/{kind}/{i}.png"), digest_of({"p": [name, t, kind, i]})) for i in range(PHOTOS)
        )

    return Identity(
        name, tuple(Timestamp(t, f"t{t}", photos(t, "train"), photos(t, "test")) for t in range(TIMESTAMPS))
    )


def made_up_rows(request: StageRequest) -> list[Row]:
    """Rows of a stage as it would have measured them: three metrics of every test photo, one of generated images."""
    rng = np.random.default_rng(int(request.key[:12], 16))
    return [
        Row(request.t, k, protocol, metric, f"{index:02d}", float(rng.random()))
        for k in range(request.t + 1)
        for protocol, metric in (
            ("reconstruction", "lpips"), ("reconstruction", "id"), ("reconstruction", "psnr"), ("synthesis", "id")
        )
        for index in range(PHOTOS)
    ]  # fmt: skip


def store_stage(store: StudyStore, request: StageRequest) -> None:
    """Put a stage there as if it had been computed."""
    face = np.full((64, 64, 3), 40 * request.t, np.uint8)
    files = {
        "rows.parquet": parquet_bytes(stage_table(made_up_rows(request))),
        "faces.png": encode_png(face),
        "stage.json": json.dumps({"request": request.document, "loss": 0.5}).encode(),
    }
    store.stages.put(request.key, files)


def make_stored_study(out: Place, trials: int, resources: Resources) -> StoredStudy:
    """``trials`` trials of ``lower``, one per learning rate, all of whose stages are stored."""
    profile: Profile = replace(smoke(), name="stored", resources=resources)
    basis = Basis(profile, manifest()["embedded_generator.safetensors"]["sha256"])
    person = unseen("nobody")
    specs = [
        TrialSpec(identity="nobody", strategy="lower", buffer_size=None, learning_rate=(i + 1) / 1e5, seed=0)
        for i in range(trials)
    ]
    space = SearchSpace.model_validate(
        {
            "name": "stored",
            "profile": "smoke",
            "grid": {
                "identity": ["nobody"],
                "strategy": ["lower"],
                "learning_rate": [spec.learning_rate for spec in specs],
            },
        }
    )
    store, requests = StudyStore(out), {}
    for spec in specs:
        requests[spec.trial_id] = list(stage_requests(spec, person, basis, lambda request: None))
        for request in requests[spec.trial_id]:
            store_stage(store, request)
    plan = make_plan(specs, {"nobody": person}, basis, store, out, workers=1)
    return StoredStudy(space, basis, DataSet("nobody", Path("nobody"), (person,)), out, plan, requests)


def run_stored(
    study: StoredStudy,
    tracking: str,
    show: Any = lambda snapshot: None,
    *,
    source: TrialSource | None = None,
    **settings: Any,
) -> Outcome:
    """Run it as the main job would."""
    given = StudySettings(
        space=study.space,
        basis=study.basis,
        data=study.data,
        out=study.out,
        tracking_uri=tracking,
        experiment="stored",
        **settings,
    )
    return run_study(given, study.plan, show, source=source, say=lambda text: print(text, file=sys.stderr))


def plain_loop(study: StoredStudy, folder: Path) -> float:
    """Seconds for reading the same stages and writing the same rows, with nothing around it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    store, started = StudyStore(study.out), time.perf_counter()
    for spec in study.plan.trials:
        requests = study.requests[spec.trial_id]
        files = [store.stages.get(request.key) or {} for request in requests]
        tables = [pq.read_table(pa.BufferReader(one["rows.parquet"])) for one in files]
        table = trial_table(spec, tables, [request.key for request in requests])
        write_result(result_path(folder, spec.trial_id), table)
    return time.perf_counter() - started


class Clock:
    """When the first trial was under way, from the board that the display sees."""

    def __init__(self) -> None:
        self.first = math.nan

    def show(self, snapshot: Mapping[str, Any]) -> None:
        if math.isnan(self.first) and (snapshot["running"] or snapshot["finished"]):
            self.first = time.perf_counter()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--storage", help="folder or URI (default: a temporary folder)")
    parser.add_argument("--tracking", help="tracking URI (default: SQLite in a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = open_place(args.storage or folder / "runs") / "stored"
        study = make_stored_study(out, args.trials, Resources(cpus=1.0))
        plain = plain_loop(study, folder / "plain")
        clock, started = Clock(), time.perf_counter()
        outcome = run_stored(
            study, args.tracking or sqlite_uri(folder / "mlflow.db"), clock.show, max_concurrent=args.workers
        )
        ended = time.perf_counter()
    assert len(outcome.finished) == args.trials, outcome.failures
    assert outcome.stages_computed == 0 and outcome.undelivered == 0
    each, with_start = (ended - clock.first) / args.trials, (ended - started) / args.trials
    print(
        f"{args.trials} trials of {TIMESTAMPS} stored stages, {args.workers} workers: {each:.3f} s per trial "
        f"({with_start:.3f} s with the start of Ray and the workers, {clock.first - started:.1f} s), "
        f"{each / (plain / args.trials):.0f} times the plain loop ({plain / args.trials:.3f} s per trial)"
    )
    print(f"{'within' if each < LIMIT_SECONDS else 'ABOVE'} the limit of {LIMIT_SECONDS:g} s per trial")
    return 0 if each < LIMIT_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
