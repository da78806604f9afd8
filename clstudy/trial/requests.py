"""A trial as a list of stage requests, with what each stage depends on, and its key.

The plan and the worker iterate over the same generator, so that they cannot disagree about a key. No torch, no Ray.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import Any

from clstudy.identities.dataset import Identity, Photo, Timestamp
from clstudy.records.stage_record import anchors_key as anchors_key_of
from clstudy.registry import is_foreign, source_digest
from clstudy.settings.instruction_sets import NATIVE
from clstudy.settings.metric_facts import OwnMetric
from clstudy.settings.named_profiles import own_sections
from clstudy.settings.profiles import PERSONALISE, Profile, key_document
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.content_addressed_store import MEMORY, StudyStore, digest_of
from clstudy.strategies.base import Item, Memory, memory_from_dict
from clstudy.strategies.lookup import make_strategy, strategy_class, strategy_document
from clstudy.workloads.base import workload_of

NUMERICS_VERSION = 2
"""Increased by hand when the mathematics of a stage changes, so that older stages are not reused."""

SELECTION_VERSION = 1
"""Increased by hand when a strategy's choice changes for equal input."""

HOOKS_VERSION = 1
"""Increased by hand when a strategy's hooks compute something else for equal input."""


@dataclass(frozen=True)
class Basis:
    """What all stages of a study share: profile, pretrained weights, weights of metrics, numerics fingerprint.

    ``metric_files``: role -> sha256 of weights from outside the package that metrics use. ``own_metrics``: the user's
    own metrics; their source enters the keys.
    """

    profile: Profile
    generator_digest: str
    metric_files: Mapping[str, str] = field(default_factory=dict)
    own_metrics: tuple[OwnMetric, ...] = ()

    def fingerprint(self) -> dict[str, Any]:
        """Everything about the machine's arithmetic that may change a bit of a result.

        Left out on purpose, because no bit depends on it: device index, node, number of workers, log level,
        ``activation_checkpointing`` (the same operations run again).
        """
        compute = self.profile.compute
        return {
            "numerics": NUMERICS_VERSION,
            "device": "cuda" if self.profile.resources.gpus else "cpu",
            "precision": compute.precision,
            "threads": self.profile.resources.threads,
            "torch": ".".join(version("torch").split("+")[0].split(".")[:2]),
            **({"compile": True} if compute.compile else {}),
            **({"instruction_set": compute.instruction_set} if compute.instruction_set != NATIVE else {}),
            "kernels": compute.kernels,
        }

    def workload(self) -> dict[str, Any]:
        """The workload, unless it is the default: keys of studies from before there were others stay the same."""
        return self._workload

    @cached_property
    def _workload(self) -> dict[str, Any]:
        name = self.profile.workload
        if name == PERSONALISE:
            return {}
        # read once: every stage's key needs it, and all stages of a study must come from the same source
        return {"workload": name, **({"workload_source": source_digest("workload", name)} if is_foreign(name) else {})}

    def choosing(self) -> dict[str, Any]:
        """What latents depend on beyond generator and photos: the user's own settings, or all of another workload's."""
        if self.profile.workload == PERSONALISE:
            return own_sections(self.profile)
        return {**self.workload(), "settings": list(workload_of(self.profile).key_sections(self.profile).values())}

    def adapted(self) -> dict[str, Any]:
        """What is trained instead of the weights, and the user's own sections; empty if there are none."""
        low_rank = self.profile.low_rank
        return ({"low_rank": key_document(low_rank)} if low_rank.rank else {}) | own_sections(self.profile)

    def measuring(self) -> dict[str, Any]:
        """How a stage is scored beyond the profile's settings; empty if everything is packaged."""
        alignment = self.profile.data.alignment
        sources = {one.place: one.source for one in self.own_metrics}
        return {
            **({"metric_files": dict(sorted(self.metric_files.items()))} if self.metric_files else {}),
            **({"metric_sources": dict(sorted(sources.items()))} if sources else {}),
            **({"alignment": alignment} if alignment != "embedded" else {}),
        }


