"""``study.yaml``: the resolved settings of a study (no torch, no Ray)."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from clstudy.identities.dataset import DataSet
from clstudy.records.study_record import NAME, ChosenRate, StudyRecord, TrialEntry, write_study_record
from clstudy.settings.claims import Statement, state
from clstudy.settings.metric_facts import OwnMetric
from clstudy.settings.profiles import PERSONALISE, Profile
from clstudy.settings.space import SearchSpace
from clstudy.settings.trial_spec import GridCell
from clstudy.settings.version import __version__
from clstudy.storage.documents import STUDY
from clstudy.storage.places import Place, read_plain
from clstudy.storage.trees import list_files
from clstudy.strategies.lookup import strategy_class
from clstudy.study.plan import Plan
from clstudy.trial.requests import Basis, identity_digest
from clstudy.workloads.base import workload_of

_REPORTED_VERSIONS = ("ray", "torch", "numpy", "scipy", "pyarrow", "mlflow", "optuna", "onnxruntime")


def write_study_file(
    out: Place,
    space: SearchSpace,
    basis: Basis,
    data: DataSet,
    plan: Plan,
    chosen_rates: Mapping[GridCell, float] | None = None,
) -> None:
    """Write ``study.yaml``: resolved settings, trials, claims, versions, commit, data digests.

    What the space claims (``clstudy.settings.claims``) is added to the file's earlier claims, so that a change made
    after results existed stays visible.

    ``chosen_rates``: the rate of every cell, if a search chose them.
    """
    earlier = _written(out)
    record = StudyRecord(
        name=space.name,
        description=space.description,
        profile=_plain(basis.profile.to_dict()),
        data_set=data.name,
        timestamps={identity.name: len(identity.timestamps) for identity in data.identities},
        buffer_sizes=tuple(sorted({spec.buffer_size for spec in plan.trials if spec.buffer_size is not None})),
        horizons=None if space.grid.timestamps is None else tuple(sorted(space.grid.timestamps)),
        claims=statements(out, space, plan.stages_done),
        trials=tuple(TrialEntry.of(spec, joint=strategy_class(spec.strategy).joint) for spec in plan.trials),
        chosen_rates=None if chosen_rates is None else _chosen(chosen_rates),
        objective=_objective(basis.profile),
        generator=basis.generator_digest,
        metric_files=_plain(basis.metric_files),
        metrics=_own_metrics(earlier, basis),
        fingerprint=_plain(basis.fingerprint()),
        data_digests={identity.name: identity_digest(identity) for identity in data.identities},
        versions={
            "clstudy": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _REPORTED_VERSIONS},
        },
        git_commit=_git_commit(),
    )
    write_study_record(out, record)


def statements(out: Place, space: SearchSpace, measured_stages: int) -> tuple[Statement, ...]:
    """The study's claims so far and now, each with what had been measured by then
    (``clstudy.settings.claims.state``).

    ``measured_stages``: number of planned stages that are computed.

    A ``study.yaml`` that cannot be understood counts as claiming nothing: a claim must be on record to count.
    """
    earlier = _written(out)
    before = () if earlier is None else earlier.claims
    # count results of every plan of this folder: results of an earlier grid may have led to the comparison
    now = Statement(
        primary=space.primary,
        effects=space.effects,
        finished_trials=sum(name.endswith(".parquet") for name in list_files(out / "results")),
        measured_stages=measured_stages,
    )
    return state(before, now)


def _written(out: Place) -> StudyRecord | None:
    """The present ``study.yaml``; None if there is none, or it cannot be understood."""
    try:
        return StudyRecord.decode(read_plain(out / NAME, STUDY.size))
    except (OSError, ValueError):
        return None


def _own_metrics(earlier: StudyRecord | None, basis: Basis) -> tuple[OwnMetric, ...]:
    """The user's own metrics; first those no longer computed, which earlier results and claims may name."""
    before = () if earlier is None else earlier.metrics
    places = {one.place for one in basis.own_metrics} | {one.facts.name for one in basis.own_metrics}
    return (*(one for one in before if places.isdisjoint({one.place, one.facts.name})), *basis.own_metrics)


def _objective(profile: Profile) -> str | None:
    """What a search minimises; not written for the first workload, whose studies never recorded it."""
    return None if profile.workload == PERSONALISE else workload_of(profile).objective(profile).panel


def _chosen(rates: Mapping[GridCell, float]) -> tuple[ChosenRate, ...]:
    return tuple(
        ChosenRate(strategy=cell.strategy, buffer_size=cell.buffer_size, learning_rate=rate)
        for cell, rate in rates.items()
    )


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn tuples into lists and share nothing (YAML would write aliases)."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(settings)))
    return plain


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
