"""The packaged 64 px generator and its W encoder."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from clstudy.assets import asset_path, manifest
from clstudy.generators.base import GENERATORS, DomainGenerator
from clstudy.generators.encoder import WEncoder
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings

_FILE = "embedded_generator.safetensors"


def embedded_arrays() -> dict[str, np.ndarray]:
    """The packaged weights as float16 arrays; shared read-only between workers."""
    return load_file(asset_path(_FILE))


class EmbeddedGenerator(DomainGenerator):
    """StyleGAN2 (64 px) and W encoder pretrained on aligned DCGAN faces; see ``clstudy/assets/MODEL_CARD.md``."""

    def __init__(self, arrays: Mapping[str, np.ndarray] | None = None):
        arrays = embedded_arrays() if arrays is None else arrays
        self.digest = manifest()[_FILE]["sha256"]
        self.settings = StyleGAN2Settings()
        self.w_dim = self.settings.w_dim
        self.network = StyleGAN2(self.settings)
        self.network.load_state_dict(_part(arrays, "generator."))
        self._encoder = WEncoder()
        self._encoder.load_state_dict(_part(arrays, "encoder."))
        for module in (self.network, self._encoder):
            module.eval().requires_grad_(False)

    def fresh(self, tunable: Mapping[str, Tensor] | None = None) -> nn.Module:
        with torch.device("meta"):
            module = StyleGAN2(self.settings).synthesis
        module.to_empty(device="cpu")
        module.load_state_dict(self.network.synthesis.state_dict())
        if tunable is not None:
            module.load_state_dict(dict(tunable), strict=False)
        return module

    def tunable_state(self, module: nn.Module) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def anchors(self, photos: Tensor) -> Tensor:
        # One photo at a time: an anchor must not depend on which other photos are in the batch.
        return torch.cat([self._encoder(photo[None]) for photo in photos])


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(value.astype(np.float32))
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


@GENERATORS.register("embedded")
def load_embedded(arrays: Mapping[str, np.ndarray] | None) -> DomainGenerator:
    """Packaged generator."""
    return EmbeddedGenerator(arrays)
