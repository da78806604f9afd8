"""Elastic weight consolidation: weights that mattered for the past are kept from moving far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clstudy.strategies.base import STRATEGIES, Item, Memory, Past, Penalty, Strategy, Trained

if TYPE_CHECKING:
    from torch import Tensor, nn


@STRATEGIES.register("ewc")
@dataclass(frozen=True)
class ElasticWeightConsolidation(Strategy):
    """Adds ``weight / 2 * sum_j F_j (theta_j - theta_j of t-1)^2`` (Kirkpatrick et al. 2017, equation 3).

    F is the running Fisher diagonal of online EWC (Schwarz et al. 2018, 1805.06370, section 4): after each timestamp
    ``decay`` * F plus the mean over its training photos of the squared gradient of the photo's loss (the empirical
    Fisher diagonal, LPIPS + MSE taken as negative log-likelihood). It stores no photo and no anchor.

    Attributes:
        weight: of the penalty, >= 0. With 0 this is ``lower``, bit for bit. Default from search_spaces/penalty_search.
        decay: how much of the older terms stays, 0 to 1.
    """

    weight: float = 1_000_000.0
    decay: float = 1.0

    name = "ewc"
    description = "hold weights in proportion to their Fisher information (online EWC, arXiv 1612.00796, 1805.06370)"
    stores_photos = False
    balanced = False
    uses_buffer_size = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"expected a finite weight >= 0, got {self.weight}")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"expected a decay from 0 to 1, got {self.decay}")

    def select(self, memory: Memory, new: Sequence[Item], capacity: int, rng: np.random.Generator) -> Memory:
        return Memory()

    def penalty(self, past: Past, rng: np.random.Generator) -> Penalty:
        before = {name: value.detach() for name, value in past.frozen.named_parameters()}
        fisher = past.learned

        def elastic(module: nn.Module) -> Tensor:
            trained = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
            terms = [(fisher[name] * (value - before[name]).square()).sum() for name, value in trained]
            return 0.5 * self.weight * sum(terms[1:], terms[0])

        return elastic

    def consolidate(self, past: Past | None, trained: Trained) -> Mapping[str, Tensor]:
        import torch

        parameters = {name: value for name, value in trained.module.named_parameters() if value.requires_grad}
        total = {name: torch.zeros_like(value) for name, value in parameters.items()}
        for photo in range(trained.photos):
            # materialised as zeros: a weight that the loss does not depend on has no Fisher information
            gradients = torch.autograd.grad(trained.loss(photo), list(parameters.values()), materialize_grads=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                total[name] += gradient.square() / trained.photos
        if past is not None:
            for name, older in past.learned.items():
                total[name] += self.decay * older
        return total
