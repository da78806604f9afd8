"""Peak signal-to-noise ratio."""

from __future__ import annotations

import torch
from torch import Tensor

from clstudy.metrics.base import METRICS, Metric

_CEILING_DB = 100.0


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """PSNR in dB ``[n]`` of images in [-1, 1] (range 2): 10 log10(4 / MSE), at most 100 dB for equal images."""
    mse = (images - targets).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(4 / mse.clamp_min(1e-30))).clamp_max(_CEILING_DB)


@METRICS.register("psnr")
class PSNRMetric(Metric):
    """PSNR of a reconstruction."""

    name = "psnr"
    higher_is_better = True
    title = "PSNR (dB)"
    decimals = 2
    unit = "dB"
    bounds = (float("-inf"), _CEILING_DB)
    description = "peak signal-to-noise ratio of a reconstruction, dB, higher is better"

    def prepare(self, targets: Tensor) -> Tensor:
        return targets.to(self.settings.device)

    def pairs(self, images: Tensor, prepared: Tensor) -> Tensor:
        return psnr(images.to(self.settings.device), prepared).cpu()
