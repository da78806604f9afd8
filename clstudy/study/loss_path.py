"""python -m clstudy.loss_path STUDY: the loss along the straight lines between the stages of finished trials.

After *Plateau in Monotonic Linear Interpolation* (arXiv 2210.01019): between the weights of t-1 and t, and of t = 0 and
the last stage, moving all parameters, weights only, or biases only. The loss is the trainer's own (LPIPS + MSE) on test
photos at their fixed starting latents; there is no inversion, which would hide what the weights do. Needs the stored
weights; the numbers and figures are made in ``clstudy.analysis`` without torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from clstudy.analysis.loss_path_figures import loss_path_drawings
from clstudy.analysis.loss_path_numbers import FILE as LOSS_PATH
from clstudy.analysis.loss_path_numbers import GROUPS, PATH_SCHEMA, path_curves, strategy_numbers
from clstudy.analysis.tables import to_csv
from clstudy.errors import UserError, nearest
from clstudy.generators import load_generators
from clstudy.generators.base import GENERATORS
from clstudy.identities.dataset import DataSet, Identity
from clstudy.metrics.lpips import LPIPS, index_features
from clstudy.records.results import parquet_bytes
from clstudy.settings.profiles import Profile
from clstudy.settings.space import TrialSpec
from clstudy.storage.checksums import write_checked
from clstudy.storage.places import write_atomically
from clstudy.storage.values import StudyStore
from clstudy.study.plan import find_pace
from clstudy.study.preflight import equip
from clstudy.study.stored_study import read_study_file, stage_keys, stored_photos, stored_profile
from clstudy.training.evaluation import TestSet
from clstudy.training.numerics import configure_torch, torch_device
from clstudy.training.personalise import TrainingPhotos, photo_losses
from clstudy.trial.requests import Basis, StageRequest, stage_requests
from clstudy.trial.story import Workbench
from clstudy.trial.work import training_work

Value = TypeVar("Value", Tensor, np.ndarray)

_BELONGS: Mapping[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "weights": lambda name: not is_bias(name),
    "biases": lambda name: is_bias(name),
}


def is_bias(name: str) -> bool:
    """Whether a parameter is a bias: its own name is ``bias``.

    So the biases of StyleGAN2's style layers count, which start at 1 and scale channels; its noise strengths and its
    learned constant count as weights.
    """
    return name.rpartition(".")[2] == "bias"


def interpolate(start: Mapping[str, Value], end: Mapping[str, Value], alpha: float, group: str) -> dict[str, Value]:
    """Weights at ``alpha`` of the way: ``start + alpha * (end - start)`` for the group's parameters, else ``start``.

    Args:
        start, end: arrays by parameter name, with equal names and shapes.
        alpha: in [0, 1]; 0 and 1 give the very bits of ``start`` and (for the group) of ``end``.
        group: a name of ``GROUPS``.

    Raises:
        ValueError: an unknown group, ``alpha`` outside [0, 1], or different names or shapes.
    """
    if group not in GROUPS:
        raise ValueError(f"group is {group!r}, expected one of {', '.join(GROUPS)}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, expected a number from 0 to 1")
    shapes = [{name: tuple(value.shape) for name, value in side.items()} for side in (start, end)]
    if shapes[0] != shapes[1]:
        differing = sorted(name for name in {*start, *end} if shapes[0].get(name) != shapes[1].get(name))
        raise ValueError(f"the two ends are not of one network: they differ in {', '.join(differing[:5])}")
    moves = _BELONGS[group]
    return {name: _between(value, end[name], alpha) if moves(name) else value for name, value in start.items()}


def _between(start: Value, end: Value, alpha: float) -> Value:
    # not the formula at the ends: rounding, and -0.0 + 0.0, would lose their bits
    return {0.0: start, 1.0: end}[alpha] if alpha in (0.0, 1.0) else start + alpha * (end - start)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A straight line between two stages of a trial, by timestamp and stage key."""

    spec: TrialSpec
    start: int
    end: int
    start_key: str
    end_key: str