def canonical_train(timestamp: Timestamp) -> list[Photo]:
    """Training photos in canonical order (by digest)."""
    return sorted(timestamp.train, key=lambda photo: photo.digest)


def canonical_test(timestamp: Timestamp) -> list[Photo]:
    """Test photos in canonical order (by digest)."""
    return sorted(timestamp.test, key=lambda photo: photo.digest)


def identity_digest(identity: Identity) -> str:
    """One digest over all photos of a person, in order."""
    return digest_of(
        {
            timestamp.name: [[photo.digest for photo in timestamp.train], [photo.digest for photo in timestamp.test]]
            for timestamp in identity.timestamps
        }
    )


def run_version(basis: Basis, spec: TrialSpec, identity: Identity) -> str:
    """Short digest of everything that determines a trial's numbers but is not in its name.

    A strategy's name is not enough: its default settings may change, and so may the source of a user's own class.
    """
    return version_digest(basis, spec, fingerprint=basis.fingerprint(), photos=identity_digest(identity))


def version_digest(basis: Basis, spec: TrialSpec, *, fingerprint: Mapping[str, Any], photos: str) -> str:
    """``run_version`` from its parts, for a study that is read back without its machine and photos."""
    profile = basis.profile
    return digest_of(
        {
            **basis.workload(),
            "settings": list(workload_of(profile).key_sections(profile).values()),
            **basis.adapted(),
            **basis.measuring(),
            "fingerprint": fingerprint,
            "generator": basis.generator_digest,
            "photos": photos,
            "strategy": strategy_document(spec.strategy),
        }
    )[:12]


def anchors_key(basis: Basis, timestamp: Timestamp) -> str:
    """Key of the anchors of one timestamp's training photos, followed by its test photos' starting latents."""
    return anchors_key_of(
        basis.generator_digest,
        basis.fingerprint(),
        train=tuple(photo.digest for photo in canonical_train(timestamp)),
        test=tuple(photo.digest for photo in canonical_test(timestamp)),
        choosing=basis.choosing(),
    )


@dataclass(frozen=True)
class Support:
    """What a strategy's hooks may use in a stage: its memory, and what it learned after the previous stage."""

    strategy: str
    memory: Memory
    learned: LearnedRequest | None

    @cached_property
    def document(self) -> dict[str, Any]:
        """Everything, besides the parent's weights, that can change what the hooks supply."""
        return {
            "version": HOOKS_VERSION,
            "strategy": strategy_document(self.strategy),
            "items": [[item.timestamp, item.digest] for item in self.memory.items],
            "state": dict(self.memory.state),
            "learned": None if self.learned is None else self.learned.key,
        }


@dataclass(frozen=True)
class LearnedRequest:
    """What a strategy will consolidate from a stage (Fisher terms, for instance), before that is computed."""

    strategy: str
    stage: StageRequest
    before: Support | None

    @cached_property
    def key(self) -> str:
        """Content address: the strategy, the stage, and what was remembered before it."""
        return digest_of(
            {
                "what": "learned",
                "version": HOOKS_VERSION,
                "strategy": strategy_document(self.strategy),
                "stage": self.stage.key,
                "before": None if self.before is None else self.before.document,
            }
        )


