"""StyleGAN2 in plain PyTorch, under the parameter names of the published checkpoints.

Sources: T. Karras et al., "A Style-Based Generator Architecture for GANs" (1812.04948: mapping, truncation),
"Analyzing and Improving the Image Quality of StyleGAN" (1912.04958: modulated convolution with weight
demodulation, skip connections), "Progressive Growing of GANs" (1710.10196: equalised learning rate).
Written from the papers; the tiny reference networks in ``tests/data`` fix every convention.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LRELU_SLOPE = 0.2
LRELU_GAIN = math.sqrt(2.0)
"""Of the leaky ReLU: keeps the variance of a unit Gaussian."""


@dataclass(frozen=True, kw_only=True)
class StyleGAN2Settings:
    """Everything that fixes the shape of a StyleGAN2 generator.

    Channels at resolution r are ``min(channel_base // r, channel_max)``; 64 px images with base 1024 and
    maximum 192 have 192, 128, 64, 32, 16 channels from 4 px to 64 px (multiples of 16 fill a processor's vectors,
    docs/speed.md). ``conv_clamp`` limits every layer's output to
    ± that value, as in networks whose large blocks were trained in float16 (None: no limit). Without mapping layers
    the network has only a mean latent and is driven by w. ``img_channels`` is 3 for colour images; tri-planes have more
    (``clstudy.generators.eg3d``). ``embed_features``: width of the embedded condition, None: ``w_dim``.

    Class attributes:
        kind: what such a network is called in files and messages.
    """

    kind: ClassVar[str] = "stylegan2"

    img_resolution: int = 64
    z_dim: int = 256
    c_dim: int = 0
    w_dim: int = 512
    channel_base: int = 1024
    channel_max: int = 192
    mapping_layers: int = 2
    conv_clamp: float | None = None
    img_channels: int = 3
    embed_features: int | None = None

    def __post_init__(self) -> None:
        size = self.img_resolution
        if size < 8 or size & (size - 1):
            raise ValueError(f"img_resolution is {size}; expected a power of two from 8 up")

    def network(self) -> StyleGAN2:
        """A network of these sizes with random weights."""
        return StyleGAN2(self)

    def channels(self, resolution: int) -> int:
        """Feature maps at a resolution."""
        return min(self.channel_base // resolution, self.channel_max)

    @property
    def block_resolutions(self) -> list[int]:
        """4, 8, … up to the image's side."""
        return [2**power for power in range(2, int(math.log2(self.img_resolution)) + 1)]

    @property
    def num_ws(self) -> int:
        """How many layers take a w of their own."""
        return 2 * int(math.log2(self.img_resolution)) - 2

    @property
    def embedded_width(self) -> int:
        """How many numbers a condition is embedded in."""
        return self.w_dim if self.embed_features is None else self.embed_features

    def to_dict(self) -> dict[str, int | float | None]:
        """Plain dictionary, e.g. for a file's metadata."""
        return asdict(self)


def leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.2 and gain sqrt(2), which keeps the variance of a unit Gaussian."""
    return F.leaky_relu(x, LRELU_SLOPE).mul(LRELU_GAIN)


def limited(x: Tensor, bound: float | None) -> Tensor:
    """Clamp to ±bound, where there is one."""
    return x if bound is None else x.clamp(-bound, bound)


def normalize_second_moment(x: Tensor) -> Tensor:
    """Scale each row ``[n, d]`` to mean square 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def fir_filter() -> Tensor:
    """The [1, 3, 3, 1] binomial filter as a normalised ``[4, 4]`` kernel."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps)
    return kernel / kernel.sum()


def blur_upsampled(x: Tensor, kernel: Tensor) -> Tensor:
    """Low-pass the output ``[n, c, 2h + 1, 2w + 1]`` of a stride-2 transposed convolution to ``[n, c, 2h, 2w]``."""
    channels = x.shape[1]
    weight = (kernel * 4.0).expand(channels, 1, -1, -1)
    return F.conv2d(x, weight, padding=1, groups=channels)


def upsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Double an image ``[n, c, h, w]`` with the FIR kernel ``[4, 4]`` (zero insertion, then filtering)."""
    channels = x.shape[1]
    weight = (kernel * 4.0).expand(channels, 1, -1, -1)
    return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=channels)


