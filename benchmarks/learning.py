"""Does a finished study learn, and is its inversion long enough?

    python benchmarks/learning.py runs/hull_sizes

prints (1) R[t, t] LPIPS of ``lower`` against the un-personalised generator on the same test photos with the same
inversion, per identity and as the share saved; (2) how much LPIPS changes when the inversion steps are doubled, on
the last stage of every ``er_rand`` trial with the largest buffer.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from clstudy.assets import manifest
from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.identities.catalogue import open_data_set
from clstudy.identities.dataset import DataSet
from clstudy.metrics.lpips import LPIPSMetric
from clstudy.records.results import result_keys, result_path
from clstudy.records.study_record import TrialEntry, read_complete_record
from clstudy.settings.profiles import InversionSettings
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.study.stored_study import stored_profile
from clstudy.training.evaluation import evaluate
from clstudy.training.numerics import loss_lpips
from clstudy.trial.requests import Basis
from clstudy.trial.stage_runner import StageRunner


def open_bench(study: Path) -> tuple[StageRunner, DataSet, tuple[TrialEntry, ...]]:
    """The study's workbench, data and trial list."""
    record = read_complete_record(study)
    profile = stored_profile(record)  # with the settings that the study changed
    data = open_data_set(
        str(record.data_set),
        identities=None,
        names=list(record.data_digests),
        timestamps=max(record.timestamps.values()),  # as the study was run: --timestamps may differ from the profile
        train=profile.data.train,
        test=profile.data.test,
        data_seed=profile.data.data_seed,
        cache=study.parent / "data",
        image_size=profile.data.image_size,
    )
    basis = Basis(profile, manifest()[profile.weights]["sha256"])
    runner = StageRunner.personalising(
        basis,
        EmbeddedGenerator(compute=profile.compute),
        loss_lpips(profile.compute, torch.device("cpu")),
        [LPIPSMetric()],
        StudyStore(study),
    )
    return runner, data, record.trials


def mean_lpips(
    runner: StageRunner, identity, timestamps: list[int], weights, inversion: InversionSettings
) -> list[float]:
    """Mean reconstruction LPIPS per test timestamp under the given weights (None: un-personalised)."""
    module = runner.workload.generator.fresh(weights)
    tests = [runner.photos.test_set(identity, k, 0) for k in timestamps]
    rows = evaluate(
        module, tests, runner.workload.metrics, train_timestamp=0, inversion=inversion, lpips=runner.workload.lpips
    ).rows
    return [float(np.mean([row.value for row in rows if row.test_timestamp == k])) for k in timestamps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", type=Path)
    study = parser.parse_args().study
    torch.set_num_threads(1)
    runner, data, trials = open_bench(study)
    inversion = runner.basis.profile.inversion
    people = {identity.name: identity for identity in data.identities}
    saved = []
    for trial in (entry for entry in trials if entry.strategy == "lower"):
        rows = pq.read_table(result_path(study, trial.trial)).to_pandas()
        own = rows[(rows.train_timestamp == rows.test_timestamp) & (rows.metric == "lpips")]
        after = own.groupby("test_timestamp").value.mean().to_numpy()
        identity = people[trial.identity]
        before = np.array(mean_lpips(runner, identity, list(range(len(after))), None, inversion))
        saved.append(1 - after.mean() / before.mean())
        print(
            f"{identity.name}: un-personalised LPIPS {before.mean():.4f}, "
            f"R[t,t] {after.mean():.4f}, saved {saved[-1]:.0%}"
        )
    print(f"mean saved by personalising: {np.mean(saved):.0%}")
    largest = max(entry.buffer_size or 0 for entry in trials)
    doubled = replace(inversion, steps=2 * inversion.steps)
    once_all, twice_all = [], []
    for trial in (e for e in trials if e.strategy == "er_rand" and e.buffer_size == largest):
        weights = runner.trainer.stored_weights(result_keys(result_path(study, trial.trial))[-1])
        assert weights is not None, "the weights of last stages always stay"
        identity = people[trial.identity]
        k = list(range(len(identity.timestamps)))
        once_all += mean_lpips(runner, identity, k, weights, inversion)
        twice_all += mean_lpips(runner, identity, k, weights, doubled)
    once, twice = float(np.mean(once_all)), float(np.mean(twice_all))
    print(
        f"inversion {inversion.steps} steps: LPIPS {once:.4f}; {doubled.steps} steps: {twice:.4f}; "
        f"change {abs(twice / once - 1):.1%}"
    )


if __name__ == "__main__":
    main()