@dataclass(frozen=True)
class StageRequest:
    """One stage before it is computed: train on ``trained_on`` from ``parent``'s weights, then test on all k <= t.

    ``replay`` are stored photos. ``support`` is set from t = 1 for strategies with hooks that change training.
    """

    basis: Basis
    spec: TrialSpec
    identity: Identity
    t: int
    trained_on: tuple[int, ...]
    parent: StageRequest | None
    replay: tuple[Item, ...]
    support: Support | None = None

    @cached_property
    def document(self) -> dict[str, Any]:
        """Everything that can change the stage's numbers; its hash is the key."""
        profile = self.basis.profile
        seen = self.identity.timestamps[: self.t + 1]
        # without hooks the entry is absent, not None: strategies that only choose photos share stages with each other
        hooks = {} if self.support is None else {"support": self.support.document}
        return {
            "what": "stage",
            "fingerprint": self.basis.fingerprint(),
            "generator": self.basis.generator_digest,
            **self.basis.workload(),
            # a record names its anchors if they cannot be derived from the rest of it
            **(
                {"anchors": [anchors_key(self.basis, timestamp) for timestamp in seen]} if self.basis.choosing() else {}
            ),
            **workload_of(profile).key_sections(profile),
            **self.basis.measuring(),
            **self.basis.adapted(),
            "image_size": profile.data.image_size,
            "learning_rate": self.spec.learning_rate,
            "stream": [self.spec.seed, self.identity.name, self.t],
            "parent": None if self.parent is None else self.parent.key,
            "new": [
                [k, [photo.digest for photo in canonical_train(self.identity.timestamps[k])]] for k in self.trained_on
            ],
            "replay": [[item.timestamp, item.digest] for item in self.replay],
            "anchored": [[photo.digest for photo in canonical_train(timestamp)] for timestamp in seen],
            "tested": [[photo.digest for photo in canonical_test(timestamp)] for timestamp in seen],
            **hooks,
        }

    @cached_property
    def key(self) -> str:
        """Content address of the stage."""
        return digest_of(self.document)


@dataclass(frozen=True)
class MemoryRequest:
    """A strategy's choice of what to remember after timestamp t, before it is made."""

    basis: Basis
    spec: TrialSpec
    identity: Identity
    t: int
    memory: Memory
    previous: str | None

    @cached_property
    def key(self) -> str:
        """Content address: strategy, K, seed, previous memory, candidates. The digests determine the latents."""
        return digest_of(
            {
                "what": "memory",
                "version": SELECTION_VERSION,
                "generator": self.basis.generator_digest,
                "fingerprint": self.basis.fingerprint(),
                "strategy": strategy_document(self.spec.strategy),
                "capacity": self.spec.buffer_size,
                "stream": [self.spec.seed, self.identity.name, self.t],
                "previous": self.previous,
                **self.basis.choosing(),
                "new": [photo.digest for photo in canonical_train(self.identity.timestamps[self.t])],
            }
        )


def recall(store: StudyStore, request: MemoryRequest) -> Memory | None:
    """Return what the strategy chose before, or None if it has not chosen yet."""
    files = store.memories.get(request.key)
    return None if files is None else memory_from_dict(json.loads(files[MEMORY]))


def stage_requests(
    spec: TrialSpec,
    identity: Identity,
    basis: Basis,
    remember: Callable[[MemoryRequest], Memory | None],
) -> Iterator[StageRequest]:
    """Yield the stages of a trial in order.

    ``remember`` returns what the strategy keeps after a timestamp. If it returns None (possible while planning), the
    list ends early, because later keys depend on it.
    """
    strategy = make_strategy(spec.strategy)
    count = spec.timestamps or len(identity.timestamps)
    if strategy.joint:
        yield StageRequest(basis, spec, identity, count - 1, tuple(range(count)), None, ())
        return
    memory: Memory | None = Memory()
    previous: str | None = None
    parent: StageRequest | None = None
    support: Support | None = None
    for t in range(count):
        assert memory is not None
        replay = memory.items if strategy.stores_photos else ()
        request = StageRequest(
            basis, spec, identity, t, (t,), parent, replay, support if strategy.changes_training() else None
        )
        yield request
        parent = request
        if t + 1 == count:
            return
        if strategy.stores_items():
            wanted = MemoryRequest(basis, spec, identity, t, memory, previous)
            memory, previous = remember(wanted), wanted.key
            if memory is None:
                return
        learned = LearnedRequest(spec.strategy, request, support) if strategy.learns() else None
        support = Support(spec.strategy, memory, learned)


def stage_count(spec: TrialSpec, timestamps: int) -> int:
    """Number of stages of one trial before any are shared."""
    return 1 if strategy_class(spec.strategy).joint else timestamps
