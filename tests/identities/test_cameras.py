"""Cameras of photos: checked, made for a view, and mirrored with their photos."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clstudy.identities.cameras import FOCAL, NUMBERS, camera_problem, look_at, mirrored, view_angles
from clstudy.identities.virtual.camera import aligned_camera
from clstudy.identities.virtual.moment import Pose

YAW, PITCH = st.floats(-60, 60), st.floats(-35, 35)


def projected(camera: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points ``[n, 3]`` in shares of the photo's side, by the definition of the 25 numbers."""
    pose, intrinsics = camera[:16].reshape(4, 4), camera[16:].reshape(3, 3)
    seen = np.linalg.inv(pose) @ np.concatenate([points, np.ones((len(points), 1))], axis=1).T
    image = intrinsics @ seen[:3]
    return np.asarray((image[:2] / image[2]).T)


@given(YAW, PITCH, st.tuples(*[st.floats(-0.2, 0.2)] * 3))
def test_a_look_at_camera_has_its_point_in_the_middle_and_is_upright(yaw, pitch, pivot):
    camera = look_at(yaw, pitch, pivot=pivot)
    assert camera_problem(camera) is None
    np.testing.assert_allclose(projected(camera, np.array([pivot])), [[0.5, 0.5]], atol=1e-9)
    above = projected(camera, np.array([pivot]) + [0, 0.05, 0])[0]
    assert above[1] < 0.5 and abs(above[0] - 0.5) < 1e-9
    np.testing.assert_allclose(view_angles(camera), [yaw, pitch], atol=1e-6)


@given(YAW, PITCH, st.floats(-20, 20), st.floats(0.7, 1.3))
def test_cameras_of_virtual_people_are_valid_and_have_the_angles_of_their_pose(yaw, pitch, roll, zoom):
    landmarks = np.random.default_rng(1).uniform(-0.1, 0.1, (68, 3))
    camera = aligned_camera(Pose(yaw=yaw, pitch=pitch, roll=roll), landmarks * zoom, "ffhq").numbers()
    np.testing.assert_allclose(view_angles(camera), [yaw, pitch], atol=1e-6)


@given(YAW, PITCH, st.floats(0.4, 0.6), st.floats(-0.04, 0.04))
def test_a_mirrored_camera_sees_the_mirrored_world_mirrored(yaw, pitch, across, skew):
    camera = look_at(yaw, pitch, pivot=(0.05, 0.02, 0.2), centre=(across, 0.45))
    camera[17] = skew
    points = np.random.default_rng(2).uniform(-0.2, 0.2, (9, 3))
    other = mirrored(camera)
    np.testing.assert_allclose(
        projected(other, points * [-1, 1, 1]), np.array([1, 0]) + projected(camera, points) * [-1, 1], atol=1e-9
    )
    assert camera_problem(other) is None
    np.testing.assert_allclose(mirrored(other), camera, atol=1e-12)


def changed(index: int | slice, value: object) -> np.ndarray:
    camera = look_at(10, 5)
    camera[index] = value
    return camera


@pytest.mark.parametrize(
    ("camera", "expected"),
    [
        (np.zeros(24), "camera of 24 numbers; expected 25 finite ones"),
        (changed(3, np.nan), "camera of 25 numbers; expected 25 finite ones"),
        (changed(15, 0), "whose matrix ends in 0, 0, 0, 0; expected 0, 0, 0, 1"),
        (changed(0, 0.5), "expected a rotation with rows of length 1"),
        (changed([0, 4, 8], -look_at(10, 5)[[0, 4, 8]]), "whose matrix mirrors"),
        (changed([3, 7, 11], look_at(10, 5)[[3, 7, 11]] * 10), "camera 27 away from the head; expected about 2.7"),
        (changed([3, 7, 11], -look_at(10, 5)[[3, 7, 11]]), "does not look at the head"),
        (changed([3, 7, 11], look_at(40, 5)[[3, 7, 11]]), "does not look at the head"),
        (changed(16, 1015.0), "horizontal focal length of 1015; expected 1.5 to 12"),
        (changed(20, 0.2), "vertical focal length of 0.2"),
        (changed(17, 0.3), "a skew of 0.3"),
        (changed(18, 112), "principal point is 112, 0.5; expected it in the photo"),
        (changed(24, 0), "expected fx, skew, cx, 0, fy, cy, 0, 0, 1"),
    ],
)
def test_a_wrong_camera_is_named_by_what_is_wrong(camera, expected):
    assert expected in (camera_problem(camera) or "")


def test_the_camera_of_a_published_label_is_valid():
    """A frontal one, in the float32 rounding of the data set's labels."""
    assert NUMBERS == len(look_at(0, 0)) == 25
    assert camera_problem(look_at(0, 0, focal=FOCAL).astype(np.float32)) is None
