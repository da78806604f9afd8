"""What the choices in which our procedure differs from the published scripts' do to a finished study's numbers.

    python benchmarks/procedure.py runs/hull_sizes --people 3

takes the last stage of ``lower`` and of ``er_rand`` with the largest buffer, whose weights every study keeps, and
scores them in several ways: test photos inverted in W and in W+, images as they are and as the scripts store them
(stretched, JPEG, rounded), synthesis weights uniform on the simplex and normalised. It prints the mean of every way for
both strategies and their difference, in which nothing but the way of scoring changes. Of Forgetting it says nothing,
which needs the stages between; for that, run a space twice, once with ``--set inversion.latent_space=w_plus``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.learning import open_bench
from clstudy.identities.dataset import Identity
from clstudy.metrics import load_metrics
from clstudy.metrics.base import METRICS, MetricSettings
from clstudy.records.results import result_keys, result_path
from clstudy.settings.profiles import EvaluationSettings, InversionSettings
from clstudy.training.evaluation import evaluate
from clstudy.trial.stage_runner import StageRunner

METRIC_NAMES = ("lpips", "id", "psnr", "lpips_as_published", "psnr_as_published")


def last_weights(runner: StageRunner, study: Path, trial: str) -> Mapping[str, torch.Tensor]:
    """Tuned weights of a trial's last stage."""
    weights = runner.trainer.stored_weights(result_keys(result_path(study, trial))[-1])
    assert weights is not None, "the weights of last stages always stay"
    return weights


def scores(
    runner: StageRunner,
    identity: Identity,
    weights: Mapping[str, torch.Tensor],
    inversion: InversionSettings,
    evaluation: EvaluationSettings,
) -> dict[tuple[str, str], float]:
    """Mean of the last row R[T-1, .] by (protocol, metric): the mean over timestamps of the mean over images."""
    profile = replace(runner.basis.profile, evaluation=evaluation)
    runner = replace(
        runner, basis=replace(runner.basis, profile=profile), workload=replace(runner.workload, profile=profile)
    )
    tests = [runner.photos.test_set(identity, k, 0) for k in range(len(identity.timestamps))]
    module = runner.workload.generator.fresh(weights)
    rows = evaluate(
        module, tests, runner.workload.metrics, train_timestamp=0, inversion=inversion, lpips=runner.workload.lpips
    ).rows
    cells: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in rows:
        cells.setdefault((row.protocol, row.metric), {}).setdefault(row.test_timestamp, []).append(row.value)
    return {key: float(np.mean([np.mean(values) for values in cell.values()])) for key, cell in cells.items()}


def lines(title: str, found: Sequence[Mapping[str, Mapping[tuple[str, str], float]]]) -> list[str]:
    """A line for every score: its mean under both strategies, and their difference with its spread over people."""
    said = [title]
    first, second = found[0]
    for protocol, metric in found[0][first]:
        ours = np.array([[person[name][protocol, metric] for name in (first, second)] for person in found])
        gaps = ours[:, 1] - ours[:, 0]
        said.append(
            f"  {protocol:<15} {metric:<20} {first} {ours[:, 0].mean():8.4f}   {second} {ours[:, 1].mean():8.4f}   "
            f"difference {gaps.mean():+.4f} (people: {', '.join(f'{gap:+.4f}' for gap in gaps)})"
        )
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", type=Path)
    parser.add_argument("--people", type=int, default=3, metavar="N")
    args = parser.parse_args()
    torch.set_num_threads(1)
    load_metrics()
    runner, data, trials = open_bench(args.study)
    runner.workload.metrics = [METRICS[name](MetricSettings()) for name in METRIC_NAMES]
    largest = max(entry.buffer_size or 0 for entry in trials)
    chosen = {
        (entry.identity, entry.strategy): entry.trial
        for entry in trials
        if (entry.strategy, entry.buffer_size) in (("lower", None), ("er_rand", largest))
    }
    profile = runner.basis.profile
    ways = {
        "ours: W, weights uniform on the simplex": (profile.inversion, profile.evaluation),
        "W+, normalised weights": (
            replace(profile.inversion, latent_space="w_plus"),
            replace(profile.evaluation, synthesis_weights="normalised"),
        ),
    }
    for title, (inversion, evaluation) in ways.items():
        found = [
            {
                strategy: scores(
                    runner,
                    identity,
                    last_weights(runner, args.study, chosen[identity.name, strategy]),
                    inversion,
                    evaluation,
                )
                for strategy in ("lower", "er_rand")
            }
            for identity in data.identities[: args.people]
        ]
        print("\n".join(lines(title, found)), flush=True)


if __name__ == "__main__":
    main()
