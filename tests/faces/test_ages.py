"""The age estimator: its regression, its file, and what it says of people it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clstudy.faces.ages import AgeEstimator, ridge, save_estimator
from clstudy.faces.embedding import IdentityEmbedder
from clstudy.generators.pretraining.age_estimator import fitted
from clstudy.identities.virtual.moment import Moment
from clstudy.identities.virtual.person import draw_virtual_person
from clstudy.identities.virtual.photo import Sitter
from clstudy.images import to_unit_range


def test_ridge_is_least_squares_with_the_penalty_as_further_rows() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)) + 3, rng.normal(size=40) * 9 + 50
    slopes, constant = ridge(x, y, 2.5)
    rows = np.vstack([np.hstack([x, np.ones((40, 1))]), np.hstack([np.sqrt(2.5) * np.eye(6), np.zeros((6, 1))])])
    expected, *_ = np.linalg.lstsq(rows, np.concatenate([y, np.zeros(6)]), rcond=None)
    np.testing.assert_allclose(np.append(slopes, constant), expected, rtol=1e-9)


def test_the_penalty_is_the_one_that_serves_people_left_out() -> None:
    rng = np.random.default_rng(1)
    people = np.repeat(np.arange(60), 5)
    x = rng.normal(size=(300, 80))
    y = x[:, 0] * 3 + rng.normal(size=300) * 20  # mostly noise: a strong penalty is right
    assert fitted(x, y, people)[2] == 10.0
    clean = x @ rng.normal(size=80)
    assert fitted(x, clean, people)[2] == 0.001


def test_an_estimator_survives_its_file(tmp_path: Path) -> None:
    slopes = np.random.default_rng(0).normal(size=512).astype(np.float32)
    save_estimator(slopes, 41.5, tmp_path / "ages.safetensors")
    photo = Sitter(draw_virtual_person(0, 0)).photograph(Moment()).image
    images = to_unit_range(photo[None])
    found = AgeEstimator(tmp_path / "ages.safetensors")(images)
    expected = float(IdentityEmbedder()(images)[0] @ torch.from_numpy(slopes)) + 41.5
    assert float(found[0]) == pytest.approx(expected, abs=1e-4)
