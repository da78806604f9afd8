"""One trial: the fold over timestamps. The one place where a trial's story is told.

For each timestamp: take the stage from the store or personalise and evaluate; then let the strategy choose what
to remember. Knows nothing of Ray or MLflow: it tells a listener what happened.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from clstudy.generators.base import DomainGenerator
from clstudy.identities.dataset import Identity, Photo
from clstudy.images import decode_png, encode_png, photo_row, to_uint8, to_unit_range
from clstudy.metrics.base import Metric
from clstudy.metrics.lpips import LPIPS
from clstudy.records.results import parquet_bytes
from clstudy.records.rows import stage_table
from clstudy.seeding import derive_rng
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.content_addressed_store import LOSSES, StudyStore, Timing, losses_bytes, read_losses
from clstudy.strategies.base import Generated, Memory, Past, Penalty, Trained, make_items, memory_to_dict
from clstudy.strategies.lookup import make_strategy
from clstudy.training.evaluation import Evaluation, TestSet, convex_combinations, evaluate
from clstudy.training.micro_batches import with_smaller_batches
from clstudy.training.personalise import TrainingDivergedError, TrainingPhotos, personalise, photo_losses
from clstudy.trial.requests import (
    Basis,
    LearnedRequest,
    MemoryRequest,
    StageRequest,
    Support,
    anchors_key,
    canonical_test,
    canonical_train,
    recall,
    stage_requests,
)
from clstudy.trial.work import cost_kind, stage_work

_LOG = logging.getLogger(__name__)
_WEIGHTS = "weights.safetensors"
T = TypeVar("T")

_SHOWN_REPLAYS = 10
"""Generated replays in the picture of a stage's buffer."""


@dataclass(frozen=True)
class StageReport:
    """What a listener learns of a finished stage. Images are uint8 RGB ``[h, w, 3]``."""

    t: int
    rows: pa.Table
    reused: bool
    seconds: float
    loss: float
    losses: np.ndarray | None
    """Of every training step, float32 ``[steps]``; None in stages of earlier versions, which did not keep it."""
    faces: np.ndarray
    buffer: np.ndarray | None


class Listener(Protocol):
    """Hears how a trial goes; must not change anything."""

    def progress(self, t: int, phase: str, done: int, total: int, loss: float) -> None:
        """A step of training (phase "train") or a test set (phase "test") is done."""


class Claims(Protocol):
    """Keeps two workers from computing one stage at the same time. Correctness never rests on it."""

    def acquire(self, key: str) -> bool:
        """Take the key, or say False while somebody alive holds it."""

    def release(self, key: str) -> None:
        """Give the key back."""


class Deaf:
    """A listener that hears nothing."""

    def progress(self, t: int, phase: str, done: int, total: int, loss: float) -> None:
        return


class NoClaims:
    """For a single worker."""

    def acquire(self, key: str) -> bool:
        return True

    def release(self, key: str) -> None:
        return


@dataclass(frozen=True)
class TrainedStage:
    """A stage after training: the network, its losses, what a strategy generated for it."""

    module: nn.Module
    loss: float
    """Mean of the last epoch."""
    losses: np.ndarray
    """Of every step, float32 ``[steps]``."""
    generated: Generated | None


