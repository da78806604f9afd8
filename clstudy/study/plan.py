"""Plans a study: what it will run, what is shared or done already, and what it will cost (no torch, no Ray)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from clstudy.identities.dataset import Identity
from clstudy.records.results import ResultFile, read_result, result_path
from clstudy.settings.profiles import Profile
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.checksums import State
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.storage.places import Place
from clstudy.storage.trees import together
from clstudy.strategies.lookup import make_strategy
from clstudy.study.cost import Pace, pace_from, pace_of_neighbours, pace_of_profile
from clstudy.study.retention import Chain
from clstudy.trial.requests import Basis, StageRequest, recall, stage_count, stage_requests
from clstudy.trial.work import cost_kind, likely_work, stage_work
from clstudy.trial.work import training_work as retraining_work

START_SECONDS = 25.0
"""Seconds to start Ray, the workers and MLflow."""
_SMALL_BYTES = 60_000
"""Bytes of a stage's rows, pictures and records, without its weights."""
_LEARNED_NETWORKS = 2.0
"""Size of what a strategy learns, as a multiple of the network's: a value and its importance per parameter."""


@dataclass(frozen=True)
class Plan:
    """Trials with everything known about their stages before anything runs.

    ``exact`` is False while buffers are not chosen yet: then ``stages`` is an upper limit, because buffers that
    turn out equal share stages. ``retrained`` stages have rows but no weights any more (``weights: last``) and are
    trained again because something new builds on them. ``seconds`` is wall time with this many workers,
    ``worker_seconds`` the sum over workers.
    """

    trials: tuple[TrialSpec, ...]
    done: frozenset[str]
    stages_without_sharing: int
    stages: int
    stages_done: int
    exact: bool
    seconds: float
    worker_seconds: float
    work: float
    estimate_from: str
    disk_bytes: int
    retrained: int
    chains: Mapping[str, Chain]
    """Trial -> its stages, as far as they are known now."""
    restorable: Mapping[str, State] = field(default_factory=dict)
    """Trials with all stages but no sound result -> its state (missing, damaged, or without a checksum)."""
    start_seconds: float = 0.0
    """The part of ``seconds`` before the first stage begins."""
    open_trials: int = 0
    """The most trials that a learning-rate search will propose; which ones is not known yet."""
    taken_over: Mapping[str, int] = field(default_factory=dict)
    """Other study in the same storage -> how many of ``stages_done`` it has and this study still lacks."""

    @property
    def to_run(self) -> tuple[TrialSpec, ...]:
        """Listed trials that are not finished, in order."""
        return tuple(spec for spec in self.trials if spec.trial_id not in self.done)

    @property
    def stages_to_run(self) -> int:
        """Stages still to compute (at most, unless ``exact``)."""
        return self.stages - self.stages_done


def is_done(result: ResultFile, keys: Sequence[str]) -> bool:
    """Whether a trial's result file matches its checksum and belongs to exactly these stages."""
    return result.state is State.WHOLE and result.keys == tuple(keys)


def lineage(spec: TrialSpec) -> tuple[str, int, float]:
    """What two trials must have in common to share a stage."""
    return spec.identity, spec.seed, spec.learning_rate


def first_missing(requests: Sequence[StageRequest], computed: set[str]) -> int:
    """Index of a trial's first stage that is not computed yet; the number of stages if all are."""
    return next((place for place, request in enumerate(requests) if request.key not in computed), len(requests))


def chain_of(spec: TrialSpec, requests: Sequence[StageRequest], count: int, computed: set[str], done: bool) -> Chain:
    """What is known about a trial's stages."""
    keys = [request.key for request in requests]
    return Chain(
        lineage=lineage(spec),
        keys=tuple(keys),
        learned=tuple(learned_key(request) for request in requests),
        done=first_missing(requests, computed),
        finished=done,
        whole=len(keys) == count,
    )


def learned_key(request: StageRequest) -> str | None:
    """Key of what a strategy learned before a stage and uses in it."""
    support = request.support
    return None if support is None or support.learned is None else support.learned.key


def to_retrain(
    requests: Sequence[StageRequest], computed: set[str], has_weights: Callable[[str], bool]
) -> list[StageRequest]:
    """Stages of a trial that have rows but no weights, although its first missing stage builds on their weights."""
    first = first_missing(requests, computed)
    if first == len(requests):
        return []
    again: list[StageRequest] = []
    parent = requests[first].parent
    while parent is not None and not has_weights(parent.key):
        again.append(parent)
        parent = parent.parent
    return again


