"""People at several ages, for what learns from ages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clstudy.errors import UserError
from clstudy.generators.pretraining.aged_faces import AGES_OF_PERSON, MOMENTS_OF_AGE, AgedFaces, aged_chunk
from clstudy.generators.pretraining.chunks import in_chunks


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
