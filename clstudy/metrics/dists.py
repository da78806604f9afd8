"""DISTS on VGG16 features: structure and texture similarity.

Source: K. Ding, K. Ma, S. Wang, E. P. Simoncelli, "Image Quality Assessment: Unifying Structure and Texture
Similarity" (2004.07728), equations 3 to 6. Equal to the authors' package ``DISTS_pytorch`` given the same weights; a
target's features can be computed once and compared with many images.

Images larger than 256 px are reduced to 256 first, as the authors' ``prepare_image(resize=True)`` does, because the
weights were fitted to human judgements at that size (their network itself takes any size). It also bounds what a cached
photo costs: 33 MB at 256 px, 2 MB at 64 px.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from clstudy.assets.readers.tensor_files import read_tensors
from clstudy.errors import UserError
from clstudy.metrics.base import METRICS, Metric, MetricSettings

VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of the 3x3 convolutions, by stage; L2 pooling before every stage but the first."""

FEATURE_CHANNELS = (3, *(stage[-1] for stage in VGG16_STAGES))
"""Channels of the compared maps: the image itself and the last map of every stage."""

_MEAN = (0.485, 0.456, 0.406)  # of ImageNet: what the VGG16 weights expect
_STD = (0.229, 0.224, 0.225)
_TINY = 1e-6  # c1 and c2 of equations 4 and 5
_LARGEST = 256


@dataclass(frozen=True, kw_only=True)
class DISTSFeatures:
    """Feature maps ``[n, c, h, w]`` of images and, per map, mean and variance ``[n, c]`` over the pixels."""

    maps: tuple[Tensor, ...]
    means: tuple[Tensor, ...]
    variances: tuple[Tensor, ...]


