"""``study.yaml``: the resolved settings of a study (no torch, no Ray)."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from clstudy.errors import UserError
from clstudy.identities.dataset import DataSet
from clstudy.records.study_document import NAME, parse_document, write_document
from clstudy.settings.claims import Statement, read_statements, state
from clstudy.settings.metric_facts import OwnMetric, known_metrics, read_own_metrics
from clstudy.settings.space import SearchSpace
from clstudy.settings.trial_spec import TrialSpec
from clstudy.settings.version import __version__
from clstudy.storage.documents import STUDY
from clstudy.storage.places import Place, read_plain
from clstudy.storage.trees import list_files
from clstudy.strategies.lookup import strategy_class
from clstudy.study.plan import Plan
from clstudy.trial.requests import Basis, identity_digest

_REPORTED_VERSIONS = ("ray", "torch", "numpy", "scipy", "pyarrow", "mlflow", "optuna", "onnxruntime")


def write_study_file(
    out: Place,
    space: SearchSpace,
    basis: Basis,
    data: DataSet,
    plan: Plan,
    chosen_rates: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Write ``study.yaml``: resolved settings, trials, claims, versions, commit, data digests.

    What the space claims (``clstudy.settings.claims``) is added to what the file claimed so far, so that a claim that
    changed after results were there stays visible as such.

    ``chosen_rates``: strategy, buffer_size and learning_rate of every cell, where a search chose them.
    """
    metrics = _own_metrics(_written(out), basis)
    claims = statements(out, space, plan.stages_done)
    document = {
        "name": space.name,
        "description": space.description,
        "profile": basis.profile.to_dict(),
        "data_set": data.name,
        "timestamps": {identity.name: len(identity.timestamps) for identity in data.identities},
        "buffer_sizes": sorted({spec.buffer_size for spec in plan.trials if spec.buffer_size is not None}),
        **({"claims": [statement.document() for statement in claims]} if claims else {}),
        "trials": [_trial_entry(spec) for spec in plan.trials],
        **({} if chosen_rates is None else {"chosen_rates": list(chosen_rates)}),
        "generator": basis.generator_digest,
        "metric_files": dict(basis.metric_files),
        **({"metrics": {one.place: one.document() for one in metrics}} if metrics else {}),
        "fingerprint": basis.fingerprint(),
        "data_digests": {identity.name: identity_digest(identity) for identity in data.identities},
        "versions": {
            "clstudy": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _REPORTED_VERSIONS},
        },
        "git_commit": _git_commit(),
    }
    plain = json.loads(json.dumps(document))
    write_document(out, plain)


def statements(out: Place, space: SearchSpace, measured_stages: int) -> tuple[Statement, ...]:
    """What a study claimed so far and claims now, with what had been measured by then
    (``clstudy.settings.claims.state``).

    ``measured_stages``: stages of its plan that are computed.

    A ``study.yaml`` that cannot be understood counts as one that claimed nothing: a claim must be on record to count.
    """
    document = _written(out)
    try:
        before = read_statements(document.get("claims"), known_metrics(read_own_metrics(document.get("metrics"))))
    except ValueError:
        before = ()
    # results of any plan of this folder: a comparison may be chosen by a grid that is no longer asked for
    now = Statement(
        primary=space.primary,
        effects=space.effects,
        finished_trials=sum(name.endswith(".parquet") for name in list_files(out / "results")),
        measured_stages=measured_stages,
    )
    return state(before, now)


def _written(out: Place) -> Mapping[str, Any]:
    """What ``study.yaml`` says so far; nothing where there is none, or none that can be understood."""
    try:
        return parse_document(read_plain(out / NAME, STUDY.size), out / NAME)
    except (OSError, UserError):
        return {}


def _own_metrics(earlier: Mapping[str, Any], basis: Basis) -> list[OwnMetric]:
    """The user's own metrics: first those that are not computed any more, which earlier results and claims may name."""
    try:
        before = read_own_metrics(earlier.get("metrics"))
    except ValueError:
        before = ()
    places = {one.place for one in basis.own_metrics} | {one.facts.name for one in basis.own_metrics}
    return [*(one for one in before if places.isdisjoint({one.place, one.facts.name})), *basis.own_metrics]


def _trial_entry(spec: TrialSpec) -> dict[str, Any]:
    """A trial as the plan names it; ``joint`` where its strategy is joint training, which the analysis cannot see."""
    return spec.columns() | ({"joint": True} if strategy_class(spec.strategy).joint else {})


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