@dataclass(frozen=True)
class Point:
    """A network on a line; equal points of different trials or lines are one. No ``end_key``: a stage itself."""

    start_key: str
    end_key: str
    group: str
    alpha: float

    @classmethod
    def of(cls, line: Line, group: str, alpha: float) -> Point:
        """The point, recognised as a stage where it is one."""
        if alpha == 0:
            return cls(line.start_key, "", "", 0.0)
        if alpha == 1 and group == "all":
            return cls(line.end_key, "", "", 0.0)
        return cls(line.start_key, line.end_key, group, alpha)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One network to build and the test timestamps to show it: what is computed once, whoever needs it."""

    identity: str
    line: Line
    point: Point
    group: str
    alpha: float
    timestamps: tuple[int, ...]


def trial_lines(spec: TrialSpec, keys: Sequence[str]) -> list[Line]:
    """Lines t-1 to t and 0 to last of a trial's stages; none for a single stage (``upper``)."""
    last = len(keys) - 1
    ends = [(t - 1, t) for t in range(1, last + 1)] + ([(0, last)] if last > 1 else [])
    return [Line(spec=spec, start=a, end=b, start_key=keys[a], end_key=keys[b]) for a, b in ends]


def tasks(lines: Sequence[Line], alphas: Sequence[float]) -> list[Task]:
    """Everything to compute for the lines, each network and test timestamp once, one identity after the other."""
    seen: dict[Point, set[int]] = {}
    found = []
    for line in sorted(lines, key=lambda line: line.spec.identity):
        for group in GROUPS:
            for alpha in alphas:
                point = Point.of(line, group, alpha)
                known = seen.setdefault(point, set())
                wanted = tuple(k for k in range(line.end + 1) if k not in known)
                known.update(wanted)
                if wanted:
                    found.append(
                        Task(
                            identity=line.spec.identity,
                            line=line,
                            point=point,
                            group=group,
                            alpha=alpha,
                            timestamps=wanted,
                        )
                    )
    return found


class Networks:
    """Builds the networks of tasks; keeps the weights of the last two stages."""

    def __init__(self, bench: Workbench, requests: Mapping[str, StageRequest]):
        self._bench = bench
        self._requests = requests
        self._weights: dict[str, dict[str, Tensor]] = {}

    def build(self, task: Task) -> nn.Module:
        """The frozen network at the task's point."""
        line = task.line
        keys = (line.start_key, line.end_key)
        self._weights = {key: self._weights.get(key) or self._of(key) for key in keys}
        weights = interpolate(self._weights[line.start_key], self._weights[line.end_key], task.alpha, task.group)
        return self._bench.generator.fresh(weights).requires_grad_(False)

    def _of(self, key: str) -> dict[str, Tensor]:
        weights = self._bench.stored_weights(key)
        if weights is not None:
            return weights
        return self._bench.trained_weights(self._requests[key])


@torch.no_grad()
def photo_batches(module: nn.Module, test: TestSet, profile: Profile, lpips: LPIPS) -> Iterator[Tensor]:
    """The trainer's loss of each test photo at its starting latent, one batch ``[m]`` per forward pass."""
    for rows in torch.arange(len(test.images)).split(profile.inversion.batch_size):
        photos = TrainingPhotos(test.start[rows], test.images[rows], index_features(test.features, rows))
        yield photo_losses(module, photos, profile.trainer, lpips)


def compute_losses(
    networks: Networks,
    bench: Workbench,
    people: Mapping[str, Identity],
    todo: Sequence[Task],
    on_pass: Callable[[], None],
) -> dict[tuple[Point, int], float]:
    """(point, test timestamp) -> mean loss over its test photos."""
    found = {}
    for task in todo:
        module = networks.build(task)
        for k in task.timestamps:
            batches = []
            # the seed only matters for synthesis, which is not looked at
            for losses in photo_batches(
                module, bench.test_set(people[task.identity], k, 0), bench.basis.profile, bench.lpips
            ):
                batches.append(losses)
                on_pass()
            found[task.point, k] = float(torch.cat(batches).mean())
    return found


