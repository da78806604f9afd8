"""Evaluation of one stage on the test sets of all earlier timestamps: reconstruction and synthesis.

Protocol, "Evaluation". Rows are per image, or per set where a metric is of sets; nothing is averaged here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.inversion import invert
from clstudy.metrics.base import Metric
from clstudy.metrics.lpips import LPIPS, Features
from clstudy.profiles import EvaluationSettings, InversionSettings
from clstudy.rows import Row

SET_ROW = "synthesis/set"
"""Name of the row that holds a metric's one value for all generated images of a (t, k)."""


@dataclass(frozen=True)
class TestSet:
    """Everything about the test photos of one timestamp that no model changes.

    images ``[n, 3, s, s]`` in [-1, 1]; ``start [n, w_dim]`` their latents under the pretrained generator;
    ``prepared`` the metrics' target-only values by metric name; ``combinations [m, w_dim]`` the latents of the
    synthesis protocol (the same for every t, K and strategy).
    """

    timestamp: int
    digests: tuple[str, ...]
    images: Tensor
    features: Features
    start: Tensor
    prepared: Mapping[str, Any]
    combinations: Tensor


def convex_combinations(anchors: Tensor, settings: EvaluationSettings, rng: np.random.Generator) -> Tensor:
    """Random convex combinations ``[m, w_dim]`` of ``synthesis_anchors`` anchors each, uniform on the simplex."""
    size = min(settings.synthesis_anchors, len(anchors))
    rows = []
    for _ in range(settings.synthesis_images):
        chosen = rng.choice(len(anchors), size, replace=False)
        weights = torch.from_numpy(rng.dirichlet(np.ones(size)).astype(np.float32)).to(anchors.device)
        rows.append(weights @ anchors[torch.from_numpy(chosen)])
    return torch.stack(rows) if rows else anchors[:0]


@dataclass(frozen=True)
class Evaluation:
    """Rows of one stage, and the first reconstruction ``[3, s, s]`` per test timestamp for the face grid."""

    rows: tuple[Row, ...]
    examples: tuple[Tensor, ...]


@torch.no_grad()
def _images(module: nn.Module, w: Tensor, batch: int) -> Tensor:
    return torch.cat([module(part) for part in w.split(batch)]).clamp(-1, 1)


def evaluate(
    module: nn.Module,
    test_sets: Sequence[TestSet],
    metrics: Sequence[Metric],
    *,
    train_timestamp: int,
    inversion: InversionSettings,
    lpips: LPIPS,
    on_test_set: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score ``module`` on the given test sets (all k <= t)."""
    rows: list[Row] = []
    examples = []
    for test in test_sets:
        w = invert(module, test.images, test.features, test.start, settings=inversion, lpips=lpips)
        rebuilt = _images(module, w, inversion.batch_size)
        examples.append(rebuilt[0])
        generated = _images(module, test.combinations, inversion.batch_size) if len(test.combinations) else None
        for metric in metrics:
            prepared = test.prepared[metric.name]
            if metric.in_reconstruction:
                for digest, value in zip(test.digests, metric.pairs(rebuilt, prepared).tolist(), strict=True):
                    rows.append(Row(train_timestamp, test.timestamp, "reconstruction", metric.name, digest, value))
            if generated is None or not metric.in_synthesis:
                continue
            names = [SET_ROW] if metric.of_set else [f"synthesis/{index:02d}" for index in range(len(generated))]
            for name, value in zip(names, metric.synthesis(generated, prepared).tolist(), strict=True):
                rows.append(Row(train_timestamp, test.timestamp, "synthesis", metric.name, name, value))
        if on_test_set is not None:
            on_test_set(test.timestamp)
    return Evaluation(tuple(rows), tuple(examples))
