"""The age estimator: how it begins, its file, and its training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clstudy.assets import asset_path
from clstudy.errors import UserError
from clstudy.faces.ages import AgeEstimator, AgeNetwork, save_estimator
from clstudy.faces.embedding import IdentityEmbedder
from clstudy.generators.pretraining.age_estimator import AgeSettings, errors_of, ridge, train_ages
from clstudy.generators.pretraining.aged_faces import AgedFaces, aged_chunk
from clstudy.identities.virtual.moment import Moment
from clstudy.identities.virtual.person import draw_virtual_person
from clstudy.identities.virtual.photo import Sitter
from clstudy.images import to_unit_range


@pytest.fixture(scope="module")
def faces() -> AgedFaces:
    return aged_chunk(0, 0, people=2)


def test_ridge_is_least_squares_with_the_penalty_as_further_rows() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)) + 3, rng.normal(size=40) * 9 + 50
    slopes, constant = ridge(x, y, 2.5)
    rows = np.vstack([np.hstack([x, np.ones((40, 1))]), np.hstack([np.sqrt(2.5) * np.eye(6), np.zeros((6, 1))])])
    expected, *_ = np.linalg.lstsq(rows, np.concatenate([y, np.zeros(6)]), rcond=None)
    np.testing.assert_allclose(np.append(slopes, constant), expected, rtol=1e-9)


def test_it_begins_as_a_linear_function_of_the_identity_embedding(tmp_path: Path) -> None:
    network = AgeNetwork()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert network(images).tolist() == [50, 50]
    slopes = torch.randn(512, generator=torch.Generator().manual_seed(1)) * 9
    network.begin_with(slopes, 41.5)
    both = torch.cat([images, images.flip(3)])
    plain = IdentityEmbedder()(both) @ slopes + 41.5
    torch.testing.assert_close(network(both).detach(), plain, atol=1e-3, rtol=0)
    save_estimator(network, tmp_path / "age_estimator.safetensors")
    found = AgeEstimator(tmp_path / "age_estimator.safetensors")(images)
    torch.testing.assert_close(found, (plain[:2] + plain[2:]) / 2, atol=0.1, rtol=0)  # float16
    assert len(AgeEstimator(tmp_path / "age_estimator.safetensors")(images[:0])) == 0


def test_training_lowers_the_error_and_the_same_seed_gives_the_same_file(
    faces: AgedFaces, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = AgeSettings(steps=12, batch=8, penalty=30.0, dropout=0.0)
    for name in ("one", "other"):
        train_ages(faces, faces, tmp_path / name, quick)
    files = [(tmp_path / name / "age_estimator.safetensors").read_bytes() for name in ("one", "other")]
    assert files[0] == files[1] and len(files[0]) < 3e6
    found = json.loads((tmp_path / "one" / "age_estimator.json").read_text())["held_out"]
    slow = AgeNetwork()
    images, ages, _ = faces.flat()
    save_estimator(slow, tmp_path / "guess.safetensors")
    guessed = errors_of(AgeEstimator(tmp_path / "guess.safetensors"), faces)
    assert guessed["mean"] == pytest.approx(np.abs(ages - 50).mean(), abs=0.01)
    assert guessed["guessing"] == found["guessing"] == pytest.approx(np.abs(ages - ages.mean()).mean(), abs=0.01)
    young = ages < 35
    assert guessed["from 18 to 35"] == pytest.approx((50 - ages[young]).mean(), abs=0.01)
    assert found["mean"] < 0.8 * guessed["mean"], "12 steps on two people whom it then sees again"
    assert "step 0 loss" in capsys.readouterr().out and len(images) == 40


def test_the_packaged_estimator_knows_people_whom_it_has_not_seen() -> None:
    """Of four held-out people at three ages each; the card says what it is of all."""
    estimator = AgeEstimator(asset_path("age_estimator.safetensors"))
    errors = []
    for index in range(4):
        sitter = Sitter(draw_virtual_person(0, index))
        for age in (40.0, 60.0, 75.0):
            photo = sitter.photograph(Moment(age=age)).image
            errors.append(abs(float(estimator(to_unit_range(photo[None]))) - age))
    assert np.mean(errors) < 8, "guessing is off by 12"


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "age_estimator.safetensors"
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"age_estimator: .* is no age estimator; expected a file of .*train-ages"):
        AgeEstimator(path)
