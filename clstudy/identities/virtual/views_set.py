"""The data set ``virtual_views``: virtual people whose every test moment is seen by three cameras at once.

Training photos show the moments of ``virtual_strong`` of the same seed. Of every test moment there are three photos:
its own camera's, and from ``SIDES``. All photos have, besides a photo's truth (``data_set.truth``) without landmarks,
the conditions ``moment`` and ``depth`` (``clstudy.identities.known_geometry``). Depths are known inside the hull of the
landmarks. The same bytes on every machine, as for ``virtual``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.spatial import ConvexHull

from clstudy.errors import UserError
from clstudy.identities.known_geometry import DEPTH, MOMENT
from clstudy.identities.virtual.data_set import Variant, VirtualSettings
from clstudy.identities.virtual.occasions import Frame, Occasion
from clstudy.identities.virtual.person import draw_virtual_person
from clstudy.identities.virtual.photo import Photograph, Sitter

VIEWS_VERSION = 1
"""Increased by hand whenever the photos or their conditions change for given settings, beyond those of ``virtual``."""

SIDES = (-20.0, 20.0)
"""Yaws in degrees of the other cameras of a test moment; their pitch is 0."""

PHOTOS_OF_MOMENT = 1 + len(SIDES)

DEPTH_SIDE = 16

_DEPTH_PLACES = 4


def check_views(settings: VirtualSettings) -> None:
    """Refuse settings that this data set does not have.

    Raises:
        UserError: test photos that are not three of a moment, or a size that depths cannot be computed for.
    """
    if settings.test % PHOTOS_OF_MOMENT:
        raise UserError(
            f"virtual_views data set: test = {settings.test}; expected a multiple of {PHOTOS_OF_MOMENT}, since "
            f"{PHOTOS_OF_MOMENT} cameras take every test moment"
        )
    if settings.image_size % DEPTH_SIDE:
        raise UserError(
            f"virtual_views data set: photos of {settings.image_size} px; expected a multiple of {DEPTH_SIDE} from 64 "
            "to 256"
        )


def _photographed(
    index: int, settings: VirtualSettings
) -> Iterator[tuple[str, Frame, Photograph, dict[str, int | list[float]]]]:
    sitter = Sitter(draw_virtual_person(settings.data_seed, index))
    for t in range(settings.timestamps):
        occasion = Occasion(sitter.person, settings.numbers, settings.data_seed, t)
        for name, moment, frame, taken in _taken(sitter, occasion, settings):
            yield f"t{t:03d}/{name}", frame, taken, {MOMENT: moment, DEPTH: face_depths(taken).ravel().tolist()}


def _taken(
    sitter: Sitter, occasion: Occasion, settings: VirtualSettings
) -> Iterator[tuple[str, int, Frame, Photograph]]:
    """Place of each photo without suffix, number of its moment, its frame as that camera sees it, and the photo."""
    size = settings.image_size
    for number, frame in enumerate(occasion.train(settings.train)):
        yield f"train/{number:03d}", number, frame, sitter.photograph(frame.moment, size)
    for number, frame in enumerate(occasion.test(settings.test // PHOTOS_OF_MOMENT)):
        own = frame.moment.pose
        for turn, pose in enumerate([own, *(replace(own, yaw=side, pitch=0.0) for side in SIDES)]):
            name = f"test/{number * PHOTOS_OF_MOMENT + turn:03d}"
            seen = replace(frame, moment=replace(frame.moment, pose=pose))
            yield name, number, seen, sitter.photograph(frame.moment, size, seen=pose if turn else None)


VARIANT = Variant(
    name="virtual_views", version={"views_version": VIEWS_VERSION}, check=check_views, photographed=_photographed
)


def ray_distances(photo: Photograph, side: int) -> np.ndarray:
    """Distances from the camera along its rays, float64 ``[side, side]``; NaN where any part shows the backdrop."""
    size, camera = len(photo.depth), photo.camera
    centres = (np.arange(size) + 0.5) / size
    x = (centres[None, :] - camera[18]) / camera[16]
    y = (centres[:, None] - camera[21]) / camera[20]
    distances = photo.depth.astype(np.float64) * np.sqrt(1 + x * x + y * y)
    step = size // side
    blocks = distances.reshape(side, step, side, step)
    total = np.zeros((side, side))
    for row in range(step):
        for column in range(step):  # in this order on every machine
            total = total + blocks[:, row, :, column]
    return np.asarray(total / step**2)


def face_depths(photo: Photograph) -> np.ndarray:
    """A photo's condition ``depth``, ``[16, 16]``: known in the hull of its landmarks, where no backdrop is seen."""
    distances = ray_distances(photo, DEPTH_SIDE)
    step = len(photo.depth) / DEPTH_SIDE
    centres = (np.arange(DEPTH_SIDE) + 0.5) * step - 0.5
    inside = _in_hull(photo.landmarks, centres[None, :], centres[:, None])
    return np.where(inside & ~np.isnan(distances), np.round(distances, _DEPTH_PLACES), 0.0)


def _in_hull(points: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which of the places ``(x, y)`` lie in the convex hull of points ``[n, 2]``."""
    corners = points[ConvexHull(points).vertices]  # counterclockwise
    inside = np.ones(np.broadcast(x, y).shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        inside &= (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) >= 0
    return inside
