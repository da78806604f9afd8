"""EG3D's super-resolution: two StyleGAN2 blocks that turn rendered features into the final image.

Source: E. Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks" (EG3D, 2112.07945), section 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from clstudy.generators.stylegan2 import StyleGAN2Settings, SynthesisBlock, fir_filter


@dataclass(frozen=True, kw_only=True)
class SuperResolutionSettings:
    """Sizes of the two blocks.

    Attributes:
        input_resolution: to which rendered features are brought, in pixels.
        channels: feature maps of the two blocks.
        first_up: whether the first block doubles the resolution; the second always does.
        antialias: whether features are low-passed where they are made smaller.
        noise: whether the constant noise is added.
        conv_clamp: bound of every layer's output; None: none.
    """

    input_resolution: int
    channels: tuple[int, int] = (128, 64)
    first_up: bool = False
    antialias: bool = True
    noise: bool = False
    conv_clamp: float | None = None

    @property
    def output_resolution(self) -> int:
        """Side of the final image in pixels."""
        return self.input_resolution * (4 if self.first_up else 2)


PUBLISHED = {
    "SuperresolutionHybrid8XDC": SuperResolutionSettings(input_resolution=128, channels=(256, 128), first_up=True),
    "SuperresolutionHybrid8X": SuperResolutionSettings(input_resolution=128, first_up=True),
    "SuperresolutionHybrid4X": SuperResolutionSettings(input_resolution=128),
    "SuperresolutionHybrid2X": SuperResolutionSettings(input_resolution=64),
}
"""The modules of published checkpoints, by the name of their class; their w has 512 numbers."""


class SuperResolution(nn.Module):
    """Rendered features, their first three channels as image, and w -> the final image."""

    resample_filter: Tensor

    def __init__(self, settings: SuperResolutionSettings, features: int, w_dim: int):
        super().__init__()
        self.settings = settings
        layers = StyleGAN2Settings(w_dim=w_dim, conv_clamp=settings.conv_clamp)
        first, second = settings.channels
        size = settings.input_resolution * (2 if settings.first_up else 1)
        self.block0 = SynthesisBlock(layers, size, features, first, up=settings.first_up)
        self.block1 = SynthesisBlock(layers, 2 * size, first, second)
        self.register_buffer("resample_filter", fir_filter())

    def forward(self, features: Tensor, ws: Tensor) -> Tensor:
        """Images ``[n, 3, s, s]`` in about [-1, 1].

        Args:
            features: ``[n, c, r, r]``; the first three channels are the raw image.
            ws: ``[n, num_ws, w_dim]``, of which the last layer's is taken.
        """
        size = self.settings.input_resolution
        if features.shape[-1] != size:
            features = F.interpolate(
                features, (size, size), mode="bilinear", align_corners=False, antialias=self.settings.antialias
            )
        w = ws[:, -1:].expand(-1, 3, -1)
        x, image = self.block0(features, features[:, :3], w, self.settings.noise)
        final: Tensor = self.block1(x, image, w, self.settings.noise)[1]
        return final