def disk_estimate(
    profile: Profile, trials: Sequence[TrialSpec], stages_left: int, timestamps: int, workers: float, policy: str
) -> int:
    """Most bytes that a study adds at any time: rows and pictures of all stages, weights as the policy keeps them."""
    weights = profile.stage_bytes
    learning = sum(make_strategy(spec.strategy).learns() for spec in trials)
    learned = weights * _LEARNED_NETWORKS
    if policy == "all":
        return int(stages_left * (_SMALL_BYTES + weights) + learning * timestamps * learned)
    # the first and last stages of every trial, and all stages of trials under way
    kept = min(stages_left, len({lineage(spec) for spec in trials}) + len(trials) + workers * timestamps)
    return int(stages_left * _SMALL_BYTES + kept * weights + learning * 2 * learned)


def make_plan(
    trials: Sequence[TrialSpec],
    identities: Mapping[str, Identity],
    basis: Basis,
    store: StudyStore,
    out: Place,
    *,
    workers: float,
    weights: str = "last",
) -> Plan:
    """Walk every trial's stages without computing any.

    Args:
        store: the study's; with other studies behind it (``clstudy.trial.shared_store``) their stages count as done.
        workers: trials at a time, to estimate wall time and disk.
        weights: "last" or "all" (``clstudy.study.retention``).
    """
    known = {
        spec.trial_id: list(stage_requests(spec, identities[spec.identity], basis, partial(recall, store)))
        for spec in trials
    }
    requests = {request.key: request for walked in known.values() for request in walked}
    own = store.stages.complete(requests)
    elsewhere = store.elsewhere(requests.keys() - own)
    computed = own | elsewhere.keys()
    have = store.weights.complete(requests)
    legacy = own - have
    counts = {spec.trial_id: stage_count(spec, len(identities[spec.identity].timestamps)) for spec in trials}
    keys = {name: [request.key for request in walked] for name, walked in known.items()}
    staged = [name for name, found in keys.items() if len(found) == counts[name] and set(found) <= own]
    read = together(lambda name: read_result(result_path(out, name)), staged, out)
    results = dict(zip(staged, read, strict=True))
    done = {name for name, result in results.items() if is_done(result, keys[name])}

    def has_weights(key: str) -> bool:
        return key in have or (key in legacy and store.stage_has_weights(key)) or store.weights_elsewhere(key)

    again = {
        request.key: request
        for spec in trials
        if spec.trial_id not in done
        for request in to_retrain(known[spec.trial_id], computed, has_weights)
    }
    work = sum(stage_work(request) for key, request in requests.items() if key not in computed)
    work += sum(retraining_work(request) for request in again.values())
    unknown = 0
    for spec in trials:
        identity = identities[spec.identity]
        missing = range(len(known[spec.trial_id]), counts[spec.trial_id])
        unknown += len(missing)
        work += sum(likely_work(basis.profile, identity, t) for t in missing)
    left = len(requests) - len(computed) + unknown
    pace = find_pace(basis, store, out)
    seconds = work * pace.seconds_per_pass
    start = START_SECONDS if left or elsewhere else 0.0
    return Plan(
        trials=tuple(trials),
        done=frozenset(done),
        stages_without_sharing=sum(counts.values()),
        stages=len(requests) + unknown,
        stages_done=len(computed),
        exact=unknown == 0,
        seconds=seconds / max(workers, 1) + start,
        start_seconds=start,
        worker_seconds=seconds,
        work=work,
        estimate_from=pace.source,
        disk_bytes=disk_estimate(
            basis.profile,
            [spec for spec in trials if spec.trial_id not in done],
            left,
            max(len(identity.timestamps) for identity in identities.values()),
            workers,
            weights,
        ),
        retrained=len(again),
        taken_over=dict(sorted(Counter(elsewhere.values()).items())),
        restorable={name: result.state for name, result in results.items() if name not in done},
        chains={
            spec.trial_id: chain_of(spec, known[spec.trial_id], counts[spec.trial_id], computed, spec.trial_id in done)
            for spec in trials
        },
    )


def find_pace(basis: Basis, store: StudyStore, out: Place) -> Pace:
    """Seconds per photo pass: from this study's stages, or else its neighbours', or else the profile's guess."""
    kind = cost_kind(basis)
    return pace_from(store.stage_timings(), kind) or pace_of_neighbours(out, kind) or pace_of_profile(basis.profile)
