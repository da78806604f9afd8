"""Chooses which good frames of an occasion become its training and test photos.

A test photo that shows the same moment or look as a training photo would measure how well that photo is remembered, not
how well the person's look of that day is. So every training photo keeps a distance to every test photo, in time and in
looks (``Apart``). Test photos are spread over the whole occasion, at as many points in time as that leaves room for.
Photos of other occasions are ignored: somebody who looks the same in May and in June may be in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

LEAST_TRAIN, LEAST_TEST = 2, 1
"""A timestamp with fewer photos cannot be used."""

_PHASES = (0.5, 0.25, 0.75, 0.0)
_SMALLER = (0.75, 0.5, 0.25, 0.0)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Training and test photos of a timestamp."""

    train: int
    test: int


@dataclass(frozen=True, kw_only=True)
class Apart:
    """Minimum distances between photos of one occasion. Distances of looks are LPIPS (``filters.faces_only``)."""

    min_gap: float = 1.0
    """Least seconds between a training and a test photo, if both have a time."""

    min_difference: float = 0.015
    """Least LPIPS between a training and a test photo. 95 % of frames 0.13 s apart are nearer than 0.011 to 0.021 in
    five 40-second parts of a 200-second interview (the FGnet "talking face"), and than 0.020 in a livelier clip of 20
    seconds; of any two frames of a part, 5 % are nearer than 0.004 to 0.010, half nearer than 0.021 to 0.043."""

    min_variety: float = 0.005
    """Least LPIPS between two training or two test photos: below it the second adds nothing."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """The good frames of an occasion, in order of time.

    Raises:
        ValueError: the shapes do not match.
    """

    seconds: np.ndarray
    """float64 ``[n]``; NaN where a photo has no time."""
    away: np.ndarray
    """Distances of looks, float ``[n, n]``, symmetric."""

    def __post_init__(self) -> None:
        if self.away.shape != (len(self.seconds), len(self.seconds)):
            raise ValueError(f"distances of shape {self.away.shape} for {len(self.seconds)} frames")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Positions of the chosen frames, ascending."""

    train: tuple[int, ...] = ()
    test: tuple[int, ...] = ()

    def counts(self) -> tuple[int, int]:
        """Training and test photos."""
        return len(self.train), len(self.test)


def split(frames: Frames, wanted: Wanted, apart: Apart, rng: np.random.Generator) -> Split:
    """Choose this many training and test photos, or as many as possible in that proportion.

    The test photos lie at as many points in time as leave enough training photos; the seed shifts these points.
    Training photos are spread evenly over the remaining frames.
    """
    phases = [_PHASES[place] for place in rng.permutation(len(_PHASES))]
    for smaller in _proportions(wanted):
        for places in range(smaller.test, 0, -1):
            for phase in phases:
                test = _tested(frames, smaller.test, places, phase, apart)
                train = varied(frames, _free(frames, test, apart), apart.min_variety)
                if len(test) == smaller.test and len(train) >= smaller.train:
                    return Split(train=_spread(train, wanted.train, len(frames.seconds)), test=tuple(sorted(test)))
    return Split()


def remedy(frames: Frames, wanted: Wanted, apart: Apart, got: Split, rng: Callable[[], np.random.Generator]) -> str:
    """A sentence on which requirement prevents the wanted numbers, and how far it would have to be lowered.

    Args:
        got: the result of ``split``.
        rng: returns a new generator with the seed that ``split`` got.
    """
    count, total = len(frames.seconds), wanted.train + wanted.test
    if count < total:
        return f"{count} good frames of the {total} that are wanted"
    enough = []
    for wish in fields(apart):
        for share in _SMALLER:
            less = round(getattr(apart, wish.name) * share, 4)
            if split(frames, wanted, replace(apart, **{wish.name: less}), rng()).counts() == (
                wanted.train,
                wanted.test,
            ):
                enough.append(f"--{wish.name.replace('_', '-')} {less:g}")
                break
    said = (
        f"{count} good frames, but no {wanted.train} + {wanted.test} of them lie {apart.min_gap:g} s and LPIPS "
        f"{apart.min_difference:g} apart ({got.counts()[0]} + {got.counts()[1]} do)"
    )
    return f"{said}; with {' or '.join(enough)} they would" if enough else f"{said}, nor with one of these wishes less"


def _proportions(wanted: Wanted) -> Iterator[Wanted]:
    """The wanted numbers, then smaller and smaller ones, down to the smallest usable."""
    for test in range(wanted.test, 0, -1):
        train = math.ceil(wanted.train * test / wanted.test)
        if train >= LEAST_TRAIN:
            yield Wanted(train=train, test=test)
    if wanted.train > LEAST_TRAIN:
        yield Wanted(train=LEAST_TRAIN, test=LEAST_TEST)


def _tested(frames: Frames, count: int, places: int, phase: float, apart: Apart) -> list[int]:
    """Test photos at evenly spread points in time: at each, the nearest frames that differ from all taken before."""
    total = len(frames.seconds)
    taken: list[int] = []
    for place in range(places):
        middle = min(int((place + phase) * total / places), total - 1)
        share = (place + 1) * count // places - place * count // places
        for frame in sorted(range(total), key=lambda one: (abs(one - middle), one)):
            if share == 0:
                break
            if frame not in taken and (frames.away[frame, taken] >= apart.min_variety).all():
                taken.append(frame)
                share -= 1
    return taken


def _free(frames: Frames, test: list[int], apart: Apart) -> list[int]:
    """Frames that are far enough from these test photos to be training photos."""
    near = too_near(frames, test, apart.min_gap) | (frames.away[:, test] < apart.min_difference)
    return [int(frame) for frame in np.flatnonzero(~near.any(1)) if frame not in test]


def too_near(frames: Frames, test: list[int], gap: float) -> np.ndarray:
    """Whether a frame lies within ``gap`` seconds of a test photo, bool ``[n, len(test)]``; unknown times do not."""
    near: np.ndarray = np.abs(frames.seconds[:, None] - frames.seconds[test]) < gap - 1e-6
    return near


def varied(frames: Frames, among: list[int], limit: float) -> list[int]:
    """The frames that differ from every frame kept before."""
    kept: list[int] = []
    for frame in among:
        if (frames.away[frame, kept] >= limit).all():
            kept.append(frame)
    return kept


def _spread(among: list[int], wanted: int, total: int) -> tuple[int, ...]:
    """``wanted`` of the frames, as close as possible to evenly spread points of the whole occasion."""
    count = min(wanted, len(among))
    places = (np.arange(count) + 0.5) * total / count
    _, chosen = linear_sum_assignment(np.abs(places[:, None] - np.array(among)))
    return tuple(sorted(among[one] for one in chosen))


def evenly(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` of the indices 0 … count - 1, evenly spread."""
    kept = min(count, wanted)
    return [(2 * place + 1) * count // (2 * kept) for place in range(kept)]
