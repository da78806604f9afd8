"""Copies of a StyleGAN2 synthesis network to personalise: what the embedded and the checkpoint generators share."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.generators.base import DomainGenerator
from clstudy.generators.fused_synthesis import fused_block, lay_out
from clstudy.generators.low_rank import add_low_rank
from clstudy.generators.stylegan2 import StyleGAN2, SynthesisNetwork
from clstudy.settings.kernels import KERNELS
from clstudy.settings.precision import PRECISIONS
from clstudy.settings.profiles import ComputeSettings, LowRankSettings

_ALL_WEIGHTS = LowRankSettings()


def arrays_under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The arrays whose names begin with ``prefix``, without it, as tensors of their own.

    Copied: the arrays are shared read-only between workers, and torch needs memory of its own that it may write to.
    """
    return {
        name.removeprefix(prefix): torch.from_numpy(np.array(array))
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def apply_compute(network: SynthesisNetwork, compute: ComputeSettings) -> None:
    """Set precision, kernels, activation checkpointing and compilation of a synthesis network in place.

    Fused layers are for plain float32 alone: autocast and compilation have fusions of their own.

    Raises:
        UserError: the kernels do not know the network's filter.
    """
    autocast = PRECISIONS[compute.precision].autocast
    network.autocast = None if autocast is None else getattr(torch, autocast)
    network.recompute = compute.activation_checkpointing
    if compute.compile:
        network.compile(fullgraph=True)  # whole or not at all: a part run eagerly would round differently, unsaid
    elif KERNELS[compute.kernels].fused and autocast is None:
        lay_out(network)
        network.block = fused_block


@torch.no_grad()
def encoded(encoder: nn.Module, photos: Tensor) -> Tensor:
    """w ``[n, w_dim]`` of photos, one at a time: an anchor must not depend on the others in a batch."""
    return torch.cat([encoder(photo[None]) for photo in photos])


class SynthesisCopies(DomainGenerator):
    """A generator whose copies are StyleGAN2 synthesis networks, with every weight trainable or low-rank factors."""

    def __init__(
        self,
        network: StyleGAN2,
        compute: ComputeSettings,
        device: torch.device,
        low_rank: LowRankSettings = _ALL_WEIGHTS,
    ):
        self.settings = network.settings
        self.latent_shape = (network.settings.w_dim,)
        self.device = device
        self.network = network.eval().requires_grad_(False).to(device)
        self._compute = compute
        self._low_rank = low_rank

    def fresh(self, tunable: Mapping[str, Tensor] | None = None) -> nn.Module:
        module = copy.deepcopy(self.network.synthesis).requires_grad_(True).train()
        if self._low_rank.rank:
            add_low_rank(module, self._low_rank)
        if tunable is not None:
            module.load_state_dict(dict(tunable), strict=False)
        apply_compute(module, self._compute)
        return module
