"""What runs inside a Ray worker: one Tune trainable that steps through a trial, one timestamp per step.

The worker process is reused for many trials; everything that depends on a trial is rebuilt in ``_begin``.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray import tune

from clstudy.errors import UserError
from clstudy.fold import Basis, run_version
from clstudy.generators import load_generators
from clstudy.generators.base import GENERATORS, GeneratorWeights
from clstudy.identities.dataset import Identity
from clstudy.metrics import load_metrics
from clstudy.metrics.base import METRICS, MetricSettings
from clstudy.metrics.lpips import LPIPS
from clstudy.numerics import configure_torch, torch_device
from clstudy.pictures import enlarged
from clstudy.plan import result_path
from clstudy.running import running_metrics
from clstudy.space import TrialSpec
from clstudy.stages import StudyStore, write_atomically
from clstudy.strategies.lookup import strategy_class
from clstudy.tracking import trial_params, trial_tags
from clstudy.trial import StageReport, StageRequest, Workbench, parquet_bytes, trial_stages, trial_table

_BEAT_SECONDS = 5.0
_TELL_SECONDS = 0.4
_DELIVERY_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything a worker needs to know, small enough to travel with every trial."""

    basis: Basis
    trials: Mapping[str, TrialSpec]
    identities: Mapping[str, Identity]
    run_names: Mapping[str, str]
    out: Path
    files: Mapping[str, Path]
    coordinator: Any
    recorder: Any


class ActorClaims:
    """Claims held in the coordinator, kept alive by a heartbeat from this process."""

    def __init__(self, coordinator: Any, owner: str):
        self._coordinator = coordinator
        self._owner = owner
        threading.Thread(target=self._beat, daemon=True).start()

    def acquire(self, key: str) -> bool:
        return ray.get(self._coordinator.acquire.remote(key, self._owner))

    def release(self, key: str) -> None:
        self._coordinator.release.remote(key, self._owner)

    def _beat(self) -> None:
        while True:
            time.sleep(_BEAT_SECONDS)
            self._coordinator.beat.remote(self._owner)


class BoardListener:
    """Passes a trial's progress to the coordinator, a few times a second at most."""

    def __init__(self, coordinator: Any, trial: str):
        self._coordinator = coordinator
        self._trial = trial
        self._told = 0.0

    def progress(self, t: int, phase: str, done: int, total: int, loss: float) -> None:
        now = time.monotonic()
        if now - self._told < _TELL_SECONDS:
            return
        self._told = now
        state = {"t": t, "phase": phase, "done": done, "total": total, "loss": loss}
        self._coordinator.progress.remote(self._trial, state)


class TrialTrainable(tune.Trainable):
    """One trial as Tune sees it; ``config["trial"]`` is the trial id."""

    def setup(  # type: ignore[override]  # Tune passes what ``with_parameters`` was given by name
        self, config: dict[str, Any], job: Job, weights: GeneratorWeights
    ) -> None:
        """Build what stays warm between trials."""
        profile = job.basis.profile
        device = torch_device(profile.resources)
        notes = configure_torch(profile.compute, profile.resources)
        load_metrics()
        load_generators()
        self._job = job
        owner = ray.get_runtime_context().get_actor_id() or "driver"
        lpips = LPIPS().to(device)
        measuring = MetricSettings(
            threads=profile.resources.threads, files=job.files, device=device, alignment=profile.data.alignment
        )
        self._bench = Workbench(
            basis=job.basis,
            generator=GENERATORS[profile.generator].build(weights, profile, device, lpips),
            lpips=lpips,
            metrics=[METRICS[name](measuring) for name in profile.evaluation.metrics],
            store=StudyStore(job.out),
            claims=ActorClaims(job.coordinator, owner),
        )
        for note in [*notes, *(note for metric in self._bench.metrics for note in metric.notes)]:
            job.coordinator.note.remote(note)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial into the same process."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._spec = self._job.trials[config["trial"]]
        self._identity = self._job.identities[self._spec.identity]
        listener = BoardListener(self._job.coordinator, self._spec.trial_id)
        self._stages: Iterator[tuple[StageRequest, StageReport]] = trial_stages(
            self._bench, self._spec, self._identity, listener
        )
        self._tables: list[pa.Table] = []
        self._keys: list[str] = []
        profile = self._job.basis.profile
        kept = self._spec.buffer_size or 0
        if strategy_class(self._spec.strategy).joint:  # keeps everything
            kept = sum(len(timestamp.train) for timestamp in self._identity.timestamps)
        params = trial_params(
            self._spec,
            profile=profile.name,
            timestamps=len(self._identity.timestamps),
            kept=kept,
            version=run_version(self._job.basis, self._spec, self._identity),
        )
        self._job.coordinator.progress.remote(
            self._spec.trial_id, {"t": 0, "phase": "start", "done": 0, "total": 1, "loss": float("nan")}
        )
        self._sent: list[Any] = []
        self._record("start_trial", self._job.run_names[self._spec.trial_id], params, trial_tags(self._spec))

    def _record(self, method: str, *arguments: Any) -> None:
        """Tell the recorder something about this trial, without waiting."""
        self._sent.append(getattr(self._job.recorder, method).remote(self._spec.trial_id, *arguments))

    def _delivered(self) -> None:
        """Wait until the recorder has taken everything: Ray drops what is on its way when this process ends.

        Taken, not sent on: a tracking server that is down delays nothing here.
        """
        ray.wait(self._sent, num_returns=len(self._sent), timeout=_DELIVERY_SECONDS)

    def step(self) -> dict[str, Any]:
        """One timestamp. A failure ends this trial only and is told with its reason."""
        try:
            return self._advance()
        except UserError as error:
            return self._fail(str(error))
        except Exception as error:
            log = self._job.out / "logs" / f"{self._spec.trial_id}.txt"
            write_atomically(log, traceback.format_exc().encode())
            return self._fail(f"{type(error).__name__}: {error} (see logs/{log.name})")

    def _advance(self) -> dict[str, Any]:
        following = next(self._stages, None)
        if following is None:
            return self._finish()
        request, report = following
        self._tables.append(report.rows)
        self._keys.append(request.key)
        metrics = running_metrics(self._tables, report.t)
        images = {"faces": enlarged(report.faces)}
        if report.buffer is not None:
            images["buffer"] = enlarged(report.buffer)
        self._job.coordinator.stage.remote(report.reused, report.seconds)
        self._record("log_stage", report.t, {**metrics, "train/loss": report.loss}, images)
        if report.t + 1 == len(self._identity.timestamps):
            return self._finish()
        return {"timestamp": report.t, "train_loss": report.loss, "done": False}

    def _finish(self) -> dict[str, Any]:
        table = trial_table(self._spec, self._tables, self._keys)
        write_atomically(result_path(self._job.out, self._spec.trial_id), parquet_bytes(table))
        self._record("finish_trial")
        self._delivered()
        self._job.coordinator.finish.remote(self._spec.trial_id, "")
        return {"timestamp": len(self._identity.timestamps) - 1, "done": True}

    def _fail(self, message: str) -> dict[str, Any]:
        self._record("fail_trial", message)
        self._delivered()
        self._job.coordinator.finish.remote(self._spec.trial_id, message)
        return {"failed": message, "done": True}
