"""The loss's LPIPS in fewer operations: the same distances, channels last, with backward passes of its own.

The first convolution (11x11, stride 4) becomes one of 3x3 on blocks of 4x4 pixels: as the network is frozen, its
weights are rearranged once, and the gradient of the image is an ordinary convolution instead of a strided one of three
channels.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function

from clstudy.metrics.first_derivatives import first_derivative
from clstudy.metrics.lpips import LPIPS, Features

_STRIDE, _KERNEL, _PADDING = 4, 11, 2
"""Of the first convolution."""


class FusedLPIPS(LPIPS):
    """LPIPS whose feature maps are ``[n, h * w, c]``: to be compared with its own features alone.

    It can be differentiated once.
    """

    blocks: Tensor

    def __init__(self) -> None:
        super().__init__()
        first, *others = self._layers
        # 11x11 in the corner of 12x12, which is 3x3 blocks of 4x4
        self.register_buffer("blocks", F.pixel_unshuffle(F.pad(first.weight.detach(), (0, 1, 0, 1)), _STRIDE))
        for convolution in others:
            convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)

    @property
    def _layers(self) -> list[nn.Conv2d]:
        return [cast("nn.Conv2d", layer) for layer in self._convolutions]

    def features(self, images: Tensor) -> Features:
        """Return the five unit-normalised feature maps ``[n, h' * w', c]`` of images ``[n, 3, h, w]``."""
        first, *others = self._layers
        x = F.conv2d(_in_blocks((images - self.shift) / self.scale), self.blocks, first.bias)
        maps = [F.relu(x)]
        for index, convolution in enumerate(others, start=1):
            x = maps[-1]
            if index in (1, 2):
                x = F.max_pool2d(x, 3, stride=2)
            maps.append(F.relu(convolution(x)))
        return tuple(_unit_vectors(level.permute(0, 2, 3, 1).flatten(1, 2)) for level in maps)

    def distance(self, ours: Features, theirs: Features) -> Tensor:
        """Return distances ``[n]`` between two sets of feature maps; no gradient reaches ``theirs``."""
        levels = [
            _weighted_distance(a, b, getattr(self, f"head{index}") / a.shape[1])
            for index, (a, b) in enumerate(zip(ours, theirs, strict=True))
        ]
        return torch.stack(levels).sum(0)


def _in_blocks(images: Tensor) -> Tensor:
    """Padded images ``[n, 3, h, w]`` as blocks ``[n, 48, h', w']`` of 4x4 pixels, channels last."""
    height, width = images.shape[-2:]
    missing = [_missing(size) for size in (width, height)]
    padded = F.pad(images, (_PADDING, missing[0], _PADDING, missing[1]))
    return F.pixel_unshuffle(padded, _STRIDE).contiguous(memory_format=torch.channels_last)


def _missing(size: int) -> int:
    """Pixels to add behind (fewer than 0: to take away), so that blocks of 3x3 begin where the kernel does."""
    places = (size + 2 * _PADDING - _KERNEL) // _STRIDE + 1
    return _STRIDE * (places + 2) - size - _PADDING


def _unit_vectors(x: Tensor) -> Tensor:
    result: Tensor = _UnitVectors.apply(x)  # type: ignore[no-untyped-call]
    return result


def _weighted_distance(ours: Tensor, theirs: Tensor, weights: Tensor) -> Tensor:
    result: Tensor = _WeightedDistance.apply(ours, theirs, weights)  # type: ignore[no-untyped-call]
    return result


class _UnitVectors(Function):
    """Vectors along the last axis ``[..., c]`` divided by their length plus 1e-10."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        unit: Tensor = x / (length + 1e-10)
        ctx.save_for_backward(unit, length)
        return unit

    @staticmethod
    @first_derivative
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        unit, length = ctx.saved_tensors
        along = (gradient * unit).sum(-1, keepdim=True)
        # where the length is 0, x and unit are, and the gradient passes as through a division by 1e-10
        result: Tensor = torch.addcmul(gradient, unit, along, value=-1).div_(length + 1e-10)
        return result


class _WeightedDistance(Function):
    """Weighted square distances ``[n]`` of vectors ``[n, m, c]`` to others, summed over m."""

    @staticmethod
    def forward(ctx: Any, ours: Tensor, theirs: Tensor, weights: Tensor) -> Tensor:
        difference = ours - theirs
        ctx.save_for_backward(difference, weights)
        result: Tensor = (difference.square() @ weights).sum(1)
        return result

    @staticmethod
    @first_derivative
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        difference, weights = ctx.saved_tensors
        return difference * (2 * weights) * gradient[:, None, None], None, None
