"""Estimates the cameras of a photo folder's photos and writes them beside the photos.

Landmarks are found in every aligned photo, the packaged head is fitted to them (``head_pose``), and the camera becomes
the condition ``camera`` in the photo's sidecar. Measured on virtual people, whose cameras are known:
``python -m benchmarks.cameras``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clstudy.errors import UserError
from clstudy.faces.face_finder import FaceFinder
from clstudy.faces.geometry import MIRRORED_LANDMARKS
from clstudy.identities.cameras import CAMERA, FOCAL, camera_problem, view_angles
from clstudy.identities.check import alignment_of, inspect_folder
from clstudy.identities.conditions import read_sidecar
from clstudy.identities.dataset import data_set_of
from clstudy.identities.head_pose import HeadPose, head_pose
from clstudy.storage.places import write_atomically

_BOXES = ((0.0, 0.0, 0.0), (-0.05, 0.0, 0.0), (0.05, 0.0, 0.0), (0.0, -0.05, 0.0), (0.0, 0.05, 0.0), (0.0, 0.0, 0.06))
"""Shifts right and down, and growth, of the boxes in which landmarks are found, in shares of the box."""

_LARGEST_MISFIT = 0.2
"""In distances between the eyes; on virtual people the median is 0.03 and the largest 0.06."""

_PLACES = 6


@dataclass(frozen=True)
class Crop:
    """How far a photo's crop is from that of EG3D's photos.

    Attributes:
        focal: focal length, in shares of the photo's side; EG3D's is ``cameras.FOCAL``.
        centre: where the face's middle is seen, in shares of the side ``(x, y)``; EG3D's is (0.5, 0.5).
    """

    focal: float
    centre: tuple[float, float]

    @classmethod
    def of(cls, pose: HeadPose, size: int) -> Crop:
        """Of a photo of ``size`` pixels."""
        x, y = pose.face_middle(size)
        return cls(pose.focal / size, (float(x), float(y)))

    @property
    def problem(self) -> str | None:
        """A sentence if an EG3D pretrained on such crops would not recognise the face's place or size."""
        scale = self.focal / FOCAL
        off = max(abs(self.centre[0] - 0.5), abs(self.centre[1] - 0.5))
        if 1 / _MOST_SCALE <= scale <= _MOST_SCALE and off <= _MOST_OFF:
            return None
        return (
            f"faces {scale:.2f} times as large as in EG3D's photos, {off:.2f} of the side off the middle; expected at "
            f"most {_MOST_SCALE:g} times and {_MOST_OFF:g}"
        )


_MOST_SCALE, _MOST_OFF = 1.25, 0.12


@dataclass(frozen=True)
class EstimatedCameras:
    """What was found for the photos of a folder.

    Attributes:
        cameras: photo -> camera ``[25]``; those that were estimated now.
        crops: photo -> how its crop differs from that of EG3D's photos.
        kept: how many photos had a camera already.
        unclear: photo -> why no camera could be estimated.
    """

    cameras: Mapping[Path, np.ndarray]
    crops: Mapping[Path, Crop]
    kept: int
    unclear: Mapping[Path, str]

    def angles(self) -> np.ndarray:
        """Yaw and pitch ``[n, 2]`` in degrees of the estimated cameras."""
        return view_angles(np.stack(list(self.cameras.values())))

    def crop(self) -> Crop:
        """The median crop."""
        focal, x, y = np.median([(crop.focal, *crop.centre) for crop in self.crops.values()], axis=0)
        return Crop(float(focal), (float(x), float(y)))


