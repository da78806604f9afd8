"""Low-rank factors beside frozen weights: few parameters to train, and a stage stores only these.

Sources: E. Hu et al., "LoRA" (2106.09685), section 4.1; L. Qi et al., "My3DGen" (2307.05468), for faces.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from clstudy.settings.profiles import LowRankSettings

_FACTORED = "weight"
"""Parameters of this name get factors: convolutions and linear layers. Biases and noise strengths stay as they are."""


class LowRank(nn.Module):
    """W -> W + scale * B A, where A ``[rank, columns]`` begins as noise and B ``[rows, rank]`` as zeros.

    A weight ``[rows, ...]`` is taken as a matrix with one row per output. B A is zero at first, so a new network
    computes what the frozen one does. The noise is the same in every network (it depends on the shape alone): the A
    that a person starts from is a property of the generator, as its weights are.
    """

    def __init__(self, shape: torch.Size, settings: LowRankSettings):
        super().__init__()
        rows, columns = shape[0], math.prod(shape[1:])
        rank = min(settings.rank, rows, columns)
        noise = torch.randn(rank, columns, generator=torch.Generator().manual_seed(rank * columns))
        self.down = nn.Parameter(noise / math.sqrt(columns))
        self.up = nn.Parameter(torch.zeros(rows, rank))
        self._scale = settings.scale

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with its factors merged in, of its own shape."""
        return torch.add(weight, (self.up @ self.down).view_as(weight), alpha=self._scale)


def add_low_rank(module: nn.Module, settings: LowRankSettings) -> None:
    """Freeze a network and add factors to its weights of two dimensions or more; only the factors can be trained.

    The names of what can be trained are ``….parametrizations.weight.0.down`` and ``….up``.
    """
    module.requires_grad_(False)
    layers = [layer for layer in module.modules() if isinstance(getattr(layer, _FACTORED, None), nn.Parameter)]
    for layer in layers:
        weight = getattr(layer, _FACTORED)
        if weight.ndim >= 2:
            factors = LowRank(weight.shape, settings).to(weight.device)
            parametrize.register_parametrization(layer, _FACTORED, factors)


def factor_count(parts: Iterable[nn.Module], rank: int) -> int:
    """How many numbers the factors of this rank have, for all weights of networks that get factors."""
    weights = (value for part in parts for name, value in part.named_parameters() if name.endswith(_FACTORED))
    shapes = [(value.shape[0], math.prod(value.shape[1:])) for value in weights if value.ndim >= 2]
    return sum(min(rank, rows, columns) * (rows + columns) for rows, columns in shapes)


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """State dict of a network under its plain names, with factors merged into the weights they belong to."""
    state = module.state_dict()
    merged = {name: value for name, value in state.items() if ".parametrizations." not in f".{name}"}
    for name, layer in module.named_modules():
        if parametrize.is_parametrized(layer, _FACTORED):
            merged[f"{name}.{_FACTORED}" if name else _FACTORED] = getattr(layer, _FACTORED).detach()
    return merged
