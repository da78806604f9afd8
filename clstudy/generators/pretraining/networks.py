"""Generator and W encoder that are trained together, and their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file
from torch import Tensor

from clstudy.generators.embedded_generator import embedded_networks
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings
from clstudy.generators.synthesis_copies import apply_compute
from clstudy.generators.w_encoder import WEncoder
from clstudy.images import to_unit_range
from clstudy.settings.profiles import ComputeSettings


@dataclass
class Networks:
    """The generator and the encoder that are trained together."""

    generator: StyleGAN2
    encoder: WEncoder

    @classmethod
    def fresh(cls, sizes: StyleGAN2Settings) -> Networks:
        """With random weights, from torch's global stream."""
        networks = cls(StyleGAN2(sizes), WEncoder(w_dim=sizes.w_dim))
        networks.fuse()
        return networks

    @classmethod
    def read(cls, path: Path) -> Networks:
        """What ``save`` wrote; sizes are those of the tensors."""
        networks = cls(*embedded_networks(load_file(path)))
        networks.fuse()
        return networks

    def fuse(self) -> None:
        """Compute the synthesis with fused layers."""
        apply_compute(self.generator.synthesis, ComputeSettings(kernels="fused"))

    def save(self, path: Path) -> None:
        """Write both as float16 safetensors (prefixes ``generator.`` and ``encoder.``)."""
        state = {f"generator.{name}": value for name, value in self.generator.state_dict().items()}
        state |= {f"encoder.{name}": value for name, value in self.encoder.state_dict().items()}
        metadata = {name: str(value) for name, value in self.generator.settings.to_dict().items()}
        save_file({name: value.detach().half().contiguous() for name, value in state.items()}, path, metadata=metadata)

    @torch.no_grad()
    def follow(self, other: Networks, decay: float) -> None:
        """Move these weights towards ``other`` (exponential moving average)."""
        for mine, theirs in ((self.generator, other.generator), (self.encoder, other.encoder)):
            torch._foreach_lerp_(list(mine.parameters()), list(theirs.parameters()), 1 - decay)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images ``[n, 3, 64, 64]`` -> reconstructions of the same shape."""
        reconstructions: Tensor = self.generator.synthesis(self.encoder(images))
        return reconstructions

    @torch.no_grad()
    def encode(self, faces: np.ndarray) -> Tensor:
        """w ``[n, w_dim]`` of uint8 faces ``[n, 64, 64, 3]``."""
        return torch.cat([self.encoder(to_unit_range(faces[i : i + 100])) for i in range(0, len(faces), 100)])
