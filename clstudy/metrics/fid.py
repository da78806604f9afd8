"""Fréchet inception distance of freely generated images, as clean-fid defines it (caveat: ``set_statistics``)."""

from __future__ import annotations

import numpy as np

from clstudy.metrics.base import METRICS
from clstudy.metrics.inception_set_metric import InceptionSetMetric
from clstudy.metrics.set_statistics import fid


@METRICS.register("fid")
class FIDMetric(InceptionSetMetric):
    """FID between the generated images of a timestamp and its test photos."""

    name = "fid"
    higher_is_better = False
    title = "FID (few images: biased upward)"
    decimals = 2
    unit = "squared distance"
    bounds = (0.0, float("inf"))
    description = (
        "FID (clean-fid) of generated images against the test photos, lower is better; biased upward by the small "
        "samples: compare cells of equal counts only"
    )

    @staticmethod
    def statistic(features: np.ndarray, targets: np.ndarray) -> float:
        return fid(features, targets)
