"""What runs inside a Ray worker: one Tune trainable that steps through a trial, one timestamp per step.

The worker process is reused for many trials; everything that depends on a trial is rebuilt in ``_begin``.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray import tune

from clstudy.analysis.partial_scores import running_metrics
from clstudy.cluster.node_files import Inputs
from clstudy.errors import UserError
from clstudy.generators.base import GeneratorWeights
from clstudy.identities.dataset import Identity
from clstudy.images import enlarged
from clstudy.records.results import result_path, trial_table, write_result
from clstudy.safe_text import redacted
from clstudy.settings.metric_facts import OwnMetric, known_metrics
from clstudy.settings.profile_documents import profile_from_document
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.file_modes import apply
from clstudy.storage.foreign_modules import provide_sources
from clstudy.storage.patience import patiently
from clstudy.storage.places import Place, write_atomically
from clstudy.strategies.lookup import strategy_class
from clstudy.study.plan import learned_key
from clstudy.tracking.run_contents import LOSS_METRIC, trial_params, trial_tags
from clstudy.training.evaluation import NotFiniteError
from clstudy.training.numerics import configure_torch, torch_device
from clstudy.training.personalise import TrainingDivergedError
from clstudy.trial.listener import StageReport
from clstudy.trial.requests import Basis, StageRequest, run_version
from clstudy.trial.shared_store import shared_store
from clstudy.trial.stage_runner import StageRunner
from clstudy.trial.story import trial_stages
from clstudy.workloads.base import workload_of

_BEAT_SECONDS = 5.0
_PROGRESS_SECONDS = 0.4
_DELIVERY_SECONDS = 120.0
_PAUSE_SECONDS = 2.0
_MOST_DEATHS = 5
"""A trial is given up after this many deaths of its worker without a finished stage: it would be retried for ever."""


@dataclass(frozen=True, kw_only=True)
class SentBasis:
    """A basis in plain values, to send to a worker: its profile's class may be in a module that is not there yet."""

    profile: Mapping[str, Any]
    generator_digest: str
    metric_files: Mapping[str, str]
    own_metrics: tuple[OwnMetric, ...]

    @classmethod
    def of(cls, basis: Basis) -> SentBasis:
        """Pack a basis, in the driver."""
        return cls(
            profile=basis.profile.to_dict(),
            generator_digest=basis.generator_digest,
            metric_files=dict(basis.metric_files),
            own_metrics=basis.own_metrics,
        )

    def opened(self) -> Basis:
        """Unpack the basis; the user's own modules must be importable (``provide_sources``).

        Raises:
            UserError: they are not.
        """
        return Basis(profile_from_document(self.profile), self.generator_digest, self.metric_files, self.own_metrics)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that a worker needs, small enough to be sent with every trial.

    ``part`` is the study's folder for the trials' rows, ``others`` are studies to take stages over from; ``inputs``
    fetches files that a node lacks, ``sources`` are the user's own modules (strategies, profiles), and ``umask`` is the
    driver's (``clstudy.storage.file_modes``).
    """

    basis: SentBasis
    identities: Mapping[str, Identity]
    run_names: Mapping[str, str]
    out: Place
    files: Mapping[str, Path]
    coordinator: Any
    recorder: Any
    part: str = "results"
    inputs: Inputs | None = None
    others: tuple[Place, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    umask: int = 0o077


class ActorLocks:
    """Stage locks, held in the coordinator and kept alive by a heartbeat from this process."""

    def __init__(self, coordinator: Any, owner: str):
        self._coordinator = coordinator
        self._owner = owner
        threading.Thread(target=self._beat, daemon=True).start()

    def acquire(self, key: str) -> bool:
        taken: bool = ray.get(self._coordinator.acquire.remote(key, self._owner))
        return taken

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
        self._last_sent = 0.0

    def progress(self, t: int, phase: str, done: int, total: int, loss: float) -> None:
        now = time.monotonic()
        if now - self._last_sent < _PROGRESS_SECONDS:
            return
        self._last_sent = now
        state = {"t": t, "phase": phase, "done": done, "total": total, "loss": loss}
        self._coordinator.progress.remote(self._trial, state)


def spec_of(config: Mapping[str, Any]) -> TrialSpec:
    """The trial that Tune's configuration describes (``TrialSpec.config``)."""
    return TrialSpec(**{field.name: config[field.name] for field in fields(TrialSpec)})


