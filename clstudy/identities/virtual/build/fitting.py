"""Finds the head behind a portrait: pose, shape and expression whose landmarks fall on the portrait's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.optimize import least_squares

from clstudy.identities.virtual.build.shapes import Shapes

_FITTED_EXPRESSIONS = [0, 1, 2, 3, 5, 6]
_EYE_DISTANCE = 17.6  # pixels, in an aligned portrait
_SHAPE_PRIOR, _EXPRESSION_PRIOR, _PITCH_PRIOR = 0.3, 1.2, 2.0
_MOST_DEVIATIONS = 3.0


def _trust() -> np.ndarray:
    """Weight of each landmark: the jaw's are the network's guesses, the lips' corners are counted once."""
    trust = np.ones(68)
    trust[:17] = 0.35
    trust[[0, 1, 15, 16]] = 0.15
    trust[17:27] = 0.7
    trust[27:31] = 1.2
    trust[36:48] = 1.3
    trust[[60, 64, 65, 67]] = 0
    return trust


TRUST = _trust()


@dataclass(frozen=True)
class Fit:
    """A head behind a portrait.

    Attributes:
        shape: ``[k]``, in standard deviations.
        points: where every vertex lies in the portrait ``[n, 2]``, corrected so that the landmarks fit exactly.
        facing: ``[n, 3]`` vertices turned as in the portrait.
        rms: pixels between the landmarks before that correction, root mean square.
    """

    shape: np.ndarray
    points: np.ndarray
    facing: np.ndarray
    rms: float


def fit_head(shapes: Shapes, landmarks: np.ndarray) -> Fit:
    """Weak perspective and ``[68, 2]`` landmarks in pixels of an aligned 64 px portrait."""
    count = len(shapes.components)
    at = shapes.landmarks
    mean, components = shapes.mean[at], shapes.components[:, at]
    expressions = shapes.expressions[_FITTED_EXPRESSIONS]
    eyes = landmarks[36:48].mean(0)

    def placed(q: np.ndarray, vertices: np.ndarray) -> np.ndarray:
        turned = vertices @ _rotation(*q[:3]).T
        return np.stack([q[4] + q[3] * turned[:, 0], q[5] - q[3] * turned[:, 1]], axis=1)

    def vertices(q: np.ndarray, base: np.ndarray, axes: np.ndarray, moves: np.ndarray) -> np.ndarray:
        return np.asarray(base + np.tensordot(q[6 : 6 + count], axes, 1) + np.tensordot(q[6 + count :], moves, 1))

    def residuals(q: np.ndarray) -> np.ndarray:
        off = (placed(q, vertices(q, mean, components, expressions[:, at])) - landmarks) * TRUST[:, None]
        shape, expression = q[6 : 6 + count], q[6 + count :]
        return np.concatenate(
            [off.ravel(), _SHAPE_PRIOR * shape, _EXPRESSION_PRIOR * expression, [_PITCH_PRIOR * q[1]]]
        )

    extra = len(expressions)
    start = np.concatenate([[0, 0, 0, _EYE_DISTANCE, *eyes], np.zeros(count), np.full(extra, 0.05)])
    low = [-0.8, -0.6, -0.6, 0.7 * _EYE_DISTANCE, *(eyes - 15), *[-_MOST_DEVIATIONS] * count, *[-0.02] * extra]
    high = [0.8, 0.6, 0.6, 1.5 * _EYE_DISTANCE, *(eyes + 15), *[_MOST_DEVIATIONS] * count, *[0.9] * extra]
    q = least_squares(residuals, start, bounds=(low, high), max_nfev=20).x
    whole = vertices(q, shapes.mean, shapes.components, expressions)
    points = placed(q, whole)
    off = points[at] - landmarks
    used = TRUST > 0
    rms = float(np.sqrt((off[used] ** 2).sum(1).mean()))
    return Fit(q[6 : 6 + count], points - _bend(shapes, points, off), whole @ _rotation(*q[:3]).T, rms)


def _bend(shapes: Shapes, points: np.ndarray, off: np.ndarray) -> np.ndarray:
    """The landmarks' errors as a thin-plate spline over the face, fading out towards the ears."""
    used = np.flatnonzero(TRUST > 0)
    _, first = np.unique(shapes.landmarks[used], return_index=True)
    used = used[first]
    spline = RBFInterpolator(
        points[shapes.landmarks[used]], off[used], smoothing=2.0, kernel="thin_plate_spline", degree=1
    )
    fade = np.clip(1.6 - np.abs(shapes.mean[:, 0]), 0, 1)
    return np.asarray(spline(points) * fade[:, None])


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    return np.asarray(about_z @ about_x @ about_y)