def path_rows(lines: Sequence[Line], alphas: Sequence[float], losses: Mapping[tuple[Point, int], float]) -> pa.Table:
    """Rows of ``PATH_SCHEMA`` for all lines, in their order."""
    rows: list[dict[str, Any]] = []
    for line in lines:
        head = {**line.spec.columns(), "from_timestamp": line.start, "to_timestamp": line.end}
        for group in GROUPS:
            for alpha in alphas:
                point = Point.of(line, group, alpha)
                place = {**head, "group": group, "alpha": alpha}
                rows += [{**place, "test_timestamp": k, "loss": losses[point, k]} for k in range(line.end + 1)]
    return pa.Table.from_pylist(rows, PATH_SCHEMA)


@dataclass(frozen=True, kw_only=True)
class Reopened:
    """A finished study, ready to compute with again; ``basis`` is the one its stages' keys were made from."""

    bench: Workbench
    basis: Basis
    data: DataSet
    notes: tuple[str, ...]

    def requests(self, trials: Sequence[TrialSpec]) -> dict[str, StageRequest]:
        """Stages of the trials by key: what is needed to train one again whose weights were dropped."""
        people = {identity.name: identity for identity in self.data.identities}
        return {
            request.key: request
            for spec in trials
            for request in stage_requests(spec, people[spec.identity], self.basis, self.bench.remember)
        }


def reopen(study: Path, *, weights: Sequence[str], data: str | None, device: str | None) -> Reopened:
    """Build the workbench of a study from its folder (and weights and photos from outside, where it had such).

    Raises:
        UserError: the folder is no study, or photos or weights are missing or are not those of the study.
    """
    document = read_study_file(study)
    stored = stored_profile(document)
    photos = stored_photos(study, document, data)
    # only the generator is needed: no metric is computed, so no metric's weights
    lean = replace(
        stored,
        required_files=tuple(role for role in stored.required_files if role == "generator"),
        evaluation=replace(
            stored.evaluation, metrics=("lpips",), synthesis_images=0, lpips_backend="packaged", lpips_network="alex"
        ),
    )
    equipment = equip(lean, weights=weights, device=device, data=str(photos.root))
    if equipment.generator_digest != document["generator"]:
        raise UserError(
            f"the generator here is not the one study {document['name']!r} was made with (or its encoder is not): "
            f"digest {equipment.generator_digest[:12]}…, expected {document['generator'][:12]}…; name the right files "
            "with --weights"
        )
    profile = equipment.profile
    basis = Basis(profile, equipment.generator_digest)
    notes = []
    if basis.fingerprint() != document["fingerprint"]:
        now, then = (
            {f"{key} {value}" for key, value in one.items()} for one in (basis.fingerprint(), document["fingerprint"])
        )
        notes.append(
            f"computed with {', '.join(sorted(now - then))}, the study with {', '.join(sorted(then - now))}: last "
            "digits may differ, and starting latents are found again"
        )
    place = torch_device(profile.resources)
    notes += configure_torch(profile.compute, profile.resources)
    load_generators()
    lpips = LPIPS().to(place)
    kind = GENERATORS[profile.generator]
    generator = kind.build(kind.read(equipment.files), profile, place, lpips)
    bench = Workbench(basis=basis, generator=generator, lpips=lpips, metrics=[], store=StudyStore(study))
    own = Basis(
        replace(profile, evaluation=stored.evaluation), equipment.generator_digest, document.get("metric_files", {})
    )
    return Reopened(bench=bench, basis=own, data=photos, notes=tuple(notes))


def choose_trials(trials: Sequence[TrialSpec], wanted: Sequence[str] | None) -> list[TrialSpec]:
    """The trials that are named, or match a pattern (``'*-lower-*'``); all without any.

    Raises:
        UserError: a name or pattern that no trial has.
    """
    known = {spec.trial_id: spec for spec in trials}
    chosen: dict[str, TrialSpec] = {}
    for name in wanted or ["*"]:
        matching = {trial: spec for trial, spec in known.items() if trial == name or fnmatchcase(trial, name)}
        if not matching:
            raise UserError(f"no trial {name!r} in this study.{nearest(name, known)} study.yaml lists them all")
        chosen |= matching
    return [spec for trial, spec in known.items() if trial in chosen]


