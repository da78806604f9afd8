"""Libraries beside clstudy's own that metrics can be computed with; importable without them and without torch."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from clstudy.extras import import_extra
from clstudy.profiles import EvaluationSettings


def import_official_lpips() -> ModuleType:
    """The package ``lpips``.

    Raises:
        UserError: it is not installed, or torchvision does not fit torch.
    """
    return import_extra(
        "lpips",
        extra="lpips",
        wanted_by="evaluation.lpips_backend 'lpips'",
        instead="leave it at 'packaged', which gives the same values for the network 'alex'",
    )


def import_arcface() -> ModuleType:
    """insightface's module with ``ArcFaceONNX``.

    Raises:
        UserError: it is not installed.
    """
    return import_extra(
        "insightface.model_zoo.arcface_onnx",
        extra="insightface",
        wanted_by="evaluation.id_backend 'insightface'",
        instead="leave it at 'onnxruntime', which reads the same networks",
    )


BACKEND_PACKAGES: dict[tuple[str, str], Callable[[], ModuleType]] = {
    ("lpips", "lpips"): import_official_lpips,
    ("id", "insightface"): import_arcface,
}
"""(metric, backend) -> what imports its library; backends that are not here need nothing but clstudy."""


def import_backends(metric: str, evaluation: EvaluationSettings) -> None:
    """Import the library that a metric is to be computed with, so that what is wrong with it is said early.

    Raises:
        UserError: it is not there, or does not work.
    """
    chosen = getattr(evaluation, f"{metric}_backend", None)
    if chosen is not None and (metric, chosen) in BACKEND_PACKAGES:
        BACKEND_PACKAGES[metric, chosen]()
