"""Libraries beside clstudy's own that metrics can be computed with; importable without them and without torch."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from clstudy.assets.extras import import_arcface, import_official_lpips
from clstudy.settings.profiles import EvaluationSettings

BACKEND_PACKAGES: dict[tuple[str, str], Callable[[], ModuleType]] = {
    ("lpips", "lpips"): import_official_lpips,
    ("id", "insightface"): import_arcface,
}
"""(metric, backend) -> function that imports its library; backends that are not listed need nothing but clstudy."""


def import_backends(metric: str, evaluation: EvaluationSettings) -> None:
    """Import the library that a metric is to be computed with, so that problems with it are reported early.

    Raises:
        UserError: the library is not installed, or does not work.
    """
    chosen = getattr(evaluation, f"{metric}_backend", None)
    if chosen is not None and (metric, chosen) in BACKEND_PACKAGES:
        BACKEND_PACKAGES[metric, chosen]()
