"""Run a study: Ray Tune over its trials, live progress, one MLflow writer; resume is simply running again."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import clstudy
from clstudy.cluster.actors import CoordinatorActor, RecorderActor
from clstudy.cluster.node_files import Inputs
from clstudy.cluster.nodes import ask_nodes, living_nodes, ray_complaint
from clstudy.cluster.ray_folder import keep_logs, private_folder, remove_experiment
from clstudy.cluster.worker import Job, TrialTrainable
from clstudy.errors import UserError
from clstudy.generators import load_generators
from clstudy.generators.base import GENERATORS, GeneratorWeights
from clstudy.identities.dataset import DataSet
from clstudy.settings.space import SearchSpace
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.file_modes import current_mask
from clstudy.storage.places import MIN_FREE_BYTES, Place, RemotePath, free_bytes, remove_tree
from clstudy.storage.values import StudyStore, digest_of
from clstudy.strategies.lookup import foreign_sources
from clstudy.study.cost import write_history
from clstudy.study.plan import Plan
from clstudy.study.privacy.ray_sessions import experiment_name
from clstudy.study.trial_sources import ListedTrials, TrialSource
from clstudy.study.weight_cleanup import WeightKeeper
from clstudy.tracking.addresses import artifact_folder
from clstudy.tracking.local_database import database_file
from clstudy.tracking.run_contents import run_names
from clstudy.tracking.telemetry import SWITCHES, without_ray_dashboard_process
from clstudy.trial.requests import Basis

INTERRUPTED = "interrupted"
BUDGET = "the budget is used up"
DISK_FULL = "the disk stayed too full to begin another trial"
_DISK_PATIENCE_S = 900.0
_TIDY_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Where and with how many workers a study runs.

    ``files`` are the weights from outside the package, by role; ``weights`` those of the generator if they were read
    already. ``part`` is the folder for the trials' rows (a learning-rate search has one of its own).
    ``budget_seconds``: after so long no stage is begun any more. ``most_stages``: stop after so many computed stages.
    ``tracking_patience_s``: how long the end waits for a tracking server that does not answer.
    """

    space: SearchSpace
    basis: Basis
    data: DataSet
    out: Place
    tracking_uri: str
    experiment: str
    files: Mapping[str, Path] = field(default_factory=dict)
    weights: GeneratorWeights | None = None
    address: str | None = None
    max_concurrent: int | None = None
    part: str = "results"
    keep_weights: str = "last"
    budget_seconds: float | None = None
    most_stages: int | None = None
    images: bool = True
    tracking_patience_s: float = 60.0


@dataclass(frozen=True)
class Outcome:
    """How a run of a study ended; ``stopped`` says why it ended before its end, or is empty."""

    failures: Mapping[str, str]
    finished: frozenset[str]
    stopped: str
    stages_computed: int
    stages_reused: int
    stages_repeated: int
    worker_seconds: float
    worker_deaths: int
    weights_dropped: int
    seconds: float
    undelivered: int
    notes: tuple[str, ...]


Display = Callable[[Mapping[str, Any]], None]


class Gate:
    """Whether new trials and stages may begin. Set from signal handlers and threads, so nothing but flags."""

    def __init__(self) -> None:
        self.reason = ""
        self.paused = ""

    def stop(self, reason: str) -> None:
        """No trial and no stage begins any more; the first reason stays."""
        self.reason = self.reason or reason


class SourceSearcher(Searcher):
    """Hands a source's trials to Tune, one when a worker is free."""

    def __init__(self, source: TrialSource, gate: Gate):
        super().__init__()  # without a metric: Tune would demand it of every result, also of a failed trial's
        self._source = source
        self._gate = gate
        self._specs: dict[str, TrialSpec] = {}

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next trial's columns; None while there is none, ``FINISHED`` when there will be none."""
        if self._gate.reason:
            return Searcher.FINISHED
        if self._gate.paused:
            return None
        spec = self._source.next()
        if spec is None:
            return Searcher.FINISHED if self._source.exhausted() else None
        self._specs[trial_id] = spec
        return spec.columns()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        spec = self._specs[trial_id]
        if result is None or "stopped" in result:
            return
        if error or ("failed" in result and not result["diverged"]):
            self._source.abandon(spec.trial_id)
        else:
            self._source.finish(spec.trial_id, None if "failed" in result else result["objective"])

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()  # Tune wants a file; a study is resumed from its own stages

    def restore(self, checkpoint_path: str) -> None:
        return