class DISTS(nn.Module):
    """Deep image structure and texture similarity as a distance; 0 for equal images, about 1 for unrelated ones.

    Images are float ``[n, 3, h, w]`` in [-1, 1]. The weights (``weight_names``) are float32 tensors.

    Raises:
        ValueError: a tensor is missing or has another shape.
    """

    alpha: Tensor
    beta: Tensor
    mean: Tensor
    std: Tensor
    window: Tensor

    def __init__(self, weights: dict[str, Tensor]):
        super().__init__()
        wrong = [
            f"{name} is {'missing' if name not in weights else list(weights[name].shape)}, expected {list(shape)}"
            for name, shape in weight_shapes().items()
            if name not in weights or weights[name].shape != shape
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        inputs = itertools.chain((3,), itertools.chain.from_iterable(VGG16_STAGES))
        stages = []
        for stage in VGG16_STAGES:
            stages.append(nn.ModuleList(nn.Conv2d(next(inputs), outputs, 3, padding=1) for outputs in stage))
        self.stages = nn.ModuleList(stages)
        for index, convolution in enumerate(layer for stage in stages for layer in stage):
            convolution.load_state_dict(
                {"weight": weights[f"conv{index}.weight"], "bias": weights[f"conv{index}.bias"]}
            )
        total = weights["alpha"].sum() + weights["beta"].sum()
        self.register_buffer("alpha", weights["alpha"] / total)
        self.register_buffer("beta", weights["beta"] / total)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(_STD)[:, None, None])
        # the inner 3x3 of a 5x5 Hann window, with sum 1
        row = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("window", (row[:, None] * row / 16)[None, None])
        self.requires_grad_(False).eval()

    def features(self, images: Tensor) -> DISTSFeatures:
        """Return the features of images ``[n, 3, h, w]`` in [-1, 1] that ``distance`` compares."""
        shown = (at_most(images, _LARGEST) + 1) / 2
        x = (shown - self.mean) / self.std
        maps = [shown]
        for stage, convolutions in enumerate(self.stages):
            assert isinstance(convolutions, nn.ModuleList)
            if stage:
                x = self._pool(x)
            for convolution in convolutions:
                x = F.relu(convolution(x))
            maps.append(x)
        means = tuple(level.mean(dim=(2, 3)) for level in maps)
        variances = tuple(
            (level - mean[:, :, None, None]).square().mean(dim=(2, 3)) for level, mean in zip(maps, means, strict=True)
        )
        return DISTSFeatures(maps=tuple(maps), means=means, variances=variances)

    def _pool(self, x: Tensor) -> Tensor:
        """L2 pooling (equation 2): the root of the blurred squares at every second pixel, which does not alias."""
        channels = x.shape[1]
        blurred = F.conv2d(x.square(), self.window.expand(channels, 1, 3, 3), stride=2, padding=1, groups=channels)
        return (blurred + 1e-12).sqrt()

    def distance(self, ours: DISTSFeatures, theirs: DISTSFeatures) -> Tensor:
        """Return distances ``[n]`` between two sets of features (equation 6)."""
        similarity = torch.zeros(len(ours.maps[0]), device=self.alpha.device)
        channels = list(FEATURE_CHANNELS)
        alphas, betas = torch.split(self.alpha, channels), torch.split(self.beta, channels)
        for level, (alpha, beta) in enumerate(zip(alphas, betas, strict=True)):
            x_mean, y_mean = ours.means[level], theirs.means[level]
            texture = (2 * x_mean * y_mean + _TINY) / (x_mean.square() + y_mean.square() + _TINY)
            covariance = (ours.maps[level] * theirs.maps[level]).mean(dim=(2, 3)) - x_mean * y_mean
            structure = (2 * covariance + _TINY) / (ours.variances[level] + theirs.variances[level] + _TINY)
            similarity = similarity + texture @ alpha + structure @ beta
        return 1 - similarity

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return DISTS ``[n]`` of image pairs."""
        return self.distance(self.features(images), self.features(targets))


def at_most(images: Tensor, size: int) -> Tensor:
    """Reduce images ``[n, c, h, w]`` so that the shorter side is ``size``, antialiased; smaller ones are unchanged."""
    height, width = images.shape[2:]
    shorter = min(height, width)
    if shorter <= size:
        return images
    wanted = (height * size // shorter, width * size // shorter)
    return F.interpolate(images, wanted, mode="bilinear", antialias=True, align_corners=False)


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in ``dists.safetensors``."""
    shapes: dict[str, tuple[int, ...]] = {}
    inputs = 3
    for index, outputs in enumerate(itertools.chain.from_iterable(VGG16_STAGES)):
        shapes[f"conv{index}.weight"] = (outputs, inputs, 3, 3)
        shapes[f"conv{index}.bias"] = (outputs,)
        inputs = outputs
    return shapes | {name: (sum(FEATURE_CHANNELS),) for name in ("alpha", "beta")}


def load_dists(path: Path) -> DISTS:
    """Read the network from the file that ``python -m clstudy.metrics fetch dists`` writes.

    Raises:
        UserError: the file does not hold these weights.
    """
    try:
        return DISTS(read_tensors(path))
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise UserError(
            f"{path} does not hold the DISTS weights: {error}; make the file with "
            "`python -m clstudy.metrics fetch dists --to FOLDER`"
        ) from error


@METRICS.register("dists")
class DISTSMetric(Metric):
    """DISTS of a reconstruction."""

    name = "dists"
    higher_is_better = False
    title = "DISTS"
    unit = "distance"
    bounds = (0.0, float("inf"))
    description = "DISTS (VGG16, at most 256 px) of a reconstruction, lower is better"
    needs = ("dists",)

    def __init__(self, settings: MetricSettings | None = None):
        super().__init__(settings)
        self._net = load_dists(self._file("dists")).to(self.settings.device)

    @torch.no_grad()
    def prepare(self, targets: Tensor) -> DISTSFeatures:
        return self._net.features(targets.to(self.settings.device))

    @torch.no_grad()
    def pairs(self, images: Tensor, prepared: DISTSFeatures) -> Tensor:
        return self._net.distance(self._net.features(images.to(self.settings.device)), prepared).cpu()
