"""EG3D and W encoder that are trained together, and their file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clstudy.generators.eg3d import EG3D, Rendered
from clstudy.generators.embedded_3d import networks_of, read_arrays, save_networks
from clstudy.generators.synthesis_copies import apply_compute
from clstudy.generators.w_encoder import WEncoder
from clstudy.images import to_unit_range
from clstudy.settings.profiles import ComputeSettings


@dataclass
class Networks3D:
    """The generator and the encoder that are trained together, and directions ``[w_dim]`` that are fitted then."""

    generator: EG3D
    encoder: WEncoder
    directions: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        apply_compute(self.generator.backbone.synthesis, ComputeSettings(kernels="fused"))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of one w."""
        return (self.generator.settings.backbone.w_dim,)

    @classmethod
    def read(cls, path: Path) -> Networks3D:
        """What ``save`` wrote."""
        return cls(*networks_of(*read_arrays(path)))

    def save(self, path: Path) -> None:
        """Write them as float16 safetensors."""
        save_networks(self.generator, self.encoder, self.directions, path)

    @torch.no_grad()
    def follow(self, other: Networks3D, decay: float) -> None:
        """Move these weights towards ``other`` (exponential moving average)."""
        for mine, theirs in ((self.generator, other.generator), (self.encoder, other.encoder)):
            torch._foreach_lerp_(list(mine.parameters()), list(theirs.parameters()), 1 - decay)

    @torch.no_grad()
    def encode(self, photos: np.ndarray) -> Tensor:
        """w ``[n, w_dim]`` of uint8 photos ``[n, 64, 64, 3]``."""
        return torch.cat([self.encoder(to_unit_range(photos[i : i + 100])) for i in range(0, len(photos), 100)])

    @torch.no_grad()
    def seen(self, w: Tensor, cameras: np.ndarray) -> Rendered:
        """What cameras ``[n, 25]`` see of w ``[n, w_dim]``; images are clamped."""
        at = torch.from_numpy(cameras).float()
        parts = torch.split(torch.arange(len(w)), 24)
        found = [self.generator.synthesis(w[rows], at[rows], noise=False) for rows in parts]
        image, raw, depth = (torch.cat(values) for values in zip(*found, strict=True))
        return Rendered(image.clamp(-1, 1), raw.clamp(-1, 1), depth)
