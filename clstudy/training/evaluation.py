"""Evaluation of one stage on the test sets of all earlier timestamps: reconstruction and synthesis.

Protocol, "Evaluation". Rows are per image, or per set for metrics of sets; nothing is averaged here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.errors import UserError
from clstudy.metrics.base import Metric
from clstudy.metrics.lpips import LPIPS, Features, join_features
from clstudy.records.rows import Row
from clstudy.registry import Registry
from clstudy.settings.metric_facts import BALANCED, RECONSTRUCTION, SYNTHESIS
from clstudy.settings.profiles import EvaluationSettings, InversionSettings
from clstudy.training.inversion import invert
from clstudy.training.rendering import joined, render, rows_of

SET_ROW = "synthesis/set"
"""Name of the row that holds a metric's one value for all generated images of a (t, k)."""


class NotFiniteError(UserError):
    """A latent, an image or a metric's value is NaN or infinite; the message names it and its timestamps.

    No such row is ever stored: it would make every mean that contains it meaningless.
    """


@dataclass(frozen=True)
class TestSet:
    """Everything about the test photos of one timestamp that does not depend on the trained model.

    images ``[n, 3, s, s]`` in [-1, 1]; ``start [n, *latent_shape]`` their latents under the pretrained generator;
    ``prepared`` the metrics' target-only values by metric name; ``combinations [m, *latent_shape]`` the latents of the
    synthesis protocol (the same for every t, K and strategy); ``balanced`` the digests of those in the balanced test
    set, which are scored apart. For a generator that is told from where it is seen: ``cameras [n, 25]`` of the photos,
    and ``combination_cameras [m, 25]``.
    """

    timestamp: int
    digests: tuple[str, ...]
    images: Tensor
    features: Features
    start: Tensor
    prepared: Mapping[str, Any]
    combinations: Tensor
    balanced: frozenset[str] = frozenset()
    cameras: Tensor | None = None
    combination_cameras: Tensor | None = None


COMBINATION_WEIGHTS: Registry[Callable[[int, np.random.Generator], np.ndarray]] = Registry("kind of synthesis weights")
"""How the weights ``[size]`` of a convex combination are drawn (``EvaluationSettings.synthesis_weights``)."""


@COMBINATION_WEIGHTS.register("uniform")
def _uniform_weights(size: int, rng: np.random.Generator) -> np.ndarray:
    return rng.dirichlet(np.ones(size))


@COMBINATION_WEIGHTS.register("normalised")
def _normalised_weights(size: int, rng: np.random.Generator) -> np.ndarray:
    numbers = 1 - rng.random(size)  # in (0, 1]: a sum of zeros could not be divided by
    weights: np.ndarray = numbers / numbers.sum()
    return weights


def convex_combinations(anchors: Tensor, settings: EvaluationSettings, rng: np.random.Generator) -> Tensor:
    """Random convex combinations ``[m, *latent_shape]`` of ``synthesis_anchors`` of the anchors ``[n, *latent_shape]``.

    The settings choose how weights are drawn (``COMBINATION_WEIGHTS``): one for a whole anchor, whatever its shape.
    """
    draw = COMBINATION_WEIGHTS[settings.synthesis_weights]
    size = min(settings.synthesis_anchors, len(anchors))
    flat = anchors.flatten(1)
    rows = []
    for _ in range(settings.synthesis_images):
        chosen = rng.choice(len(anchors), size, replace=False)
        weights = torch.from_numpy(draw(size, rng).astype(np.float32)).to(anchors.device)
        rows.append((weights @ flat[torch.from_numpy(chosen)]).reshape(anchors.shape[1:]))
    return torch.stack(rows) if rows else anchors[:0]


@dataclass(frozen=True)
class Evaluation:
    """Rows of one stage, and per test timestamp the first reconstruction ``[3, s, s]`` and ``Rebuilt.shown``."""

    rows: tuple[Row, ...]
    examples: tuple[Tensor, ...]
    shown: tuple[Mapping[str, Tensor], ...] = ()


@dataclass(frozen=True)
class Scores:
    """A metric's values ``[n]`` under a protocol, by name of image."""

    protocol: str
    metric: str
    names: Sequence[str]
    values: Tensor


@dataclass(frozen=True)
class Rebuilt:
    """Reconstructions ``[n, 3, s, s]`` of a test set, not clamped, and what a workload makes of them by itself.

    ``scores``: its own; ``shown``: further images ``[3, s, s]`` of the first photo, by name, for pictures.
    """

    images: Tensor
    scores: tuple[Scores, ...] = ()
    shown: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """The entry R[t, k] that is being computed: ``t`` is the model's timestamp, ``k`` that of the test photos."""

    t: int
    k: int

    def __str__(self) -> str:
        return f"timestamp {self.k} under the model of timestamp {self.t}"

    def finite(self, values: Tensor, what: str) -> Tensor:
        """The values, if all of them are finite.

        Raises:
            NotFiniteError: a value is NaN or infinite.
        """
        if not bool(values.isfinite().all()):
            raise NotFiniteError(
                f"{what} of {self} became NaN or infinite; the model or the inversion has diverged, use a "
                "smaller learning rate"
            )
        return values

    def rows(self, scores: Scores) -> list[Row]:
        """The scores of this entry.

        Raises:
            NotFiniteError: a value is NaN or infinite.
        """
        rows = [
            Row(self.t, self.k, scores.protocol, scores.metric, name, value)
            for name, value in zip(scores.names, scores.values.tolist(), strict=True)
        ]
        for row in rows:
            if not math.isfinite(row.value):
                raise NotFiniteError(
                    f"metric {row.metric} is {row.value} for image {row.image} ({row.protocol}, {self}); a value must "
                    "be finite to be stored. Use a smaller learning rate if the model has diverged, or leave the "
                    f"metric out: --without {row.metric}"
                )
        return rows


