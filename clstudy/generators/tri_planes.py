"""Tri-planes: three feature images that stand for a volume, and the decoder of what is read from them.

Source: E. Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks" (EG3D, 2112.07945), section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clstudy.generators.stylegan2 import FullyConnected

PUBLISHED_AXES = ((0, 1), (0, 2), (2, 0))
"""World axes along each plane's width and height, as the first published weights expect: the third plane repeats the
second with its axes exchanged, and y meets z in no plane."""

CORRECTED_AXES = ((0, 1), (0, 2), (2, 1))
"""As the paper means it, and as later weights expect ("fixed tri-plane")."""

_COLOUR_MARGIN = 0.001
"""Colours are sigmoids stretched by this much on either side, so that 0 and 1 can be reached (mip-NeRF, 2103.13415)."""


def sample_planes(
    planes: Tensor, points: Tensor, box: float, plane_axes: Sequence[tuple[int, int]] = PUBLISHED_AXES
) -> Tensor:
    """Mean of the features that a point meets in the three planes, bilinear between pixels, zero outside.

    Args:
        planes: ``[n, 3, c, h, w]``.
        points: ``[n, p, 3]`` in the world.
        box: side of the cube around the origin that the planes span.
        plane_axes: world axes along each plane's width and height.

    Returns:
        ``[n, p, c]``.
    """
    n, _, channels = planes.shape[:3]
    inside = points * (2 / box)
    places = torch.stack([inside[..., axes] for axes in plane_axes], dim=1)  # [n, 3, p, 2]
    found = F.grid_sample(
        planes.flatten(0, 1), places.flatten(0, 1)[:, None], mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return found.view(n, 3, channels, -1).mean(1).transpose(1, 2)


class Decoder(nn.Module):
    """Features of a point -> density and colour features: one hidden layer with softplus."""

    def __init__(self, inputs: int, outputs: int, *, hidden: int = 64, lr_multiplier: float = 1.0):
        super().__init__()
        self.net = nn.Sequential(
            FullyConnected(inputs, hidden, lr_multiplier=lr_multiplier),
            nn.Softplus(),
            FullyConnected(hidden, 1 + outputs, lr_multiplier=lr_multiplier),
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Colour features ``[n, p, outputs]`` in about [0, 1] and densities before activation ``[n, p, 1]``."""
        values = torch.unflatten(self.net(features.flatten(0, 1)), 0, features.shape[:2])
        colours = torch.sigmoid(values[..., 1:]) * (1 + 2 * _COLOUR_MARGIN) - _COLOUR_MARGIN
        return colours, values[..., :1]
