"""Where a face lies in an aligned photo: our own template, as in FFHQ (StyleGAN2), or as in EG3D's crops of FFHQ.

The identity crop must fit the alignment: each one has a fixed map from the embedder's 112 px crop into the photo
(``embedding_crop_map``, ``ffhq_embedding_crop_map``, ``eg3d_embedding_crop_map``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.ndimage import gaussian_filter

from clstudy.faces.geometry import INSIGHTFACE_TEMPLATE, aligned_template, five_points, similarity_transform, warp

FFHQ_FIVE_POINTS = np.array([[0.378, 0.474], [0.622, 0.474], [0.500, 0.610], [0.400, 0.733], [0.600, 0.733]])
"""Eyes, nose tip and mouth corners of the mean face in an FFHQ-aligned photo, as shares of its side.

Measured: the 400 ORL photos aligned by ``ffhq_transform``, averaged with their mirror images. Standard deviations:
eyes 0.005, mouth 0.010 across and 0.018 down, nose 0.03. Three video clips of other people give the same eyes within
0.003 and the same mouth within 0.017.
"""


def ffhq_transform(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Map ``[2, 3]`` from source pixels into an FFHQ-aligned photo of ``size`` pixels.

    The photo is a square turned like the face. Its horizontal axis is the mean of the direction from eye to eye and of
    the perpendicular to eyes-to-mouth, each weighted by its length; its half side is the larger of 2.0 eye distances
    and 1.8 eye-to-mouth distances; its centre lies a tenth of the way from the eyes to the mouth.

    Args:
        landmarks: ``[68, 2]``, iBUG numbering.
        size: side of the photo in pixels.

    Source: T. Karras, S. Laine, T. Aila, "A Style-Based Generator Architecture for Generative Adversarial Networks"
    (1812.04948), appendix C.
    """
    left, right = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    eyes, mouth = (left + right) / 2, (landmarks[48] + landmarks[54]) / 2
    across, down = right - left, mouth - eyes
    direction = across + np.array([down[1], -down[0]])
    direction /= np.hypot(*direction)
    half_side = max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down))
    centre = eyes + 0.1 * down
    linear = np.array([direction, [-direction[1], direction[0]]]) * (size / (2 * half_side))
    middle = np.full(2, (size - 1) / 2)
    return np.hstack([linear, (middle - linear @ centre)[:, None]])


def ffhq_template(size: int) -> np.ndarray:
    """Five points ``[5, 2]`` of the mean face in an FFHQ-aligned photo, in pixels."""
    return FFHQ_FIVE_POINTS * size - 0.5


def ffhq_embedding_crop_map(size: int) -> tuple[float, np.ndarray]:
    """Return ``(scale, offset)`` with photo_xy = crop_xy * scale + offset for an FFHQ-aligned photo of ``size`` pixels.

    Least squares between the ArcFace template and the mean face, without turning. The fit leaves the points within
    0.01 of the photo's side.
    """
    return _upright_fit(ffhq_template(size))


def _upright_fit(target: np.ndarray) -> tuple[float, np.ndarray]:
    """Scale and offset of the ArcFace template onto five points ``[5, 2]``, in least squares and without turning."""
    crop_mean, photo_mean = INSIGHTFACE_TEMPLATE.mean(0), target.mean(0)
    crop, photo = INSIGHTFACE_TEMPLATE - crop_mean, target - photo_mean
    scale = float((crop * photo).sum() / (crop * crop).sum())
    return scale, photo_mean - crop_mean * scale


EG3D_HEAD = np.array(
    [
        [-0.31148657, 0.09036078, 0.13377953],
        [0.30979887, 0.08972035, 0.13179526],
        [0.0032535, -0.24617933, 0.55244243],
        [-0.25216928, -0.5813392, 0.22405732],
        [0.2484662, -0.5812824, 0.22235769],
    ]
)
"""Eyes, nose tip and mouth corners of the head by which EG3D's photos were cropped, y up (Y. Deng et al., "Accurate 3D
Face Reconstruction with Weakly-Supervised Learning", 1903.08527)."""

EG3D_UNIT = 300 / 700
"""Share of the photo's side that a unit of that head takes: it was scaled to 300 pixels of a crop of 700."""

EG3D_FIVE_POINTS = 0.5 + EG3D_HEAD[:, :2] * [EG3D_UNIT, -EG3D_UNIT]
"""Eyes, nose tip and mouth corners of a frontal face in an EG3D photo, as shares of its side."""


