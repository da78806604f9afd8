"""The W encoder of the embedded generator: photo -> anchor latent."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class WEncoder(nn.Module):
    """Strided convolutions with group normalisation and one linear layer: 64x64 photo -> w.

    A plain regression encoder as in autoencoders; it gives the anchors (protocol, step 1) and the start of every
    test-time inversion.
    """

    def __init__(self, *, w_dim: int = 256, widths: tuple[int, ...] = (32, 64, 96, 128, 160), image_size: int = 64):
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width in widths:
            layers += [nn.Conv2d(inputs, width, 4, stride=2, padding=1), nn.GroupNorm(8, width), nn.LeakyReLU(0.2)]
            inputs = width
        self.features = nn.Sequential(*layers)
        side = image_size // 2 ** len(widths)
        self.head = nn.Linear(inputs * side * side, w_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Return w ``[n, w_dim]`` for images ``[n, 3, 64, 64]`` in [-1, 1]."""
        return self.head(F.leaky_relu(self.features(images), 0.2).flatten(1))
