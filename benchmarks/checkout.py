"""clstudy's modules under whichever names a checkout has them, so that two commits can do the same work.

The tree was laid out anew after 5f461eb. Only what the comparable paths need is listed.
"""

from __future__ import annotations

import importlib
from dataclasses import fields
from typing import Any

_MODULES = {
    "embedded_generator": ("clstudy.generators.embedded_generator", "clstudy.generators.embedded"),
    "evaluation": ("clstudy.training.evaluation", "clstudy.evaluation"),
    "hull": ("clstudy.strategies.hull.subsets", "clstudy.strategies.convex_hull"),
    "inversion": ("clstudy.training.inversion", "clstudy.inversion"),
    "lpips": ("clstudy.metrics.lpips",),
    "personalise": ("clstudy.training.personalise", "clstudy.personalize"),
    "stylegan2": ("clstudy.generators.stylegan2",),
    "numerics": ("clstudy.training.numerics", "clstudy.numerics"),
    "profiles": ("clstudy.settings.profiles", "clstudy.profiles"),
}
_OLDER_SETTINGS = {"epochs": "passes", "final_lr_fraction": "final_rate"}


def module(name: str) -> Any:
    """A module of the clstudy that this process imports.

    Raises:
        ImportError: the checkout has none of the names that it is known by.
    """
    for place in _MODULES[name]:
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("clstudy"):
                raise
    raise ImportError(f"this checkout has no {' or '.join(_MODULES[name])}")


def settings(kind: type[Any], **values: Any) -> Any:
    """An object of a settings class, under the names that its fields have in this checkout."""
    there = {entry.name for entry in fields(kind)}
    return kind(**{name if name in there else _OLDER_SETTINGS[name]: value for name, value in values.items()})
