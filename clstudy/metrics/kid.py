"""Kernel inception distance of freely generated images: the unbiased companion of FID."""

from __future__ import annotations

import numpy as np

from clstudy.metrics.base import METRICS
from clstudy.metrics.inception_set_metric import InceptionSetMetric
from clstudy.metrics.set_statistics import kid


@METRICS.register("kid")
class KIDMetric(InceptionSetMetric):
    """KID between the generated images of a timestamp and its test photos."""

    name = "kid"
    higher_is_better = False
    title = "KID (few images: noisy)"
    unit = "squared MMD"
    bounds = (float("-inf"), float("inf"))
    description = (
        "KID of generated images against the test photos, lower is better; unbiased at any count, but noisy for small "
        "samples (may be negative)"
    )

    @staticmethod
    def statistic(features: np.ndarray, targets: np.ndarray) -> float:
        return kid(features, targets)
