"""The camera of an aligned photo: turned as the pose says, then zoomed and rolled so that the face lies where it must.

Conventions are EG3D's. The head stands in the origin, looking along +z with y up; the camera looks at it from a
distance of 2.7. A camera is 25 numbers: the camera-to-world matrix (4 x 4, row by row; the camera's x to the right, y
down, z into the picture) and the intrinsics (3 x 3, row by row; focal length and principal point in shares of the
photo's side).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clstudy.faces.alignments import FFHQ_FIVE_POINTS
from clstudy.faces.geometry import FACE_SIZE, aligned_template
from clstudy.identities.virtual.exact import cosine_and_sine, turned
from clstudy.identities.virtual.moment import Pose
from clstudy.registry import Registry

EYE_DISTANCE = 0.1545
"""Length of the unit of the packaged heads: what makes an FFHQ-aligned face as large as in EG3D."""

CENTRE = np.array([0.0, -0.105, -1.0])
"""The point of the head, in eye distances from between the eyes, that stands in the world's origin."""

DISTANCE = 2.7

FRAMINGS: Registry[Callable[[], np.ndarray]] = Registry("framing")
"""Name -> the five points of a frontal face ``[5, 2]`` in shares of the photo's side."""


@FRAMINGS.register("embedded")
def _embedded() -> np.ndarray:
    return np.asarray((aligned_template(FACE_SIZE) + 0.5) / FACE_SIZE)


@FRAMINGS.register("ffhq")
def _ffhq() -> np.ndarray:
    return FFHQ_FIVE_POINTS


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        rotation: world to camera ``[3, 3]``.
        focal: in shares of the photo's side.
        centre: principal point ``[2]``, in the same.
    """

    rotation: np.ndarray
    focal: float
    centre: tuple[float, float]

    def numbers(self) -> np.ndarray:
        """The 25 numbers, float64."""
        pose = np.zeros((4, 4))
        pose[:3, :3] = self.rotation.T
        pose[:3, 3] = -self.rotation[2] * DISTANCE
        pose[3, 3] = 1
        intrinsics = np.array([[self.focal, 0, self.centre[0]], [0, self.focal, self.centre[1]], [0, 0, 1]])
        return np.concatenate([pose.ravel(), intrinsics.ravel()])

    def project(self, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points ``[n, 2]`` in shares of the photo's side and depths ``[n]`` of world points ``[n, 3]``."""
        seen = turned(self.rotation, world)
        depth = seen[..., 2] + DISTANCE
        x = self.focal * seen[..., 0] / depth + self.centre[0]
        y = self.focal * seen[..., 1] / depth + self.centre[1]
        return np.stack([x, y], axis=-1), depth


def to_world(vertices: np.ndarray) -> np.ndarray:
    """World coordinates of points ``[n, 3]`` in eye distances from between the eyes."""
    return np.asarray((vertices - CENTRE) * EYE_DISTANCE)


def head_rotation(pose: Pose) -> np.ndarray:
    """How the head is turned, from its own frame to one that looks into the camera, ``[3, 3]``."""
    cy, sy = cosine_and_sine(pose.yaw)
    cp, sp = cosine_and_sine(pose.pitch)
    return np.array([[cy, 0.0, sy], [sp * sy * -1.0, cp, sp * cy], [-cp * sy, -sp, cp * cy]])


def aligned_camera(pose: Pose, landmarks: np.ndarray, framing: str) -> Camera:
    """The camera that sees the five points of the face where the framing has those of a frontal face, in least squares.

    Args:
        pose: of the head.
        landmarks: ``[68, 3]`` in the world.
        framing: a name in ``FRAMINGS``.

    Raises:
        UserError: an unknown framing.
    """
    upright = head_rotation(pose) * np.array([[1.0], [-1.0], [-1.0]])
    plain, _ = Camera(upright, 1.0, (0.0, 0.0)).project(landmarks)
    scale, cosine, sine, shift = _similarity(_five(plain).tolist(), FRAMINGS[framing]().tolist())
    roll_cosine, roll_sine = cosine_and_sine(pose.roll)
    off_x, off_y = shift[0] - 0.5, shift[1] - 0.5
    centre = (
        pose.zoom * (roll_cosine * off_x - roll_sine * off_y) + 0.5 + pose.shift[0],
        pose.zoom * (roll_sine * off_x + roll_cosine * off_y) + 0.5 + pose.shift[1],
    )
    both_cosine = roll_cosine * cosine - roll_sine * sine
    both_sine = roll_sine * cosine + roll_cosine * sine
    rolled = np.stack(
        [
            both_cosine * upright[0] - both_sine * upright[1],
            both_sine * upright[0] + both_cosine * upright[1],
            upright[2],
        ]
    )
    return Camera(rolled, scale * pose.zoom, centre)


def _five(landmarks: np.ndarray) -> np.ndarray:
    """``faces.geometry.five_points`` of landmarks ``[68, 2]``, in sums of a fixed order."""
    eyes = []
    for start in (36, 42):
        total = landmarks[start]
        for k in range(start + 1, start + 6):
            total = total + landmarks[k]
        eyes.append(total / 6)
    corners = [(landmarks[outer] + landmarks[inner]) / 2 for outer, inner in ((48, 60), (54, 64))]
    return np.stack([*eyes, landmarks[30], *corners])


def _similarity(
    source: list[list[float]], target: list[list[float]]
) -> tuple[float, float, float, tuple[float, float]]:
    """Scale, cosine, sine and shift of the least-squares map, in sums of a fixed order."""
    count = len(source)
    sx, sy, tx, ty = (
        _total([point[axis] for point in points]) / count for points in (source, target) for axis in (0, 1)
    )
    pairs = [((p[0] - sx, p[1] - sy), (q[0] - tx, q[1] - ty)) for p, q in zip(source, target, strict=True)]
    along = _total([p[0] * q[0] + p[1] * q[1] for p, q in pairs])
    across = _total([p[0] * q[1] - p[1] * q[0] for p, q in pairs])
    size = _total([p[0] * p[0] + p[1] * p[1] for p, _ in pairs])
    a, b = along / size, across / size
    scale = float(np.sqrt(a * a + b * b))
    return scale, a / scale, b / scale, (tx - (a * sx - b * sy), ty - (b * sx + a * sy))


def _total(values: list[float]) -> float:
    # not sum(): from Python 3.12 on it compensates rounding, before it does not
    total = 0.0
    for value in values:
        total += value
    return total