class TrialTrainable(tune.Trainable):
    """One trial as Tune sees it; the configuration is ``TrialSpec.config``."""

    def setup(  # type: ignore[override]  # Tune passes what ``with_parameters`` was given by name
        self, config: dict[str, Any], job: Job, weights: GeneratorWeights
    ) -> None:
        """Build what is kept between trials.

        A failure here is not the trial's fault: Tune starts the trial again, perhaps on another node, and the
        coordinator counts the failures (``died``).
        """
        apply(job.umask)
        self._job = job
        self._runner: StageRunner | None = None
        try:
            self._runner = self._build(job, weights)
        except Exception as error:
            trouble = redacted(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
            job.coordinator.trouble.remote(config["trial"], trouble)
            deaths, _ = self._ask("begin", config["trial"])
            if deaths < _MOST_DEATHS:
                raise
        self._begin(config)

    @cached_property
    def _basis(self) -> Basis:
        """The job's basis, once its modules are there; raises as ``SentBasis.opened``."""
        return self._job.basis.opened()

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the coordinator and wait for its answer."""
        return ray.get(getattr(self._job.coordinator, method).remote(*arguments))

    def _say(self, text: str) -> None:
        self._job.coordinator.note.remote(redacted(text))

    def _build(self, job: Job, weights: GeneratorWeights) -> StageRunner:
        if job.inputs is not None and job.sources:
            provide_sources(job.sources, job.inputs.private_cache("modules"))
        basis = self._basis
        profile = basis.profile
        device = torch_device(profile.resources)
        notes = configure_torch(profile.compute, profile.resources)
        owner = ray.get_runtime_context().get_actor_id() or "driver"
        files = job.files if job.inputs is None else job.inputs.local_files(job.files, basis.metric_files)
        workload = workload_of(profile).build(profile, weights, files, device)
        for note in [*notes, *workload.notes]:
            self._say(note)
        return StageRunner(
            basis=basis,
            workload=workload,
            store=shared_store(job.out, job.others, workload.processor, keep=True, say=self._say),
            locks=ActorLocks(job.coordinator, owner),
            say=self._say,
        )

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Reuse the process for another trial; False if the process could not be set up."""
        if self._runner is None:
            return False
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        """Forget the previous trial; the new one is prepared in its first step, if it gets that far."""
        self._spec = spec_of(config)
        self._identity = self._job.identities[self._spec.identity]
        self._stages: Iterator[tuple[StageRequest, StageReport]] | None = None
        self._tables: list[pa.Table] = []
        self._keys: list[str] = []
        self._objective = math.nan
        self._sent: list[Any] = []

    def _start(self) -> str:
        """Announce the trial and prepare its stages; returns why it cannot run, or an empty string."""
        deaths, trouble = self._ask("begin", self._spec.trial_id)
        self._job.coordinator.progress.remote(
            self._spec.trial_id, {"t": 0, "phase": "start", "done": 0, "total": 1, "loss": float("nan")}
        )
        name = self._job.run_names.get(self._spec.trial_id, self._spec.trial_id)
        version = run_version(self._basis, self._spec, self._identity)
        self._record("start_trial", name, self._params(), trial_tags(self._spec, version))
        self._stages = iter(())
        if self._runner is None or deaths >= _MOST_DEATHS:
            reason = trouble or "its memory may be too small; see ray/logs of the study, or Ray's on the nodes"
            return f"its worker died {deaths} times without finishing a stage ({reason})"
        if self._job.inputs is not None:
            self._identity = self._job.inputs.local_identity(self._identity)
        listener = BoardListener(self._job.coordinator, self._spec.trial_id)
        self._stages = trial_stages(self._runner, self._spec, self._identity, listener)
        return ""

    def _params(self) -> dict[str, Any]:
        return trial_params(
            self._spec,
            profile=self._basis.profile.name,
            timestamps=self._spec.timestamps or len(self._identity.timestamps),
            joint=strategy_class(self._spec.strategy).joint,
        )

    def _record(self, method: str, *arguments: Any) -> None:
        """Send something about this trial to the recorder, without waiting."""
        self._sent.append(getattr(self._job.recorder, method).remote(self._spec.trial_id, *arguments))

    def _wait_for_delivery(self) -> None:
        """Wait until the recorder has received everything: Ray drops calls in flight when this process ends.

        This does not wait for the tracking server, which may be down.
        """
        if self._sent:
            ray.wait(self._sent, num_returns=len(self._sent), timeout=_DELIVERY_SECONDS)

    def step(self) -> dict[str, Any]:
        """Run one timestamp. A failure ends only this trial and is reported with its reason."""
        while not self._keys and self._ask("paused"):
            time.sleep(_PAUSE_SECONDS)
        if reason := self._ask("stopping"):
            self._wait_for_delivery()
            return {"stopped": reason, "done": True}
        try:
            if self._stages is None and (doomed := self._start()):
                return self._fail(doomed)
            return self._advance()
        except UserError as error:
            return self._fail(str(error), diverged=isinstance(error, TrainingDivergedError | NotFiniteError))
        except Exception as error:
            return self._fail(f"{type(error).__name__}: {error}{self._logged(traceback.format_exc())}")

    def _logged(self, text: str) -> str:
        log = self._job.out / "logs" / f"{self._spec.trial_id}.txt"
        try:
            write_atomically(log, redacted(text).encode())
        except OSError:
            return ""  # the storage may be what failed
        return f" (see logs/{log.name})"

    def _advance(self) -> dict[str, Any]:
        assert self._stages is not None and self._runner is not None
        following = next(self._stages, None)
        if following is None:
            return self._finish()
        request, report = following
        self._tables.append(report.rows)
        self._keys.append(request.key)
        metrics = running_metrics(self._tables, report.t, known_metrics(self._runner.basis.own_metrics))
        images = {"faces": enlarged(report.faces)}
        if report.buffer is not None:
            images["buffer"] = enlarged(report.buffer)
        images |= {name: enlarged(pixels) for name, pixels in report.pictures.items()}
        self._job.coordinator.stage.remote(
            self._spec.trial_id,
            request.key,
            learned_key(request),
            reused=report.reused,
            seconds=report.seconds,
        )
        self._record("log_stage", report.t, {**metrics, LOSS_METRIC: report.loss}, images, report.losses)
        # joint training has no AIP: a search judges it by its only row
        self._objective = self._runner.objective.cost(metrics)
        if report.t + 1 == len(self._identity.timestamps):
            return self._finish()
        return {"t": report.t, "train_loss": report.loss, "objective": self._objective, "done": False}

    def _finish(self) -> dict[str, Any]:
        table = trial_table(self._spec, self._tables, self._keys)
        place = result_path(self._job.out, self._spec.trial_id, self._job.part)
        patiently(lambda: write_result(place, table), self._say)
        self._record("finish_trial")
        self._wait_for_delivery()
        self._job.coordinator.finish.remote(self._spec.trial_id, "")
        return {"t": len(self._identity.timestamps) - 1, "objective": self._objective, "done": True}

    def _fail(self, message: str, *, diverged: bool = False) -> dict[str, Any]:
        message = redacted(message)  # a library's message may quote an address with its password
        self._record("fail_trial", message)
        self._wait_for_delivery()
        self._job.coordinator.finish.remote(self._spec.trial_id, message)
        return {"failed": message, "diverged": diverged, "done": True}
