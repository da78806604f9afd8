"""Run a study: Ray Tune over its trials, live progress, one MLflow writer; resume is simply running again."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune

import clstudy
from clstudy.actors import CoordinatorActor, RecorderActor
from clstudy.errors import UserError
from clstudy.fold import Basis
from clstudy.generators import load_generators
from clstudy.generators.base import GENERATORS, GeneratorWeights
from clstudy.identities.dataset import DataSet
from clstudy.plan import Plan
from clstudy.space import SearchSpace
from clstudy.stages import StudyStore, write_atomically
from clstudy.study_file import write_study_file
from clstudy.tracking import artifact_folder, run_names
from clstudy.worker import Job, TrialTrainable


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Where and with how many workers a study runs.

    ``files`` are the weights from outside the package, by role; ``weights`` those of the generator if they were read
    already.
    """

    space: SearchSpace
    basis: Basis
    data: DataSet
    out: Path
    tracking_uri: str
    files: Mapping[str, Path] = field(default_factory=dict)
    weights: GeneratorWeights | None = None
    address: str | None = None
    max_concurrent: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run of a study ended."""

    failures: Mapping[str, str]
    unfinished: tuple[str, ...]
    stages_computed: int
    stages_reused: int
    seconds: float
    undelivered: int
    notes: tuple[str, ...]


Display = Callable[[Mapping[str, Any]], None]


def run_study(settings: StudySettings, plan: Plan, show: Display) -> Outcome:
    """Run all unfinished trials of a plan and return how it went.

    ``show`` is called a few times a second with the coordinator's snapshot. A killed driver leaves nothing half:
    the same call goes on from the finished stages.
    """
    started = time.monotonic()
    StudyStore(settings.out).drop_drafts()
    write_study_file(settings.out, settings.space, settings.basis, settings.data, plan)
    start_ray(settings.address)
    try:
        coordinator: Any = CoordinatorActor.remote()
        recorder: Any = RecorderActor.remote(
            settings.tracking_uri,
            settings.space.name,
            artifact_folder(settings.out, settings.tracking_uri),
            {"clstudy.profile": settings.basis.profile.name, "clstudy.version": clstudy.__version__},
        )
        with _Watcher(coordinator, show):
            _fit(settings, plan, coordinator, recorder)
        undelivered = ray.get(recorder.close.remote())
        snapshot = ray.get(coordinator.snapshot.remote())
    finally:
        ray.shutdown()
    ended = snapshot["finished"]
    failures = {trial: message for trial, message in sorted(ended.items()) if message}
    write_atomically(settings.out / "failures.json", json.dumps(failures, indent=1).encode())
    return Outcome(
        failures=failures,
        unfinished=tuple(spec.trial_id for spec in plan.to_run if spec.trial_id not in ended),
        stages_computed=snapshot["stages"]["computed"],
        stages_reused=snapshot["stages"]["reused"],
        seconds=time.monotonic() - started,
        undelivered=undelivered,
        notes=tuple(snapshot["notes"]),
    )


def start_ray(address: str | None) -> None:
    """Connect to a cluster, or start Ray on this machine without dashboard and usage statistics."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the newer console prints a box even when told to be silent
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "ignore_reinit_error": True}
    if address is None:
        ray.init(include_dashboard=False, **quiet)
        return
    try:
        ray.init(address=address, **quiet)
    except ConnectionError as error:
        raise UserError(
            f"no Ray cluster at {address!r} ({error}); start one with `ray up cluster.yaml` or `ray start --head`, "
            "or leave --address out to run on this machine"
        ) from error


def concurrency(settings: StudySettings, cpus: float, gpus: float) -> int:
    """How many trials fit at once into the given resources."""
    share = settings.basis.profile.resources
    fits = cpus / share.cpus if share.cpus else float("inf")
    if share.gpus:
        fits = min(fits, gpus / share.gpus)
    return max(1, min(int(fits), settings.max_concurrent or int(fits)))


def _fit(settings: StudySettings, plan: Plan, coordinator: Any, recorder: Any) -> None:
    specs = {spec.trial_id: spec for spec in plan.to_run}
    job = Job(
        basis=settings.basis,
        trials=specs,
        identities={identity.name: identity for identity in settings.data.identities},
        run_names=run_names(plan.trials),
        out=settings.out.resolve(),
        files=settings.files,
        coordinator=coordinator,
        recorder=recorder,
    )
    share = settings.basis.profile.resources
    load_generators()
    weights = settings.weights or GENERATORS[settings.basis.profile.generator].read(settings.files)
    trainable = tune.with_resources(
        tune.with_parameters(TrialTrainable, job=job, weights=weights),
        {"cpu": share.cpus, "gpu": share.gpus},
    )
    scratch = settings.out.resolve() / "ray"
    shutil.rmtree(scratch, ignore_errors=True)
    tuner = tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search(list(specs))},
        tune_config=tune.TuneConfig(
            reuse_actors=True,
            max_concurrent_trials=settings.max_concurrent,
            trial_name_creator=lambda trial: str(trial.config["trial"]),
            trial_dirname_creator=lambda trial: str(trial.config["trial"]),
        ),
        # Tune's own records are not the truth (they lose and repeat rows); ours are keyed and checked.
        run_config=tune.RunConfig(
            name=settings.space.name,
            storage_path=str(scratch),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=3),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
        ),
    )
    tuner.fit()


class _Watcher:
    """Reads the coordinator's board in a thread while ``fit`` blocks."""

    def __init__(self, coordinator: Any, show: Display, every: float = 0.5):
        self._coordinator = coordinator
        self._show = show
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=5)

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            try:
                self._show(ray.get(self._coordinator.snapshot.remote(), timeout=5))
            except Exception:  # the display must never stop a study
                continue
