"""Runs a study: Ray Tune over its trials, live progress, one MLflow writer. To resume a study, run it again."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from clstudy.cluster.coordinator import CoordinatorActor
from clstudy.cluster.node_files import Inputs
from clstudy.cluster.nodes import ask_nodes, living_nodes
from clstudy.cluster.ray_session import TIDY_SECONDS, RaySession, ray_session, study_token, tune_experiment
from clstudy.cluster.recorder import RecorderActor
from clstudy.cluster.study_settings import StudySettings
from clstudy.cluster.tune_adapter import DeathNotice, Gate, SourceScheduler, SourceSearcher
from clstudy.cluster.watcher import Display, Watcher
from clstudy.cluster.worker import Job, SentBasis, TrialTrainable
from clstudy.generators import load_generators
from clstudy.generators.base import GENERATORS
from clstudy.registry import foreign_sources
from clstudy.settings.named_profiles import profile_sources
from clstudy.settings.version import __version__
from clstudy.storage.content_addressed_store import StudyStore, digest_of
from clstudy.storage.file_modes import current_mask
from clstudy.storage.places import Place, RemotePath
from clstudy.storage.trees import remove_tree
from clstudy.strategies.lookup import strategy_sources
from clstudy.study.cost import write_history
from clstudy.study.plan import Plan
from clstudy.study.trial_sources import ListedTrials, TrialSource
from clstudy.study.weight_cleanup import WeightKeeper
from clstudy.tracking.addresses import artifact_folder
from clstudy.tracking.run_contents import run_names

INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Outcome:
    """How a run of a study ended; ``stopped`` says why it stopped early, or is empty."""

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


def run_study(
    settings: StudySettings,
    plan: Plan,
    show: Display,
    *,
    source: TrialSource | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Run all unfinished trials of a plan (or those that a source proposes) and return how it went.

    ``show`` is called a few times a second with the coordinator's snapshot, ``say`` with messages that the user must
    see at once. The first SIGINT or SIGTERM lets the stages in flight finish; a second SIGINT raises
    KeyboardInterrupt. A killed driver leaves nothing half done: the same call resumes from the finished stages.
    """
    started = time.monotonic()
    store = StudyStore(settings.out)
    store.drop_drafts()
    gate = Gate()
    # twice, because Ray replaces our SIGTERM handler on start by its own, which ends the process
    with _signals(gate, say), ray_session(settings) as session, _signals(gate, say):
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        coordinator: Any = CoordinatorActor.options(scheduling_strategy=here).remote(settings.most_stages)
        recorder: Any = RecorderActor.options(scheduling_strategy=here).remote(
            settings.tracking_uri,
            settings.experiment,
            artifact_folder(settings.out, settings.tracking_uri),
            {"clstudy.profile": settings.basis.profile.name, "clstudy.version": __version__},
            settings.images,
            current_mask(),
        )
        inputs = _provide_inputs(settings)
        keeper = WeightKeeper(store, plan.chains) if settings.keep_weights == "last" else None
        with Watcher(settings, coordinator, gate, keeper, show, say):
            _fit(settings, plan, source or ListedTrials(plan.to_run), gate, coordinator, recorder, inputs, session)
        undelivered = _close(recorder, settings.tracking_patience_s)
        snapshot = ray.get(coordinator.snapshot.remote())
        session.keep_logs = snapshot["deaths"] > 0
        dropped = keeper.sweep(*ray.get(coordinator.chains.remote())) if keeper else 0
        if inputs is not None:
            with suppress(Exception):  # tidying up must not lose a study's end
                ask_nodes(living_nodes(), lambda label: inputs.remove_cache(), TIDY_SECONDS)
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
    """Number of calls that did not reach MLflow; those of a dead recorder are lost, but the rows are safe."""
    try:
        undelivered: int = ray.get(recorder.close.remote(patience_s))
        return undelivered
    except ray.exceptions.RayError:
        return 1


@contextmanager
def _signals(gate: Gate, say: Callable[[str], None]) -> Iterator[None]:
    """Close the gate on the first signal, interrupt on the next SIGINT; only in the main thread, as Python requires."""
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


def _provide_inputs(settings: StudySettings) -> Inputs | None:
    """Put photos and metrics' weights into the storage if workers may be on other machines."""
    if settings.address is None:
        return None
    inputs = Inputs(settings.out, study_token(settings.out))
    inputs.provide(settings.data, settings.files, settings.basis.metric_files)
    return inputs


def _sources(settings: StudySettings) -> dict[str, str]:
    """The user's own modules that workers need: name -> source."""
    profile = settings.basis.profile
    return {
        **strategy_sources(settings.space.grid.strategy),
        **profile_sources(profile),
        **foreign_sources("metric", profile.evaluation.metrics),
        **foreign_sources("generator", [profile.generator]),
        **foreign_sources("workload", [profile.workload]),
    }


def _fit(
    settings: StudySettings,
    plan: Plan,
    source: TrialSource,
    gate: Gate,
    coordinator: Any,
    recorder: Any,
    inputs: Inputs | None,
    session: RaySession,
) -> None:
    job = Job(
        umask=current_mask(),
        basis=SentBasis.of(settings.basis),
        identities={identity.name: identity for identity in settings.data.identities},
        run_names=run_names(plan.trials),
        out=settings.out.resolve(),
        others=tuple(study.resolve() for study in settings.others),
        files=settings.files,
        coordinator=coordinator,
        recorder=recorder,
        part=settings.part,
        inputs=inputs,
        sources=_sources(settings) if inputs is not None else {},
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
            trial_name_creator=_anonymous_name,
            trial_dirname_creator=_anonymous_name,
        ),
        # Nothing is read from Tune's own records (they lose and repeat rows); ours are keyed and checked.
        run_config=tune.RunConfig(
            name=tune_experiment(settings),
            verbose=0,
            # unlimited here, because the coordinator counts deaths without progress (clstudy.cluster.worker)
            failure_config=tune.FailureConfig(max_failures=-1),
            callbacks=[DeathNotice(coordinator)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            **_scratch(session, job.out),
        ),
    )
    tuner.fit()


def _anonymous_name(trial: Any) -> str:
    """A trial's name in Ray's folders and logs, which outlive a study on a cluster: a digest that names nobody."""
    return digest_of({"trial": str(trial.config["trial"])})[:16]


def _scratch(session: RaySession, out: Place) -> dict[str, Any]:
    """Where Tune keeps its own records: we do not use them, but all nodes must see them."""
    if session.scratch is not None:
        return {"storage_path": str(session.scratch)}
    folder = out / "ray"
    remove_tree(folder)
    if isinstance(folder, RemotePath):
        return {"storage_path": folder.path, "storage_filesystem": folder.system}
    return {"storage_path": str(folder)}
