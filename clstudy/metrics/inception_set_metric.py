"""Base class of FID and KID: a statistic of two sets of Inception features."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from clstudy.errors import UserError
from clstudy.metrics.base import Metric, MetricSettings
from clstudy.metrics.inception import inception_features, load_inception, weights_note


class InceptionSetMetric(Metric):
    """One value for all generated images against all photos of a test set.

    ``prepare`` and ``synthesis`` raise UserError for fewer than two images. See the caveat on small samples in
    ``clstudy.metrics.set_statistics``.
    """

    needs = ("inception",)
    in_reconstruction: ClassVar[bool] = False
    in_synthesis = True
    of_set = True
    least_images = 2

    def __init__(self, settings: MetricSettings | None = None):
        super().__init__(settings)
        path = self._file("inception")
        self._network = load_inception(path, self.settings.device)
        self._note = weights_note(path)

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self._note is None else (self._note,)

    @staticmethod
    @abstractmethod
    def statistic(features: np.ndarray, targets: np.ndarray) -> float:
        """The distance between features ``[m, 2048]`` of generated images and ``[n, 2048]`` of photos."""

    def prepare(self, targets: Tensor) -> np.ndarray:
        return self._features(targets, "test photos")

    def synthesis(self, images: Tensor, prepared: np.ndarray) -> Tensor:
        """The set's one value ``[1]`` (float64)."""
        value = self.statistic(self._features(images, "generated images"), prepared)
        return torch.tensor([value], dtype=torch.float64)

    def _features(self, images: Tensor, what: str) -> np.ndarray:
        if len(images) < self.least_images:
            raise UserError(
                f"metric {self.name} compares sets of at least {self.least_images} images and got {len(images)} "
                f"{what}; use more, or leave the metric out"
            )
        return inception_features(self._network, images)
