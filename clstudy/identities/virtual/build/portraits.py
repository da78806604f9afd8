"""Portraits to take skin from: clear, frontal, evenly lit DCGAN faces with a free forehead, aligned to 64 px."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clstudy.faces.face_finder import Face
from clstudy.faces.geometry import MIRRORED_LANDMARKS, aligned_template, similarity_transform, warp
from clstudy.identities.dcgan import LATENT_SIZE
from clstudy.identities.people import FaceTools
from clstudy.images import to_unit_range
from clstudy.seeding import derive_rng

_CHUNK = 200
_MIN_SCORE = 0.99
_SCALES = 0.82, 1.2
_MAX_YAW = 0.09
_MAX_ASYMMETRY = 2.0
"""Pixels between the landmarks and their mirror images, root mean square: half-profiles have more."""
_MAX_GAP = 1.3
"""Pixels between the lips: an open mouth has more."""
_SIDES = 0.72, 1.4
"""Brightness of the left cheek over that of the right one."""
_BRIGHTNESS = 0.22, 0.85
MAX_COSINE = 0.45
"""A portrait this similar to one already taken is left out."""


@dataclass(frozen=True)
class Portraits:
    """``photos`` uint8 ``[n, 64, 64, 3]``, ``landmarks`` ``[n, 68, 2]`` in pixels, ``embeddings`` ``[n, 512]``."""

    photos: np.ndarray
    landmarks: np.ndarray
    embeddings: np.ndarray


def draw_portraits(tools: FaceTools, seed: int, draws: int) -> Portraits:
    """The usable faces among ``draws`` DCGAN faces, in the order in which they were drawn."""
    photos: list[np.ndarray] = []
    landmarks: list[np.ndarray] = []
    embeddings: list[np.ndarray] = []
    for chunk in range(draws // _CHUNK):
        latents = derive_rng("virtual portrait", seed, chunk).standard_normal((_CHUNK, LATENT_SIZE))
        for image in tools.source.draw(latents):
            face = tools.finder.find(image)
            if face is None or face.score < _MIN_SCORE:
                continue
            photo, points, scale = _aligned(image, face)
            if not (_SCALES[0] < scale < _SCALES[1] and abs(face.yaw()) < _MAX_YAW and _usable(photo, points)):
                continue
            embedding = tools.embedder(to_unit_range(photo[None]))[0].numpy()
            if embeddings and (np.stack(embeddings) @ embedding).max() > MAX_COSINE:
                continue
            photos.append(photo)
            landmarks.append(points)
            embeddings.append(embedding)
    return Portraits(np.stack(photos), np.stack(landmarks), np.stack(embeddings))


def _aligned(image: np.ndarray, face: Face) -> tuple[np.ndarray, np.ndarray, float]:
    transform = similarity_transform(face.points, aligned_template())
    linear = transform[:, :2]
    points = face.landmarks @ linear.T + transform[:, 2]
    return warp(image, transform, 64), points, float(np.sqrt(np.linalg.det(linear)))


def _usable(photo: np.ndarray, landmarks: np.ndarray) -> bool:
    """Whether an aligned photo is frontal, evenly lit, with closed lips and skin on the forehead and under the eyes."""
    mirrored = landmarks[MIRRORED_LANDMARKS] * [-1, 1]
    back = similarity_transform(mirrored, landmarks)
    off = mirrored @ back[:, :2].T + back[:, 2] - landmarks
    gap = (landmarks[[65, 66, 67], 1] - landmarks[[63, 62, 61], 1]).mean()
    if np.sqrt((off**2).sum(1).mean()) > _MAX_ASYMMETRY or gap > _MAX_GAP:
        return False
    grey = (photo / 255.0) @ [0.3, 0.6, 0.1]
    left, right = grey[30:46, 18:28].mean(), grey[30:46, 36:46].mean()
    if not (_SIDES[0] < left / right < _SIDES[1] and _BRIGHTNESS[0] < (left + right) / 2 < _BRIGHTNESS[1]):
        return False
    return _skin_between(photo, left, right)


def _skin_between(photo: np.ndarray, left: float, right: float) -> bool:
    """Whether forehead and under-eye look like the cheeks: no fringe, cap or dark glasses."""
    light = np.log((photo / 255.0).clip(0.02))
    cheeks = np.concatenate([light[36:44, 19:27].reshape(-1, 3), light[36:44, 37:45].reshape(-1, 3)])
    skin = np.median(cheeks, axis=0)
    forehead = np.median(light[12:20, 22:42].reshape(-1, 3), axis=0)
    under = np.median(np.concatenate([light[33:36, 19:27].reshape(-1, 3), light[33:36, 37:45].reshape(-1, 3)]), axis=0)
    warm = skin[0] - skin[1] > 0.04 and skin[1] - skin[2] > -0.1
    return bool(warm and np.abs(forehead - skin).max() < 0.38 and np.abs(under - skin).max() < 0.3)
