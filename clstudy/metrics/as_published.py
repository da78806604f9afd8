"""Metrics computed as by the scripts behind the published tables, for numbers on their scale (``--as-published``).

What is known about the scripts: an image is stretched to its own minimum and maximum and stored as JPEG before it is
scored; values are rounded to 3 decimals, PSNR to an unsigned byte (whole dB, cut off); ID averages the whole image down
to 112 px and embeds it by IR-SE-50, without a face crop.

What is assumed: the stretching is torchvision's ``save_image(normalize=True)`` of one image at a time (one minimum and
maximum over its three channels) on the generator's output as it is, before anything is clamped; JPEG is PIL's at its
defaults (quality 75, chroma at half resolution); the photo goes through both, too, since the scripts store both; each
image's value is rounded, not the mean; synthesis images are treated as reconstructions are; PSNR outside 0 to 255 dB,
which a byte would wrap around, is clipped, and that of equal images is 100 dB, as in the ordinary metric.

The ordinary metrics stand beside these and are the ones to draw conclusions from: stretching hides errors of brightness
and contrast, and rounding adds noise.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from clstudy.images import opened_picture, to_unit_range
from clstudy.metrics.base import METRICS, Metric, MetricSettings
from clstudy.metrics.dists import DISTSMetric
from clstudy.metrics.ir_se_50 import INPUT_SIZE, load_ir_se_50
from clstudy.metrics.lpips import LPIPSMetric
from clstudy.metrics.psnr import PSNRMetric
from clstudy.settings.profiles import EvaluationSettings

JPEG_QUALITY = 75
_SMALLEST_RANGE = 1e-5  # torchvision's, so that a constant image is not divided by 0
_DECIMALS = 3
_LARGEST_BYTE = 255


def stretched(images: Tensor) -> np.ndarray:
    """Stretch each image ``[n, 3, h, w]`` of any range so that its least value is 0 and its largest 255.

    Returns:
        uint8 ``[n, h, w, 3]``; a constant image is black.
    """
    low, high = images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True)
    shown = (images - low) / (high - low).clamp_min(_SMALLEST_RANGE)
    return (shown * 255 + 0.5).byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


def through_jpeg(image: np.ndarray) -> np.ndarray:
    """An image uint8 ``[h, w, 3]`` as it is read back from a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY)
    with opened_picture(file.getvalue(), ("JPEG",)) as read:
        return np.asarray(read)


def as_stored(images: Tensor) -> Tensor:
    """Images ``[n, 3, h, w]`` of any range as the scripts read them back: float32 in [-1, 1], on the CPU."""
    return to_unit_range(np.stack([through_jpeg(image) for image in stretched(images.detach().float())]))


def to_decimals(values: Tensor) -> Tensor:
    """Values ``[n]`` rounded to 3 decimals, each as the nearest float64."""
    return values.double().round(decimals=_DECIMALS)


def to_whole_decibels(values: Tensor) -> Tensor:
    """PSNR ``[n]`` as stored in an unsigned byte: decimals cut off, clipped to 0 … 255; float64."""
    return values.double().clamp(0, _LARGEST_BYTE).floor()


class AsPublished(Metric):
    """Another metric on images as the scripts store them, its values rounded as theirs are."""

    of: ClassVar[type[Metric]]
    """The ordinary metric."""
    unclamped = True

    def __init__(self, settings: MetricSettings | None = None):
        super().__init__(settings)
        # the scripts' networks, whatever the ordinary metric is computed with
        self._metric = self.of(replace(self.settings, evaluation=EvaluationSettings()))

    def prepare(self, targets: Tensor) -> Any:
        return self._metric.prepare(as_stored(targets))

    def pairs(self, images: Tensor, prepared: Any) -> Tensor:
        return self.rounded(self._metric.pairs(as_stored(images), prepared))

    def rounded(self, values: Tensor) -> Tensor:
        """Values ``[n]`` as the scripts round them."""
        return to_decimals(values)