@dataclass
class Workbench:
    """What a worker keeps warm between trials: networks, metrics, the store, prepared test sets."""

    basis: Basis
    generator: DomainGenerator
    lpips: LPIPS
    metrics: Sequence[Metric]
    store: StudyStore
    claims: Claims = field(default_factory=NoClaims)
    wait_seconds: float = 0.3
    say: Callable[[str], None] = _LOG.warning
    _test_sets: dict[tuple[str, ...], TestSet] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return self.generator.device

    # -- photos and what follows from them ------------------------------------------------------------------

    def images(self, photos: Sequence[Photo]) -> Tensor:
        """Read photos, checked against their digests: float32 ``[n, 3, s, s]`` in [-1, 1], on the device."""
        size = self.basis.profile.data.image_size
        return to_unit_range(np.stack([photo.read(size) for photo in photos])).to(self.device)

    def anchors(self, identity: Identity, k: int) -> tuple[Tensor, Tensor]:
        """Anchors of the training photos of k and starting latents of its test photos (canonical order)."""
        timestamp = identity.timestamps[k]
        key = anchors_key(self.basis, timestamp)
        files = self.store.anchors.get(key)
        if files is None:
            photos = {
                "train": self.images(canonical_train(timestamp)),
                "test": self.images(canonical_test(timestamp)),
            }
            tensors, _ = with_smaller_batches(
                lambda size: {split: self._anchors_of(images, size) for split, images in photos.items()},
                self.basis.profile.anchors.batch_size,
                self._say_halved(identity.name),
            )
            self.store.anchors.put(key, {"anchors.safetensors": save_tensors(tensors), **about(identity)})
        else:
            tensors = self._loaded(files["anchors.safetensors"])
        return tensors["train"], tensors["test"]

    def _anchors_of(self, images: Tensor, micro_batch: int | None) -> Tensor:
        parts = [images] if micro_batch is None else images.split(micro_batch)
        return torch.cat([self.generator.anchors(part) for part in parts])

    def _say_halved(self, whose: str) -> Callable[[str], None]:
        def say(text: str) -> None:
            _LOG.warning("%s: %s", whose, text)
            # one line for all its stages: the log has the sizes, stage.json the one that was used
            self.say(f"{whose}: out of GPU memory; computed in smaller micro-batches (same mathematics, in stage.json)")

        return say

    def _loaded(self, content: bytes) -> dict[str, Tensor]:
        return {name: value.to(self.device) for name, value in load_tensors(content).items()}

    def training_photos(
        self, identity: Identity, timestamps: Sequence[int], micro_batch: int | None = None
    ) -> TrainingPhotos:
        """Training photos of the given timestamps in canonical order, with anchors and target features."""
        parts = [
            (self.anchors(identity, k)[0], self.images(canonical_train(identity.timestamps[k]))) for k in timestamps
        ]
        return TrainingPhotos.prepare(
            torch.cat([latents for latents, _ in parts]),
            torch.cat([images for _, images in parts]),
            self.lpips,
            micro_batch=micro_batch,
        )

    def stored_photos(
        self, identity: Identity, request: StageRequest, micro_batch: int | None = None
    ) -> TrainingPhotos | None:
        """The buffer's photos with their anchors, in canonical order."""
        if not request.replay:
            return None
        latents = torch.from_numpy(np.stack([item.latent for item in request.replay])).to(self.device)
        images = self.images(buffer_photos(identity, request))
        return TrainingPhotos.prepare(latents, images, self.lpips, micro_batch=micro_batch)

    def test_set(self, identity: Identity, k: int, seed: int) -> TestSet:
        """The test photos of k and everything that no model changes; kept between trials."""
        photos = canonical_test(identity.timestamps[k])
        images = self.images(photos)
        cached = (str(seed), identity.name, str(k), *(photo.digest for photo in photos))
        if cached not in self._test_sets:
            # those of other people would only take memory: a worker finishes one trial before it begins another
            for other in [key for key in self._test_sets if key[1] != identity.name]:
                del self._test_sets[other]
            train, start = self.anchors(identity, k)
            rng = derive_rng(seed, identity.name, k, "synthesis")
            with torch.no_grad():
                features = self.lpips.features(images)
            self._test_sets[cached] = TestSet(
                timestamp=k,
                digests=tuple(photo.digest for photo in photos),
                images=images,
                features=features,
                start=start,
                prepared={metric.name: metric.prepare(images) for metric in self.metrics},
                combinations=convex_combinations(train, self.basis.profile.evaluation, rng),
            )
        return self._test_sets[cached]

    # -- memories -------------------------------------------------------------------------------------------

    def remember(self, request: MemoryRequest) -> Memory:
        """Let the strategy choose from memory and the photos of t, or read what it chose before."""
        known = recall(self.store, request)
        if known is not None:
            return known
        latents, _ = self.anchors(request.identity, request.t)
        digests = [photo.digest for photo in canonical_train(request.identity.timestamps[request.t])]
        rng = derive_rng(request.spec.seed, request.identity.name, request.t, "selection")
        memory = make_strategy(request.spec.strategy).select(
            request.memory, make_items(request.t, digests, latents.cpu().numpy()), request.spec.buffer_size or 0, rng
        )
        self.store.memories.put(
            request.key,
            {"memory.json": json.dumps(memory_to_dict(memory), sort_keys=True).encode(), **about(request.identity)},
        )
        return memory

    # -- hooks ----------------------------------------------------------------------------------------------

    def past(self, support: Support, weights: Mapping[str, Tensor]) -> Past:
        """What the hooks may use: memory, learned tensors, the frozen generator with the weights of t-1."""
        learned = {} if support.learned is None else self.learned(support.learned)
        return Past(support.memory, learned, self.generator.fresh(weights).requires_grad_(False))

    def learned(self, request: LearnedRequest) -> dict[str, Tensor]:
        """What a strategy consolidated from a stage; from the store, or computed from the stage's weights."""
        files = self.store.learned.get(request.key)
        if files is not None:
            return self._loaded(files["learned.safetensors"])
        stage, profile = request.stage, self.basis.profile
        past = None
        if request.before is not None:
            assert stage.parent is not None
            past = self.past(request.before, self.trained_weights(stage.parent))
        photos = self.training_photos(stage.identity, stage.trained_on)
        module = self.trained_module(stage).requires_grad_(True)

        def loss(index: int) -> Tensor:
            return photo_losses(
                module, photos.rows(torch.tensor([index], device=self.device)), profile.trainer, self.lpips
            )[0]

        tensors = dict(make_strategy(request.strategy).consolidate(past, Trained(module, len(photos), loss)))
        self.store.learned.put(request.key, {"learned.safetensors": save_tensors(tensors), **about(stage.identity)})
        return tensors

    def trained_module(self, request: StageRequest) -> nn.Module:
        """The generator of a finished stage, frozen."""
        return self.generator.fresh(self.trained_weights(request)).requires_grad_(False)

    def stored_weights(self, key: str) -> dict[str, Tensor] | None:
        """The tuned weights of a stage by name, or None where they were dropped (or never made)."""
        files = self.store.weights.get(key)
        if files is None and self.store.stage_has_weights(key):
            files = self.store.stages.get(key)
        return None if files is None else self._loaded(files[_WEIGHTS])

    def trained_weights(self, request: StageRequest) -> dict[str, Tensor]:
        """The tuned weights of a finished stage, by name; trained again where they were dropped.

        In the micro-batch that the stage was scored with: another one differs in the last bits.
        """
        claim = f"weights of {request.key}"
        while True:
            weights = self.stored_weights(request.key)
            if weights is not None:
                return weights
            if self.claims.acquire(claim):
                break
            time.sleep(self.wait_seconds)
        try:
            trained, _ = self._within_memory(
                request, lambda size: self._train(request, Deaf(), size), first=self._recorded_micro_batch(request)
            )
            self._keep_weights(request, trained.module)
            return self.generator.tunable_state(trained.module)
        finally:
            self._release(claim)

    def _keep_weights(self, request: StageRequest, module: nn.Module) -> None:
        state = self.generator.tunable_state(module)
        self.store.weights.put(request.key, {_WEIGHTS: save_tensors(state), **about(request.identity)})

    def _release(self, claim: str) -> None:
        with suppress(Exception):  # a lost claim service must not lose the stage
            self.claims.release(claim)

    # -- stages ---------------------------------------------------------------------------------------------

    def stage(self, request: StageRequest, listener: Listener) -> StageReport:
        """Read a stage from the store, or compute and store it; wait while another worker computes it."""
        while True:
            report = self._stored(request)
            if report is not None:
                return report
            if self.claims.acquire(request.key):
                break
            time.sleep(self.wait_seconds)
        try:
            # It may have been finished between the look and the claim.
            return self._stored(request) or self._compute(request, listener)
        finally:
            self._release(request.key)

    def _stored(self, request: StageRequest) -> StageReport | None:
        files = self.store.stages.get(request.key)
        if files is None:
            return None
        return self._report(request, files, reused=True, seconds=0.0)

    def _compute(self, request: StageRequest, listener: Listener) -> StageReport:
        started = time.monotonic()
        (trained, evaluation, photos), micro_batch = self._within_memory(
            request, lambda size: self._train_and_test(request, listener, size)
        )
        rebuilt = torch.stack(list(evaluation.examples))
        record = {"request": request.document, "loss": trained.loss}
        if micro_batch is not None:
            record["micro_batch"] = micro_batch
        files = {
            "rows.parquet": parquet_bytes(stage_table(evaluation.rows)),
            "faces.png": encode_png(face_grid(to_uint8(photos), to_uint8(rebuilt))),
            "stage.json": json.dumps(record, indent=1).encode(),
            LOSSES: losses_bytes(trained.losses),
            **about(request.identity),
        }
        if trained.generated is not None:
            files["replays.safetensors"] = save_tensors({"latents": trained.generated.latents})
            files["replays.png"] = encode_png(photo_row(list(to_uint8(trained.generated.images[:_SHOWN_REPLAYS]))))
        # the weights first: where there are rows, there were weights
        self._keep_weights(request, trained.module)
        self.store.stages.put(request.key, files)
        seconds = time.monotonic() - started
        self.store.record_seconds(
            request.key, Timing(seconds=seconds, work=stage_work(request), kind=cost_kind(self.basis))
        )
        return self._report(request, files, reused=False, seconds=seconds)

    def _recorded_micro_batch(self, request: StageRequest) -> int | None:
        files = self.store.stages.get(request.key)
        return None if files is None else json.loads(files["stage.json"]).get("micro_batch")

    def _within_memory(
        self, request: StageRequest, compute: Callable[[int | None], T], first: int | None = None
    ) -> tuple[T, int | None]:
        trainer = self.basis.profile.trainer
        largest = max(trainer.batch_size + trainer.replay_batch_size, self.basis.profile.inversion.batch_size)
        return with_smaller_batches(compute, largest, self._say_halved(request.spec.trial_id), first=first)

    def _train(self, request: StageRequest, listener: Listener, micro_batch: int | None) -> TrainedStage:
        profile, identity, seed = self.basis.profile, request.identity, request.spec.seed
        parent = None if request.parent is None else self.trained_weights(request.parent)
        module = self.generator.fresh(parent)
        generated, penalty = self._hooks(request, parent)
        replays = [self.stored_photos(identity, request, micro_batch)]
        if generated is not None:
            replays.append(
                TrainingPhotos.prepare(generated.latents, generated.images, self.lpips, micro_batch=micro_batch)
            )
        losses: list[float] = []
        try:
            loss = personalise(
                module,
                self.training_photos(identity, request.trained_on, micro_batch),
                TrainingPhotos.joined([photos for photos in replays if photos is not None]),
                settings=profile.trainer,
                learning_rate=request.spec.learning_rate,
                lpips=self.lpips,
                new_rng=derive_rng(seed, identity.name, request.t, "new photos"),
                replay_rng=derive_rng(seed, identity.name, request.t, "replay"),
                penalty=penalty,
                on_step=lambda step, total, value: listener.progress(request.t, "train", step, total, value),
                micro_batch=micro_batch,
                losses=losses,
            )
        except TrainingDivergedError as error:
            raise TrainingDivergedError(f"timestamp {request.t}: {error}") from error
        return TrainedStage(module, loss, np.array(losses, np.float32), generated)

    def _train_and_test(
        self, request: StageRequest, listener: Listener, micro_batch: int | None
    ) -> tuple[TrainedStage, Evaluation, Tensor]:
        """Train and evaluate; also the first test photo of every timestamp ``[t + 1, 3, s, s]``."""
        trained = self._train(request, listener, micro_batch)
        test_sets = [self.test_set(request.identity, k, request.spec.seed) for k in range(request.t + 1)]
        evaluation = evaluate(
            trained.module,
            test_sets,
            self.metrics,
            train_timestamp=request.t,
            inversion=self.basis.profile.inversion,
            lpips=self.lpips,
            on_test_set=lambda k: listener.progress(request.t, "test", k + 1, request.t + 1, trained.loss),
            micro_batch=micro_batch,
        )
        return trained, evaluation, torch.cat([test.images[:1] for test in test_sets])

    def _hooks(
        self, request: StageRequest, parent: Mapping[str, Tensor] | None
    ) -> tuple[Generated | None, Penalty | None]:
        if request.support is None or parent is None:
            return None, None
        strategy = make_strategy(request.support.strategy)
        past = self.past(request.support, parent)
        stream = (request.spec.seed, request.identity.name, request.t)
        return (
            strategy.replays(past, derive_rng(*stream, "generated replays")),
            strategy.penalty(past, derive_rng(*stream, "penalty")),
        )

    def _report(self, request: StageRequest, files: dict[str, bytes], *, reused: bool, seconds: float) -> StageReport:
        buffer = None
        if request.replay:
            size = self.basis.profile.data.image_size
            buffer = photo_row([photo.read(size) for photo in buffer_photos(request.identity, request)])
        elif "replays.png" in files:
            buffer = decode_png(files["replays.png"])
        return StageReport(
            t=request.t,
            rows=pq.read_table(pa.BufferReader(files["rows.parquet"])),
            reused=reused,
            seconds=seconds,
            loss=float(json.loads(files["stage.json"])["loss"]),
            losses=read_losses(files[LOSSES]) if LOSSES in files else None,
            faces=decode_png(files["faces.png"]),
            buffer=buffer,
        )


