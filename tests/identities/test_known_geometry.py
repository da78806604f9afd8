"""Conditions of known geometry, and the data set that has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clstudy.errors import UserError
from clstudy.identities.cameras import view_angles
from clstudy.identities.catalogue import open_data_set
from clstudy.identities.check import inspect_folder
from clstudy.identities.dataset import DataSet
from clstudy.identities.known_geometry import geometry_problem, partners
from clstudy.identities.virtual.data_set import VirtualSettings, taken_again

COUNTS: dict[str, Any] = {"timestamps": 2, "train": 2, "test": 6, "data_seed": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return open_data_set("virtual_views", identities=1, cache=tmp_path_factory.mktemp("cache"), **COUNTS)


@given(st.lists(st.integers(0, 4), max_size=12))
def test_every_photo_meets_each_other_one_of_its_moment_once(moments: list[int]) -> None:
    found = partners([float(one) for one in moments])
    for place, moment in enumerate(moments):
        met = [int(turn[place]) for turn in found if turn[place] != place]
        others = [other for other, one in enumerate(moments) if one == moment and other != place]
        assert sorted(met) == others


@pytest.mark.parametrize(
    ("conditions", "problem"),
    [
        ({"moment": (1.0, 2.0)}, "condition 'moment' has 2 numbers; expected one"),
        ({"depth": (1.0,) * 15}, "condition 'depth' has 15 numbers; expected r x r of them, such as 256 (16 x 16)"),
        ({"depth": (1.0, 2.0, -0.5, 0.0)}, "condition 'depth' has -0.5 in its list; expected distances"),
        ({"depth": (0.0, 2.5, 2.6, 2.7), "moment": (3.0,)}, None),
    ],
)
def test_what_is_wrong_is_said(conditions: dict[str, tuple[float, ...]], problem: str | None) -> None:
    found = geometry_problem(conditions)
    assert found is None if problem is None else found is not None and found.startswith(problem)


def test_a_folder_with_such_a_sidecar_is_refused(made: DataSet, tmp_path: Path) -> None:
    photo = made.identities[0].timestamps[0].train[0].path
    folder = tmp_path / "anna" / "t0" / "test"
    folder.mkdir(parents=True)
    (folder / "0.png").write_bytes(photo.read_bytes())
    (folder / "0.json").write_text(json.dumps({"depth": [1, 2, 3]}))
    problems = inspect_folder(tmp_path, image_size=64).problems
    assert any(one.startswith("anna/t0/test/0.png: condition 'depth' has 3 numbers") for one in problems)


def test_training_photos_are_those_of_the_strong_preset(made: DataSet, tmp_path: Path) -> None:
    strong = open_data_set("virtual_strong", identities=1, cache=tmp_path, **COUNTS)
    for mine, theirs in zip(made.identities[0].timestamps, strong.identities[0].timestamps, strict=True):
        assert [one.file_digest for one in mine.train] == [one.file_digest for one in theirs.train]


def test_a_test_moment_is_seen_from_its_own_side_and_two_others(made: DataSet) -> None:
    inspection = inspect_folder(made.root, image_size=64)
    assert inspection.problems == ()
    assert (inspection.conditions()["moment"], inspection.conditions()["depth"]) == (1, 256)
    for stamp in made.identities[0].timestamps:
        assert [photo.conditions["moment"] for photo in stamp.test] == [(0.0,)] * 3 + [(1.0,)] * 3
        cameras = np.array([photo.conditions["camera"] for photo in stamp.test])
        yaws = view_angles(cameras)[:, 0].reshape(2, 3)
        np.testing.assert_allclose(yaws[:, 1], -20, atol=2)  # the sidecar's head is framed by its landmarks
        np.testing.assert_allclose(yaws[:, 2], 20, atol=2)
        poses = np.array([photo.conditions["pose"] for photo in stamp.test])
        np.testing.assert_allclose(poses[1::3, 0], -20)


def test_depth_is_that_of_the_photo_in_the_face(made: DataSet) -> None:
    settings = json.loads((made.root / "manifest.json").read_text())["settings"]
    photo = made.identities[0].timestamps[1].train[1]
    taken = taken_again(VirtualSettings(**settings), photo.path.relative_to(made.root).as_posix())
    depth = np.array(photo.conditions["depth"]).reshape(16, 16)
    assert 40 < np.count_nonzero(depth) < 200
    # the same by following a ray through every pixel
    to_world, intrinsics = taken.camera[:16].reshape(4, 4), taken.camera[16:].reshape(3, 3)
    del to_world
    along = np.empty((64, 64))
    for row in range(64):
        for column in range(64):
            ray = np.linalg.solve(intrinsics, np.array([(column + 0.5) / 64, (row + 0.5) / 64, 1.0]))
            along[row, column] = np.linalg.norm(ray * taken.depth[row, column])
    mean = along.reshape(16, 4, 16, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(depth[depth > 0], mean[depth > 0], atol=6e-5)
    nose = ((taken.landmarks[30] + 0.5) / 4).astype(int)
    assert depth[nose[1], nose[0]] > 0
    assert depth[0].max() == 0, "nothing is known of the backdrop"


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"test": 4}, r"virtual_views data set: test = 4; expected a multiple of 3"),
        ({"image_size": 72}, r"virtual_views data set: photos of 72 px; expected a multiple of 16"),
    ],
)
def test_what_it_has_not_is_refused(given_: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        open_data_set("virtual_views", identities=1, cache=tmp_path, **{**COUNTS, **given_}, look_only=True)
