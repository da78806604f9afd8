"""Packs several networks and their optimisers into one flat mapping of tensors, the form in which a stage is stored.

For workloads with a state of several networks, or with optimisers that live on from stage to stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_NONE: Mapping[str, Optimizer] = MappingProxyType({})


def packed(networks: Mapping[str, nn.Module], optimisers: Mapping[str, Optimizer] = _NONE) -> dict[str, Tensor]:
    """Copies of all tensors: ``network.parameter`` and ``optimiser.index.value``.

    Args:
        networks: by name, without dots; their parameters and buffers are packed.
        optimisers: by name, without dots, none of them a network's. Their state of each parameter is packed (numbers as
            float64 scalars), their settings are not: an optimiser is constructed with its settings.

    Raises:
        ValueError: a name is used twice or has a dot.
    """
    names = [*networks, *optimisers]
    if len(set(names)) < len(names) or any("." in name for name in names):
        raise ValueError(f"expected different names without dots for networks and optimisers, got {', '.join(names)}")
    tensors = {
        f"{name}.{key}": value.detach().clone()
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
    for name, optimiser in optimisers.items():
        for index, values in optimiser.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": _tensor(value) for key, value in values.items()}
    return tensors


def unpack(
    tensors: Mapping[str, Tensor], networks: Mapping[str, nn.Module], optimisers: Mapping[str, Optimizer] = _NONE
) -> None:
    """Put packed tensors back into networks and optimisers of the same shape; training continues bit-identically.

    Raises:
        RuntimeError: a network has other parameters than were packed (torch's message names them).
    """
    for name, network in networks.items():
        network.load_state_dict(_under(name, tensors))
    for name, optimiser in optimisers.items():
        state: dict[int, dict[str, Any]] = {}
        for key, value in _under(name, tensors).items():
            index, _, entry = key.partition(".")
            state.setdefault(int(index), {})[entry] = value.clone()
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _tensor(value: Any) -> Tensor:
    return value.detach().clone() if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
