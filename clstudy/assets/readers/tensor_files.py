"""Files of tensors from outside the package, read within bounds and without running anything in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from clstudy.assets.readers.network_tensors import arrays
from clstudy.assets.readers.restricted_pickle import read_state

LARGEST_HEADER = 4_000_000
"""Bytes of names, types and shapes; a network of a thousand tensors has 0.1 MB, and parsing takes far more memory."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file by name.

    Raises:
        ValueError: it is not a file, or its header is far larger than a network's.
        OSError, safetensors.SafetensorError: it cannot be read, or is damaged.
    """
    if not path.is_file():
        raise ValueError("it is not a file")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > LARGEST_HEADER:
        raise ValueError(f"its header takes {length:,} bytes, expected at most {LARGEST_HEADER:,}")
    return load_file(path)


def read_with_metadata(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays of a safetensors file by name, as they are, and what it says besides.

    Raises:
        OSError, safetensors.SafetensorError: it cannot be read, or is damaged.
    """
    with safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (not a dict)


def read_torch_state(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of a state dict that ``torch.save`` wrote, by name; only those whose names begin with ``prefix``.

    Raises:
        ValueError: it holds something else.
        OSError, clstudy.assets.readers.errors.CheckpointError: it cannot be read, is damaged, or holds code.
    """
    content = read_state(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}, not a state dict")
    kept = {str(name): value for name, value in content.items() if str(name).startswith(prefix)}
    return {name: torch.from_numpy(value) for name, value in arrays(kept).items()}


def read_state_dict(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Read a file whose name ends in ``.safetensors`` with ``read_tensors``, any other with ``read_torch_state``."""
    if path.suffix != ".safetensors":
        return read_torch_state(path, prefix)
    return {name: value for name, value in read_tensors(path).items() if name.startswith(prefix)}
