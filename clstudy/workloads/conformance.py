"""Checks the contract of workloads on a small invented person: ``clstudy workloads check``.

The contract is ``clstudy.workloads.workload.Workload``. A trial of two timestamps is run on photos of noise: the first
stage starts from the pretrained state, the second from the state that the first left, with two stored photos.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clstudy.identities.cameras import CAMERA, look_at
from clstudy.identities.categories.orders import LABEL
from clstudy.identities.known_ages import AGE
from clstudy.records.rows import Row
from clstudy.registry import Check
from clstudy.seeding import derive_rng
from clstudy.settings.profiles import Profile
from clstudy.workloads.base import WorkloadKind, measured_facts, own_measures
from clstudy.workloads.workload import (
    AnchoredSamples,
    Samples,
    ScoredStage,
    StageInput,
    TestSamples,
    TrainedStage,
    Workload,
)

_TRAIN, _TEST = 4, 2
_RATE = 1e-3


def _example(name: str, count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers ``[count, width]`` of a condition: years, cameras around a face, one class, uniform ones otherwise."""
    if name == AGE:
        return rng.uniform(20, 80, (count, width))
    if name == LABEL:
        return np.zeros((count, width))
    if name == CAMERA:
        return np.stack([look_at(*rng.uniform((-20, -10), (20, 10))) for _ in range(count)])
    return rng.uniform(size=(count, width))


@dataclass(frozen=True)
class PlayedStage:
    """A stage that was trained and scored."""

    trained: TrainedStage[Any]
    scored: ScoredStage
    steps: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True)
class WorkloadInHand:
    """A workload under test.

    Args:
        kind, profile, workload: as in a study.
    """

    kind: WorkloadKind
    profile: Profile
    workload: Workload[Any, Any]

    def panels(self) -> list[str]:
        """Protocols and metrics that its rows may have, as one word each."""
        facts = measured_facts(self.profile, own_measures(self.profile))
        return [f"{protocol}_{one.name}" for one in facts for protocol in one.protocols]

    def samples(self, t: int, part: str, count: int) -> Samples:
        """Photos of smooth noise, always the same, with the conditions that the workload requires."""
        rng = derive_rng(0, "nobody", t, f"conformance {part}")
        coarse = torch.from_numpy(rng.uniform(-1, 1, (count, 3, 8, 8)).astype(np.float32))
        size = self.profile.data.image_size
        images = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
        device = self.workload.device
        conditions = {
            name: torch.from_numpy(_example(name, count, width, rng).astype(np.float32)).to(device)
            for name, width in self.kind.conditions.items()
        }
        digests = tuple(f"{part}{index}" for index in range(count))
        return Samples(digests=digests, images=images.to(device), conditions=conditions)

    def anchored(self, t: int, part: str = "train", count: int = _TRAIN) -> AnchoredSamples:
        """The same photos with their latents."""
        samples = self.samples(t, part, count)
        return AnchoredSamples(**vars(samples), latents=self.workload.candidates(samples))

    def given(self, t: int) -> StageInput:
        """The input of stage t; from t = 1 the buffer has two photos of t = 0."""
        return StageInput(
            new=self.anchored(t),
            stored=self.anchored(0, count=2) if t else None,
            generated=None,
            penalty=None,
            learning_rate=_RATE,
            new_rng=derive_rng(0, "nobody", t, "new photos"),
            replay_rng=derive_rng(0, "nobody", t, "replay"),
        )

    def tests(self, t: int) -> list[Any]:
        """Test sets of the timestamps up to t."""
        return [
            self.workload.test_set(
                TestSamples(
                    **vars(self.anchored(k, "test", _TEST)),
                    timestamp=k,
                    anchors=self.anchored(k).latents,
                    rng=derive_rng(0, "nobody", k, "synthesis"),
                )
            )
            for k in range(t + 1)
        ]

    def train(self, t: int, weights: Mapping[str, Tensor] | None) -> tuple[TrainedStage[Any], list[Any]]:
        """Train stage t; also returns what was reported about its steps."""
        steps: list[Any] = []
        trained = self.workload.train(
            self.workload.state(weights), self.given(t), on_step=lambda *told: steps.append(told)
        )
        return trained, steps

    def score(self, trained: TrainedStage[Any], t: int) -> ScoredStage:
        """Score it on all timestamps so far."""
        return self.workload.evaluate(trained, self.tests(t), timestamp=t, on_test_set=lambda k: None)

    def play(self) -> list[PlayedStage]:
        """Both stages."""
        stages: list[PlayedStage] = []
        for t in range(2):
            before = {name: value.clone() for name, value in stages[0].trained.weights.items()} if stages else None
            trained, steps = self.train(t, before)
            stages.append(PlayedStage(trained, self.score(trained, t), tuple(steps)))
        return stages

    @cached_property
    def stages(self) -> list[PlayedStage]:
        """Both stages, played once and cached."""
        return self.play()


