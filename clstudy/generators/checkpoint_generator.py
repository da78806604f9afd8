"""StyleGAN2 from a checkpoint file, with anchors by its W encoder or by optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clstudy.errors import UserError
from clstudy.generators.base import GENERATORS, DomainGenerator, GeneratorKind, GeneratorWeights
from clstudy.generators.checkpoints.nvidia import SYNTHESIS_ALONE
from clstudy.generators.checkpoints.reading import read_checkpoint, stylegan2_settings
from clstudy.generators.ir_se_encoder import IRSEEncoder, read_encoder
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings
from clstudy.generators.synthesis_copies import SynthesisCopies, arrays_under, encoded
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.profiles import AnchorSettings, Profile
from clstudy.training.inversion import invert

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
        super().__init__(network, profile.compute, device, profile.low_rank)
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

    description = "StyleGAN2 from a checkpoint file, with an encoder where one is given"
    pretrained = True

    def read(self, files: Mapping[str, Path]) -> GeneratorWeights:
        checkpoint = read_checkpoint(files["generator"])
        settings = stylegan2_settings(checkpoint, files["generator"])
        width = settings.w_dim
        encoder = read_encoder(files["encoder"], width) if "encoder" in files else {}
        tensors = dict(checkpoint.tensors)
        if not settings.mapping_layers:
            tensors["mapping.w_avg"] = _mean_latent(files, encoder, width)
        elif "base" in files:
            raise UserError(
                f"{files['base'].name} was given as the base of {files['generator'].name}, which has a mapping network "
                "and a mean latent of its own; leave base out"
            )
        arrays = {_GENERATOR + name: array for name, array in tensors.items()}
        arrays |= {_ENCODER + name: array for name, array in encoder.items()}
        return GeneratorWeights(arrays, {"settings": settings.to_dict()})

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


def _mean_latent(files: Mapping[str, Path], encoder: Mapping[str, np.ndarray], width: int) -> np.ndarray:
    """Mean w ``[width]`` for a synthesis network alone.

    Raises:
        UserError: neither an encoder nor a base has one of that width.
    """
    if "base" in files:
        base = read_checkpoint(files["base"])
        settings = stylegan2_settings(base, files["base"])
        if settings.w_dim != width or not settings.mapping_layers:
            raise UserError(
                f"{files['base'].name} cannot be the base of {files['generator'].name}: it has "
                f"{settings.mapping_layers} mapping layers and latents of {settings.w_dim} numbers, expected a whole "
                f"generator with {width}"
            )
        return base.tensors["mapping.w_avg"]
    if encoder:
        return encoder["latent_avg"]
    raise UserError(f"{files['generator'].name}: {SYNTHESIS_ALONE}")


GENERATORS.register("stylegan2")(CheckpointKind())
