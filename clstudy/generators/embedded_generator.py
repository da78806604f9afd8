"""The packaged 64 px generator and its W encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor

from clstudy.assets import asset_path
from clstudy.generators.base import GENERATORS, DomainGenerator, GeneratorKind, GeneratorWeights
from clstudy.generators.checkpoints.sizes import infer_settings
from clstudy.generators.stylegan2 import StyleGAN2
from clstudy.generators.synthesis_copies import SynthesisCopies, arrays_under, encoded
from clstudy.generators.w_encoder import WEncoder
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.profiles import ComputeSettings, LowRankSettings, Profile

_FILE = "embedded_generator.safetensors"


def embedded_arrays() -> dict[str, np.ndarray]:
    """The packaged weights as float16 arrays; shared read-only between workers."""
    return load_file(asset_path(_FILE))


def embedded_networks(arrays: Mapping[str, np.ndarray]) -> tuple[StyleGAN2, WEncoder]:
    """Generator and W encoder of a file of embedded weights, in float32; sizes are those of the tensors.

    Raises:
        CheckpointError: the tensors are not those of a StyleGAN2.
    """
    state = arrays_under("generator.", arrays)
    network = StyleGAN2(infer_settings({name: value.numpy() for name, value in state.items()}, conv_clamp=None))
    network.load_state_dict(state)
    encoder = WEncoder(w_dim=network.settings.w_dim)
    encoder.load_state_dict(arrays_under("encoder.", arrays))
    return network, encoder


class EmbeddedGenerator(SynthesisCopies):
    """StyleGAN2 (64 px) and W encoder pretrained on faces of nobody; see ``clstudy/assets/MODEL_CARD.md``."""

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray] | None = None,
        compute: ComputeSettings | None = None,
        device: torch.device | None = None,
        low_rank: LowRankSettings | None = None,
    ):
        arrays = embedded_arrays() if arrays is None else arrays
        network, encoder = embedded_networks(arrays)
        super().__init__(
            network, compute or ComputeSettings(), device or torch.device("cpu"), low_rank or LowRankSettings()
        )
        self._encoder = encoder.eval().requires_grad_(False).to(self.device)

    def anchors(self, photos: Tensor) -> Tensor:
        return encoded(self._encoder, photos)


class EmbeddedKind(GeneratorKind):
    """The packaged generator."""

    description = "packaged StyleGAN2 of 64 px with its W encoder"
    pretrained = True

    def read(self, files: Mapping[str, Path]) -> GeneratorWeights:
        return GeneratorWeights(embedded_arrays())

    def build(self, weights: GeneratorWeights, profile: Profile, device: torch.device, lpips: LPIPS) -> DomainGenerator:
        return EmbeddedGenerator(weights.arrays, profile.compute, device, profile.low_rank)


GENERATORS.register("embedded")(EmbeddedKind())
