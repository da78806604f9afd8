"""From which side a photo shows a head, and how large: the packaged head fitted to 68 landmarks.

The head may take another shape and an expression, as far as the packaged people do; what the camera explains and what
the face explains are found together, in least squares. Conventions as in ``clstudy.identities.cameras``.

Sources: V. Blanz, T. Vetter, "A Morphable Model for the Synthesis of 3D Faces" (1999): shape with a Gaussian prior;
R. Hartley, A. Zisserman, "Multiple View Geometry" (2004), chapter 6: the camera that is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import least_squares

from clstudy.identities.cameras import FOCAL, RADIUS
from clstudy.identities.virtual.assets import EXPRESSION_STEPS, POSITION_STEPS, SHAPE_STEPS, virtual_assets
from clstudy.identities.virtual.camera import EYE_DISTANCE, to_world

LANDMARKS = 68

FACE_MIDDLE = np.array([0.0, 0.006, 0.161])
"""The point of the world that lies in the middle of EG3D's photos: the origin of the head they were cropped by."""

_NOISE = 0.02
"""Standard deviation of a landmark, in distances between the eyes. The packaged detector's is larger (0.1), but errors
of neighbours go together; of 0.02 to 0.07 this gave the best angles on virtual people."""

_EXPRESSION = 0.3
"""Standard deviation of an expression's weight."""

_YAW, _PITCH = np.radians(25.0), np.radians(15.0)
"""Standard deviations of how heads are turned in photos."""

_TURNED, _SCALE, _CENTRE = slice(0, 3), 3, slice(4, 6)
_FACE = 6


@dataclass(frozen=True)
class HeadPose:
    """How a head lies in a photo.

    Attributes:
        rotation: world to camera ``[3, 3]``.
        focal: focal length in pixels, for a camera at ``cameras.RADIUS``.
        centre: where the head's middle is seen, in pixels ``[2]``, the centre of the top-left pixel at (0, 0).
        misfit: root mean square distance of the landmarks from those of the fitted head, in distances between the eyes.
    """

    rotation: np.ndarray
    focal: float
    centre: np.ndarray
    misfit: float

    def camera(self, size: int) -> np.ndarray:
        """The camera ``[25]`` of a photo of ``size`` pixels in which the landmarks are, however it was cropped."""
        x, y = (self.centre + 0.5) / size
        return self._camera(self.focal / size, float(x), float(y))

    def published_camera(self) -> np.ndarray:
        """The camera ``[25]`` of a photo cropped by ``eg3d_transform``: turned like the head, with EG3D's intrinsics.

        The crop has brought the face to its place and size, by the head of EG3D's data, which is not quite ours. Like
        its labels, the camera looks at the face's middle and stands at ``RADIUS`` from the origin.
        """
        place = FACE_MIDDLE - self.rotation[2] * RADIUS
        return self._camera(FOCAL, 0.5, 0.5, place * (RADIUS / np.linalg.norm(place)))

    def face_middle(self, size: int) -> np.ndarray:
        """Where ``FACE_MIDDLE`` is seen in a photo of ``size`` pixels, in shares of its side ``[2]``."""
        seen = self.rotation @ FACE_MIDDLE
        return np.asarray((self.centre + 0.5 + self.focal * seen[:2] / (seen[2] + RADIUS)) / size)

    def _camera(self, focal: float, x: float, y: float, place: np.ndarray | None = None) -> np.ndarray:
        pose = np.eye(4)
        pose[:3, :3] = self.rotation.T
        pose[:3, 3] = -self.rotation[2] * RADIUS if place is None else place
        return np.concatenate([pose.ravel(), [focal, 0, x, 0, focal, y, 0, 0, 1]])


@dataclass(frozen=True)
class _Model:
    """Landmarks of the mean head ``[68, 3]`` and directions in which they move ``[d, 68, 3]``, with their spreads."""

    mean: np.ndarray
    directions: np.ndarray
    spreads: np.ndarray


@cache
def _model() -> _Model:
    assets = virtual_assets()
    landmarks = assets["head.landmarks"].astype(np.int64)
    shapes = assets["head.components"][:, landmarks] / SHAPE_STEPS
    expressions = assets["head.expressions"][:, landmarks] / EXPRESSION_STEPS
    return _Model(
        mean=to_world(assets["head.mean"][landmarks] / POSITION_STEPS),
        directions=np.concatenate([shapes, expressions]) * EYE_DISTANCE,
        spreads=np.concatenate([np.ones(len(shapes)), np.full(len(expressions), _EXPRESSION)]),
    )


def head_pose(landmarks: np.ndarray) -> HeadPose:
    """Fit the packaged head to landmarks.

    Args:
        landmarks: ``[68, 2]`` in pixels, iBUG numbering, of a photo of any scale.

    Raises:
        ValueError: not 68 finite points, or all of them in one place.
    """
    points = np.asarray(landmarks, float)
    if points.shape != (LANDMARKS, 2) or not np.isfinite(points).all() or not np.ptp(points, axis=0).all():
        raise ValueError(f"landmarks of shape {points.shape}; expected {LANDMARKS} different finite points")
    model = _model()
    plain = model.mean[:, :2] * [1, -1]
    middle, spread = points.mean(0), np.linalg.norm(points - points.mean(0))
    unit = spread / np.linalg.norm(plain - plain.mean(0))  # pixels per unit of the world, roughly
    eyes = EYE_DISTANCE * unit
    target = (points - middle) / eyes
    start = np.concatenate([[0.0, 0.0, 0.0, np.log(RADIUS / EYE_DISTANCE), 0.0, 0.0], np.zeros(len(model.directions))])

    def residuals(values: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [
                ((_seen(values, model) - target) / _NOISE).ravel(),
                values[_FACE:] / model.spreads,
                values[:2] / (_YAW, _PITCH),
            ]
        )

    found = least_squares(residuals, start, method="lm").x
    off = _seen(found, model) - target
    return HeadPose(
        rotation=_rotation(found[_TURNED]),
        focal=float(np.exp(found[_SCALE]) * eyes),
        centre=found[_CENTRE] * eyes + middle,
        misfit=float(np.sqrt((off**2).sum(1).mean())),
    )


def _seen(values: np.ndarray, model: _Model) -> np.ndarray:
    """The head's landmarks in the picture, in distances between the eyes ``[68, 2]``."""
    points = model.mean + np.tensordot(values[_FACE:], model.directions, 1)
    turned = points @ _rotation(values[_TURNED]).T
    seen: np.ndarray = np.exp(values[_SCALE]) * turned[:, :2] / (turned[:, 2:] + RADIUS) + values[_CENTRE]
    return seen


def _rotation(angles: np.ndarray) -> np.ndarray:
    """World to camera for yaw, pitch and roll in radians."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(angles), np.sin(angles)
    upright = np.array([[cy, 0.0, sy], [sp * sy, -cp, -sp * cy], [cp * sy, sp, -cp * cy]])
    return np.asarray(np.array([[cr, -sr, 0.0], [sr, cr, 0.0], [0.0, 0.0, 1.0]]) @ upright)