def about(identity: Identity) -> dict[str, bytes]:
    """The file that says of whom a value is, so that a person can be forgotten (``clstudy.identities forget``)."""
    return {"about.json": json.dumps({"identity": identity.name}).encode()}


def buffer_photos(identity: Identity, request: StageRequest) -> list[Photo]:
    """The photos of a stage's replay items, in their order."""
    known = {photo.digest: photo for timestamp in identity.timestamps for photo in timestamp.train}
    return [known[item.digest] for item in request.replay]


def trial_stages(
    bench: Workbench, spec: TrialSpec, identity: Identity, listener: Listener
) -> Iterator[tuple[StageRequest, StageReport]]:
    """Run or resume one trial, stage by stage.

    Raises:
        PhotoError: a photo cannot be read or is not the one that was planned with.
        TrainingDivergedError: the loss is not finite, or beyond all sense; the message says timestamp and step.
        NotFiniteError: an image, a latent or a metric's value is not finite; the message says which.
        TooLittleMemoryError: the GPU has no room for one photo at a time.
    """
    for request in stage_requests(spec, identity, bench.basis, bench.remember):
        yield request, bench.stage(request, listener)


def face_grid(photos: np.ndarray, rebuilt: np.ndarray) -> np.ndarray:
    """Test photos ``[n, s, s, 3]`` above their reconstructions: ``[2 s, n s, 3]`` (s at most 256)."""
    return np.concatenate([photo_row(list(photos)), photo_row(list(rebuilt))])
