"""Strategies: what survives of the past. ``STRATEGIES`` maps their names to their classes.

Adding one takes a file with one class and one line here.
"""

from __future__ import annotations

from clstudy.strategies import (  # noqa: F401  importing a strategy registers it
    dgr,
    er_hull,
    er_hull_refined,
    er_hull_volume,
    er_rand,
    ewc,
    gdumb,
    herding,
    jtr,
    k_center,
    kmeans,
    lower,
    mergan_jtr,
    mergan_ra,
    ra,
    reservoir,
    upper,
)
from clstudy.strategies.base import (
    STRATEGIES,
    AnchorStrategy,
    Item,
    Memory,
    PhotoStrategy,
    Strategy,
    candidates,
    make_items,
    memory_from_dict,
    memory_to_dict,
)
from clstudy.strategies.lookup import make_strategy, strategy_class

__all__ = [
    "STRATEGIES",
    "AnchorStrategy",
    "Item",
    "Memory",
    "PhotoStrategy",
    "Strategy",
    "candidates",
    "make_items",
    "make_strategy",
    "memory_from_dict",
    "memory_to_dict",
    "strategy_class",
]