@torch.no_grad()
def _images(module: nn.Module, w: Tensor, cameras: Tensor | None, batch: int) -> Tensor:
    """Images ``[n, 3, s, s]`` as the generator makes them, not clamped."""
    parts = torch.split(torch.arange(len(w), device=w.device), batch)
    return torch.cat([render(module, w[rows], rows_of(cameras, rows)) for rows in parts])


@dataclass(frozen=True)
class Shown:
    """Images ``[n, 3, s, s]`` as the generator makes them, and clamped to [-1, 1]."""

    raw: Tensor
    clamped: Tensor

    @classmethod
    def of(cls, raw: Tensor) -> Shown:
        """Of images as the generator makes them."""
        return cls(raw, raw.clamp(-1, 1))

    def taken_by(self, metric: Metric) -> Tensor:
        """The version that a metric takes."""
        return self.raw if metric.unclamped else self.clamped


def _inverted(
    module: nn.Module, test_sets: Sequence[TestSet], inversion: InversionSettings, lpips: LPIPS
) -> Iterator[tuple[TestSet, Tensor]]:
    """Every test set with the latents ``[n, *latent_shape]`` found for its photos."""
    for together in _batches(test_sets, inversion):
        w = invert(
            module,
            torch.cat([test.images for test in together]),
            join_features(test.features for test in together),
            torch.cat([test.start for test in together]),
            settings=inversion,
            lpips=lpips,
            cameras=joined([test.cameras for test in together]),
        )
        yield from zip(together, torch.split(w, [len(test.images) for test in together]), strict=True)


def _batches(test_sets: Sequence[TestSet], inversion: InversionSettings) -> Iterator[list[TestSet]]:
    """Neighbouring test sets that are inverted together: one, or as many as fit into a batch."""
    together: list[TestSet] = []
    for test in test_sets:
        photos = sum(len(one.images) for one in together) + len(test.images)
        if together and (not inversion.test_sets_together or photos > inversion.batch_size):
            yield together
            together = []
        together.append(test)
    if together:
        yield together


def evaluate(
    module: nn.Module,
    test_sets: Sequence[TestSet],
    metrics: Sequence[Metric],
    *,
    train_timestamp: int,
    inversion: InversionSettings,
    lpips: LPIPS,
    on_test_set: Callable[[int], None] | None = None,
    micro_batch: int | None = None,
    rebuilt_by: Callable[[TestSet, Tensor], Rebuilt] | None = None,
) -> Evaluation:
    """Score ``module`` on the given test sets (all k <= t).

    ``rebuilt_by`` makes the images of the latents found for a test set; None: the module does.

    With ``micro_batch``, at most that many photos are inverted and images made at a time, if the settings' batch is
    larger. Photos do not influence each other: only the rounding changes.

    Raises:
        NotFiniteError: a latent, an image or a metric's value is NaN or infinite.
    """
    if micro_batch is not None:
        inversion = replace(inversion, batch_size=min(inversion.batch_size, micro_batch))
    rows: list[Row] = []
    examples, shown = [], []
    for test, w in _inverted(module, test_sets, inversion, lpips):
        cell = Entry(train_timestamp, test.timestamp)
        cell.finite(w, "a latent")
        # checked before clamping, which would turn an infinite pixel into a white one
        made = rebuilt_by(test, w) if rebuilt_by else Rebuilt(_images(module, w, test.cameras, inversion.batch_size))
        rebuilt = Shown.of(cell.finite(made.images, "a reconstruction"))
        examples.append(rebuilt.clamped[0])
        shown.append({name: cell.finite(image, f"an image ({name})") for name, image in made.shown.items()})
        generated = None
        if len(test.combinations):
            raw = _images(module, test.combinations, test.combination_cameras, inversion.batch_size)
            generated = Shown.of(cell.finite(raw, "a generated image"))
        for metric in metrics:
            prepared = test.prepared[metric.name]
            if metric.in_reconstruction:
                values = metric.pairs(rebuilt.taken_by(metric), prepared)
                rows += [
                    row._replace(protocol=BALANCED) if row.image in test.balanced else row
                    for row in cell.rows(Scores(RECONSTRUCTION, metric.name, test.digests, values))
                ]
            if generated is None or not metric.in_synthesis:
                continue
            names = [SET_ROW] if metric.of_set else [f"synthesis/{index:02d}" for index in range(len(generated.raw))]
            drawn = metric.synthesis(generated.taken_by(metric), prepared)
            rows += cell.rows(Scores(SYNTHESIS, metric.name, names, drawn))
        for scores in made.scores:
            rows += cell.rows(scores)
        if on_test_set is not None:
            on_test_set(test.timestamp)
    return Evaluation(tuple(rows), tuple(examples), tuple(shown))