def eg3d_transform(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Map ``[2, 3]`` from source pixels into a photo of ``size`` pixels, cropped like those EG3D was trained on.

    Scaled and shifted, but not turned: from where a face is seen is the camera's affair. Scale and place are those of
    the weak-perspective projection that brings a standard head's five points onto the face's, in least squares.

    Args:
        landmarks: ``[68, 2]``, iBUG numbering.
        size: side of the photo in pixels.

    Source: E. Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks" (EG3D, 2112.07945), data of
    FFHQ; Y. Deng et al. (1903.08527), for the crop.
    """
    points = five_points(landmarks)
    points[3:] = landmarks[[48, 54]]
    head = np.hstack([EG3D_HEAD, np.ones((5, 1))])
    rows, *_ = np.linalg.lstsq(head, points, rcond=None)  # [4, 2]: how each axis of the head is seen, and its middle
    unit = np.linalg.norm(rows[:3], axis=0).mean()
    scale = EG3D_UNIT * size / unit
    middle = np.full(2, (size - 1) / 2)
    return np.hstack([scale * np.eye(2), (middle - scale * rows[3])[:, None]])


def eg3d_embedding_crop_map(size: int) -> tuple[float, np.ndarray]:
    """Return ``(scale, offset)`` with photo_xy = crop_xy * scale + offset for an EG3D photo of ``size`` pixels."""
    return _upright_fit(EG3D_FIVE_POINTS * size - 0.5)


def embedded_transform(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Map ``[2, 3]`` from source pixels into a photo of the embedded profile: five points onto ``aligned_template``."""
    return similarity_transform(five_points(landmarks), aligned_template(size))


_BLUR, _FADE = 0.02, 0.3  # as shares of the photo's side


def aligned_photo(image: np.ndarray, transform: np.ndarray, size: int) -> np.ndarray:
    """Photo uint8 ``[size, size, 3]`` of a frame ``[h, w, 3]``; what lies outside the frame is filled in.

    Outside, the frame is mirrored, blurred, and fades into the photo's median colour, so that a tight crop gets no
    streaks and no second face. FFHQ's recipe blurs the frame's rim, too; here every photographed pixel is kept.

    Args:
        transform: map ``[2, 3]`` from source pixels into the photo.

    Source: T. Karras, S. Laine, T. Aila (1812.04948), appendix C: mirrored padding and blurring.
    """
    photo = warp(image, transform, size, beyond="reflect")
    beyond = outside_by(image.shape[:2], transform, size)
    if not beyond.any():
        return photo
    depth = beyond / max(beyond.max(), _FADE * size)
    pixels = photo.astype(float)
    median = np.median(pixels[beyond == 0] if (beyond == 0).any() else pixels.reshape(-1, 3), axis=0)
    blurred = gaussian_filter(pixels, (_BLUR * size, _BLUR * size, 0), mode="nearest")
    pixels += (blurred - pixels) * np.minimum(3 * depth, 1)[..., None]
    pixels += (median - pixels) * depth[..., None]
    return np.where(beyond[..., None] > 0, pixels.round().clip(0, 255), photo).astype(np.uint8)


def outside_by(shape: tuple[int, ...], transform: np.ndarray, size: int) -> np.ndarray:
    """How far each of a photo's pixels lies outside a frame of ``shape`` (h, w), in photo pixels ``[size, size]``."""
    y, x = np.mgrid[:size, :size]
    source = (np.stack([x, y], -1) - transform[:, 2]) @ np.linalg.inv(transform[:, :2]).T
    last = np.array(shape[1::-1]) - 0.5
    away = np.maximum(np.maximum(-0.5 - source, source - last), 0)
    return np.asarray(np.hypot(away[..., 0], away[..., 1]) * np.sqrt(abs(np.linalg.det(transform[:, :2]))))


TRANSFORMS: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "embedded": embedded_transform,
    "ffhq": ffhq_transform,
    "eg3d": eg3d_transform,
}
"""Alignment, as in ``prepared.json`` -> function of (landmarks ``[68, 2]``, size) that returns the map ``[2, 3]``."""


def usual_alignment(size: int) -> str:
    """``embedded`` for the 64 px of the embedded profile, ``ffhq`` for anything larger."""
    return "embedded" if size <= 64 else "ffhq"
