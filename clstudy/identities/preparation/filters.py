"""Decides which frames are worth keeping: measures of a face and limits on them (``selection`` chooses among them).

All measures but ``upsampling`` and the two shares outside are taken on the face alone, at a fixed scale, so that they
are comparable between alignments and sources. The limits come from 154 clean photos (61 frames of a clip of a woman
outside the stretch with a hand in her face, 24 of a man in a car, 9 of a man before a door, 60 ORL photos), 32 frames
with a hand in the face, 33 photos with each of four things pasted on, and 12 photos cropped tightly around a face. Of
all 400 ORL photos 4 % are refused (``tests/identities/test_prepare.py``, marked ``network``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial import ConvexHull

from clstudy.errors import UserError, nearest
from clstudy.faces.alignments import outside_by
from clstudy.faces.face_finder import Face, FaceDetector
from clstudy.faces.geometry import (
    INSIGHTFACE_TEMPLATE,
    MIRRORED_LANDMARKS,
    aligned_template,
    similarity_transform,
    warp,
)

LOOK_SIZE = 64
"""Side of the picture in which two photos are compared, in pixels."""

_PORTRAIT = 128
_PATCH = 9
_SHIFT = 3
_GRID = 100
# (landmarks on one side, their counterparts): the mean of each gives a pair's two points
_SIDES = (
    ((36,), (45,)),
    ((39,), (42,)),
    ((19,), (24,)),
    ((21,), (22,)),
    ((41,), (46,)),
    ((31,), (35,)),
    ((48,), (54,)),
    ((50,), (52,)),
    ((59,), (55,)),
    ((36, 31), (45, 35)),
    ((48, 3), (54, 13)),
    ((48, 6), (54, 10)),
    ((31, 48), (35, 54)),
    ((48, 4), (54, 12)),
    ((33, 49), (33, 53)),
)
_BOXES = ((0.0, 0.0, 0.08), (0.06, 0.0, 0.0), (-0.06, 0.0, 0.0), (0.0, 0.06, 0.0), (0.0, -0.06, 0.0), (0.0, 0.0, -0.05))


@dataclass(frozen=True, kw_only=True)
class FilterSettings:
    """Limits of what is kept, with the measurements behind them (see the module's docstring)."""

    max_upsampling: float = 2.0
    """Photo pixels per source pixel; above it the photo would be mostly interpolation."""

    max_face_outside: float = 0.03
    """Share of the face from brows to chin and cheek to cheek outside the source frame. Photos cropped tightly around a
    face: 0; ORL, whose frames touch chins and cheeks: 99 % below 0.025. Photos cut through the middle of a face have
    0.02 to 0.05, because landmarks are detected in the part that is left; most of those are unsteady."""

    max_outside: float = 0.65
    """Share of the photo outside the source frame, which is filled in (``alignments.aligned_photo``). Photos cropped
    from brows to chin: 0.36 to 0.49 (``embedded``), 0.52 to 0.61 (``ffhq``)."""

    max_yaw: float = 0.25
    """``Face.yaw``: 0 frontal, about 0.5 a profile. Clips: up to 0.18; ORL: 0.27 in the most turned photo."""

    min_sharpness: float = 0.27
    """Of the 64 px face. Sharp photos: 0.39 to 0.47 in clips, from 0.32 in ORL; blurred by 1 px: at most 0.25."""

    min_fine_sharpness: float = 0.20
    """Of the 128 px face, for photos above 96 px. Sharp: from 0.24; blurred by 1 px: at most 0.22."""

    max_unsteadiness: float = 0.045
    """Clean frames and ORL: 99 % below it. Above it: 67 % of the hands over nose or eyes, 84 % of bars over the eyes,
    61 % of bars over the mouth, all photos with one half covered."""

    min_symmetry: float = 0.44
    """Clean frames: 99 % above it, ORL: 98 % (at 0.5, 96 %); a plain side-lit photo: 0.447. Below it or unsteady: nine
    of ten frames of a clip with a hand in the face (at 0.5, all). A hand that lies straight below or across the mouth
    can pass."""

    min_cosine: float = 0.35
    """Identity cosine to the reference: the embedder's equal error rate is at 0.353."""


@dataclass(frozen=True, kw_only=True)
class Measures:
    """The measures that a face is judged by; see ``FilterSettings`` for ranges."""

    upsampling: float
    face_outside: float
    outside: float
    yaw: float
    sharpness: float
    fine_sharpness: float
    unsteadiness: float
    symmetry: float

    def values(self) -> list[float]:
        """The numbers in the order of the fields."""
        return [getattr(self, field.name) for field in fields(self)]


def filter_settings(given: Sequence[str], **others: float) -> FilterSettings:
    """The default limits, except those given as ``NAME=VALUE``.

    Raises:
        UserError: a name is unknown, or a value is not a finite number.
    """
    known = [field.name for field in fields(FilterSettings)]
    for text in given:
        name, _, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if name not in known:
            raise UserError(f"unknown limit {text!r}.{nearest(name, known)} Known: {', '.join(known)}.")
        try:
            others[name] = float(value)
        except ValueError:
            others[name] = math.nan
        if not math.isfinite(others[name]):
            raise UserError(f"limit {text!r}; expected NAME=NUMBER, e.g. max_yaw=0.3")
    return FilterSettings(**others)


Check = tuple[str, Callable[[Measures, FilterSettings, int], bool]]

CHECKS: tuple[Check, ...] = (
    ("too small", lambda face, limits, size: face.upsampling > limits.max_upsampling),
    (
        "cut off",
        lambda face, limits, size: face.face_outside > limits.max_face_outside or face.outside > limits.max_outside,
    ),
    ("turned away", lambda face, limits, size: abs(face.yaw) > limits.max_yaw),
    (
        "blurred",
        lambda face, limits, size: (
            face.sharpness < limits.min_sharpness or (size > 96 and face.fine_sharpness < limits.min_fine_sharpness)
        ),
    ),
    (
        "occluded",
        lambda face, limits, size: (
            not (face.unsteadiness <= limits.max_unsteadiness and face.symmetry >= limits.min_symmetry)
        ),
    ),
)
"""(reason, whether a face is dropped for it), in the order of checking."""


def drop_reason(face: Measures, limits: FilterSettings, size: int) -> str | None:
    """The first reason to drop a face from photos of ``size`` pixels, or None."""
    return next((reason for reason, fails in CHECKS if fails(face, limits, size)), None)


def measure(image: np.ndarray, face: Face, transform: np.ndarray, size: int, detector: FaceDetector) -> Measures:
    """Measure one face.

    Args:
        image: uint8 RGB ``[h, w, 3]``, the source frame.
        transform: map ``[2, 3]`` into the photo.
        size: side of the photo.
        detector: finds the landmarks again in shifted boxes.
    """
    faces = {side: _aligned(image, face, side) for side in (64, _PORTRAIT)}
    return Measures(
        upsampling=float(np.sqrt(abs(np.linalg.det(transform[:, :2])))),
        face_outside=face_outside(image.shape[:2], face.landmarks),
        outside=share_outside(image.shape[:2], transform, size),
        yaw=face.yaw(),
        sharpness=sharpness(faces[64]),
        fine_sharpness=sharpness(faces[_PORTRAIT]),
        unsteadiness=unsteadiness(image, face, detector.landmarks),
        symmetry=symmetry(faces[_PORTRAIT], _moved(face.landmarks, _to_aligned(face, _PORTRAIT))),
    )


def share_outside(shape: tuple[int, ...], transform: np.ndarray, size: int) -> float:
    """Share in [0, 1] of a photo's pixels that come from outside a source frame of ``shape`` (h, w)."""
    return float((outside_by(shape, transform, size) > 0).mean())


def face_outside(shape: tuple[int, ...], landmarks: np.ndarray) -> float:
    """Share in [0, 1] of the landmarks' convex hull outside a frame of ``shape`` (h, w)."""
    low, high = landmarks.min(0), landmarks.max(0)
    places = np.stack(np.meshgrid(*np.linspace(low, high, _GRID).T), -1).reshape(-1, 2)
    hull = ConvexHull(landmarks).equations
    face = places[(places @ hull[:, :2].T + hull[:, 2] <= 0).all(1)]
    return float(((face < -0.5) | (face > np.array(shape[1::-1]) - 0.5)).any(-1).mean())


def sharpness(aligned: np.ndarray) -> float:
    """Share of the face's edges that a slight blur removes, in [0, 1]; independent of contrast.

    Args:
        aligned: uint8 RGB ``[s, s, 3]`` aligned to ``aligned_template(s)``.

    Source of the idea: F. Crété et al., "The blur effect: perception and estimation with a new no-reference perceptual
    blur metric", 2007.
    """
    side = len(aligned)
    grey = _grey(aligned)[int(0.25 * side) : int(0.9 * side), int(0.2 * side) : int(0.8 * side)]
    before, after = (sum(abs(np.diff(p, axis=axis)).sum() for axis in (0, 1)) for p in (grey, gaussian_filter(grey, 1)))
    return float(1 - after / before) if before > 0 else 0.0


def unsteadiness(image: np.ndarray, face: Face, landmarks: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
    """How far brows, eyes, nose and mouth move when detection is repeated, as a share of the eye distance.

    Eight detections: the face's box, six boxes shifted or scaled by 5 to 8 %, and the mirrored picture. Where something
    hides a feature, the network guesses, and guesses differ.
    """
    size = face.box[2:] - face.box[:2]
    found = [face.landmarks]
    for across, down, grow in _BOXES:
        shift = np.array([across, down]) * size
        box = np.concatenate([face.box[:2] + shift - grow * size, face.box[2:] + shift + grow * size])
        found.append(landmarks(image, box))
    last = image.shape[1] - 1
    box = face.box[[2, 1, 0, 3]] * [-1, 1, -1, 1] + [last, 0, last, 0]
    mirrored = landmarks(np.ascontiguousarray(image[:, ::-1]), box)[MIRRORED_LANDMARKS]
    found.append(mirrored * [-1, 1] + [last, 0])
    inner = np.stack(found)[:, 17:]
    spread = np.sqrt(((inner - inner.mean(0)) ** 2).sum(-1).mean(0))
    return float(spread.mean() / np.linalg.norm(face.points[1] - face.points[0]))


def symmetry(portrait: np.ndarray, landmarks: np.ndarray) -> float:
    """How much the left side looks like the right one, in [-1, 1]: a hand or hair on one side lowers it.

    Patches around 15 pairs of points are compared with the mirrored patch of the other side by their correlation (the
    best one within 3 pixels), so that side light counts little; the result is the lower quartile of the 15.

    Args:
        portrait: uint8 RGB ``[128, 128, 3]`` aligned to ``aligned_template(128)``.
        landmarks: ``[68, 2]`` in the portrait.
    """
    grey = gaussian_filter(_grey(portrait), 1.5)
    mirror = grey[:, ::-1]
    last = len(grey) - 1
    found = []
    for one, other in _SIDES:
        x, y = _inside(landmarks[list(one)].mean(0), last)
        across, down = landmarks[list(other)].mean(0)
        mx, my = _inside(np.array([last - np.round(across), down]), last)
        patch = grey[y - _PATCH : y + _PATCH + 1, x - _PATCH : x + _PATCH + 1]
        reach = _PATCH + _SHIFT
        area = mirror[my - reach : my + reach + 1, mx - reach : mx + reach + 1]
        found.append(_correlations(patch, np.lib.stride_tricks.sliding_window_view(area, patch.shape)).max())
    return float(np.quantile(found, 0.25))


def look(image: np.ndarray, face: Face) -> np.ndarray:
    """The face ``[64, 64, 3]`` from brows to chin, the picture in which photos are compared."""
    template = (INSIGHTFACE_TEMPLATE + 0.5) * (LOOK_SIZE / 112) - 0.5
    return warp(image, similarity_transform(face.points, template), LOOK_SIZE)


def faces_only(looks: np.ndarray) -> np.ndarray:
    """Looks ``[n, 64, 64, 3]`` with everything outside the face's oval in grey: the background must not count."""
    y, x = np.mgrid[:LOOK_SIZE, :LOOK_SIZE]
    oval = ((x - 31.5) / 26) ** 2 + ((y - 34) / 34) ** 2 <= 1
    return np.where(oval[None, :, :, None], looks, 128).astype(np.uint8)


def portrait(image: np.ndarray, face: Face) -> np.ndarray:
    """The face aligned to ``aligned_template(128)``: there the identity crop has the photo's own pixels."""
    return _aligned(image, face, _PORTRAIT)


def _to_aligned(face: Face, size: int) -> np.ndarray:
    return similarity_transform(face.points, aligned_template(size))


def _aligned(image: np.ndarray, face: Face, size: int) -> np.ndarray:
    return warp(image, _to_aligned(face, size), size)


def _moved(points: np.ndarray, transform: np.ndarray) -> np.ndarray:
    moved: np.ndarray = points @ transform[:, :2].T + transform[:, 2]
    return moved


def _grey(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert("L"), float)


def _inside(point: np.ndarray, last: int) -> np.ndarray:
    reach = _PATCH + _SHIFT
    return np.clip(np.round(point), reach, last - reach).astype(int)


def _correlations(patch: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Correlation of a patch ``[h, w]`` with each window ``[..., h, w]``; near 0 where one of them is flat."""
    patch = patch - patch.mean()
    windows = windows - windows.mean((-2, -1), keepdims=True)
    product = np.sqrt((patch**2).sum() * (windows**2).sum((-2, -1)))
    correlation: np.ndarray = (patch * windows).sum((-2, -1)) / (product + 1e-3 * patch.size)
    return correlation
