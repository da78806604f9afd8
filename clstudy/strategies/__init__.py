"""Strategies: what survives of the past. ``STRATEGIES`` maps their names to their classes.

Adding one takes a file with one class and one line here.
"""

from __future__ import annotations

from clstudy.strategies import er_hull, er_rand, kmeans, lower, upper
from clstudy.strategies.base import (
    STRATEGIES,
    Item,
    Memory,
    PhotoStrategy,
    Strategy,
    candidates,
    make_items,
    memory_from_dict,
    memory_to_dict,
)

__all__ = [
    "STRATEGIES",
    "Item",
    "Memory",
    "PhotoStrategy",
    "Strategy",
    "candidates",
    "er_hull",
    "er_rand",
    "kmeans",
    "lower",
    "make_items",
    "memory_from_dict",
    "memory_to_dict",
    "upper",
]
