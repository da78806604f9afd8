"""Conformance: what every metric promises, checked on small random images.

``check_metric(kind, settings)`` scores images with a metric and reports for each check whether it passed and, if not,
where it failed. It needs no study, no photos, and no weights except those of the metric itself. From the command line:
``python -m clstudy.metrics check psnr my_metrics:Sharpness``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clstudy.assets.model_files import ROLES
from clstudy.metrics.base import METRICS, Metric, MetricSettings
from clstudy.registry import Finding, findings_of
from clstudy.settings.metric_facts import RECONSTRUCTION, SYNTHESIS, MetricFacts

SIDE = 64
"""Side of the images in pixels, as in the packaged profiles."""
COUNT = 3
"""Number of images that a metric gets at once, and of target photos."""
_BEYOND = 1.2
"""Factor by which images exceed [-1, 1] if the metric takes them ``unclamped``."""
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4
"""Far above the rounding differences between batch sizes, and below the effect of another image."""


@dataclass(frozen=True)
class Scored:
    """A metric's values for images ``[n, 3, s, s]`` under a protocol, and the target photos that were given to it."""

    protocol: str
    images: Tensor
    targets: Tensor
    values: Any
    changed: str
    """Which of its arguments the metric changed; empty if none."""

    def __str__(self) -> str:
        return f"{self.protocol}, {len(self.images)} images of {self.images.shape[-1]} px"


@dataclass(frozen=True)
class Record:
    """A metric under test. Its values are computed when a check first needs them."""

    kind: type[Metric]
    settings: MetricSettings

    @cached_property
    def metric(self) -> Metric:
        """An instance of the metric."""
        return self.kind(self.settings)

    @cached_property
    def scored(self) -> tuple[Scored, ...]:
        """Values under every protocol that the metric scores, for images that differ from their targets."""
        return tuple(self.score(protocol) for protocol in self.protocols)

    @property
    def protocols(self) -> list[str]:
        """The protocols that the metric's class declares."""
        flags = {RECONSTRUCTION: self.kind.in_reconstruction, SYNTHESIS: self.kind.in_synthesis}
        return [protocol for protocol, scores in flags.items() if scores]

    @cached_property
    def count(self) -> int:
        """Number of images that the metric gets at once."""
        return max(COUNT, self.kind.least_images)

    @cached_property
    def targets(self) -> Tensor:
        """Target photos ``[n, 3, s, s]`` in [-1, 1], smooth as photos are."""
        return _images(self.count, seed=1).to(self.settings.device)

    @cached_property
    def images(self) -> Tensor:
        """Images near the targets, as a generator makes them."""
        other = _images(self.count, seed=2).to(self.settings.device)
        near = 0.7 * self.targets + 0.3 * other
        return near * _BEYOND if self.kind.unclamped else near

    def score(
        self, protocol: str, metric: Metric | None = None, images: Tensor | None = None, targets: Tensor | None = None
    ) -> Scored:
        """Score images with an instance of the metric; the defaults are the record's own."""
        metric = self.metric if metric is None else metric
        images = self.images if images is None else images
        targets = self.targets if targets is None else targets
        given, known = images.clone(), targets.clone()
        prepared = metric.prepare(known)
        values = (metric.pairs if protocol == "reconstruction" else metric.synthesis)(given, prepared)
        handed = {"images": (given, images), "target photos": (known, targets)}
        changed = " and ".join(what for what, (now, before) in handed.items() if not torch.equal(now, before))
        return Scored(protocol, images, targets, values, changed)


def check_metric(kind: type[Metric], settings: MetricSettings | None = None) -> list[Finding]:
    """Check a metric against the contract of ``clstudy.metrics.base``.

    Args:
        settings: what it is computed with, the files of its roles among them.

    Returns:
        One finding for each of ``CHECKS``, in that order. An exception inside the metric is a finding, too; if it
        cannot score at all, the remaining checks are reported as not checked.
    """
    record = Record(kind, MetricSettings() if settings is None else settings)
    first, others = (dict(list(CHECKS.items())[part]) for part in (slice(2), slice(2, None)))  # facts, runs
    findings = findings_of(first, record)
    if findings[-1].passed:
        return findings + findings_of(others, record)
    return findings + [Finding(name, "not checked: it does not run") for name in others]


