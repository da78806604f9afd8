"""Cameras of photos: checked, made for a view, and mirrored with their photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks.cameras import errors, photographs
from clstudy.cli.identities import main
from clstudy.faces.alignments import EG3D_FIVE_POINTS, EG3D_HEAD, eg3d_embedding_crop_map, eg3d_transform
from clstudy.faces.face_finder import FaceFinder
from clstudy.faces.geometry import INSIGHTFACE_TEMPLATE
from clstudy.identities.camera_estimation import Crop, face_boxes, steady_landmarks
from clstudy.identities.cameras import FOCAL, NUMBERS, camera_problem, look_at, mirrored, view_angles
from clstudy.identities.dataset import load_folder
from clstudy.identities.head_pose import FACE_MIDDLE, head_pose
from clstudy.identities.virtual.camera import aligned_camera
from clstudy.identities.virtual.moment import Moment, Pose
from clstudy.identities.virtual.person import draw_virtual_person
from clstudy.identities.virtual.photo import Photograph, Sitter

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


@pytest.fixture(scope="module")
def taken() -> list[Photograph]:
    return photographs(6, 64, seed=31, photos=4)


def test_estimated_cameras_are_within_three_degrees_at_the_median(taken: list[Photograph]) -> None:
    finder = FaceFinder()
    faces = [finder.find(photo.image) for photo in taken]
    assert all(face is not None for face in faces)
    landmarks = [
        steady_landmarks(finder, photo.image, face.box)
        for photo, face in zip(taken, faces, strict=True)
        if face is not None
    ]
    off = np.median(np.abs(errors(landmarks, taken, 64)), axis=0)
    assert (off[:2] < 3).all(), off
    spread = np.ptp(view_angles(np.stack([photo.camera for photo in taken])), axis=0)
    assert (spread > (25, 10)).all(), "there must be something to estimate"


def test_true_landmarks_give_the_camera_that_saw_them(taken: list[Photograph]) -> None:
    off = np.abs(errors([photo.landmarks for photo in taken], taken, 64))
    assert np.median(off[:, 0]) < 0.5 and np.median(off[:, 1]) < 2.5 and np.median(off[:, 3]) < 0.02


def test_pose_does_not_depend_on_the_scale_of_the_photo(taken: list[Photograph]) -> None:
    landmarks = taken[0].landmarks
    small, large = head_pose(landmarks), head_pose(landmarks * 7 + [100, -30])
    np.testing.assert_allclose(large.rotation, small.rotation, atol=1e-5)
    np.testing.assert_allclose(large.focal, small.focal * 7, rtol=1e-5)
    np.testing.assert_allclose(large.centre, small.centre * 7 + [100, -30], atol=1e-3)


@pytest.mark.parametrize("landmarks", [np.zeros((5, 2)), np.zeros((68, 2)), np.full((68, 2), np.nan)])
def test_landmarks_that_are_none_are_refused(landmarks: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected 68 different finite points"):
        head_pose(landmarks)


@pytest.mark.parametrize("yaw", [-25, 0, 25])
def test_the_eg3d_crop_brings_a_face_to_the_place_of_eg3ds(yaw: float) -> None:
    size = 256
    for index in range(3):
        photo = Sitter(draw_virtual_person(3, index)).photograph(Moment(pose=Pose(yaw=yaw, roll=8)), size)
        transform = eg3d_transform(photo.landmarks * 2 + 40, size)  # of another scale and place
        landmarks = (photo.landmarks * 2 + 40) @ transform[:, :2].T + transform[:, 2]
        pose = head_pose(landmarks)
        assert Crop.of(pose, size).problem is None
        camera = pose.published_camera()
        assert camera_problem(camera) is None and camera[16] == FOCAL
        np.testing.assert_allclose(projected(camera, FACE_MIDDLE[None]), [[0.5, 0.5]], atol=0.01)
        assert abs(view_angles(camera)[0] - yaw) < 3
    assert transform[0, 1] == 0, "not turned: the camera is"


def test_a_frontal_standard_head_lands_on_the_points_that_the_identity_crop_expects() -> None:
    landmarks = np.zeros((68, 2))
    points = EG3D_HEAD[:, :2] * [50, -50] + 80
    landmarks[36:42], landmarks[42:48], landmarks[30] = points[:3]
    landmarks[[48, 60]], landmarks[[54, 64]] = points[3], points[4]
    transform = eg3d_transform(landmarks, 512)
    np.testing.assert_allclose((points @ transform[:, :2].T + transform[:, 2] + 0.5) / 512, EG3D_FIVE_POINTS, atol=1e-6)
    scale, offset = eg3d_embedding_crop_map(512)
    crop = (EG3D_FIVE_POINTS * 512 - 0.5 - offset) / scale
    assert np.abs(crop - INSIGHTFACE_TEMPLATE).max() < 7, "of 112 pixels"


@pytest.fixture
def folder(tmp_path: Path, taken: list[Photograph]) -> Path:
    """One person, one timestamp: two photos to train on and one to test on; the first has an age."""
    root = tmp_path / "photos"
    for name, photo in zip(("train/0", "train/1", "test/0"), taken, strict=False):
        path = root / "anna" / "t0" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo.image).save(path)
        path.with_suffix(".json").write_text('{"age": 31.5}')
    return root


def cameras_of(root: Path) -> dict[str, list[float]]:
    found = {}
    for path in sorted(root.rglob("*.json")):
        if "camera" in (values := json.loads(path.read_text())):
            found[path.relative_to(root).as_posix()] = values["camera"]
    return found


def test_cameras_are_written_beside_the_photos_and_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cameras", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "3 cameras written, 0 photos had one" in said and "yaw: median" in said and "EG3D: 4.26" in said
    found = cameras_of(folder)
    assert len(found) == 3 and all(camera_problem(camera) is None for camera in found.values())
    assert json.loads((folder / "anna/t0/train/0.json").read_text())["age"] == 31.5
    before = {photo.path.name: photo.digest for photo in load_folder(folder).identities[0].timestamps[0].train}
    own = look_at(3, 4).tolist()
    (folder / "anna/t0/train/1.json").write_text(json.dumps({"age": 31.5, "camera": own}))
    after = {photo.path.name: photo.digest for photo in load_folder(folder).identities[0].timestamps[0].train}
    assert before["0.png"] == after["0.png"] and before["1.png"] != after["1.png"], "cameras are part of digests"
    assert main(["cameras", str(folder)]) == 0
    assert "0 cameras written, 3 photos had one" in capsys.readouterr().out
    assert cameras_of(folder)["anna/t0/train/1.json"] == own
    assert main(["cameras", str(folder), "--force"]) == 0
    assert cameras_of(folder) == found, "the same photos give the same cameras"


def test_some_photos_with_cameras_are_completed(folder: Path) -> None:
    (folder / "anna/t0/train/1.json").write_text(json.dumps({"age": 31.5, "camera": look_at(3, 4).tolist()}))
    assert main(["check", str(folder), "--no-drift"]) == 1
    assert main(["cameras", str(folder)]) == 0
    assert main(["check", str(folder), "--no-drift"]) == 0


def test_a_photo_whose_face_is_not_found_is_looked_at_where_the_others_have_theirs(
    taken: list[Photograph],
) -> None:
    """Of aligned photos the detector misses one or another: 1 of the 400 of ORL."""
    finder = FaceFinder()
    photos = [photo.image for photo in taken[:5]]
    boxes, again = face_boxes(finder, photos), face_boxes(finder, [*photos, np.full((64, 64, 3), 90, np.uint8)])
    assert boxes is not None and again is not None and face_boxes(finder, photos[:0]) is None
    assert all(np.array_equal(one, other) for one, other in zip(boxes, again, strict=False))
    np.testing.assert_allclose(again[-1], np.median(boxes, axis=0))


def test_a_photo_without_a_face_is_named_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    for path in sorted(folder.rglob("*.png")):
        Image.fromarray(rng.integers(80, 90, (64, 64, 3), np.uint8)).save(path)
    assert main(["cameras", str(folder)]) == 1
    said = capsys.readouterr().out
    assert (
        "anna/t0/test/0.png: no face found, nor in any other photo of this person" in said
        and "nothing was written" in said
    )
    assert not cameras_of(folder)


def test_check_names_a_wrong_camera(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in folder.rglob("*.json"):
        path.write_text(json.dumps({"age": 31.5, "camera": [1.0] * 25}))
    assert main(["check", str(folder), "--no-drift"]) == 1
    assert "anna/t0/train/0.png: camera whose matrix ends in 1, 1, 1, 1; expected 0, 0, 0, 1" in capsys.readouterr().out
