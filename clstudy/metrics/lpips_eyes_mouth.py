"""LPIPS of the eyes and the mouth alone, which matter most for recognising a face.

Their positions are determined once, in the *target* photo, and used for every image that is compared with it; nothing
is detected in a generated image, and no image is dropped. The packaged landmark network gets one fixed box, since
aligned faces lie where their alignment puts them. A region follows its landmarks unless they lie implausibly far from
where the alignment has them (``MOST_SHIFT``).

Measured at 64 px: on the 400 ORL photos the regions lie 0.4 px from those of the detector's own box on average and 2.9
px at most, in either alignment; no landmark of these or of 72 synthetic photos reaches ``MOST_SHIFT`` (at most 9.6 of
12). Against an equally large mean square error in hair and background, LPIPS rates shut eyes as the smaller change in
22 of 24 ORL photos (0.032 against 0.075), this metric in none (0.14 against 0.0001).

Lengths are pixels of the 112 px ArcFace crop, which every alignment maps into its photos, so the regions fit every
alignment and photo size.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clstudy.faces.embedding import ALIGNMENTS, resampling_weights
from clstudy.faces.face_finder import FaceFinder
from clstudy.faces.geometry import INSIGHTFACE_TEMPLATE
from clstudy.images import to_uint8
from clstudy.metrics.base import METRICS, Metric, MetricSettings
from clstudy.metrics.lpips import LPIPS, Features

FACE_BOX = np.array([14.5, 8.6, 97.5, 120.6])
"""Box (x0, y0, x1, y1) for the landmark network: the packaged detector's mean box on the 400 ORL photos."""

REGION_SIDES = np.array([28.0, 28.0, 44.0])
"""Sides of the square regions of the left eye, the right eye and the mouth: about twice an eye, 1.5 times a mouth."""

MOST_SHIFT = 12.0
"""A region whose landmarks lie further than this from the alignment's own place, a third of the distance between the
eyes, stays at the alignment's place."""

CROP = 64
"""Side in pixels of the regions as LPIPS sees them. In a 64 px photo an eye is 7 px wide, less than two cells of
AlexNet's first feature map; here it is half of the crop."""


class Regions(NamedTuple):
    """The three regions of one photo: how they are resampled, rows and columns ``[3, 64, s]``, and their features."""

    rows: Tensor
    columns: Tensor
    features: Features


def region_centres(photo: np.ndarray, finder: FaceFinder, *, alignment: str) -> tuple[np.ndarray, np.ndarray]:
    """Centres ``[3, 2]`` (x, y) of the eyes' and the mouth's regions in an aligned photo uint8 ``[s, s, 3]``.

    Returns:
        The centres in pixels of the photo, and which of them ``[3]`` are the alignment's defaults because the landmarks
        lie too far from these.
    """
    scale, offset = ALIGNMENTS[alignment](photo.shape[1])
    landmarks = finder.landmarks(photo, FACE_BOX * scale + np.tile(offset, 2))
    found = np.stack([landmarks[36:42].mean(0), landmarks[42:48].mean(0), landmarks[[48, 54]].mean(0)])
    usual = np.stack([*INSIGHTFACE_TEMPLATE[:2], INSIGHTFACE_TEMPLATE[3:].mean(0)]) * scale + offset
    # written so that landmarks that are not finite count as far
    far = ~(np.hypot(*(found - usual).T) <= MOST_SHIFT * scale)
    return np.where(far[:, None], usual, found), far


@METRICS.register("lpips_eyes_mouth")
class EyesMouthMetric(Metric):
    """Mean LPIPS of three square crops, enlarged or reduced to 64 px: left eye, right eye, mouth."""

    name = "lpips_eyes_mouth"
    higher_is_better = False
    title = "LPIPS of eyes and mouth"
    unit = "distance"
    bounds = (0.0, float("inf"))
    description = "LPIPS of a reconstruction's eyes and mouth, by the test photo's landmarks, lower is better"

    def __init__(self, settings: MetricSettings | None = None):
        super().__init__(settings)
        ALIGNMENTS[self.settings.alignment]  # raises here if it is unknown
        self._net = LPIPS().to(self.settings.device)

    @cached_property
    def _finder(self) -> FaceFinder:
        return FaceFinder(threads=self.settings.threads)

    @torch.no_grad()
    def prepare(self, targets: Tensor) -> tuple[Regions, ...]:
        photos = to_uint8(targets)
        return tuple(map(self._regions, targets.to(self.settings.device), photos))

    @torch.no_grad()
    def pairs(self, images: Tensor, prepared: tuple[Regions, ...]) -> Tensor:
        # One image at a time: its value must not depend on what else is in the batch, to the last bit.
        values = torch.zeros(len(images))
        for index, (image, of_photo) in enumerate(zip(images.to(self.settings.device), prepared, strict=True)):
            features = self._net.features(region_crops(image, of_photo.rows, of_photo.columns))
            values[index] = self._net.distance(features, of_photo.features).mean()
        return values

    def _regions(self, target: Tensor, photo: np.ndarray) -> Regions:
        """The regions of one target photo, given as ``[3, s, s]`` on the device and as uint8 ``[s, s, 3]``."""
        size, alignment = len(photo), self.settings.alignment
        centres, _ = region_centres(photo, self._finder, alignment=alignment)
        steps = REGION_SIDES * ALIGNMENTS[alignment](size)[0] / CROP
        corners = centres - ((CROP - 1) / 2 * steps)[:, None]
        columns, rows = (
            torch.stack([resampling_weights(size, step, at, count=CROP) for step, at in zip(steps, ats, strict=True)])
            for ats in corners.T
        )
        rows, columns = rows.to(self.settings.device), columns.to(self.settings.device)
        return Regions(rows, columns, self._net.features(region_crops(target, rows, columns)))


def region_crops(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The regions ``[3, 3, 64, 64]`` (region, colour) of one image ``[3, s, s]``."""
    return rows[:, None] @ image @ columns[:, None].transpose(2, 3)
