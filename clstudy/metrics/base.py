"""What a metric is, and the registry of metrics.

The evaluation (``clstudy.evaluation``) calls ``prepare`` once per test set and worker, ``pairs`` for every
reconstruction of that set, and ``synthesis`` for freely generated images. A metric never changes its inputs and
keeps no state that depends on the generated images. Adding one: a file with a registered class, a line in
``clstudy/metrics/__init__.py`` and its direction in ``clstudy/metrics/directions.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from clstudy.metrics.directions import HIGHER_IS_BETTER
from clstudy.registry import Registry


class Metric(ABC):
    """Compares images ``[n, 3, s, s]`` in [-1, 1] with target photos."""

    name: ClassVar[str]
    unit: ClassVar[str]
    bounds: ClassVar[tuple[float, float]]
    description: ClassVar[str]
    in_synthesis: ClassVar[bool] = False
    """Whether the metric also scores freely generated images against a whole test set."""

    def __init__(self, *, threads: int = 1):
        self._threads = threads

    @property
    def higher_is_better(self) -> bool:
        """Direction of the metric."""
        return HIGHER_IS_BETTER[self.name]

    @abstractmethod
    def prepare(self, targets: Tensor) -> Any:
        """Return everything that depends on the target photos ``[n, 3, s, s]`` only."""

    @abstractmethod
    def pairs(self, images: Tensor, prepared: Any) -> Tensor:
        """Return values ``[n]`` of image i against target i."""

    def synthesis(self, images: Tensor, prepared: Any) -> Tensor:
        """Return values ``[m]`` of generated images against the whole test set.

        Raises:
            NotImplementedError: the metric is for reconstructions only (``in_synthesis`` is False).
        """
        raise NotImplementedError(f"metric {self.name} compares reconstructions only")


METRICS: Registry[type[Metric]] = Registry("metric")