def lines_of(study: Path, chosen: Sequence[TrialSpec]) -> tuple[list[Line], list[str]]:
    """All lines of the chosen trials, and why some have none.

    Raises:
        UserError: no trial has two stages.
    """
    lines: list[Line] = []
    unfinished, single = [], []
    for spec in chosen:
        keys = stage_keys(study, spec.trial_id)
        if keys is None:
            unfinished.append(spec.trial_id)
            continue
        if len(keys) < 2:
            single.append(spec.trial_id)
            continue
        lines += trial_lines(spec, keys)
    notes = [f"{len(unfinished)} trials are not finished and left out: {_some(unfinished)}"] if unfinished else []
    if single:
        notes.append(f"{len(single)} trials have a single stage, so no path: {_some(single)}")
    if not lines:
        raise UserError("; ".join(["no trial has two finished stages to look between", *notes]))
    return lines, notes


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the lines take: stages to train again, networks to build, forward passes, and seconds of each.

    Building and passes are measured here; training is judged by what the study's own stages took.
    """

    retrained: int
    retrain_seconds: float
    networks: int
    passes: int
    build_seconds: float
    pass_seconds: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.retrain_seconds + self.networks * self.build_seconds + self.passes * self.pass_seconds

    def sentence(self) -> str:
        """As the command prints it."""
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


def require_weights(bench: Workbench, requests: Mapping[str, StageRequest], lines: Sequence[Line]) -> None:
    """Refuse lines whose weights were dropped and cannot be made again here.

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
        if key not in requests and not (bench.store.weights.looks_complete(key) or bench.store.stage_has_weights(key))
    ]
    if gone:
        raise UserError(
            f"the weights of {len(gone)} stages were dropped, and this machine computes otherwise than the one they "
            f"were made on, so that they cannot be made again here: {_some(gone)}. Use one like it (or --device), "
            "or name other trials with --trials"
        )


def dropped_stages(bench: Workbench, requests: Mapping[str, StageRequest], keys: Iterable[str]) -> list[StageRequest]:
    """Stages of the keys, and those before them, that must be trained again because nobody kept their weights."""
    store, found = bench.store, {}
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
    bench: Workbench,
    people: Mapping[str, Identity],
    todo: Sequence[Task],
    again: Sequence[StageRequest],
    tries: int = 3,
) -> Cost:
    """Count networks and passes, and time one of each (the median of some, after a first that warms up)."""
    task, batch = todo[0], bench.basis.profile.inversion.batch_size
    counts = [len(people[one.identity].timestamps[k].test) for one in todo for k in one.timestamps]
    test = bench.test_set(people[task.identity], task.timestamps[0], 0)
    # a line that needs no training, where there is one: what it costs must be known before it is spent
    missing = {request.key for request in again}
    task = next((one for one in todo if not {one.line.start_key, one.line.end_key} & missing), None) or task
    networks.build(task)  # reads the weights
    builds, passes = [], []
    for _ in range(tries + 1):
        started = time.monotonic()
        module = networks.build(task)
        built = time.monotonic()
        next(photo_batches(module, test, bench.basis.profile, bench.lpips)).sum().item()  # waits for the device
        builds.append(built - started)
        passes.append(time.monotonic() - built)
    pace = find_pace(bench.basis, people, bench.store, bench.store.root).seconds_per_pass
    return Cost(
        retrained=len(again),
        retrain_seconds=sum(training_work(request) for request in again) * pace,
        networks=len(todo),
        passes=sum(-(-count // batch) for count in counts),
        build_seconds=float(np.median(builds[1:])),
        pass_seconds=float(np.median(passes[1:])),
    )


def write_results(study: Path, rows: pa.Table, tolerance: float) -> tuple[pa.Table, list[Path]]:
    """Write rows, numbers and figures into ``STUDY/report/``; returns the numbers per strategy and the files.

    Raises:
        UserError: they cannot be written.
    """
    curves = path_curves(rows, tolerance)
    numbers = strategy_numbers(curves)
    files = {
        "loss_path.csv": to_csv(numbers).encode(),
        **{
            f"{one.name}.{kind}": content
            for one in loss_path_drawings(curves, numbers)
            for kind, content in one.files.items()
        },
    }
    folder = study / "report"
    try:
        write_checked(folder / LOSS_PATH, parquet_bytes(rows))
        for name, content in files.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}") from error
    return numbers, [folder / name for name in (LOSS_PATH, *files)]
