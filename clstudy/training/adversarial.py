"""Adversarial losses of a critic and a generator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from clstudy.registry import Registry

Scoring = Callable[[Tensor], Tensor]
"""Images ``[n, 3, s, s]`` -> the critic's scores ``[n]``."""


class AdversarialLoss(ABC):
    """What critic and generator lower; means over images."""

    @abstractmethod
    def critic(self, real: Tensor, generated: Tensor) -> Tensor:
        """The critic's, of its scores ``[n]`` of real and of generated images."""

    @abstractmethod
    def generator(self, generated: Tensor) -> Tensor:
        """The generator's, of the critic's scores ``[n]`` of its images."""

    def penalty(self, scoring: Scoring, real: Tensor, generated: Tensor, shares: Tensor) -> Tensor | None:
        """A term of the critic's that needs the images ``[n, 3, s, s]``; None: there is none.

        Args:
            scoring: the critic.
            real, generated: images.
            shares: of the real image in a mixture, ``[n]`` in [0, 1].
        """
        return None


ADVERSARIAL: Registry[type[AdversarialLoss]] = Registry("adversarial loss")


@ADVERSARIAL.register("wgan_gp")
class WassersteinLoss(AdversarialLoss):
    """Wasserstein distance with gradient penalty (I. Gulrajani et al., 1704.00028, equation 3)."""

    def critic(self, real: Tensor, generated: Tensor) -> Tensor:
        return generated.mean() - real.mean()

    def generator(self, generated: Tensor) -> Tensor:
        return -generated.mean()

    def penalty(self, scoring: Scoring, real: Tensor, generated: Tensor, shares: Tensor) -> Tensor:
        """Mean of (norm of the scores' gradient - 1)² at points between real and generated images."""
        share = shares[:, None, None, None]
        between = (share * real + (1 - share) * generated).detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(scoring(between).sum(), between, create_graph=True)
        lengths: Tensor = gradient.flatten(1).norm(dim=1)
        return (lengths - 1).square().mean()


@ADVERSARIAL.register("non_saturating")
class NonSaturatingLoss(AdversarialLoss):
    """Logistic loss, the generator's without saturation (I. Goodfellow et al., 1406.2661, section 3)."""

    def critic(self, real: Tensor, generated: Tensor) -> Tensor:
        return F.softplus(-real).mean() + F.softplus(generated).mean()

    def generator(self, generated: Tensor) -> Tensor:
        return F.softplus(-generated).mean()


def class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross entropy of logits ``[n, c]`` and classes ``[n, c]`` (one-hot, or shares): mean over images."""
    return F.cross_entropy(logits, classes)
