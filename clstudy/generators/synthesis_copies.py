"""Copies of a StyleGAN2 synthesis network to personalise: what the embedded and the checkpoint generators share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from clstudy.generators.base import DomainGenerator
from clstudy.generators.stylegan2 import StyleGAN2
from clstudy.numerics import apply_compute
from clstudy.profiles import ComputeSettings


class SynthesisCopies(DomainGenerator):
    """A generator whose copies are StyleGAN2 synthesis networks with every weight tunable."""

    def __init__(self, network: StyleGAN2, compute: ComputeSettings, device: torch.device):
        self.settings = network.settings
        self.w_dim = network.settings.w_dim
        self.device = device
        self.network = network.eval().requires_grad_(False).to(device)
        self._compute = compute

    def fresh(self, tunable: Mapping[str, Tensor] | None = None) -> nn.Module:
        with torch.device("meta"):
            module = StyleGAN2(self.settings).synthesis
        module.to_empty(device=self.device)
        module.load_state_dict(self.network.synthesis.state_dict())
        if tunable is not None:
            module.load_state_dict(dict(tunable), strict=False)
        apply_compute(module, self._compute)
        return module

    def tunable_state(self, module: nn.Module) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in module.named_parameters()}