class SourceScheduler(FIFOScheduler):
    """Lets the source stop a trial that has no prospects (a learning-rate search only)."""

    def __init__(self, source: TrialSource, on_stop: Callable[[str], None]):
        super().__init__()
        self._source = source
        self._on_stop = on_stop

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "objective" not in result or result.get("done"):
            return TrialScheduler.CONTINUE
        name = str(trial.config["trial"])
        if self._source.report(name, int(result["t"]), float(result["objective"])):
            return TrialScheduler.CONTINUE
        self._on_stop(name)
        return TrialScheduler.STOP


class DeathNotice(tune.Callback):
    """Tells the coordinator of every worker that died under a trial, before the trial is started again."""

    def __init__(self, coordinator: Any):
        self._coordinator = coordinator

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._coordinator.died.remote(str(trial.config["trial"]))


def run_study(
    settings: StudySettings,
    plan: Plan,
    show: Display,
    *,
    source: TrialSource | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Run all unfinished trials of a plan (or those a source makes) and return how it went.

    ``show`` is called a few times a second with the coordinator's snapshot; ``say`` hears what a user must know at
    once. The first SIGINT or SIGTERM lets the stages in flight finish; a second SIGINT raises KeyboardInterrupt. A
    killed driver leaves nothing half: the same call goes on from the finished stages.
    """
    started = time.monotonic()
    store = StudyStore(settings.out)
    store.drop_drafts()
    gate = Gate()
    # twice: Ray's start puts a handler of its own, which ends the process, over SIGTERM's
    with _signals(gate, say), _ray(settings) as session, _signals(gate, say):
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        coordinator: Any = CoordinatorActor.options(scheduling_strategy=here).remote(settings.most_stages)
        recorder: Any = RecorderActor.options(scheduling_strategy=here).remote(
            settings.tracking_uri,
            settings.experiment,
            artifact_folder(settings.out, settings.tracking_uri),
            {"clstudy.profile": settings.basis.profile.name, "clstudy.version": clstudy.__version__},
            settings.images,
            current_mask(),
        )
        inputs = _provide_inputs(settings)
        keeper = WeightKeeper(store, plan.chains) if settings.keep_weights == "last" else None
        with _Watcher(settings, coordinator, gate, keeper, show, say):
            _fit(settings, plan, source or ListedTrials(plan.to_run), gate, coordinator, recorder, inputs, session)
        undelivered = _close(recorder, settings.tracking_patience_s)
        snapshot = ray.get(coordinator.snapshot.remote())
        session.keep_logs = snapshot["deaths"] > 0
        dropped = keeper.sweep(*ray.get(coordinator.chains.remote())) if keeper else 0
        if inputs is not None:
            with suppress(Exception):  # tidying up must not lose a study's end
                ask_nodes(living_nodes(), lambda label: inputs.remove_cache(), _TIDY_SECONDS)
    ended = snapshot["finished"]
    failures = {trial: message for trial, message in sorted(ended.items()) if message}
    write_history(settings.out, store.stage_timings())
    return Outcome(
        failures=failures,
        finished=frozenset(trial for trial, message in ended.items() if not message),
        stopped=gate.reason,
        stages_computed=snapshot["stages"]["computed"],
        stages_reused=snapshot["stages"]["reused"],
        stages_repeated=snapshot["stages"]["repeated"],
        worker_seconds=snapshot["stages"]["seconds"],
        worker_deaths=snapshot["deaths"],
        weights_dropped=dropped,
        seconds=time.monotonic() - started,
        undelivered=undelivered,
        notes=tuple(snapshot["notes"]),
    )


def _close(recorder: Any, patience_s: float) -> int:
    """Calls that MLflow did not get; a recorder that died took its own with it, and the rows are safe all the same."""
    try:
        return ray.get(recorder.close.remote(patience_s))
    except ray.exceptions.RayError:
        return 1


@contextmanager
def _signals(gate: Gate, say: Callable[[str], None]) -> Iterator[None]:
    """The first signal closes the gate, the next SIGINT interrupts; only in the main thread, as Python wants it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        if gate.reason == INTERRUPTED:
            raise KeyboardInterrupt
        gate.reason = INTERRUPTED
        say("finishing the stages in flight; press Ctrl-C again to stop at once (they are then computed again)")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def start_ray(address: str | None, folder: Path | None = None) -> None:
    """Connect to a cluster, or start Ray on this machine without its dashboard.

    Args:
        folder: of the session, on this machine (None: Ray's own).
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # ours lets the stages in flight finish
    # trials that wait for a worker are what an autoscaler sees; with a searcher Tune would show it one at a time
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "32")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the newer console prints a box even when told to be silent
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "ignore_reinit_error": True}
    if address is None:
        # Ray's ports let in whoever has the token. One of this process's own needs no file in the home folder (which
        # may not be there, or not be ours to write), and no other run knows it.
        named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
        if not named and os.environ.get("RAY_AUTH_MODE", "").lower() != "disabled":
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # "local": without it Ray would join whatever cluster happens to run on this machine
        own = None if folder is None else str(folder)
        try:
            with without_ray_dashboard_process():
                ray.init(address="local", include_dashboard=False, _temp_dir=own, **quiet)
        except OSError as error:
            raise UserError(
                f"Ray cannot start on this machine ({error}); it keeps its files in the system's temporary folder: "
                "make room and rights there, or name another folder with RAY_TMPDIR"
            ) from error
        return
    # asked first, in a process of its own: at a wrong address Ray tries for minutes, without a token it aborts
    complaint = ray_complaint(address)
    try:
        if complaint is None:
            raise ConnectionError("nothing answers")
        if complaint:
            raise ConnectionError(complaint)
        # the nodes' workers are started by somebody else's environment, and import libraries before our code
        ray.init(address=address, runtime_env={"env_vars": dict(SWITCHES)}, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:  # nobody there; another Ray or Python; a wrong address
        raise UserError(
            f"no Ray cluster can be used at {address!r} ({error}); start one with `ray up cluster.yaml` or `ray start "
            "--head`, with the same Ray and Python as here, or leave --address out to run on this machine"
        ) from error


@dataclass
class _RaySession:
    """Where Tune may keep its records (None: in the study, which all nodes see), and whether to keep Ray's logs."""

    scratch: Path | None
    keep_logs: bool = False


@contextmanager
def _ray(settings: StudySettings) -> Iterator[_RaySession]:
    """Ray for as long as the block runs, and nothing of it afterwards but the logs of a run that went wrong.

    On one machine its folder is our own; of a cluster's only the study's part goes.
    """
    if settings.address is not None:
        start_ray(settings.address)
        try:
            yield _RaySession(None)
            name = _experiment(settings)
            with suppress(Exception):  # tidying up must not lose a study's end
                ask_nodes(living_nodes(), lambda label: remove_experiment(name), _TIDY_SECONDS)
        finally:
            ray.shutdown()
            remove_tree(settings.out / "ray")
        return
    with private_folder() as folder:
        session = _RaySession(folder / "tune")
        try:
            start_ray(None, folder)
            yield session
        except Exception:
            session.keep_logs = True
            raise
        finally:
            ray.shutdown()
            remove_tree(settings.out / "ray")
            if session.keep_logs:
                with suppress(OSError):
                    keep_logs(folder, settings.out / "ray" / "logs")


def _experiment(settings: StudySettings) -> str:
    return experiment_name(study_token(settings.out.resolve()))


def study_token(out: Place) -> str:
    """Names a study's own folders outside of it."""
    return digest_of({"study": str(out)})[:16]


def _provide_inputs(settings: StudySettings) -> Inputs | None:
    """Where workers may be on other machines: photos and weights of metrics into the storage."""
    if settings.address is None:
        return None
    inputs = Inputs(settings.out, study_token(settings.out))
    inputs.provide(settings.data, settings.files, settings.basis.metric_files)
    return inputs


def _fit(
    settings: StudySettings,
    plan: Plan,
    source: TrialSource,
    gate: Gate,
    coordinator: Any,
    recorder: Any,
    inputs: Inputs | None,
    session: _RaySession,
) -> None:
    job = Job(
        umask=current_mask(),
        basis=settings.basis,
        identities={identity.name: identity for identity in settings.data.identities},
        run_names=run_names(plan.trials),
        out=settings.out if isinstance(settings.out, RemotePath) else settings.out.resolve(),
        files=settings.files,
        coordinator=coordinator,
        recorder=recorder,
        part=settings.part,
        inputs=inputs,
        sources=foreign_sources(settings.space.grid.strategy) if inputs is not None else {},
    )
    share = settings.basis.profile.resources
    load_generators()
    weights = settings.weights or GENERATORS[settings.basis.profile.generator].read(settings.files)
    trainable = tune.with_resources(
        tune.with_parameters(TrialTrainable, job=job, weights=weights),
        {"cpu": share.cpus, "gpu": share.gpus},
    )

    def leave(trial: str) -> None:
        recorder.leave_trial.remote(trial)
        coordinator.finish.remote(trial, "")

    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            num_samples=-1,
            search_alg=SourceSearcher(source, gate),
            scheduler=SourceScheduler(source, leave),
            reuse_actors=True,
            max_concurrent_trials=settings.max_concurrent,
            trial_name_creator=_nameless,
            trial_dirname_creator=_nameless,
        ),
        # Tune's own records are not the truth (they lose and repeat rows); ours are keyed and checked.
        run_config=tune.RunConfig(
            name=_experiment(settings),
            verbose=0,
            # unlimited here, because the coordinator counts deaths without progress (clstudy.cluster.worker)
            failure_config=tune.FailureConfig(max_failures=-1),
            callbacks=[DeathNotice(coordinator)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            **_scratch(session, job.out),
        ),
    )
    tuner.fit()