def _facts(held: WorkloadInHand) -> Iterator[str]:
    """description, objective, settings in keys and the work of a stage are declared and valid"""
    kind, profile = held.kind, held.profile
    if not isinstance(getattr(kind, "description", None), str) or not kind.description.strip():
        yield f"class attribute 'description': expected a line of text, got {getattr(kind, 'description', None)!r}"
    if kind.objective(profile).panel not in held.panels():
        yield f"the objective {kind.objective(profile).panel!r} is not one of its measures: {', '.join(held.panels())}"
    sections = kind.sections(profile)
    for name, section in sections.items():
        if not is_dataclass(section):
            yield f"section {name!r} is a {type(section).__name__}, expected a dataclass of settings"
    text = json.dumps(kind.key_sections(profile), sort_keys=True)
    if text != json.dumps(kind.key_sections(profile), sort_keys=True):
        yield "key_sections returns something else the second time"
    works = {
        "training_work without replay": kind.training_work(profile, new=_TRAIN, replayed=False),
        "training_work with replay": kind.training_work(profile, new=_TRAIN, replayed=True),
        "test_work": kind.test_work(profile, [_TEST, _TEST]),
    }
    for name, work in works.items():
        if not (np.isfinite(work) and work >= 0):
            yield f"{name} is {work!r}, expected a finite number of photo passes >= 0"


def _candidates(held: WorkloadInHand) -> Iterator[str]:
    """candidates are finite latents [n, *latent_shape] of at least one number, the same every time"""
    samples = held.samples(0, "train", _TRAIN)
    latents = held.workload.candidates(samples)
    if latents.ndim < 2 or len(latents) != _TRAIN or not latents[0].numel():
        yield f"candidates of {_TRAIN} samples are {tuple(latents.shape)}, expected [{_TRAIN}, *latent_shape]"
    elif not bool(latents.isfinite().all()):
        yield "a latent is NaN or infinite"
    elif not torch.equal(latents, held.workload.candidates(samples)):
        yield "a second call gives other latents; random numbers must come from fixed seeds"
    elif latents.requires_grad:
        yield "latents carry a gradient; compute them under torch.no_grad()"


def _trains(held: WorkloadInHand) -> Iterator[str]:
    """training changes the stored weights, with one finite loss per step, and reports its steps"""
    for t, stage in enumerate(held.stages):
        losses, weights = stage.trained.losses, stage.trained.weights
        if losses.dtype != np.float32 or losses.ndim != 1 or not len(losses):
            yield f"t = {t}: losses are {losses.dtype} {losses.shape}, expected float32 [steps]"
        elif not (np.isfinite(losses).all() and np.isfinite(stage.trained.loss)):
            yield f"t = {t}: a loss is NaN or infinite at a learning rate of {_RATE:g}"
        if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
            yield f"t = {t}: expected weights as a mapping of names to tensors, at least one"
        if not stage.steps:
            yield f"t = {t}: on_step was never called; progress would not show"
    first, second = (stage.trained.weights for stage in held.stages)
    if first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first):
        yield "the second stage did not change the weights of the first"


def _repeatable(held: WorkloadInHand) -> Iterator[str]:
    """a second run gives the same weights and rows, bit for bit"""
    for t, (one, other) in enumerate(zip(held.stages, held.play(), strict=True)):
        if not _equal(one.trained.weights, other.trained.weights):
            yield f"t = {t}: the weights differ; draw random numbers from the given streams and from fixed seeds"
        if one.scored.rows != other.scored.rows:
            yield f"t = {t}: the rows differ; draw random numbers from the test samples' stream and from fixed seeds"


