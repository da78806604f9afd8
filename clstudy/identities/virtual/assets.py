"""The packaged arrays of the virtual people, read once per process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from safetensors import safe_open

from clstudy.assets import asset_path

FILE = "virtual_people.safetensors"

POSITION_STEPS, SHAPE_STEPS, EXPRESSION_STEPS = 1 << 12, 1 << 16, 1 << 15
"""Integer steps per eye distance of positions, of shape and ageing, and of expressions."""

ATLAS_SIDE = 128
"""Side of the unrolled face in which skin is painted."""


@dataclass(frozen=True)
class VirtualAssets:
    """All integer arrays by name, and the names of their rows; ``build.packing`` says what each holds."""

    arrays: dict[str, np.ndarray]
    rows: dict[str, tuple[str, ...]]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @property
    def portraits(self) -> int:
        """How many portraits people are made from."""
        return len(self.arrays["people.shape"])


@cache
def virtual_assets() -> VirtualAssets:
    """Read the packaged file.

    Raises:
        AssetError: it is missing or altered.
    """
    with safe_open(asset_path(FILE), "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        rows = {name: tuple(text.split(",")) for name, text in (file.metadata() or {}).items()}
    for array in arrays.values():
        array.flags.writeable = False
    return VirtualAssets(arrays, rows)
