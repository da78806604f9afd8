"""Which frames become training and test photos: the wishes hold for every choice, and a refusal names the right one."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clstudy.identities.preparation.selection import (
    Apart,
    Frames,
    Split,
    Wanted,
    evenly,
    remedy,
    split,
    varied,
)


def walk(seed: int, count: int, *, step: float = 0.13, liveliness: float = 0.05) -> Frames:
    """A face that wanders through looks of four dimensions and comes back to its resting look."""
    rng = np.random.default_rng(seed)
    looks = np.zeros((count, 4))
    for frame in range(1, count):
        looks[frame] = 0.9 * looks[frame - 1] + liveliness * rng.standard_normal(4)
    return of(np.arange(count) * step, looks)


def of(seconds: np.ndarray, looks: np.ndarray) -> Frames:
    return Frames(seconds=seconds, away=np.square(looks[:, None] - looks).sum(-1))


def wishes_hold(frames: Frames, chosen: Split, apart: Apart) -> bool:
    """Written pair by pair, without the code's arrays."""
    for one, other in itertools.product(chosen.train, chosen.test):
        if abs(frames.seconds[one] - frames.seconds[other]) < apart.min_gap - 1e-6:
            return False
        if frames.away[one, other] < apart.min_difference:
            return False
    return all(
        frames.away[one, other] >= apart.min_variety
        for part in (chosen.train, chosen.test)
        for one, other in itertools.combinations(part, 2)
    )


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 999),
    count=st.integers(0, 120),
    train=st.integers(2, 12),
    test=st.integers(1, 8),
    gap=st.sampled_from([0.0, 0.3, 1.0]),
    difference=st.sampled_from([0.0, 0.01, 0.05]),
    variety=st.sampled_from([0.0, 0.005]),
)
def test_every_wish_holds_for_every_choice(seed, count, train, test, gap, difference, variety):
    frames = walk(seed, count)
    apart = Apart(min_gap=gap, min_difference=difference, min_variety=variety)
    chosen = split(frames, Wanted(train=train, test=test), apart, np.random.default_rng(seed))
    assert wishes_hold(frames, chosen, apart)
    held = chosen.counts()
    assert held == (0, 0) or (2 <= held[0] <= train and 1 <= held[1] <= test)
    assert len({*chosen.train, *chosen.test}) == sum(held)
    assert list(chosen.train) == sorted(chosen.train) and list(chosen.test) == sorted(chosen.test)
    again = split(frames, Wanted(train=train, test=test), apart, np.random.default_rng(seed))
    assert again == chosen


@settings(deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(3, 60))
def test_without_wishes_everything_that_is_there_is_given(seed, count):
    """And fewer frames than wanted are shared out in the wanted proportion, rounded towards test photos of use."""
    none = Apart(min_gap=0, min_difference=0, min_variety=0)
    train, test = split(walk(seed, count), Wanted(train=20, test=10), none, np.random.default_rng(0)).counts()
    if count >= 30:
        assert (train, test) == (20, 10)
    else:
        assert train + test == count and test == max(1, count // 3)


def test_test_photos_are_spread_over_an_interview_and_no_training_photo_is_near():
    """Forty seconds, 300 frames: each of four quarters has test photos."""
    frames = walk(3, 300, liveliness=0.08)
    chosen = split(frames, Wanted(train=20, test=10), Apart(), np.random.default_rng(0))
    assert chosen.counts() == (20, 10)
    quarters = np.histogram(frames.seconds[list(chosen.test)], bins=4, range=(0, frames.seconds[-1]))[0]
    assert quarters.min() >= 2, quarters


def test_training_photos_lie_as_evenly_as_what_is_left_allows():
    """One look throughout, one test photo in the middle, a gap of 5 s: the training photos share out both sides."""
    frames = Frames(seconds=np.arange(31.0), away=np.zeros((31, 31)))
    chosen = split(
        frames, Wanted(train=6, test=1), Apart(min_gap=5, min_difference=0, min_variety=0), np.random.default_rng(5)
    )
    (test,) = chosen.test
    free = [frame for frame in range(31) if abs(frame - test) >= 5]
    places = [31 * (place + 0.5) / 6 for place in range(6)]
    best = min(
        itertools.combinations(free, 6), key=lambda taken: sum(abs(a - b) for a, b in zip(taken, places, strict=True))
    )
    got = sum(abs(a - b) for a, b in zip(chosen.train, places, strict=True))
    assert got == pytest.approx(sum(abs(a - b) for a, b in zip(best, places, strict=True)))


def test_photos_without_a_time_are_told_apart_by_their_looks_only():
    frames = walk(1, 40, liveliness=0.2)
    frames = replace(frames, seconds=np.full(40, np.nan))
    chosen = split(frames, Wanted(train=8, test=4), Apart(min_gap=1e9), np.random.default_rng(0))
    assert chosen.counts() == (8, 4)


@pytest.mark.parametrize(
    ("frames", "apart", "said"),
    [
        (walk(0, 20), Apart(), r"^20 good frames of the 30 that are wanted$"),
        (walk(3, 300, step=0.01, liveliness=0.08), Apart(min_gap=2.9), r"with --min-gap [\d.]+ they would$"),
        (walk(3, 300), Apart(min_difference=0.2), r"with --min-difference [\d.]+ they would$"),
        (walk(3, 60, step=1), Apart(min_variety=0.15, min_difference=0), r"with --min-variety [\d.]+ they would$"),
        (walk(0, 40, liveliness=1e-4), Apart(), "nor with one of these wishes less"),
    ],
    ids=["frames", "gap", "difference", "variety", "two wishes"],
)
def test_a_refusal_names_the_wish_that_cannot_be_met(frames, apart, said):
    """What it advises does: the advice is taken."""
    wanted = Wanted(train=20, test=10)
    got = split(frames, wanted, apart, np.random.default_rng(0))
    assert got.counts() != (20, 10)
    text = remedy(frames, wanted, apart, got, lambda: np.random.default_rng(0))
    assert re.search(said, text), text
    for name, value in re.findall(r"--([a-z-]+) ([\d.e-]+)", text):
        looser = replace(apart, **{name.replace("-", "_"): float(value)})
        assert split(frames, wanted, looser, np.random.default_rng(0)).counts() == (20, 10)


@given(seed=st.integers(0, 999), count=st.integers(0, 25), limit=st.floats(0.01, 0.6))
def test_varied(seed, count, limit):
    points = np.random.default_rng(seed).uniform(size=(count, 2))
    frames = of(np.arange(float(count)), points)
    kept = varied(frames, list(range(count)), limit)
    assert all(frames.away[a, b] >= limit for a, b in itertools.combinations(kept, 2))
    assert all(
        any(frames.away[one, like] < limit for like in kept if like < one) for one in range(count) if one not in kept
    )


def test_evenly():
    assert evenly(10, 3) == [1, 5, 8]
    assert evenly(2, 3) == [0, 1]
    assert evenly(0, 3) == []
