"""What the trainer needs from a generator, whatever it is, and the registry of generators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor, nn

from clstudy.registry import Registry


class DomainGenerator(ABC):
    """A pretrained generator. Never changed: trials work on copies made by ``fresh``.

    Attributes:
        digest: sha256 of the weights, part of every stage key.
        w_dim: width of a latent.
    """

    digest: str
    w_dim: int

    @abstractmethod
    def fresh(self, tunable: Mapping[str, Tensor] | None = None) -> nn.Module:
        """Return a new module that maps w ``[n, w_dim]`` to images ``[n, 3, s, s]`` in about [-1, 1].

        ``tunable`` are weights saved by ``tunable_state``; None gives the pretrained ones.
        """

    @abstractmethod
    def tunable_state(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the weights that personalising changes, by name."""

    @abstractmethod
    def anchors(self, photos: Tensor) -> Tensor:
        """Return w ``[n, w_dim]`` of photos ``[n, 3, s, s]`` under the *pretrained* generator (protocol, step 1)."""


GeneratorLoader = Callable[[Mapping[str, np.ndarray] | None], DomainGenerator]
"""Builds a generator from arrays already in memory (shared between workers), or from its file for None."""

GENERATORS: Registry[GeneratorLoader] = Registry("generator")