def _nameless(trial: Any) -> str:
    """A trial's name in Ray's folders and logs, which outlive a study on a cluster: it names nobody."""
    return digest_of({"trial": str(trial.config["trial"])})[:16]


def _scratch(session: _RaySession, out: Place) -> dict[str, Any]:
    """Where Tune keeps its own records: nothing of ours depends on them, but all nodes must see them."""
    if session.scratch is not None:
        return {"storage_path": str(session.scratch)}
    folder = out / "ray"
    remove_tree(folder)
    if isinstance(folder, RemotePath):
        return {"storage_path": folder.path, "storage_filesystem": folder.system}
    return {"storage_path": str(folder)}


class _Watcher:
    """A thread beside ``fit``: shows the coordinator's board, drops weights, looks after budget, disk and signals."""

    def __init__(
        self,
        settings: StudySettings,
        coordinator: Any,
        gate: Gate,
        keeper: WeightKeeper | None,
        show: Display,
        say: Callable[[str], None],
        every: float = 0.5,
    ):
        self._settings = settings
        self._coordinator = coordinator
        self._gate = gate
        self._keeper = keeper
        self._show = show
        self._say = say
        self._every = every
        self._started = time.monotonic()
        self._full_since: float | None = None
        self._database: tuple[int, int] | None = None
        self._swept: tuple[int, int] | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=10)

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            try:
                self._look()
            except Exception:  # neither the display nor tidying up may stop a study
                continue

    def _look(self) -> None:
        snapshot = ray.get(self._coordinator.snapshot.remote(), timeout=5)
        self._limits(snapshot)
        self._look_after_database()
        if self._gate.reason and not snapshot["stopping"]:
            self._coordinator.stop.remote(self._gate.reason)
        self._show(snapshot)
        stages = snapshot["stages"]
        reached = (stages["computed"] + stages["reused"], len(snapshot["finished"]))
        if self._keeper is not None and reached != self._swept:  # all chains are much to ask for twice a second
            self._keeper.sweep(*ray.get(self._coordinator.chains.remote(), timeout=5))
            self._swept = reached

    def _look_after_database(self) -> None:
        """Say it where MLflow's local database is deleted or replaced under the study."""
        now = database_file(self._settings.tracking_uri)
        if self._database is not None and now != self._database:
            self._say(lost_database(self._settings.tracking_uri, self._settings.out))
        self._database = now

    def _limits(self, snapshot: Mapping[str, Any]) -> None:
        settings = self._settings
        if settings.budget_seconds is not None and time.monotonic() - self._started > settings.budget_seconds:
            self._stop(BUDGET)
        if snapshot["stopping"]:
            self._gate.stop(snapshot["stopping"])
        free, wanted = free_bytes(settings.out), room_for_a_trial(settings)
        if free is None or free >= wanted:
            if self._gate.paused:
                self._say("there is room again: going on")
                self._coordinator.pause.remote("")
            self._gate.paused, self._full_since = "", None
            return
        if self._full_since is None:
            self._full_since = time.monotonic()
            self._gate.paused = "low disk"
            self._coordinator.pause.remote(self._gate.paused)
            self._say(
                f"only {free / 1e9:.2f} GB are free at {settings.out}: no new trial begins below "
                f"{wanted / 1e9:.2f} GB. Make room; the study goes on by itself"
            )
        if not snapshot["running"] and time.monotonic() - self._full_since > _DISK_PATIENCE_S:
            self._stop(DISK_FULL)

    def _stop(self, reason: str) -> None:
        if not self._gate.reason:
            self._say(f"{reason}: finishing the stages in flight")
        self._gate.stop(reason)


def lost_database(uri: str, out: Place) -> str:
    """What became of MLflow's database and what to do."""
    return (
        f"MLflow's database {uri} was deleted or replaced while the study runs. The rows are safe; runs that MLflow "
        "lacks are written again from them when the study ends, or by "
        f"`python -m clstudy.tracking rebuild {out} --to {uri}`"
    )


def room_for_a_trial(settings: StudySettings) -> int:
    """Free bytes below which no trial is begun: what the trials under way may still write, and some for the rest."""
    timestamps = max(len(identity.timestamps) for identity in settings.data.identities)
    return max(MIN_FREE_BYTES, 2 * timestamps * settings.basis.profile.stage_bytes)
