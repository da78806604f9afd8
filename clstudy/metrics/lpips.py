"""LPIPS v0.1 on AlexNet features, with complete packaged weights; and the metric, which other libraries may compute.

Source: R. Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (1801.03924).
Equal to the official ``lpips`` package (``net="alex"``, ``version="0.1"``); a target's features can be computed
once and compared with many images.

The *metric* can also be computed by that package itself, on AlexNet, VGG16 or SqueezeNet
(``EvaluationSettings.lpips_backend``). The *loss* of training and inversion is always the class here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from clstudy.assets import asset_path
from clstudy.metrics.base import METRICS, Metric, MetricSettings
from clstudy.registry import Registry

_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_CONVOLUTIONS = (  # (in, out, kernel, stride, padding), max pooling before the second and the third
    (3, 64, 11, 4, 2),
    (64, 192, 5, 1, 2),
    (192, 384, 3, 1, 1),
    (384, 256, 3, 1, 1),
    (256, 256, 3, 1, 1),
)

Features = tuple[Tensor, ...]


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity; 0 for equal images, lower is closer, no upper bound.

    Images are float ``[n, 3, h, w]`` in [-1, 1] with h, w >= 32.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._convolutions = nn.ModuleList(
            nn.Conv2d(i, o, kernel, stride=stride, padding=padding) for i, o, kernel, stride, padding in _CONVOLUTIONS
        )
        state = load_file(asset_path("lpips_alex.safetensors"))
        for index, convolution in enumerate(self._convolutions):
            convolution.load_state_dict({"weight": state[f"conv{index}.weight"], "bias": state[f"conv{index}.bias"]})
            self.register_buffer(f"head{index}", state[f"lin{index}.weight"][0, :, 0, 0])
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None])
        self.requires_grad_(False).eval()

    def features(self, images: Tensor) -> Features:
        """Return the five unit-normalised feature maps ``[n, c, h', w']`` of images."""
        x = (images - self.shift) / self.scale
        maps = []
        for index, convolution in enumerate(self._convolutions):
            if index in (1, 2):
                x = F.max_pool2d(x, 3, stride=2)
            x = F.relu(convolution(x))
            maps.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return tuple(maps)

    def distance(self, ours: Features, theirs: Features) -> Tensor:
        """Return distances ``[n]`` between two sets of feature maps."""
        total = torch.zeros(len(ours[0]), device=ours[0].device, dtype=ours[0].dtype)
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            head = getattr(self, f"head{index}")
            total = total + torch.einsum("nchw,c->n", (a - b).square(), head) / (a.shape[2] * a.shape[3])
        return total

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return LPIPS ``[n]`` of image pairs."""
        return self.distance(self.features(images), self.features(targets))


def index_features(features: Features, index: Tensor) -> Features:
    """Select rows of precomputed features."""
    return tuple(level[index] for level in features)


def join_features(parts: Iterable[Features]) -> Features:
    """All rows of several sets of precomputed features, in order."""
    return tuple(torch.cat(levels) for levels in zip(*parts, strict=True))


class FeatureDistance(Protocol):
    """A backend of the metric: computes a target's features once, then its distance to many images."""

    def features(self, images: Tensor) -> Features:
        """Return feature maps of images ``[n, 3, h, w]`` in [-1, 1], on the backend's device."""

    def distance(self, ours: Features, theirs: Features) -> Tensor:
        """Return distances ``[n]`` between two sets of feature maps."""


LPIPS_BACKENDS: Registry[Callable[[MetricSettings], FeatureDistance]] = Registry("LPIPS backend")


@LPIPS_BACKENDS.register("packaged")
def _packaged(settings: MetricSettings) -> FeatureDistance:
    return LPIPS().to(settings.device)


@LPIPS_BACKENDS.register("lpips")
def _official(settings: MetricSettings) -> FeatureDistance:
    from clstudy.metrics.official_lpips import open_official_lpips  # an extra, and it imports torchvision

    return open_official_lpips(settings)


@METRICS.register("lpips")
class LPIPSMetric(Metric):
    """LPIPS of a reconstruction, by the packaged network or by the official package on a network of the user's choice.

    Either way the loss that training and inversion minimise stays the packaged AlexNet LPIPS.
    """

    name = "lpips"
    higher_is_better = False
    title = "LPIPS"
    unit = "distance"
    bounds = (0.0, float("inf"))
    description = (
        "LPIPS v0.1 of a reconstruction, lower is better; packaged (AlexNet), or by the official package on alex, vgg "
        "or squeeze"
    )

    def __init__(self, settings: MetricSettings | None = None):
        super().__init__(settings)
        self._net = LPIPS_BACKENDS[self.settings.evaluation.lpips_backend](self.settings)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(getattr(self._net, "notes", ()))

    @torch.no_grad()
    def prepare(self, targets: Tensor) -> Features:
        return self._net.features(targets.to(self.settings.device))

    @torch.no_grad()
    def pairs(self, images: Tensor, prepared: Features) -> Tensor:
        return self._net.distance(self._net.features(images.to(self.settings.device)), prepared).cpu()
