"""StyleGAN2 from a checkpoint file, with anchors by its W encoder or by optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from clstudy.generators.base import GENERATORS, DomainGenerator, GeneratorKind, GeneratorWeights
from clstudy.generators.checkpoints import read_checkpoint
from clstudy.generators.ir_se_encoder import IRSEEncoder, read_encoder
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings
from clstudy.generators.synthesis_copies import SynthesisCopies, arrays_under, encoded
from clstudy.inversion import invert
from clstudy.metrics.lpips import LPIPS
from clstudy.profiles import AnchorSettings, Profile

_GENERATOR, _ENCODER = "generator/", "encoder/"


class CheckpointGenerator(SynthesisCopies):
    """A StyleGAN2 of any size.

    Anchors come from the encoder where there is one; otherwise w is optimised from the mean latent under the pretrained
    generator (LPIPS + MSE, Adam; protocol, step 1).
    """

    def __init__(
        self,
        network: StyleGAN2,
        profile: Profile,
        device: torch.device,
        lpips: LPIPS,
        encoder: IRSEEncoder | None = None,
    ):
        super().__init__(network, profile.compute, device)
        self._settings: AnchorSettings = profile.anchors
        self._lpips = lpips
        self._encoder = None if encoder is None else encoder.eval().requires_grad_(False).to(device)

    def anchors(self, photos: Tensor) -> Tensor:
        if self._encoder is not None:
            return encoded(self._encoder, photos)
        start = self.network.mapping.w_avg.expand(len(photos), -1)
        with torch.no_grad():
            features = self._lpips.features(photos)
        module = self.fresh().requires_grad_(False)
        return invert(module, photos, features, start, settings=self._settings.as_inversion(), lpips=self._lpips)


class CheckpointKind(GeneratorKind):
    """Reads NVIDIA pickles, rosinality files and our safetensors (``clstudy.generators.checkpoints``)."""

    def read(self, files: Mapping[str, Path]) -> GeneratorWeights:
        checkpoint = read_checkpoint(files["generator"])
        arrays = {_GENERATOR + name: array for name, array in checkpoint.tensors.items()}
        if "encoder" in files:
            encoder = read_encoder(files["encoder"], checkpoint.settings.w_dim)
            arrays |= {_ENCODER + name: array for name, array in encoder.items()}
        return GeneratorWeights(arrays, {"settings": checkpoint.settings.to_dict()})

    def image_size(self, weights: GeneratorWeights, profile: Profile) -> int:
        return int(weights.facts["settings"]["img_resolution"])

    def build(self, weights: GeneratorWeights, profile: Profile, device: torch.device, lpips: LPIPS) -> DomainGenerator:
        with torch.device("meta"):
            network = StyleGAN2(StyleGAN2Settings(**weights.facts["settings"]))
        network.load_state_dict(arrays_under(_GENERATOR, weights.arrays), assign=True)
        encoder = None
        state = arrays_under(_ENCODER, weights.arrays)
        if state:
            with torch.device("meta"):
                encoder = IRSEEncoder(network.settings.w_dim)
            encoder.load_state_dict(state, assign=True)
        return CheckpointGenerator(network, profile, device, lpips, encoder)


GENERATORS.register("stylegan2")(CheckpointKind())
