"""Points of a face and the maps between photos: templates, similarity transforms, resampling.

Conventions: images are uint8 RGB arrays ``[h, w, 3]``; points are ``(x, y)`` in pixels with the centre of the
top-left pixel at (0, 0).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

FACE_SIZE = 64
"""Side of an aligned photo of the embedded profile, in pixels."""

INSIGHTFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""The customary five points (eyes, nose tip, mouth corners) in a 112x112 ArcFace crop (InsightFace)."""

MIRRORED_LANDMARKS = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    + [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)
"""Landmark of the mirrored face for each of the 68, ``[68]``."""

_CROP_SCALE = 0.5
_CROP_CENTRE = np.array([56.0, 72.0])
_FACE_CENTRE = np.array([31.5, 39.0])


def aligned_template(size: int = FACE_SIZE) -> np.ndarray:
    """Five points ``[5, 2]`` in an aligned photo of ``size`` pixels.

    A scaled and shifted copy of the ArcFace template that leaves room for hair and chin, so that the identity
    crop of an aligned photo is one fixed affine map (``embedding_crop_map``).
    """
    points = (INSIGHTFACE_TEMPLATE - _CROP_CENTRE) * _CROP_SCALE + _FACE_CENTRE
    scaled: np.ndarray = (points + 0.5) * (size / FACE_SIZE) - 0.5
    return scaled


def embedding_crop_map(size: int = FACE_SIZE) -> tuple[float, np.ndarray]:
    """Return ``(scale, offset)`` with photo_xy = crop_xy * scale + offset for a photo of ``size`` pixels."""
    ratio = size / FACE_SIZE
    scale = _CROP_SCALE * ratio
    offset = (_FACE_CENTRE - _CROP_CENTRE * _CROP_SCALE + 0.5) * ratio - 0.5
    return scale, offset


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares rotation, scale and shift ``[2, 3]`` that maps source points ``[n, 2]`` to target points.

    Source: S. Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991.
    """
    source_mean, target_mean = source.mean(0), target.mean(0)
    source_centred, target_centred = source - source_mean, target - target_mean
    u, singular, vt = np.linalg.svd(target_centred.T @ source_centred / len(source))
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (singular * sign).sum() / source_centred.var(0).sum()
    linear = scale * rotation
    return np.hstack([linear, (target_mean - linear @ source_mean)[:, None]])


def warp(
    image: np.ndarray, transform: np.ndarray, size: int, *, beyond: Literal["edge", "reflect"] = "edge"
) -> np.ndarray:
    """Resample ``image`` so that its point p lands at ``transform @ p``.

    Shrinking goes through a reduced copy first, because a bicubic lookup alone would alias.

    Args:
        beyond: what lies outside the image: its edge continued, or the image mirrored there.
    """
    linear, shift = transform[:, :2], transform[:, 2]
    scale = np.sqrt(abs(np.linalg.det(linear)))
    if scale < 0.5:
        factor = int(0.75 / scale) or 1
        height, width = (image.shape[0] // factor) * factor, (image.shape[1] // factor) * factor
        image = np.asarray(Image.fromarray(image[:height, :width]).reduce(factor))
        # old pixel centre p lies at (p + 0.5) / factor - 0.5 in the reduced image
        linear = linear * factor
        shift = shift + (transform[:, :2] @ np.full(2, (factor - 1) / 2))
    inverse = np.linalg.inv(linear)
    corners = np.array([[-0.5, -0.5], [size - 0.5, -0.5], [-0.5, size - 0.5], [size - 0.5, size - 0.5]])
    reach = (corners - shift) @ inverse.T
    far = max(-reach.min(), (reach - (np.array(image.shape[1::-1]) - 1)).max(), 0)
    pad = int(min(np.ceil(far) + 3, 4 * max(image.shape[:2])))
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=beyond)
    # PIL samples at (x + 0.5) in continuous coordinates; ours has pixel centres at integers
    offset = pad + 0.5 + inverse @ (-0.5 - shift)
    data = (inverse[0, 0], inverse[0, 1], offset[0], inverse[1, 0], inverse[1, 1], offset[1])
    out = Image.fromarray(padded).transform((size, size), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
    return np.asarray(out)


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eyes, nose tip and mouth corners ``[5, 2]`` of 68 landmarks ``[68, 2]`` (the iBUG numbering)."""
    return np.stack(
        [
            landmarks[36:42].mean(0),
            landmarks[42:48].mean(0),
            landmarks[30],
            landmarks[[48, 60]].mean(0),
            landmarks[[54, 64]].mean(0),
        ]
    )
