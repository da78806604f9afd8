"""A whole study of seconds: real photos, generator, worker code and rows, in this process (no Ray cluster)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml
from PIL import Image

import clstudy
from clstudy.assets import manifest
from clstudy.cluster.coordinator import Coordinator
from clstudy.cluster.recorder import Recorder
from clstudy.cluster.worker import Job, SentBasis, TrialTrainable
from clstudy.generators import load_generators
from clstudy.generators.base import GENERATORS
from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.identities.dataset import Identity, load_folder
from clstudy.identities.dcgan import LATENT_SIZE, FaceSource
from clstudy.metrics.base import METRICS
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.expansion import expand
from clstudy.settings.metric_facts import own_metrics
from clstudy.settings.profiles import EvaluationSettings, InversionSettings, Profile, TrainerSettings, smoke
from clstudy.settings.space_file import load_space
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.strategies.lookup import strategy_class
from clstudy.study.plan import make_plan
from clstudy.study.preparation import prepare
from clstudy.study.run_options import RunOptions
from clstudy.study.study_file import write_study_file
from clstudy.tracking.run_contents import run_names
from clstudy.training.numerics import configure_torch, torch_device
from clstudy.trial.requests import Basis
from clstudy.trial.stage_runner import StageRunner
from clstudy.workloads.base import workload_of

TIMESTAMPS, TRAIN, TEST = 3, 3, 2
SHARED = ("lower", "er_rand", "upper")
"""Strategies of the small study that a session's tests share (``small_study`` in ``tests/conftest.py``)."""
PROFILE: Profile = replace(
    smoke(),
    name="small",
    trainer=TrainerSettings(epochs=2),
    inversion=InversionSettings(steps=1),
    evaluation=EvaluationSettings(metrics=("lpips",), synthesis_images=0),
)


class Direct:
    """An actor's handle without the cluster: ``handle.method.remote(...)`` is a call."""

    def __init__(self, actor: object):
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Any] = getattr(self._actor, name)
        return SimpleNamespace(remote=method)


class Clusterless(TrialTrainable):
    """The worker's code without the wait for calls that are on their way: here they are over when they return."""

    def _wait_for_delivery(self) -> None:
        return

    def _ask(self, method: str, *arguments: Any) -> Any:
        return getattr(self._job.coordinator, method).remote(*arguments)


class Deaf:
    """A recorder for tests that do not look at MLflow."""

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *_: 0


def make_photos(root: Path, people: tuple[str, ...]) -> None:
    """Faces of the packaged DCGAN in the documented layout."""
    latents = np.random.default_rng(0).standard_normal((len(people) * TIMESTAMPS * (TRAIN + TEST), LATENT_SIZE))
    faces = iter(FaceSource().draw(latents))
    for person in people:
        for t in range(TIMESTAMPS):
            for split, count in (("train", TRAIN), ("test", TEST)):
                folder = root / person / f"t{t}" / split
                folder.mkdir(parents=True)
                for number in range(count):
                    Image.fromarray(next(faces)).save(folder / f"{number}.png")


def make_study(
    folder: Path,
    strategies: tuple[str, ...],
    *,
    mlflow: str | None = None,
    profile: Profile = PROFILE,
    metrics: tuple[str, ...] = ("lpips",),
) -> Path:
    """Run every trial of one person as the workers do; photos in ``folder/photos``, runs at the URI ``mlflow``."""
    people = ("anna",)
    profile = replace(profile, evaluation=replace(profile.evaluation, metrics=metrics))
    configure_torch(profile.compute, profile.resources)
    make_photos(folder / "photos", people)
    grid = {"identity": len(people), "strategy": list(strategies), "buffer_size": [2], "learning_rate": [0.003]}
    (folder / "small.yaml").write_text(
        yaml.safe_dump({"name": "small", "profile": "smoke", "grid": grid, "seeds": [0]})
    )
    space = load_space(str(folder / "small.yaml"))
    data = load_folder(folder / "photos")
    identities: dict[str, Identity] = {identity.name: identity for identity in data.identities}
    trials = expand(space, list(identities), lambda name: strategy_class(name).uses_buffer_size).trials
    generator = manifest()["embedded_generator.safetensors"]["sha256"]
    basis = Basis(profile, generator, own_metrics=own_metrics(metrics))
    out = folder / "runs" / "small"
    plan = make_plan(trials, identities, basis, StudyStore(out), out, workers=1)
    write_study_file(out, space, basis, data, plan)
    tags = {"clstudy.profile": "small", "clstudy.version": clstudy.__version__}
    recorder = Recorder(mlflow, "small", out / "mlflow-artifacts", tags) if mlflow else Deaf()
    runner = StageRunner.personalising(
        basis, EmbeddedGenerator(), LPIPS(), [METRICS[name]() for name in metrics], StudyStore(out)
    )
    run_trials(trials, identities, runner, out, recorder)
    (out / "failures.json").write_text(json.dumps({}))
    return out


def run_trials(
    trials: Sequence[TrialSpec], identities: Mapping[str, Identity], runner: StageRunner, out: Path, recorder: Any
) -> None:
    """Run trials one after the other, as workers do.

    Raises:
        AssertionError: a trial failed.
    """
    worker = Clusterless.__new__(Clusterless)  # ``setup`` wants a cluster; all of the rest is as it is
    worker._job = Job(
        basis=SentBasis.of(runner.basis),
        identities=identities,
        run_names=run_names(tuple(trials)),
        out=out,
        files={},
        coordinator=Direct(Coordinator()),
        recorder=Direct(recorder),
    )
    worker._runner = runner
    for spec in trials:
        worker._begin(spec.config())
        while not (state := worker.step())["done"]:
            pass
        assert "failed" not in state, state
    assert recorder.close() == 0


def run_in_process(space: Path, **options: Any) -> Path:
    """The main job's own preparation, plan and workers on a space, without Ray and MLflow; returns the study."""
    prepared = prepare(RunOptions(space=str(space), **options), lambda text: nullcontext())
    profile, data = prepared.profile, prepared.data
    assert isinstance(prepared.out, Path)
    write_study_file(prepared.out, prepared.space, prepared.basis, data, prepared.plan)
    configure_torch(profile.compute, profile.resources)
    load_generators()
    weights = prepared.weights or GENERATORS[profile.generator].read(prepared.equipment.files)
    workload = workload_of(profile).build(profile, weights, prepared.equipment.files, torch_device(profile.resources))
    runner = StageRunner(prepared.basis, workload, StudyStore(prepared.out))
    people = {identity.name: identity for identity in data.identities}
    run_trials(prepared.plan.trials, people, runner, prepared.out, Deaf())
    (prepared.out / "failures.json").write_text(json.dumps({}))
    return prepared.out
