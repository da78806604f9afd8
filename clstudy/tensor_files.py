"""Safetensors files from outside the package, read within bounds."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

LARGEST_HEADER = 4_000_000
"""Bytes of names, types and shapes; a network of a thousand tensors has 0.1 MB, and parsing takes far more memory."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file by name.

    Raises:
        ValueError: it is no file, or its header is far larger than a network's.
        OSError, safetensors.SafetensorError: it cannot be read, or is damaged.
    """
    if not path.is_file():
        raise ValueError("it is no file")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > LARGEST_HEADER:
        raise ValueError(f"its header takes {length:,} bytes, expected at most {LARGEST_HEADER:,}")
    return load_file(path)
