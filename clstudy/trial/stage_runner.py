"""Runs one stage, from its request to its report: reads it from the store, or trains, scores and stores it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from clstudy.generators.base import DomainGenerator
from clstudy.images import decode_png, encode_png, photo_row
from clstudy.metrics.base import Metric
from clstudy.metrics.lpips import LPIPS
from clstudy.records.results import parquet_bytes, stage_rows
from clstudy.records.rows import stage_table
from clstudy.records.stage_record import StageRecord, owned_by
from clstudy.seeding import derive_rng
from clstudy.storage.content_addressed_store import (
    FACES,
    LOSSES,
    MEMORY,
    REPLAYS,
    ROWS,
    STAGE_RECORD,
    StudyStore,
    Timing,
    losses_bytes,
    picture_file,
    picture_files,
    read_losses,
)
from clstudy.strategies.base import Memory, make_items, memory_to_dict
from clstudy.strategies.lookup import make_strategy
from clstudy.trial.listener import Listener, StageReport
from clstudy.trial.photos import StagePhotos, buffer_photos, stored_tensors
from clstudy.trial.requests import Basis, MemoryRequest, StageRequest, canonical_train, recall
from clstudy.trial.stage_locks import NoLocks, StageLocks, stored_or_computed
from clstudy.trial.stage_training import Hooked, StageTrainer
from clstudy.trial.work import cost_kind, stage_work
from clstudy.workloads.base import Objective, workload_of
from clstudy.workloads.personalised_generator import PersonalisedGenerator
from clstudy.workloads.workload import ScoredStage, TrainedStage, Workload

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Done:
    """A computed stage that is not stored yet."""

    trained: TrainedStage[Any]
    scored: ScoredStage
    hooked: Hooked


@dataclass
class StageRunner:
    """Runs the stages of trials; a worker keeps it, with networks, metrics, photos and the store, between trials."""

    basis: Basis
    workload: Workload[Any, Any]
    store: StudyStore
    locks: StageLocks = field(default_factory=NoLocks)
    wait_seconds: float = 0.3
    say: Callable[[str], None] = _LOG.warning

    def __post_init__(self) -> None:
        # looked up only when there is something to report: the listener may be set later
        self.photos = StagePhotos(self.basis, self.workload, self.store, lambda text: self.say(text))
        self.trainer = StageTrainer(self.workload, self.photos, self.store, self.locks, self.wait_seconds)

    @classmethod
    def personalising(
        cls,
        basis: Basis,
        generator: DomainGenerator,
        lpips: LPIPS,
        metrics: Sequence[Metric],
        store: StudyStore,
        *,
        locks: StageLocks | None = None,
        say: Callable[[str], None] = _LOG.warning,
    ) -> StageRunner:
        """A runner of stages that personalise a generator."""
        workload = PersonalisedGenerator(basis.profile, generator, lpips, metrics)
        return cls(basis, workload, store, locks=locks or NoLocks(), say=say)

    @cached_property
    def objective(self) -> Objective:
        """What a search minimises."""
        profile = self.basis.profile
        return workload_of(profile).objective(profile)

    def remember(self, request: MemoryRequest) -> Memory:
        """Let the strategy choose from its memory and the photos of t, or read its earlier choice."""
        known = recall(self.store, request)
        if known is not None:
            return known
        latents, _ = self.photos.anchors(request.identity, request.t)
        digests = [photo.digest for photo in canonical_train(request.identity.timestamps[request.t])]
        rng = derive_rng(request.spec.seed, request.identity.name, request.t, "selection")
        memory = make_strategy(request.spec.strategy).select(
            request.memory, make_items(request.t, digests, latents.cpu().numpy()), request.spec.buffer_size or 0, rng
        )
        content = json.dumps(memory_to_dict(memory), sort_keys=True).encode()
        self.store.memories.put(
            request.key, {MEMORY: content, **owned_by(request.identity.name, self.workload.processor)}
        )
        return memory

    def stage(self, request: StageRequest, listener: Listener) -> StageReport:
        """Read a stage from the store, or compute and store it; wait while another worker computes it."""
        return stored_or_computed(
            self.locks,
            request.key,
            lambda: self._stored(request),
            lambda: self._computed(request, listener),
            self.wait_seconds,
        )

    def _computed(self, request: StageRequest, listener: Listener) -> StageReport:
        started = time.monotonic()
        done, micro_batch = self.trainer.within_memory(request, lambda size: self._scored(request, listener, size))
        trained, scored, rows = done.trained, done.scored, stage_table(done.scored.rows)
        made = done.hooked.generated
        generated = None if made is None else self.workload.replay_picture(made)
        record = StageRecord(
            request=request.document,
            loss=trained.loss,
            micro_batch=micro_batch,
            computed_on=self.workload.processor,
            frozen_bytes=done.hooked.frozen_bytes,
        )
        files = {
            ROWS: parquet_bytes(rows),
            FACES: encode_png(scored.faces),
            STAGE_RECORD: record.encode(),
            LOSSES: losses_bytes(trained.losses),
            **owned_by(request.identity.name, self.workload.processor),
        }
        if made is not None and generated is not None:
            files["replays.safetensors"] = stored_tensors({"latents": made.latents})
            files[REPLAYS] = encode_png(generated)
        files |= {picture_file(name): encode_png(pixels) for name, pixels in scored.pictures.items()}
        # weights are stored first: if rows exist, the weights existed too
        self.trainer.keep_weights(request, trained.weights)
        self.store.stages.put(request.key, files)
        seconds = time.monotonic() - started
        timing = Timing(seconds=seconds, work=stage_work(request), kind=cost_kind(self.basis))
        self.store.record_seconds(request.key, timing)
        return StageReport(
            t=request.t,
            rows=rows,
            reused=False,
            seconds=seconds,
            loss=trained.loss,
            losses=trained.losses,
            faces=scored.faces,
            pictures=scored.pictures,
            buffer=self._buffer_picture(request) if request.replay else generated,
        )

    def _scored(self, request: StageRequest, listener: Listener, micro_batch: int | None) -> _Done:
        trained, hooked = self.trainer.train(request, listener, micro_batch)
        count = request.t + 1
        scored = self.workload.evaluate(
            trained,
            [self.photos.test_set(request.identity, k, request.spec.seed) for k in range(count)],
            timestamp=request.t,
            on_test_set=lambda k: listener.progress(request.t, "test", k + 1, count, trained.loss),
            micro_batch=micro_batch,
        )
        return _Done(trained, scored, hooked)

    def _stored(self, request: StageRequest) -> StageReport | None:
        files = self.store.stages.get(request.key)
        rows = None if files is None else stage_rows(files[ROWS])
        if files is None or rows is None:
            return None
        learned = None if request.support is None else request.support.learned
        self.store.take_along(request.key, None if learned is None else learned.key)
        generated = decode_png(files[REPLAYS]) if REPLAYS in files else None
        return StageReport(
            t=request.t,
            rows=rows,
            reused=True,
            seconds=0.0,
            loss=StageRecord.decode(files[STAGE_RECORD]).loss,
            losses=read_losses(files[LOSSES]) if LOSSES in files else None,
            faces=decode_png(files[FACES]),
            pictures={name: decode_png(files[file]) for name, file in picture_files(files).items()},
            buffer=self._buffer_picture(request) if request.replay else generated,
        )

    def _buffer_picture(self, request: StageRequest) -> np.ndarray:
        return photo_row(self.photos.read(buffer_photos(request)))
