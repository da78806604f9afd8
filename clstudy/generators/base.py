"""The interface between the trainer and a generator, and the registry of generators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.errors import UserError
from clstudy.metrics.lpips import LPIPS
from clstudy.registry import Registry, instance_of
from clstudy.settings.profiles import Profile


class DomainGenerator(ABC):
    """A pretrained generator. It is never changed: trials work on copies made by ``fresh``.

    The generator decides which parameters of a copy are trained: those that require a gradient in what ``fresh``
    returns (``trainable``). The trainer, the penalties and the stored weights follow that alone.

    Attributes:
        latent_shape: of one latent: ``(w_dim,)`` for w, ``(num_ws, w_dim)`` for W+, or whatever the network takes.
        device: where copies live and compute.
    """

    latent_shape: tuple[int, ...]
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def fresh(self, tunable: Mapping[str, Tensor] | None = None) -> nn.Module:
        """Return a new module that maps latents ``[n, *latent_shape]`` to images ``[n, 3, s, s]`` in about [-1, 1].

        Where latents are w, the module also has ``num_ws`` and accepts ws ``[n, num_ws, w_dim]``, one w per layer, for
        inversion in W+. ``tunable`` are weights saved by ``tunable_state``; None gives the pretrained ones.
        """

    def tunable_state(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the weights that personalising changes, by name: copies of the trainable parameters."""
        return {
            name: value.detach().clone(memory_format=torch.contiguous_format)
            for name, value in trainable(module).items()
        }

    @abstractmethod
    def anchors(self, photos: Tensor) -> Tensor:
        """Return latents ``[n, *latent_shape]`` of photos ``[n, 3, s, s]`` under the *pretrained* generator.

        Protocol, step 1.
        """

    def anchors_seen(self, photos: Tensor, cameras: Tensor) -> Tensor:
        """The same for photos whose cameras ``[n, 25]`` are known; a generator that is told them overrides this.

        The copies of such a generator take cameras beside latents; without any they see from the front.
        """
        return self.anchors(photos)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a generator's copy that are trained, by name, in the module's order."""
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


@dataclass(frozen=True)
class GeneratorWeights:
    """Arrays (shared read-only between the workers of a machine) and the file's other facts."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any] = field(default_factory=dict)


class GeneratorKind(ABC):
    """How to get a generator: ``read`` once, in the driver; ``build`` in every worker.

    Class attributes:
        description: one line.
        pretrained: whether it starts from weights, packaged or in a file of the role ``generator``.
    """

    description: ClassVar[str] = ""
    pretrained: ClassVar[bool] = False

    @abstractmethod
    def read(self, files: Mapping[str, Path]) -> GeneratorWeights:
        """Read the weights; ``files`` are those from outside the package, by role.

        Raises:
            UserError: a file is not what it should be.
        """

    @abstractmethod
    def build(self, weights: GeneratorWeights, profile: Profile, device: torch.device, lpips: LPIPS) -> DomainGenerator:
        """Make the generator from weights alone, on a device."""

    def image_size(self, weights: GeneratorWeights, profile: Profile) -> int:
        """Side of the generator's images in pixels."""
        return profile.data.image_size


GENERATORS: Registry[GeneratorKind] = Registry("generator", foreign=instance_of(GeneratorKind))


class NoGenerator(GeneratorKind):
    """For workloads whose networks start untrained: there is nothing to read."""

    description = "no pretrained generator: for workloads whose networks begin untrained"

    def read(self, files: Mapping[str, Path]) -> GeneratorWeights:
        """Return no weights."""
        return GeneratorWeights({})

    def build(self, weights: GeneratorWeights, profile: Profile, device: torch.device, lpips: LPIPS) -> DomainGenerator:
        """Refuse: there is no generator to build.

        Raises:
            UserError: always.
        """
        raise UserError(
            f"profile {profile.name!r} has no generator, and its workload {profile.workload!r} needs one; name it: "
            "generator=…"
        )


GENERATORS.register("none")(NoGenerator())
