"""``study.yaml``: the resolved settings of a study (no torch, no Ray)."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

import clstudy
from clstudy.fold import Basis, identity_digest
from clstudy.identities.dataset import DataSet
from clstudy.plan import Plan
from clstudy.space import SearchSpace, TrialSpec
from clstudy.storage import Place, write_atomically
from clstudy.strategies.lookup import strategy_class

_REPORTED_VERSIONS = ("ray", "torch", "numpy", "scipy", "pyarrow", "mlflow", "optuna", "onnxruntime")


def write_study_file(
    out: Place,
    space: SearchSpace,
    basis: Basis,
    data: DataSet,
    plan: Plan,
    chosen_rates: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Write ``study.yaml``: resolved settings, trials, versions, commit, data digests.

    ``chosen_rates``: strategy, buffer_size and learning_rate of every cell, where a search chose them.
    """
    document = {
        "name": space.name,
        "description": space.description,
        "profile": basis.profile.to_dict(),
        "data_set": data.name,
        "timestamps": {identity.name: len(identity.timestamps) for identity in data.identities},
        "buffer_sizes": sorted({spec.buffer_size for spec in plan.trials if spec.buffer_size is not None}),
        "trials": [_trial_entry(spec) for spec in plan.trials],
        **({} if chosen_rates is None else {"chosen_rates": list(chosen_rates)}),
        "generator": basis.generator_digest,
        "metric_files": dict(basis.metric_files),
        "fingerprint": basis.fingerprint(),
        "data_digests": {identity.name: identity_digest(identity) for identity in data.identities},
        "versions": {
            "clstudy": clstudy.__version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _REPORTED_VERSIONS},
        },
        "git_commit": _git_commit(),
    }
    plain = json.loads(json.dumps(document))
    write_atomically(out / "study.yaml", yaml.safe_dump(plain, sort_keys=False).encode())


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