@METRICS.register("lpips_as_published")
class LPIPSAsPublished(AsPublished):
    """LPIPS of a reconstruction, the scripts' way."""

    name = "lpips_as_published"
    higher_is_better = LPIPSMetric.higher_is_better
    title = "LPIPS as published"
    twin_of = "lpips"
    unit = LPIPSMetric.unit
    bounds = LPIPSMetric.bounds
    description = "LPIPS of stretched JPEG images, 3 decimals, as the published scripts score it, lower is better"
    of = LPIPSMetric


@METRICS.register("psnr_as_published")
class PSNRAsPublished(AsPublished):
    """PSNR of a reconstruction, the scripts' way."""

    name = "psnr_as_published"
    higher_is_better = PSNRMetric.higher_is_better
    title = "PSNR as published (dB)"
    decimals = PSNRMetric.decimals
    twin_of = "psnr"
    unit = PSNRMetric.unit
    bounds = (0.0, PSNRMetric.bounds[1])
    description = "PSNR of stretched JPEG images, whole dB, as the published scripts score it, higher is better"
    of = PSNRMetric

    def rounded(self, values: Tensor) -> Tensor:
        return to_whole_decibels(values)


@METRICS.register("dists_as_published")
class DISTSAsPublished(AsPublished):
    """DISTS of a reconstruction, the scripts' way."""

    name = "dists_as_published"
    higher_is_better = DISTSMetric.higher_is_better
    title = "DISTS as published"
    twin_of = "dists"
    unit = DISTSMetric.unit
    bounds = DISTSMetric.bounds
    description = "DISTS of stretched JPEG images, 3 decimals, as the published scripts score it, lower is better"
    needs = DISTSMetric.needs
    of = DISTSMetric


class WholeImageIdentity(Metric):
    """Cosine between embeddings of whole images by IR-SE-50; the part of ``IdentityAsPublished`` that does not round.

    Images ``[n, 3, s, s]`` are averaged to 112 px (pixels are repeated where they are smaller).
    """

    name = "id_as_published"  # not registered: the name is for messages about its file
    higher_is_better = True
    unit = "cosine"
    bounds = (-1.0, 1.0)
    description = "cosine of embeddings of whole images by IR-SE-50"
    needs = ("ir_se_50",)
    in_synthesis = True

    def __init__(self, settings: MetricSettings | None = None):
        super().__init__(settings)
        self._net = load_ir_se_50(self._file("ir_se_50")).to(self.settings.device)

    @torch.no_grad()
    def prepare(self, targets: Tensor) -> Tensor:
        """Unit embeddings ``[n, 512]``, on the CPU."""
        # one image at a time: the result for a photo must not depend on what else is in the batch
        pooled = torch.split(F.adaptive_avg_pool2d(targets, INPUT_SIZE), 1)
        return torch.cat([self._net(image.to(self.settings.device)).cpu() for image in pooled])

    def pairs(self, images: Tensor, prepared: Tensor) -> Tensor:
        return (self.prepare(images) * prepared).sum(dim=1)

    def synthesis(self, images: Tensor, prepared: Tensor) -> Tensor:
        """Largest cosine ``[m]`` to any test photo."""
        return (self.prepare(images) @ prepared.t()).max(dim=1).values


@METRICS.register("id_as_published")
class IdentityAsPublished(AsPublished):
    """ID similarity, the scripts' way."""

    name = "id_as_published"
    higher_is_better = WholeImageIdentity.higher_is_better
    title = "ID similarity as published"
    twin_of = "id"
    unit = WholeImageIdentity.unit
    bounds = WholeImageIdentity.bounds
    description = (
        "ID similarity of stretched JPEG images, whole and by IR-SE-50, 3 decimals, as the published scripts score it, "
        "higher is better"
    )
    needs = WholeImageIdentity.needs
    in_synthesis = True
    of = WholeImageIdentity

    def synthesis(self, images: Tensor, prepared: Tensor) -> Tensor:
        """Largest cosine ``[m]`` to any test photo, rounded."""
        return self.rounded(self._metric.synthesis(as_stored(images), prepared))