def _stored(held: WorkloadInHand) -> Iterator[str]:
    """a state made from stored weights is the trained one: the same rows, the same stored weights"""
    for t, stage in enumerate(held.stages):
        copied = {name: value.clone() for name, value in stage.trained.weights.items()}
        state = held.workload.state(copied)
        again = held.score(TrainedStage(state, copied, stage.trained.loss, stage.trained.losses), t)
        if again.rows != stage.scored.rows:
            yield f"t = {t}: scoring the stored state gives other rows"


def _rows(held: WorkloadInHand) -> Iterator[str]:
    """rows are finite and distinct, cover every timestamp so far and use the names that the workload declares"""
    for t, stage in enumerate(held.stages):
        rows = stage.scored.rows
        wrong = next((row for row in rows if not isinstance(row, Row) or row.train_timestamp != t), None)
        if wrong is not None:
            yield f"t = {t}: expected rows with train_timestamp {t}, got {wrong}"
            return
        if {row.test_timestamp for row in rows} != set(range(t + 1)):
            yield f"t = {t}: rows of test timestamps {sorted({row.test_timestamp for row in rows})}, expected 0 to {t}"
        other = next((row for row in rows if f"{row.protocol}_{row.metric}" not in held.panels()), None)
        if other is not None:
            yield f"t = {t}: {other.protocol} {other.metric} is not one of its measures: {', '.join(held.panels())}"
        keys = [row[:5] for row in rows]
        if len(set(keys)) < len(keys):
            yield f"t = {t}: two rows have the same timestamps, protocol, metric and image"
        bad = next((row for row in rows if not np.isfinite(row.value)), None)
        if bad is not None:
            yield f"t = {t}: a value is not finite: {bad}"


def _pictures(held: WorkloadInHand) -> Iterator[str]:
    """a stage's picture is uint8 [h, w, 3]"""
    for t, stage in enumerate(held.stages):
        faces = stage.scored.faces
        if faces.dtype != np.uint8 or faces.ndim != 3 or faces.shape[2] != 3:
            yield f"t = {t}: the picture is {faces.dtype} {faces.shape}"


def _hooks(held: WorkloadInHand) -> Iterator[str]:
    """hooks can be used: the network makes images of latents, penalties reach the loss"""
    first = held.stages[0].trained.weights
    frozen = held.workload.network(held.workload.state(first)).requires_grad_(False)
    anchored = held.anchored(0)
    with torch.no_grad():
        images = frozen(anchored.latents)
    if tuple(images.shape[:2]) != (_TRAIN, 3) or not bool(images.isfinite().all()):
        yield f"the network makes {tuple(images.shape)} of {_TRAIN} latents, expected finite images [{_TRAIN}, 3, s, s]"
    asked: list[int] = []

    def penalty(network: torch.nn.Module) -> Tensor:
        asked.append(1)
        found = [value.square().sum() for value in network.parameters() if value.requires_grad]
        return torch.stack(found).sum()

    given = StageInput(**{**vars(held.given(1)), "penalty": penalty})
    trained = held.workload.train(held.workload.state(first), given, on_step=lambda *told: None)
    if len(asked) != len(trained.losses):
        yield f"the penalty was called {len(asked)} times in {len(trained.losses)} steps, expected once per step"
    elif _equal(trained.weights, held.stages[1].trained.weights):
        yield "a penalty on all weights changes nothing"


def _consolidation(held: WorkloadInHand) -> Iterator[str]:
    """the loss of one photo is a scalar with gradients, if the workload declares that it has one"""
    if not held.kind.has_photo_loss:
        return
    state, anchored = held.workload.state(held.stages[0].trained.weights), held.anchored(0)
    loss = held.workload.photo_loss(state, anchored)(0)
    if loss.ndim or not bool(loss.isfinite()) or not loss.requires_grad:
        yield f"expected a finite scalar with gradients, got {loss}"


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


CHECKS: dict[str, Check[WorkloadInHand]] = {
    "facts": _facts,
    "candidates": _candidates,
    "trains": _trains,
    "repeatable": _repeatable,
    "stored": _stored,
    "rows": _rows,
    "pictures": _pictures,
    "hooks": _hooks,
    "consolidation": _consolidation,
}
"""All checks by name, in the order of their findings."""
