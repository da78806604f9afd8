"""The losses of the ageing adapter against slow renderings of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clstudy.training.ageing_losses import ages_beyond, beyond_losses, identity_losses, norm_losses, norm_weights


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    values = rng.normal(size=shape)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 6))
def test_identity_is_that_of_the_most_similar_photo_of_the_age(seed: int, made: int, own: int) -> None:
    rng = np.random.default_rng(seed)
    theirs, own_ages = unit(rng, own, 8), rng.uniform(20, 60, own)
    ours, ages = unit(rng, made, 8), rng.choice(own_ages, made) + rng.uniform(-3, 3, made)
    expected = []
    for face, age in zip(ours, ages, strict=True):
        near = [float(face @ photo) for photo, years in zip(theirs, own_ages, strict=True) if abs(age - years) <= 3]
        expected.append(1 - max(near))
    found = identity_losses(*(torch.from_numpy(value) for value in (ours, ages, theirs, own_ages)))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_gradients_reach_the_face_alone_through_its_most_similar_photo() -> None:
    rng = np.random.default_rng(0)
    made = torch.from_numpy(unit(rng, 1, 4)).requires_grad_(True)
    own = torch.from_numpy(unit(rng, 3, 4))
    (gradient,) = torch.autograd.grad(
        identity_losses(made, torch.tensor([30.0]), own, torch.tensor([30.0, 31.0, 50.0])).sum(), made
    )
    best = max((0, 1), key=lambda at: float(made.detach()[0] @ own[at]))
    assert torch.allclose(gradient[0], -own[best])


def test_the_norm_counts_more_the_more_years_lie_between() -> None:
    rng = np.random.default_rng(1)
    added, before, after = rng.normal(size=(4, 3, 5)), rng.uniform(20, 80, 4), rng.uniform(20, 80, 4)
    expected = []
    for one, a, b in zip(added, before, after, strict=True):
        squares = [value * value for layer in one for value in layer]
        expected.append((1 - math.cos(math.pi * (b - a) / 100)) * sum(squares) / len(squares))
    found = norm_losses(*(torch.from_numpy(value) for value in (added, before, after)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    years = torch.tensor([0.0, 10, 50, 100])
    assert norm_weights(torch.zeros(4), years).tolist() == pytest.approx([0, 1 - math.cos(math.pi / 10), 1, 2])


def test_beyond_what_is_learned_the_prior_is_the_target() -> None:
    rng = np.random.default_rng(2)
    images, priors = rng.uniform(-1, 1, (2, 2, 3, 4, 4))
    lpips, made, kept = rng.uniform(size=2), unit(rng, 2, 6), unit(rng, 2, 6)
    expected = []
    for at in range(2):
        errors = [(a - b) ** 2 for a, b in zip(images[at].ravel(), priors[at].ravel(), strict=True)]
        expected.append(sum(errors) / len(errors) + lpips[at] + 1 - float(made[at] @ kept[at]))
    found = beyond_losses(*(torch.from_numpy(value) for value in (images, priors, lpips, made, kept)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_ages_beyond_are_uniform_over_both_sides() -> None:
    uniform = torch.linspace(0, 1, 10_001, dtype=torch.float64)[:-1]
    ages = ages_beyond(uniform, torch.tensor([30.0, 66.0]), 18, 85)  # 18 to 27, and 69 to 85
    assert ((ages >= 18) & (ages < 27) | (ages >= 69) & (ages < 85)).all()
    assert float((ages < 27).double().mean()) == pytest.approx(9 / 25, abs=1e-3)
    assert float(ages[ages < 27].mean()) == pytest.approx(22.5, abs=0.01)
    assert float(ages[ages > 60].mean()) == pytest.approx(77, abs=0.01)


def test_nothing_lies_beyond_a_whole_life() -> None:
    assert len(ages_beyond(torch.rand(5), torch.tensor([20.0, 83.0]), 18, 85)) == 0
    assert ages_beyond(torch.tensor([0.5]), torch.tensor([20.0, 60.0]), 18, 85).tolist() == [74.0]
