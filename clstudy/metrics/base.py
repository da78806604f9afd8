"""The base class of metrics, and their registry.

The evaluation (``clstudy.training.evaluation``) calls ``prepare`` once per test set and worker, ``pairs`` for every
reconstruction of that set, and ``synthesis`` for freely generated images. A metric never changes its inputs and
keeps no state that depends on the generated images. To add a metric, write a file with a registered class and list it
in ``clstudy/metrics/__init__.py``, or give a class of your own as ``module:Name`` wherever a metric is named.
Everything else about it (direction, title, files) is a class attribute. ``clstudy.settings.metric_facts`` parses those
of packaged classes without running them, so there each value must be a literal or another class's attribute.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from clstudy.assets.model_files import ROLES
from clstudy.errors import UserError
from clstudy.registry import Registry, subclass_of
from clstudy.settings.metric_files import check_backends
from clstudy.settings.profiles import EvaluationSettings


@dataclass(frozen=True, kw_only=True)
class MetricSettings:
    """What metrics are computed with.

    ``threads``: CPU threads of networks outside torch. ``files``: role -> weights file outside the package
    (``clstudy.settings.metric_files``). ``device``: where networks and prepared targets live; results return on the
    CPU. ``alignment``: how the photos' faces lie in them, which fixes the identity crop (``clstudy.faces.embedding``).
    ``evaluation``: the profile's section, which names the library and network that a metric is computed with.
    """

    threads: int = 1
    files: Mapping[str, Path] = field(default_factory=dict)
    device: torch.device = torch.device("cpu")
    alignment: str = "embedded"
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)


class Metric(ABC):
    """Compares images ``[n, 3, s, s]`` in [-1, 1] (but see ``unclamped``), on any device, with target photos.

    Raises:
        UserError: the file of a role in ``needs`` was not given or does not exist, or the settings name a backend that
            is unknown or not installed.
    """

    name: ClassVar[str]
    """Its name in the rows: letters a-z, digits and underscores."""
    higher_is_better: ClassVar[bool]
    title: ClassVar[str]
    """Its name in tables and figures, preceded by the protocol: "PSNR (dB)" becomes "Reconstruction PSNR (dB)"."""
    unit: ClassVar[str]
    bounds: ClassVar[tuple[float, float]]
    """Smallest and largest possible value."""
    description: ClassVar[str]
    decimals: ClassVar[int] = 4
    """Decimals that its scores are printed with, unless an interval needs more."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Roles of ``MetricSettings.files`` without which the metric cannot be computed."""
    in_reconstruction: ClassVar[bool] = True
    """Whether the metric scores reconstructions, each against its photo."""
    in_synthesis: ClassVar[bool] = False
    """Whether the metric also scores freely generated images against a whole test set."""
    of_set: ClassVar[bool] = False
    """Whether ``synthesis`` gives one value for the whole set of generated images instead of one per image."""
    of_identity: ClassVar[bool] = False
    """Whether the metric compares who is shown and not how, so that it also scores faces turned to a side or edited."""
    least_images: ClassVar[int] = 1
    """Fewest generated images, and fewest target photos, that ``synthesis`` is defined for."""
    unclamped: ClassVar[bool] = False
    """Whether the metric gets images as the generator makes them, values beyond [-1, 1] included."""
    twin_of: ClassVar[str | None] = None
    """Name of the packaged metric that this one scores as the published scripts do; its tables come last."""

    def __init__(self, settings: MetricSettings | None = None):
        self.settings = MetricSettings() if settings is None else settings
        check_backends(self.settings.evaluation)
        for role in self.needs:
            self._file(role)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about how the values are computed that a reader of them must know; usually none."""
        return ()

    @abstractmethod
    def prepare(self, targets: Tensor) -> Any:
        """Return everything that depends on the target photos ``[n, 3, s, s]`` only."""

    def pairs(self, images: Tensor, prepared: Any) -> Tensor:
        """Return values ``[n]`` of image i against target i, on the CPU.

        Raises:
            NotImplementedError: the metric is for generated images only (``in_reconstruction`` is False).
        """
        raise NotImplementedError(f"metric {self.name} compares generated images only")

    def synthesis(self, images: Tensor, prepared: Any) -> Tensor:
        """Return values ``[m]`` of generated images against the whole test set, ``[1]`` if ``of_set``, on the CPU.

        Raises:
            NotImplementedError: the metric is for reconstructions only (``in_synthesis`` is False).
        """
        raise NotImplementedError(f"metric {self.name} compares reconstructions only")

    def _file(self, role: str) -> Path:
        """The weights file of a role that the metric needs."""
        path, what = self.settings.files.get(role), ROLES[role].what
        if path is None:
            raise UserError(
                f"metric {self.name} needs {what} (role {role!r}), and no file was given. {ROLES[role].remedy}"
            )
        if not path.is_file():
            raise UserError(f"metric {self.name}: no file {path} with {what} (role {role!r}). {ROLES[role].remedy}")
        return path


METRICS: Registry[type[Metric]] = Registry("metric", foreign=subclass_of(Metric))
