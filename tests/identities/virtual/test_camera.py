"""The 25 numbers of a photo's camera, against its landmarks and its depth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clstudy.errors import UserError
from clstudy.faces.alignments import ffhq_template
from clstudy.faces.geometry import aligned_template, five_points, similarity_transform
from clstudy.identities.virtual.camera import DISTANCE, aligned_camera, head_rotation, to_world
from clstudy.identities.virtual.moment import Moment, Pose
from clstudy.identities.virtual.person import draw_virtual_person
from clstudy.identities.virtual.photo import Sitter
from clstudy.identities.virtual.scene import Resting, Scene, scene_of

_POSES = st.builds(
    Pose,
    yaw=st.floats(-60, 60),
    pitch=st.floats(-35, 35),
    roll=st.floats(-30, 30),
    zoom=st.floats(0.5, 1.5),
    shift=st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
)


@pytest.fixture(scope="module")
def sitter() -> Sitter:
    return Sitter(draw_virtual_person(0, 3))


def _scene(sitter: Sitter, moment: Moment) -> Scene:
    person = sitter.person
    return scene_of(person, Resting.of(person, person.base_age), moment, person.base_age)


def _projected(numbers: np.ndarray, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As a reader of the 25 numbers would project: inverse of camera-to-world, then the intrinsics."""
    pose, intrinsics = numbers[:16].reshape(4, 4), numbers[16:].reshape(3, 3)
    seen = np.linalg.inv(pose) @ np.concatenate([world, np.ones((len(world), 1))], 1).T
    image = intrinsics @ seen[:3]
    return (image[:2] / image[2]).T, seen[2]


@settings(max_examples=25, deadline=None)
@given(_POSES)
def test_the_numbers_project_vertices_onto_their_landmarks(sitter: Sitter, pose: Pose) -> None:
    moment = Moment(pose=pose)
    photo = sitter.photograph(moment, 64)
    points, depths = _projected(photo.camera, to_world(_scene(sitter, moment).landmarks))
    np.testing.assert_allclose(points * 64 - 0.5, photo.landmarks, atol=1e-8)
    assert (np.abs(depths - DISTANCE) < 0.5).all()


@settings(max_examples=50, deadline=None)
@given(_POSES)
def test_cameras_are_rotations_at_the_stated_distance_that_look_at_the_origin(pose: Pose) -> None:
    landmarks = np.random.default_rng(0).uniform(-0.2, 0.2, (68, 3))
    numbers = aligned_camera(pose, landmarks, "ffhq").numbers()
    matrix, intrinsics = numbers[:16].reshape(4, 4), numbers[16:].reshape(3, 3)
    rotation, place = matrix[:3, :3], matrix[:3, 3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    assert np.linalg.norm(place) == pytest.approx(DISTANCE)
    np.testing.assert_allclose(rotation[:, 2], -place / DISTANCE, atol=1e-12)
    assert matrix[3].tolist() == [0, 0, 0, 1] and intrinsics[2].tolist() == [0, 0, 1]
    assert intrinsics[0, 0] == intrinsics[1, 1] > 0 and intrinsics[0, 1] == intrinsics[1, 0] == 0


def test_a_frontal_camera_is_that_of_eg3d(sitter: Sitter) -> None:
    numbers = sitter.photograph(Moment(), 128).camera
    np.testing.assert_allclose(numbers[:16].reshape(4, 4)[:3, 3], [0, 0, DISTANCE], atol=1e-9)
    assert numbers[16] == pytest.approx(4.2647, rel=0.12), "FFHQ photos in EG3D have this focal length"


def test_yaw_turns_the_nose_to_the_right_and_pitch_lifts_it() -> None:
    nose = np.array([0.0, 0.0, 1.0])
    assert (head_rotation(Pose(yaw=30)) @ nose)[0] > 0.4
    assert (head_rotation(Pose(pitch=20)) @ nose)[1] > 0.3
    rotation = head_rotation(Pose(yaw=30, pitch=20))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-15)


@pytest.mark.parametrize(("framing", "template"), [("embedded", aligned_template(64)), ("ffhq", ffhq_template(64))])
def test_an_exactly_aligned_photo_needs_no_further_alignment(
    sitter: Sitter, framing: str, template: np.ndarray
) -> None:
    photo = sitter.photograph(Moment(pose=Pose(yaw=12)), 64, framing=framing)
    again = similarity_transform(five_points(photo.landmarks), template)
    np.testing.assert_allclose(again, [[1, 0, 0], [0, 1, 0]], atol=1e-6)


def test_roll_zoom_and_shift_are_what_the_alignment_leaves(sitter: Sitter) -> None:
    exact = five_points(sitter.photograph(Moment(), 64).landmarks)
    moved = sitter.photograph(Moment(pose=Pose(roll=10, zoom=0.8, shift=(0.1, 0))), 64)
    left = similarity_transform(exact, five_points(moved.landmarks))
    assert np.hypot(left[0, 0], left[1, 0]) == pytest.approx(0.8)
    assert np.degrees(np.arctan2(left[1, 0], left[0, 0])) == pytest.approx(10)
    centre = left[:, :2] @ [31.5, 31.5] + left[:, 2]
    np.testing.assert_allclose(centre, [31.5 + 6.4, 31.5], atol=1e-6)


def test_depth_unprojects_onto_the_mesh(sitter: Sitter) -> None:
    moment = Moment(pose=Pose(yaw=-20, pitch=5), glasses=False)
    photo = sitter.photograph(moment, 64)
    pose, intrinsics = photo.camera[:16].reshape(4, 4), photo.camera[16:].reshape(3, 3)
    rows, columns = np.nonzero(photo.mask)
    depth = photo.depth[rows, columns].astype(float)
    image = np.stack([(columns + 0.5) / 64, (rows + 0.5) / 64, np.ones(len(rows))]) * depth
    world = pose[:3, :3] @ np.linalg.inv(intrinsics) @ image + pose[:3, 3:]
    vertices = to_world(_scene(sitter, moment).vertices)
    nearest = np.sqrt(((world.T[::7, None] - vertices[None]) ** 2).sum(-1)).min(1)
    # an edge of the mesh is up to 0.03 long; an average over two surfaces may lie between them
    assert np.median(nearest) < 0.012 and np.quantile(nearest, 0.97) < 0.03
    assert np.isnan(photo.depth[~photo.mask]).all() and 0.25 < photo.mask.mean() < 0.9


def test_an_unknown_framing_is_refused_with_the_known_ones(sitter: Sitter) -> None:
    with pytest.raises(UserError, match="unknown framing 'ffqh'.*ffhq"):
        sitter.photograph(Moment(), 64, framing="ffqh")


def test_a_second_camera_sees_the_same_head_in_the_same_light(sitter: Sitter) -> None:
    """Seen from its own pose a moment gives its own photo; seen from elsewhere, landmarks of the same head."""
    pose = Pose(yaw=22, pitch=-4)
    moment, other = Moment(pose=pose), Pose(yaw=-15, pitch=6)
    own = sitter.photograph(moment, 64)
    assert np.array_equal(sitter.photograph(moment, 64, seen=pose).image, own.image)
    seen = sitter.photograph(moment, 64, seen=other)
    world = to_world(_scene(sitter, moment).landmarks)
    points, _ = _projected(seen.camera, world)
    np.testing.assert_allclose(points * 64 - 0.5, seen.landmarks, atol=1e-8)
    turned = sitter.photograph(Moment(pose=other), 64)
    np.testing.assert_allclose(seen.camera, turned.camera, atol=1e-9)
    assert not np.array_equal(seen.image, turned.image), "light and shoulders stay with the head"
