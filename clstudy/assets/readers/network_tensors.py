"""Parts and tensors of networks that were rebuilt from a file, by name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from clstudy.assets.readers.errors import CheckpointError
from clstudy.assets.readers.pickle_objects import STORAGE_DTYPES, PersistentObject, TensorRef

_MAX_MODULES = 20_000
_MAX_PARTS = 500_000
"""Entries of module dictionaries that are visited; the same entry may be in many of them."""

_CONTAINED = "its networks contain themselves; no published checkpoint does; get the file again"

_MOST_ALIASED = 16_000_000
"""Bytes that tensors on shared storages may take beyond the storages' own."""


def modules(network: PersistentObject) -> Iterator[tuple[str, PersistentObject]]:
    """Yield every part of a network in the file's order with its dotted name, the network itself as ''.

    Raises:
        CheckpointError: parts contain each other, or there are more than any generator has.
    """
    pending = [("", network)]
    count = parts = 0
    while pending:
        name, module = pending.pop()
        children = module.state.get("_modules") or {}
        count += 1
        parts += len(children) if isinstance(children, dict) else 0
        if count > _MAX_MODULES or parts > _MAX_PARTS or name.count(".") > 20 or len(name) > 1000:
            raise CheckpointError(_CONTAINED)
        yield name, module
        for key, child in reversed(children.items()) if isinstance(children, dict) else ():
            if isinstance(child, PersistentObject):
                pending.append((f"{name}.{key}" if name else str(key), child))


def tensor_refs(network: PersistentObject) -> dict[str, TensorRef]:
    """Return parameters and buffers of a network by dotted name, as its ``state_dict`` would."""
    found = {}
    parts = 0
    for name, module in modules(network):
        for group in ("_parameters", "_buffers"):
            members = module.state.get(group) or {}
            parts += len(members) if isinstance(members, dict) else 0
            if parts > _MAX_PARTS:
                raise CheckpointError(_CONTAINED)
            for key, value in members.items() if isinstance(members, dict) else ():
                if isinstance(value, TensorRef):
                    found[f"{name}.{key}" if name else str(key)] = value
    return found


def arrays(refs: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """Copy the tensors among the values into arrays, under their names.

    Raises:
        CheckpointError: so many tensors share storages that the copies would outgrow the file.
    """
    tensors = {str(name): ref for name, ref in refs.items() if isinstance(ref, TensorRef)}
    storages = {id(ref.storage): len(ref.storage.raw) for ref in tensors.values()}
    wanted = sum(math.prod(ref.size) * np.dtype(STORAGE_DTYPES[ref.storage.dtype]).itemsize for ref in tensors.values())
    if wanted > sum(storages.values()) + _MOST_ALIASED:
        raise CheckpointError(
            f"its {len(tensors):,} tensors share numbers and would take {wanted:,} bytes, from "
            f"{sum(storages.values()):,} in the file; no published checkpoint does that; get it from its publisher"
        )
    return {name: ref.array() for name, ref in tensors.items()}
