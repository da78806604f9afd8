"""What a study will run, what is shared or done already, and what it will cost (no torch, no Ray)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clstudy.fold import Basis, recall, stage_count, stage_requests
from clstudy.identities.dataset import Identity
from clstudy.rows import STAGE_KEYS
from clstudy.space import TrialSpec
from clstudy.stages import StudyStore

_START_SECONDS = 25.0
"""Starting Ray, the workers and MLflow."""


@dataclass(frozen=True)
class Plan:
    """Trials with what is known of their stages before anything runs.

    ``exact`` is False while buffers are not chosen yet: then ``stages`` is an upper limit, because buffers that
    turn out equal share stages.
    """

    trials: tuple[TrialSpec, ...]
    done: frozenset[str]
    stages_without_sharing: int
    stages: int
    stages_done: int
    exact: bool
    seconds: float
    estimate_from: str
    disk_bytes: int

    @property
    def to_run(self) -> tuple[TrialSpec, ...]:
        """Trials that are not finished, in order."""
        return tuple(spec for spec in self.trials if spec.trial_id not in self.done)

    @property
    def stages_to_run(self) -> int:
        """Stages still to compute (at most, unless ``exact``)."""
        return self.stages - self.stages_done


def result_path(out: Path, trial_id: str) -> Path:
    """Where the rows of a finished trial lie."""
    return out / "results" / f"{trial_id}.parquet"


def planned_keys(spec: TrialSpec, identity: Identity, basis: Basis, store: StudyStore) -> list[str]:
    """Stage keys of a trial as far as stored memories determine them."""
    return [request.key for request in stage_requests(spec, identity, basis, partial(recall, store))]


def is_done(out: Path, spec: TrialSpec, keys: Sequence[str], store: StudyStore) -> bool:
    """Whether the trial's result file is there, belongs to exactly these stages, and they are all in the store."""
    path = result_path(out, spec.trial_id)
    if not path.is_file():
        return False
    try:
        recorded = json.loads((pq.read_schema(path).metadata or {})[STAGE_KEYS.encode()])
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return False
    return recorded == list(keys) and all(store.stages.looks_complete(key) for key in keys)


def make_plan(
    trials: Sequence[TrialSpec],
    identities: Mapping[str, Identity],
    basis: Basis,
    store: StudyStore,
    out: Path,
    *,
    workers: float,
) -> Plan:
    """Walk every trial's stages without computing any."""
    keys: set[str] = set()
    unknown = 0
    naive = 0
    done = set()
    for spec in trials:
        identity = identities[spec.identity]
        known = planned_keys(spec, identity, basis, store)
        count = stage_count(spec, len(identity.timestamps))
        naive += count
        unknown += count - len(known)
        keys.update(known)
        if len(known) == count and is_done(out, spec, known, store):
            done.add(spec.trial_id)
    finished = sum(store.stages.looks_complete(key) for key in keys)
    history = store.seconds_per_stage()
    each = sum(history) / len(history) if history else basis.profile.stage_seconds
    left = len(keys) + unknown - finished
    return Plan(
        trials=tuple(trials),
        done=frozenset(done),
        stages_without_sharing=naive,
        stages=len(keys) + unknown,
        stages_done=finished,
        exact=unknown == 0,
        seconds=(left * each / max(workers, 1) + _START_SECONDS) if left else 0.0,
        estimate_from="the stages computed so far" if history else basis.profile.estimate_from,
        disk_bytes=int(left * basis.profile.stage_bytes),
    )