def _images(count: int, *, seed: int) -> Tensor:
    """Images ``[count, 3, SIDE, SIDE]`` in [-1, 1]: a coarse pattern and a little noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    fine = torch.rand(count, 3, SIDE, SIDE, generator=generator)
    smooth = F.interpolate(coarse, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return (0.9 * smooth + 0.1 * fine) * 2 - 1


# Each check yields what is wrong, most telling first, or nothing.


def _facts(record: Record) -> Iterator[str]:
    """the class attributes are there (name, title, direction, …), have the right types and agree with each other"""
    kind = record.kind
    try:
        facts = MetricFacts.of(kind)
    except ValueError as error:
        yield str(error)
        return
    for text in ("unit", "description"):
        value = getattr(kind, text, None)
        if not (isinstance(value, str) and value.strip() and value.isprintable()):
            yield f"{text}: expected one line, got {value!r}"
    low, high = kind.bounds
    if not low < high:
        yield f"bounds: expected (least, largest), got {kind.bounds!r}"
    if unknown := [role for role in facts.needs if role not in ROLES]:
        yield f"needs names the role {unknown[0]!r}, which is not one of {', '.join(ROLES)}"
    if type(kind.least_images) is not int or kind.least_images < 1:
        yield f"least_images: expected a number from 1, got {kind.least_images!r}"
    names = [name for name, registered in METRICS.items() if registered is kind]
    if names and facts.name not in names:
        yield f"its name is {facts.name!r}, but it is registered as {names[0]!r}"
    if not names and facts.name in METRICS:
        yield f"the name {facts.name!r} belongs to a packaged metric; choose another"


def _runs(record: Record) -> Iterator[str]:
    """it can be constructed, prepares target photos and scores images"""
    if not record.scored:
        yield "in_reconstruction and in_synthesis are both False, so the metric scores nothing"


def _shapes(record: Record) -> Iterator[str]:
    """there is one floating-point value per image, or one for the whole set if the class declares that"""
    for one in record.scored:
        wanted = 1 if one.protocol == "synthesis" and record.kind.of_set else len(one.images)
        if not isinstance(one.values, Tensor):
            yield f"{one}: expected a tensor, got {type(one.values).__name__}"
        elif tuple(one.values.shape) != (wanted,) or not one.values.is_floating_point():
            yield f"{one}: expected floats [{wanted}], got {one.values.dtype} {list(one.values.shape)}"


def _finite(record: Record) -> Iterator[str]:
    """every value is finite"""
    for one in record.scored:
        if not bool(torch.isfinite(one.values).all()):
            yield f"{one}: {one.values.tolist()}"


def _bounds(record: Record) -> Iterator[str]:
    """every value is within the class's bounds"""
    low, high = record.kind.bounds
    for one in record.scored:
        outside = [value for value in one.values.tolist() if not low - _ABSOLUTE <= value <= high + _ABSOLUTE]
        if outside:
            yield f"{one}: {outside[0]:g} is outside {low:g} to {high:g}"


def _device(record: Record) -> Iterator[str]:
    """values are returned on the CPU"""
    for one in record.scored:
        if one.values.device.type != "cpu":
            yield f"{one}: on {one.values.device}"
        if one.values.requires_grad:
            yield f"{one}: they carry a gradient; compute them under torch.no_grad"


def _arguments(record: Record) -> Iterator[str]:
    """images and target photos are not changed"""
    for one in record.scored:
        if one.changed:
            yield f"{one}: the metric changed the {one.changed}"


def _repeatable(record: Record) -> Iterator[str]:
    """the same images get the same values, from an instance used before and from a new one"""
    for one in record.scored:
        for how, metric in (("once more", record.metric), ("from a new instance", record.kind(record.settings))):
            again = record.score(one.protocol, metric).values
            if not torch.equal(again, one.values):
                yield f"{one}: {one.values.tolist()}, and {how} {again.tolist()}"


def _batch(record: Record) -> Iterator[str]:
    """an image's value does not depend on what else is scored with it, unless the whole set has one value"""
    for one in record.scored:
        if one.protocol == "synthesis" and record.kind.of_set:
            continue
        values = one.values.tolist()
        for place, value in ((0, values[0]), (len(values) - 1, values[-1])):
            image = one.images[place : place + 1]
            # a reconstruction has one target, a generated image is compared with all
            targets = one.targets[place : place + 1] if one.protocol == "reconstruction" else one.targets
            alone = float(record.score(one.protocol, images=image, targets=targets).values[0])
            if not abs(alone - value) <= _ABSOLUTE + _RELATIVE * abs(value):
                yield f"{one}: image {place} has {value:g} among others and {alone:g} alone"


def _direction(record: Record) -> Iterator[str]:
    """a reconstruction equal to its photo scores no worse than any other, and better than most"""
    if "reconstruction" not in record.protocols:
        return
    kind = record.kind
    sign = 1.0 if kind.higher_is_better else -1.0
    equal = sign * record.score("reconstruction", images=record.targets).values
    for what, images in (("near their photos", record.images), ("of somebody else", record.targets.roll(1, dims=0))):
        other = sign * record.score("reconstruction", images=images).values
        if bool((other > equal + _ABSOLUTE).any()) or not float(other.mean()) < float(equal.mean()):
            yield (
                f"higher_is_better is {kind.higher_is_better}, but images equal to their photos have "
                f"{(sign * equal).tolist()}, images {what} {(sign * other).tolist()}"
            )


CHECKS: dict[str, Callable[[Record], Iterator[str]]] = {
    "facts": _facts,
    "runs": _runs,
    "shapes": _shapes,
    "finite": _finite,
    "bounds": _bounds,
    "device": _device,
    "arguments": _arguments,
    "repeatable": _repeatable,
    "batch": _batch,
    "direction": _direction,
}
"""All checks by name, in the order of their findings; each function's docstring is its requirement."""
