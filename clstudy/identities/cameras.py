"""Cameras of photos: 25 numbers, checked, mirrored, and made for a view.

Conventions are EG3D's (E. Chan et al., 2112.07945): a head stands in the world's origin, looking along +z with y up; a
camera is its camera-to-world matrix (4 x 4, row by row; x to the right, y down, z into the picture), then its
intrinsics (3 x 3, row by row; focal length and principal point in shares of the photo's side).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CAMERA = "camera"
"""Name of the condition that holds a photo's camera."""

NUMBERS = 25

RADIUS = 2.7
"""Distance of the camera from the head, in EG3D's units."""

FOCAL = 4.2647
"""Focal length of EG3D's face photos, in shares of the photo's side: a field of view of 13.4 degrees."""

_NEAREST, _FARTHEST = 2.0, 3.5
_SHORTEST, _LONGEST = 1.5, 12.0
_MOST_SKEW = 0.05
_MOST_OFF = 0.5
"""How far the line of sight may pass by the origin; a face is about 0.3 wide."""

_TOLERANCE = 2e-3
"""Of a rotation's orthonormality: the published labels are float32."""


def camera_problem(numbers: Sequence[float] | np.ndarray) -> str | None:
    """What is wrong with a camera, as one sentence; None: nothing."""
    values = np.asarray(numbers, float)
    if values.shape != (NUMBERS,) or not np.isfinite(values).all():
        return (
            f"camera of {values.size} numbers; expected {NUMBERS} finite ones: 4 x 4 camera to world, 3 x 3 intrinsics"
        )
    pose, intrinsics = values[:16].reshape(4, 4), values[16:].reshape(3, 3)
    return _pose_problem(pose) or _intrinsics_problem(intrinsics)


def _pose_problem(pose: np.ndarray) -> str | None:
    rotation, place = pose[:3, :3], pose[:3, 3]
    if np.abs(pose[3] - [0, 0, 0, 1]).max() > _TOLERANCE:
        return f"camera whose matrix ends in {_shown(pose[3])}; expected 0, 0, 0, 1 (camera to world, row by row)"
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > _TOLERANCE:
        return "camera whose matrix does not turn: expected a rotation with rows of length 1 at right angles"
    if np.linalg.det(rotation) < 0:
        return "camera whose matrix mirrors: expected x to the right, y down, z into the picture"
    distance = float(np.linalg.norm(place))
    if not _NEAREST <= distance <= _FARTHEST:
        return (
            f"camera {distance:.3g} away from the head; expected about {RADIUS} ({_NEAREST} to {_FARTHEST}), in EG3D's "
            "units"
        )
    along = float(-place @ rotation[:, 2])
    if along <= 0 or distance**2 - along**2 > _MOST_OFF**2:
        return "camera that does not look at the head: expected its third column to point to the origin"
    return None


def _intrinsics_problem(intrinsics: np.ndarray) -> str | None:
    if np.abs(intrinsics[2] - [0, 0, 1]).max() > _TOLERANCE or abs(intrinsics[1, 0]) > _TOLERANCE:
        return f"camera whose intrinsics are {_shown(intrinsics.ravel())}; expected fx, skew, cx, 0, fy, cy, 0, 0, 1"
    for name, value in (("horizontal", intrinsics[0, 0]), ("vertical", intrinsics[1, 1])):
        if not _SHORTEST <= value <= _LONGEST:
            return (
                f"camera with a {name} focal length of {value:.4g}; expected {_SHORTEST} to {_LONGEST} (of the photo's "
                f"side, not pixels; EG3D: {FOCAL})"
            )
    if abs(intrinsics[0, 1]) > _MOST_SKEW:
        return f"camera with a skew of {intrinsics[0, 1]:.4g}; expected about 0"
    centre = intrinsics[:2, 2]
    if (centre < 0).any() or (centre > 1).any():
        return (
            f"camera whose principal point is {_shown(centre)}; expected it in the photo (shares of its side, 0 to 1)"
        )
    return None


def _shown(numbers: np.ndarray) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)


def look_at(
    yaw: float,
    pitch: float,
    *,
    radius: float = RADIUS,
    pivot: Sequence[float] = (0.0, 0.0, 0.0),
    focal: float = FOCAL,
    centre: Sequence[float] = (0.5, 0.5),
) -> np.ndarray:
    """A camera that looks at a point from a side, upright, ``[25]``.

    Args:
        yaw: degrees; positive: the head is seen turned to the picture's right.
        pitch: degrees; positive: the head is seen turned up.
        radius: distance from the origin.
        pivot: the point in the world that lies in the middle of the picture.
        focal: focal length in shares of the photo's side.
        centre: principal point, in the same.
    """
    across, up = np.radians(yaw), np.radians(pitch)
    place = radius * np.array([-np.sin(across) * np.cos(up), -np.sin(up), np.cos(across) * np.cos(up)])
    forward = np.asarray(pivot, float) - place
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.column_stack([right, np.cross(forward, right), forward, place])
    intrinsics = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
    return np.concatenate([pose.ravel(), intrinsics.ravel()])


def view_angles(cameras: np.ndarray) -> np.ndarray:
    """Yaw and pitch in degrees ``[..., 2]``, as ``look_at`` takes them, of cameras ``[..., 25]``."""
    place = cameras[..., [3, 7, 11]]
    yaw = np.arctan2(-place[..., 0], place[..., 2])
    pitch = np.arcsin(-place[..., 1] / np.linalg.norm(place, axis=-1))
    angles: np.ndarray = np.degrees(np.stack([yaw, pitch], axis=-1))
    return angles


def mirrored(cameras: np.ndarray) -> np.ndarray:
    """Cameras ``[..., 25]`` of mirrored photos: the world mirrored in x, and the camera's x turned back."""
    flipped = np.array(cameras)
    for index in (1, 2, 3, 4, 8):  # entries of the pose with one x in row and column
        flipped[..., index] *= -1
    flipped[..., 17] *= -1  # skew
    flipped[..., 18] = 1 - flipped[..., 18]  # principal point
    return flipped
