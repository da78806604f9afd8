"""Estimates what a loss path costs: stages to train again, networks to build, forward passes, and seconds for each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clstudy.errors import UserError
from clstudy.identities.dataset import Identity
from clstudy.study.loss_path.lines import Task, WeightLine, some_names
from clstudy.study.loss_path.losses import Networks, photo_batches
from clstudy.study.plan import find_pace
from clstudy.trial.requests import StageRequest
from clstudy.trial.stage_runner import StageRunner
from clstudy.trial.work import training_work


@dataclass(frozen=True, kw_only=True)
class PathCost:
    """Stages to train again, networks to build and forward passes for all lines, and the seconds that each takes.

    Building and passes are measured on this machine; training is estimated from the study's own stages.
    """

    retrained: int
    retrain_seconds: float
    networks: int
    passes: int
    build_seconds: float
    pass_seconds: float

    @property
    def seconds(self) -> float:
        """Seconds for everything."""
        return self.retrain_seconds + self.networks * self.build_seconds + self.passes * self.pass_seconds

    def sentence(self) -> str:
        """The estimate as the command prints it."""
        again = (
            f"{self.retrained} stages whose weights were dropped are trained again (about "
            f"{self.retrain_seconds / 60:.1f} minutes, from the study's own stages) + "
            if self.retrained
            else ""
        )
        return again + (
            f"{self.passes} forward passes x {self.pass_seconds:.3f} s + {self.networks} networks x "
            f"{self.build_seconds:.3f} s (both measured here): about {self.seconds / 60:.1f} minutes"
        )


def require_weights(runner: StageRunner, requests: Mapping[str, StageRequest], lines: Sequence[WeightLine]) -> None:
    """Refuse lines if their weights were dropped and cannot be computed again here.

    Raises:
        UserError: names the stages.
    """
    ends = {
        key: f"{line.spec.trial_id} t = {t}"
        for line in lines
        for t, key in ((line.start, line.start_key), (line.end, line.end_key))
    }
    gone = [
        name
        for key, name in ends.items()
        if key not in requests and not (runner.store.weights.looks_complete(key) or runner.store.stage_has_weights(key))
    ]
    if gone:
        raise UserError(
            f"the weights of {len(gone)} stages were dropped, and this machine computes differently from the "
            f"one that trained them, so they cannot be trained again here: {some_names(gone)}. Use a similar machine "
            "(or --device), or name other trials with --trials"
        )


def dropped_stages(
    runner: StageRunner, requests: Mapping[str, StageRequest], keys: Iterable[str]
) -> list[StageRequest]:
    """Stages with these keys, and stages before them, that must be trained again because their weights were dropped."""
    store, found = runner.store, {}
    for key in keys:
        request = requests.get(key)
        while request is not None and request.key not in found:
            if store.weights.looks_complete(request.key) or store.stage_has_weights(request.key):
                break
            found[request.key] = request
            request = request.parent
    return list(found.values())


def measure_cost(
    networks: Networks,
    runner: StageRunner,
    people: Mapping[str, Identity],
    todo: Sequence[Task],
    again: Sequence[StageRequest],
    tries: int = 3,
) -> PathCost:
    """Count networks and passes, and time one of each (the median of several, after one to warm up)."""
    task, batch = todo[0], runner.basis.profile.inversion.batch_size
    counts = [len(people[one.identity].timestamps[k].test) for one in todo for k in one.timestamps]
    test = runner.photos.test_set(people[task.identity], task.timestamps[0], 0)
    # prefer a line that needs no training: the cost must be known before time is spent
    missing = {request.key for request in again}
    task = next((one for one in todo if not {one.line.start_key, one.line.end_key} & missing), None) or task
    networks.build(task)  # reads the weights
    builds, passes = [], []
    for _ in range(tries + 1):
        started = time.monotonic()
        module = networks.build(task)
        built = time.monotonic()
        next(
            photo_batches(module, test, runner.basis.profile, networks.workload.lpips)
        ).sum().item()  # waits for the device
        builds.append(built - started)
        passes.append(time.monotonic() - built)
    pace = find_pace(runner.basis, runner.store, runner.store.root).seconds_per_pass
    return PathCost(
        retrained=len(again),
        retrain_seconds=sum(training_work(request) for request in again) * pace,
        networks=len(todo),
        passes=sum(-(-count // batch) for count in counts),
        build_seconds=float(np.median(builds[1:])),
        pass_seconds=float(np.median(passes[1:])),
    )