def modulated_conv(x: Tensor, weight: Tensor, styles: Tensor, *, kernel: Tensor | None = None) -> Tensor:
    """Convolve ``x [n, i, h, w]`` with ``weight [o, i, k, k]`` scaled per sample by ``styles [n, i]``.

    Scaling activations instead of weights (1912.04958, section 2.2) keeps one ordinary convolution for the whole
    batch. With ``kernel`` (FIR ``[4, 4]``) the resolution doubles.
    """
    x = x * styles[:, :, None, None]
    if kernel is None:
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    return blur_upsampled(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), kernel)


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """Factors ``[n, o]`` that give each output map of the modulated weights unit norm (1912.04958, equation 3)."""
    energy = styles.square() @ weight.square().sum(dim=(2, 3)).t()
    return (energy + 1e-8).rsqrt()


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate: weights are stored at unit variance and scaled when used."""

    def __init__(self, inputs: int, outputs: int, *, lr_multiplier: float = 1.0, bias_init: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), float(bias_init)))
        self.weight_gain = lr_multiplier / math.sqrt(inputs)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """``[n, inputs] -> [n, outputs]``, no activation."""
        return F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)


class MappingNetwork(nn.Module):
    """z (and a condition c) -> w, with the truncation trick around the running mean ``w_avg``."""

    w_avg: Tensor

    def __init__(self, settings: StyleGAN2Settings):
        super().__init__()
        self.settings = settings
        width = settings.z_dim
        if settings.c_dim:
            self.embed = FullyConnected(settings.c_dim, settings.embedded_width)
            width += settings.embedded_width
        for index in range(settings.mapping_layers):
            setattr(self, f"fc{index}", FullyConnected(width, settings.w_dim, lr_multiplier=0.01))
            width = settings.w_dim
        self.register_buffer("w_avg", torch.zeros(settings.w_dim))

    def forward(
        self, z: Tensor, c: Tensor | None = None, *, truncation_psi: float = 1.0, truncation_cutoff: int | None = None
    ) -> Tensor:
        """Return ws ``[n, num_ws, w_dim]`` for z ``[n, z_dim]`` and c ``[n, c_dim]`` (conditional networks).

        ``truncation_psi`` < 1 moves w towards the mean, in the first ``truncation_cutoff`` layers or in all.
        """
        if not self.settings.mapping_layers:
            raise ValueError("this network has no mapping layers: pass w to its synthesis network")
        x = normalize_second_moment(z)
        if self.settings.c_dim:
            if c is None:
                raise ValueError(f"this network is conditional: pass c with shape [n, {self.settings.c_dim}]")
            x = torch.cat([x, normalize_second_moment(self.embed(c))], dim=1)
        for index in range(self.settings.mapping_layers):
            x = leaky_relu(getattr(self, f"fc{index}")(x))
        ws = x[:, None].expand(-1, self.settings.num_ws, -1)
        if truncation_psi == 1:
            return ws
        cutoff = self.settings.num_ws if truncation_cutoff is None else truncation_cutoff
        return torch.cat([self.w_avg.lerp(ws[:, :cutoff], truncation_psi), ws[:, cutoff:]], dim=1)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(self, settings: StyleGAN2Settings, inputs: int, outputs: int, *, resolution: int, up: bool):
        super().__init__()
        self.affine = FullyConnected(settings.w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", fir_filter())
        self.up = up
        self.conv_clamp = settings.conv_clamp

    def forward(self, x: Tensor, w: Tensor, noise: bool) -> Tensor:
        """Return ``[n, outputs, resolution, resolution]``."""
        styles = self.affine(w)
        x = modulated_conv(x, self.weight, styles, kernel=self.resample_filter if self.up else None)
        offset = self.bias[:, None, None]
        if noise:
            offset = offset + self.noise_const * self.noise_strength
        factor = demodulation(self.weight, styles)[:, :, None, None]
        return limited(leaky_relu(torch.addcmul(offset, x, factor)), self.conv_clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation: features to colours (or to another ``img_channels``)."""

    def __init__(self, settings: StyleGAN2Settings, inputs: int):
        super().__init__()
        self.affine = FullyConnected(settings.w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(settings.img_channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(settings.img_channels))
        self.gain = 1 / math.sqrt(inputs)
        self.conv_clamp = settings.conv_clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return ``[n, img_channels, h, w]``."""
        styles = self.affine(w) * self.gain
        return limited(modulated_conv(x, self.weight, styles) + self.bias[:, None, None], self.conv_clamp)


class SynthesisBlock(nn.Module):
    """Two layers and a skip image.

    Args:
        settings: of the network.
        resolution: of the block's features.
        inputs: feature maps that it takes; None: it begins with a learned constant, and has one layer.
        outputs: feature maps that it returns.
        up: whether features and image come in at half the resolution.
    """

    resample_filter: Tensor

    def __init__(
        self, settings: StyleGAN2Settings, resolution: int, inputs: int | None, outputs: int, *, up: bool = True
    ):
        super().__init__()
        self.up = up
        if inputs is None:
            self.const = nn.Parameter(torch.randn(outputs, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(settings, inputs, outputs, resolution=resolution, up=up)
        self.conv1 = SynthesisLayer(settings, outputs, outputs, resolution=resolution, up=False)
        self.torgb = ToRGB(settings, outputs)
        self.register_buffer("resample_filter", fir_filter())

    def forward(self, x: Tensor | None, image: Tensor | None, ws: Tensor, noise: bool) -> tuple[Tensor, Tensor]:
        """Return features and image for ws ``[n, 3, w_dim]``, of which a block with a constant takes two."""
        layer = iter(ws.unbind(dim=1))
        if x is None or image is None:
            x = self.const.expand(len(ws), -1, -1, -1)
        else:
            x = self.conv0(x, next(layer), noise)
            if self.up:
                image = upsample(image, self.resample_filter)
        x = self.conv1(x, next(layer), noise)
        colours = self.torgb(x, next(layer))
        return x, colours if image is None else image + colours


class SynthesisNetwork(nn.Module):
    """ws -> image.

    Attributes:
        recompute: do not keep the features inside a block for the backward pass but compute them again (activation
            checkpointing, Chen et al. 1604.06174): the same bits, less memory, about a third more time.
        autocast: compute convolutions and linear layers in this type (torch.bfloat16); None: as the weights are.
        block: computes a block, from features, image, ws and whether there is noise to features and image. What it
            makes of the features' axes is its own affair. None: ``SynthesisBlock.forward``.
    """

    def __init__(self, settings: StyleGAN2Settings):
        super().__init__()
        self._settings = settings
        self.recompute = False
        self.autocast: torch.dtype | None = None
        self.block: Callable[..., tuple[Tensor, Tensor]] | None = None
        inputs: int | None = None
        for resolution in settings.block_resolutions:
            outputs = settings.channels(resolution)
            setattr(self, f"b{resolution}", SynthesisBlock(settings, resolution, inputs, outputs))
            inputs = outputs

    @property
    def num_ws(self) -> int:
        """How many layers take a w of their own."""
        return self._settings.num_ws

    def forward(self, ws: Tensor, *, noise: bool = True) -> Tensor:
        """Return images ``[n, img_channels, r, r]`` for ws ``[n, num_ws, w_dim]`` or w ``[n, w_dim]``.

        Colours are nominally in [-1, 1]. ``noise`` adds the constant noise inputs; without it the noise terms are left
        out.
        """
        if ws.ndim == 2:
            ws = ws[:, None].expand(-1, self._settings.num_ws, -1)
        expected = (self._settings.num_ws, self._settings.w_dim)
        if ws.shape[1:] != expected:
            raise ValueError(f"expected ws [n, {expected[0]}, {expected[1]}], got {tuple(ws.shape)}")
        if self.autocast is None:
            return self._image(ws, noise)
        with torch.autocast(ws.device.type, dtype=self.autocast):
            return self._image(ws, noise).float()

    def _image(self, ws: Tensor, noise: bool) -> Tensor:
        x: Tensor | None = None
        image: Tensor | None = None
        start = 0
        for resolution in self._settings.block_resolutions:
            count = 2 if resolution == 4 else 3
            block = getattr(self, f"b{resolution}")
            if self.block is not None:
                block = partial(self.block, block)
            layers = ws[:, start : start + count]
            if self.recompute and torch.is_grad_enabled():
                x, image = checkpoint(block, x, image, layers, noise, use_reentrant=False, preserve_rng_state=False)
            else:
                x, image = block(x, image, layers, noise)
            start += count - 1  # a block's ToRGB shares its w with the next block's first layer
        assert image is not None
        return image


class StyleGAN2(nn.Module):
    """Mapping and synthesis; loads published state dicts (``mapping.*``, ``synthesis.*``) by name."""

    def __init__(self, settings: StyleGAN2Settings):
        super().__init__()
        self.settings = settings
        self.mapping = MappingNetwork(settings)
        self.synthesis = SynthesisNetwork(settings)

    def tuned_parts(self) -> list[nn.Module]:
        """What is tuned to a person: all but the mapping network."""
        return [self.synthesis]

    def forward(self, z: Tensor, c: Tensor | None = None, *, truncation_psi: float = 1.0, noise: bool = True) -> Tensor:
        """Return images ``[n, 3, r, r]`` for z ``[n, z_dim]``."""
        images: Tensor = self.synthesis(self.mapping(z, c, truncation_psi=truncation_psi), noise=noise)
        return images