def steady_landmarks(finder: FaceFinder, photo: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Landmarks ``[68, 2]`` of a face: the mean over slightly different boxes, in the photo and its mirror image.

    Args:
        finder: finds them within a box.
        photo: uint8 ``[h, w, 3]``.
        place: box of the face (x0, y0, x1, y1).
    """
    width = photo.shape[1]
    flipped = np.ascontiguousarray(photo[:, ::-1])
    found = []
    for right, down, grown in _BOXES:
        side = np.array([place[2] - place[0], place[3] - place[1]] * 2)
        box = place + side * np.array([right - grown, down - grown, right + grown, down + grown])
        found.append(finder.landmarks(photo, box))
        other = finder.landmarks(flipped, np.array([width - box[2], box[1], width - box[0], box[3]]))
        found.append(np.stack([width - other[:, 0], other[:, 1]], axis=1)[MIRRORED_LANDMARKS])
    return np.asarray(np.mean(found, axis=0))


def face_boxes(finder: FaceFinder, photos: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """A box of the face for every aligned photo; None if no face is found in any.

    A photo in which none is found has its face where the others have theirs: their median box.
    """
    found = [finder.find(photo) for photo in photos]
    boxes = [face.box for face in found if face is not None]
    if not boxes:
        return None
    usual = np.median(boxes, axis=0)
    return [usual if face is None else face.box for face in found]


def estimate_cameras(
    root: Path, *, image_size: int, force: bool = False, say: Callable[[str], None] = lambda line: None
) -> EstimatedCameras:
    """Estimate and write the cameras of all photos below ``root``; if one is unclear, nothing is written.

    Args:
        root: a photo folder without problems.
        image_size: side of its photos in pixels.
        force: estimate cameras of photos that have one, too.
        say: called with the name of each person before their photos.

    Raises:
        UserError: the folder has problems, or a sidecar cannot be written.
    """
    inspection = inspect_folder(root, image_size=image_size)
    # a folder of which only some photos have cameras is what this command mends
    problems = [problem for problem in inspection.problems if f"no condition {CAMERA!r}" not in problem]
    if problems:
        raise UserError(
            f"data folder {str(root)!r} has {len(problems)} problem(s), the first: {problems[0]}; mend them first: "
            f"python -m clstudy.identities check {root} --size {image_size}"
        )
    finder = FaceFinder()
    published = alignment_of(root, image_size) == "eg3d"
    cameras: dict[Path, np.ndarray] = {}
    crops: dict[Path, Crop] = {}
    unclear: dict[Path, str] = {}
    kept = 0
    for identity in data_set_of(inspection).identities:
        say(identity.name)
        photos = [photo for stamp in identity.timestamps for photo in (*stamp.train, *stamp.test)]
        todo = [photo for photo in photos if force or CAMERA not in photo.conditions]
        kept += len(photos) - len(todo)
        images = [photo.read(image_size) for photo in todo]
        boxes = face_boxes(finder, images)
        if boxes is None:
            unclear |= {photo.path: "no face found, nor in any other photo of this person" for photo in todo}
            continue
        for photo, image, box in zip(todo, images, boxes, strict=True):
            pose = head_pose(steady_landmarks(finder, image, box))
            if problem := _problem(pose, image_size):
                unclear[photo.path] = problem
                continue
            crops[photo.path] = Crop.of(pose, image_size)
            cameras[photo.path] = pose.published_camera() if published else pose.camera(image_size)
    if not unclear:
        for path, camera in cameras.items():
            _write(path, camera)
    return EstimatedCameras(cameras, crops, kept, unclear)


def _problem(pose: HeadPose, size: int) -> str:
    """Why a photo of ``size`` pixels gets no camera; empty if it gets one."""
    if pose.misfit > _LARGEST_MISFIT:
        return f"landmarks {pose.misfit:.2f} eye distances off any face; expected at most {_LARGEST_MISFIT}"
    return camera_problem(pose.camera(size)) or ""


def _write(photo: Path, camera: Sequence[float] | np.ndarray) -> None:
    """Add the camera to the photo's own sidecar; other conditions stay."""
    sidecar = photo.with_suffix(".json")
    values = {
        name: numbers[0] if len(numbers) == 1 else list(numbers)
        for name, numbers in read_sidecar(sidecar).values.items()
    }
    values[CAMERA] = [round(float(number), _PLACES) for number in camera]
    try:
        write_atomically(sidecar, (json.dumps(values) + "\n").encode())
    except OSError as error:
        raise UserError(f"{sidecar}: cannot be written ({error.strerror}); mend the folder's permissions") from error
