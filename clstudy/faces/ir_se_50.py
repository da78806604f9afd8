"""IR-SE-50: the backbone of published identity networks and encoders of faces.

Sources: J. Deng et al., "ArcFace" (1801.07698: improved residual units); J. Hu et al., "Squeeze-and-Excitation"
(1709.01507). Written from the papers under the parameter names of the published files."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_GROUPS = ((64, 3), (128, 4), (256, 14), (512, 3))
"""(channels, units) of the four groups; the first unit of each halves the resolution."""


FEATURES = _GROUPS[-1][0]
"""Channels of the backbone's last map."""


class SqueezeExcitation(nn.Module):
    """Scale channels by a gate computed from their means."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, h, w] -> [n, c, h, w]``."""
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))))


class Unit(nn.Module):
    """Improved residual unit with squeeze-and-excitation."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            SqueezeExcitation(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[n, inputs, h, w] -> [n, outputs, h / stride, w / stride]``."""
        total: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return total


def ir_se_50(inputs: int = 3) -> tuple[nn.Sequential, nn.Sequential]:
    """The backbone ``[n, inputs, s, s] -> [n, 512, s / 16, s / 16]`` as (input layer, body)."""
    input_layer = nn.Sequential(nn.Conv2d(inputs, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
    units = []
    before = 64
    for outputs, count in _GROUPS:
        for index in range(count):
            units.append(Unit(before, outputs, 2 if index == 0 else 1))
            before = outputs
    return input_layer, nn.Sequential(*units)
