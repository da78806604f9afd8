"""What pretraining looks at besides whole pictures: who it is, and eyes and mouth from near."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clstudy.faces.torch_embedder import TorchIdentityEmbedder

_PART_SIZE = (48, 96)
"""Height and width in pixels of a part of a face seen from near: more than twice as large as in a 64 px photo."""

_EYES, _MOUTH = 1.0, 0.9
"""Half the width of the parts in eye distances; they are half as high."""


class IdentityLoss:
    """1 - cosine of identity embeddings centred on the mean embedding of ``photos [n, 3, s, s]``.

    Without centring, the embedding that all faces share makes up part of every cosine, and a network lowers the loss
    fastest by painting that common face more clearly.
    """

    def __init__(self, photos: Tensor):
        self._embedder = TorchIdentityEmbedder()
        with torch.no_grad():
            self._mean = torch.cat([self._embedder(part) for part in torch.split(photos, 50)]).mean(dim=0)

    def _centred(self, images: Tensor) -> Tensor:
        return F.normalize(self._embedder(images) - self._mean, dim=1)

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return losses ``[n]`` in [0, 2]; gradients flow into ``images`` only."""
        with torch.no_grad():
            wanted = self._centred(targets)
        return 1 - (self._centred(images) * wanted).sum(dim=1)


def mirrored(images: Tensor, points: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Images ``[n, 3, s, s]`` and points ``[n, 5, 2]``, the chosen ones ``[n]`` mirrored."""
    other = points.clone()
    other[..., 0] = images.shape[3] - 1 - points[..., 0]
    other = other[:, [1, 0, 2, 4, 3]]
    turned = torch.where(chosen[:, None, None, None], images.flip(3), images)
    return turned, torch.where(chosen[:, None, None], other, points)


def eyes(images: Tensor, points: Tensor) -> Tensor:
    """The stretch around both eyes ``[n, 3, 48, 96]``, two eye distances wide.

    Args:
        images: ``[n, 3, s, s]``.
        points: ``[n, 5, 2]`` in pixels: eyes, nose tip, corners of the mouth.
    """
    return _part(images, points[:, :2].mean(dim=1), _EYES * eye_distance(points))


def mouth(images: Tensor, points: Tensor) -> Tensor:
    """The stretch around the mouth ``[n, 3, 48, 96]``; arguments as of ``eyes``."""
    return _part(images, points[:, 3:].mean(dim=1), _MOUTH * eye_distance(points))


def eye_distance(points: Tensor) -> Tensor:
    """Pixels between the eyes ``[n]``; of a face turned away at least half of what is usual in a photo of 64 px."""
    distance: Tensor = torch.linalg.vector_norm(points[:, 1] - points[:, 0], dim=1)
    return distance.clamp(min=10)


def _part(images: Tensor, centre: Tensor, half_width: Tensor) -> Tensor:
    side = images.shape[3]
    x = torch.linspace(-1, 1, _PART_SIZE[1])[None, None, :] * half_width[:, None, None]
    y = torch.linspace(-1, 1, _PART_SIZE[0])[None, :, None] * half_width[:, None, None] / 2
    x, y = x + centre[:, 0, None, None], y + centre[:, 1, None, None]
    at = torch.stack([x.expand(-1, _PART_SIZE[0], -1), y.expand(-1, -1, _PART_SIZE[1])], dim=3)
    return F.grid_sample(images, (at + 0.5) * (2 / side) - 1, padding_mode="border", align_corners=False)


def attention(points: Tensor, side: int, boost: float) -> Tensor:
    """Weights ``[n, 1, side, side]`` of pixels, 1 on average: up to ``1 + boost`` times as much on eyes and mouth."""
    distance = eye_distance(points)[:, None, None, None]
    grid = torch.arange(side, dtype=torch.float32)
    centres = torch.cat([points[:, :2], points[:, 3:].mean(dim=1, keepdim=True)], dim=1)
    x = (grid[None, None, None, :] - centres[:, :, 0, None, None]) / (0.3 * distance)
    y = (grid[None, None, :, None] - centres[:, :, 1, None, None]) / (0.2 * distance)
    weights = 1 + boost * torch.exp(-(x.square() + y.square()) / 2).amax(dim=1, keepdim=True)
    return weights / weights.mean(dim=(2, 3), keepdim=True)


def recoloured(images: Tensor, uniform: Tensor, grey_share: float, strength: float) -> Tensor:
    """Other light: each channel brighter or darker, another contrast; some without any colour.

    Args:
        images: ``[n, 3, s, s]`` in [-1, 1].
        uniform: random numbers ``[n, 5]`` in [0, 1).
        grey_share: of the images.
        strength: largest change of a channel's gain, in shares.
    """
    luminance = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)
    images = torch.where(uniform[:, 4, None, None, None] < grey_share, luminance, images)
    gain = 1 + strength * (2 * uniform[:, :3, None, None] - 1)
    power = torch.exp2(2 * strength * (2 * uniform[:, 3, None, None, None] - 1))
    return (2 * ((images / 2 + 0.5).clamp(min=1e-4) ** power * gain) - 1).clamp(-1, 1)
