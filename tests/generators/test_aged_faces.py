"""People at several ages, for what learns from ages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clstudy.errors import UserError
from clstudy.faces.ages import AgeNetwork, save_estimator
from clstudy.generators.pretraining.aged_faces import AGES_OF_PERSON, MOMENTS_OF_AGE, AgedFaces, aged_chunk
from clstudy.generators.pretraining.chunks import in_chunks
from clstudy.generators.pretraining.train_age_prior import PriorSettings, drawn_pairs, train_age_prior
from clstudy.images import to_uint8


@pytest.fixture(scope="module")
def faces() -> AgedFaces:
    return aged_chunk(0, 0, people=2)


def test_every_moment_is_seen_at_ages_from_all_strata(faces: AgedFaces) -> None:
    assert faces.images.shape == (2, AGES_OF_PERSON, MOMENTS_OF_AGE, 64, 64, 3)
    strata = (faces.ages - 18) / (85 - 18) * AGES_OF_PERSON
    assert np.array_equal(np.floor(strata), np.tile(np.arange(AGES_OF_PERSON), (2, 1)))
    # the same moment at another age is nearer than another moment of the same age
    images = faces.images.astype(float)
    aged = np.abs(images[:, 0] - images[:, 1]).mean()
    moved = np.abs(images[:, :, 0] - images[:, :, 1]).mean()
    assert 0 < aged < moved


def test_flat_faces_have_their_ages_and_people(faces: AgedFaces) -> None:
    images, ages, people = faces.flat()
    assert len(images) == len(ages) == len(people) == 2 * AGES_OF_PERSON * MOMENTS_OF_AGE
    at = AGES_OF_PERSON * MOMENTS_OF_AGE + 2 * MOMENTS_OF_AGE + 1
    assert np.array_equal(images[at], faces.images[1, 2, 1]) and ages[at] == faces.ages[1, 2] and people[at] == 1


def test_the_same_seed_gives_the_same_faces(faces: AgedFaces) -> None:
    again = aged_chunk(0, 0, people=2)
    assert np.array_equal(again.images, faces.images) and np.array_equal(again.ages, faces.ages)


def test_a_prior_learns_to_age_and_the_same_seed_gives_the_same(
    faces: AgedFaces, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimator = tmp_path / "age_estimator.safetensors"
    network = AgeNetwork()
    network.begin_with(torch.zeros(512), 40.0)
    save_estimator(network, estimator)
    quick = PriorSettings(steps=12, batch=4, learning_rate=3e-3, identity_weight=0.0)
    made = []
    for name in ("one", "other"):
        train_age_prior(faces, faces, estimator, tmp_path / name, quick)
        made.append((tmp_path / name / "age_prior.safetensors").read_bytes())
    assert made[0] == made[1]
    card = json.loads((tmp_path / "one" / "age_prior.json").read_text())
    scores = card["held_out"]
    assert scores["prior"]["lpips"] < scores["left"]["lpips"], "12 steps on two people are known by heart"
    assert (
        scores["left"]["age_error"]
        == scores["prior"]["age_error"]
        == pytest.approx(np.abs(40 - faces.ages).mean(), abs=0.01)
    )
    assert "step 0 " in capsys.readouterr().out


def test_pairs_are_one_moment_at_two_ages(faces: AgedFaces) -> None:
    w = torch.arange(2 * AGES_OF_PERSON * MOMENTS_OF_AGE).view(2, AGES_OF_PERSON, MOMENTS_OF_AGE, 1).float()
    for share, apart in ((0.0, True), (1.0, False)):
        pairs = drawn_pairs(faces, w, PriorSettings(batch=60, own_share=share), np.random.default_rng(0))
        assert bool((pairs.w != pairs.target_w).any()) == apart
        for before, after, age, image in zip(pairs.w, pairs.target_w, pairs.ages, pairs.images, strict=True):
            who, when, moment = np.unravel_index(int(after), w.shape[:3])
            assert np.unravel_index(int(before), w.shape[:3])[::2] == (who, moment)
            assert float(age) == faces.ages[who, when]
            assert np.array_equal(to_uint8(image[None])[0], faces.images[who, when, moment])


def parts_of(chunk: int) -> list[int]:
    return [chunk] * (chunk + 1)


def test_chunks_come_in_their_order_whatever_the_number_of_workers(capsys: pytest.CaptureFixture[str]) -> None:
    expected = [[0], [1, 1], [2, 2, 2]]
    for workers in (1, 2):
        found = in_chunks(parts_of, 5, workers, "numbers")
        assert found[:3] == expected and sum(map(len, found)) >= 5
    assert "of 5 numbers" in capsys.readouterr().out


def test_faces_survive_their_file_and_a_wrong_file_is_refused(faces: AgedFaces, tmp_path: Path) -> None:
    faces.save(tmp_path / "ages.npz")
    read = AgedFaces.read(tmp_path / "ages.npz")
    assert np.array_equal(read.images, faces.images) and np.array_equal(read.ages, faces.ages)
    np.savez(tmp_path / "other.npz", images=np.zeros(3), ages=np.zeros(3))
    for name in ("missing.npz", "other.npz"):
        with pytest.raises(UserError, match=name):
            AgedFaces.read(tmp_path / name)
