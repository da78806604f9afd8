"""Layers of StyleGAN2's synthesis network with a backward pass of their own: the same mathematics, fewer passes.

On a CPU a step at 64 px spends as long on what lies between convolutions as on some of them, and convolutions of 20
and 40 channels run twice as fast where channels come last. So features are ``[n, h, w, channels]`` here, and a layer is
one function:

* Styles scale activations, so one ordinary convolution serves the whole batch (1912.04958, section 2.2). A scaling of
  channels is a product with a row ``[n, 1, w * channels]``: long inner loops, whatever the number of channels.
* The filter behind an upsampling convolution is separable, and [1, 3, 3, 1] = 3 [1/3, 1, 1, 1/3]: seven additions, and
  its gain is part of the demodulation. So is the gain of the leaky ReLU, which keeps positive factors.
* For the backward pass a layer keeps its input and its output alone. The convolution's result y is not needed: with
  u = y d + offset before the activation and z after it, the gradient at u times u is the gradient at z times z (leaky
  ReLU is linear on either side of 0), and so is the sum that the demodulation's gradient needs:
  d · sum(gradient at u · y) = sum(gradient at z · z) - sum(gradient at u · offset).

Nothing here can be differentiated twice; ``SynthesisLayer.forward`` can.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function

from clstudy.errors import UserError
from clstudy.generators.stylegan2 import (
    LRELU_GAIN,
    LRELU_SLOPE,
    FullyConnected,
    SynthesisBlock,
    SynthesisLayer,
    ToRGB,
    fir_filter,
    limited,
)
from clstudy.metrics.first_derivatives import first_derivative

_SAME = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
"""Stride, padding, dilation, transposed, output padding, groups of a 3x3 convolution that keeps the size."""
_DOUBLING = ([2, 2], [0, 0], [1, 1], True, [0, 0], 1)
"""The same of the transposed convolution that makes ``2 h + 1`` rows of h."""

_OUTER_TAP = 1 / 3
"""Of the filter [1/3, 1, 1, 1/3]."""
_FILTER_GAIN = 9 / 16
"""What that filter in two dimensions lacks to [1, 3, 3, 1] x [1, 3, 3, 1] / 16 (the normalised filter times 4)."""

_EPSILON = 1e-8


def lay_out(network: nn.Module) -> None:
    """Store convolution weights the way the fused layers read them; names, shapes and values stay.

    Raises:
        UserError: the network's resampling filter is another one than StyleGAN2's.
    """
    for layer in network.modules():
        if not isinstance(layer, SynthesisLayer):
            continue
        if not torch.allclose(layer.resample_filter.cpu().float(), fir_filter(), atol=1e-6):
            raise UserError(
                "compute.kernels is 'fused', which knows the resampling filter [1, 3, 3, 1] alone, and this checkpoint "
                "has another one; compute with --set compute.kernels=plain"
            )
        weight = layer._parameters.get("weight")  # factored weights are computed anew at every use
        if weight is not None:
            weight.data = _channels_last(weight.data, layer.up)


def _channels_last(weight: Tensor, up: bool) -> Tensor:
    """A weight ``[o, i, 3, 3]`` with its channels last in memory, for a convolution or for a transposed one."""
    if not up:
        return weight.contiguous(memory_format=torch.channels_last)
    return weight.transpose(0, 1).contiguous(memory_format=torch.channels_last).transpose(0, 1)


def fused_block(
    block: SynthesisBlock, x: Tensor | None, image: Tensor | None, ws: Tensor, noise: bool
) -> tuple[Tensor, Tensor]:
    """``SynthesisBlock.forward`` with features ``[n, h, w, channels]`` instead of ``[n, channels, h, w]``.

    The image stays ``[n, img_channels, h, w]``.
    """
    layer = iter(ws.unbind(dim=1))
    if x is None or image is None:
        x = block.const.permute(1, 2, 0).expand(len(ws), -1, -1, -1).contiguous()
    else:
        x = _layer(block.conv0, x, next(layer), noise)
        image = _doubled(image) if block.up else image
    x = _layer(block.conv1, x, next(layer), noise)
    colours = _colours(block.torgb, x, next(layer))
    return x, colours if image is None else image + colours


def _layer(layer: SynthesisLayer, x: Tensor, w: Tensor, noise: bool) -> Tensor:
    features: Tensor = _FusedLayer.apply(  # type: ignore[no-untyped-call]
        x,
        _styles(layer.affine, w),
        layer.weight,
        layer.bias,
        layer.noise_strength if noise else None,
        layer.noise_const if noise else None,
        layer.up,
        layer.conv_clamp,
    )
    return features


def _styles(affine: FullyConnected, w: Tensor, gain: float = 1.0) -> Tensor:
    """``affine(w) * gain``; the gain of equalised learning rates scales w instead of the larger weight."""
    return F.linear(w * (affine.weight_gain * gain), affine.weight, affine.bias * (affine.bias_gain * gain))


def _colours(torgb: ToRGB, x: Tensor, w: Tensor) -> Tensor:
    weight = torgb.weight[:, :, 0, 0] * _styles(torgb.affine, w, torgb.gain)[:, None]
    image: Tensor = _Projected.apply(x, weight)  # type: ignore[no-untyped-call]
    return limited(image + torgb.bias[:, None, None], torgb.conv_clamp)


def _doubled(image: Tensor) -> Tensor:
    """``upsample``: that filter after zero insertion is linear interpolation between pixels, with zeros around."""
    size = image.shape[-1]
    doubling = _interpolation(size, image)
    across = (image.reshape(-1, size) @ doubling.t()).view(-1, size, 2 * size)
    return torch.matmul(doubling, across).view(*image.shape[:-2], 2 * size, 2 * size)


def _interpolation(size: int, like: Tensor) -> Tensor:
    """Matrix ``[2 size, size]`` with 1/4 and 3/4 of neighbours."""
    matrix = torch.zeros(2 * size, size, dtype=like.dtype, device=like.device)
    even, odd = matrix[::2], matrix[1::2]
    even.diagonal().fill_(0.75)
    even.diagonal(-1).fill_(0.25)
    odd.diagonal().fill_(0.75)
    odd.diagonal(1).fill_(0.25)
    return matrix


def _row(factors: Tensor, width: int) -> Tensor:
    """Factors ``[n, c]`` for every pixel of a row: ``[n, 1, width * c]``."""
    return factors.repeat(1, width).unsqueeze(1)


def _summed(values: Tensor, channels: int) -> Tensor:
    """Sums over pixels, ``[n, h, w * c] -> [n, c]``."""
    return values.sum(1).view(len(values), -1, channels).sum(1)


def _blurred(x: Tensor) -> Tensor:
    """``[n, 2 h + 1, 2 w + 1, c] -> [n, 2 h, 2 w, c]`` by [1/3, 1, 1, 1/3] in both directions, zeros around."""
    down = x[:, :-1] + x[:, 1:]
    down[:, 1:].add_(x[:, :-2], alpha=_OUTER_TAP)
    down[:, :-1].add_(x[:, 2:], alpha=_OUTER_TAP)
    both = down[:, :, :-1] + down[:, :, 1:]
    both[:, :, 1:].add_(down[:, :, :-2], alpha=_OUTER_TAP)
    both[:, :, :-1].add_(down[:, :, 2:], alpha=_OUTER_TAP)
    return both


def _blurred_transposed(g: Tensor) -> Tensor:
    """The transpose of ``_blurred``: ``[n, 2 h, 2 w, c] -> [n, 2 h + 1, 2 w + 1, c]``."""
    n, height, width, channels = g.shape
    across = g.new_empty(n, height, width + 1, channels)
    across[:, :, :1] = g[:, :, :1]
    torch.add(g[:, :, 1:], g[:, :, :-1], out=across[:, :, 1:-1])
    across[:, :, -1:] = g[:, :, -1:]
    across[:, :, :-2].add_(g[:, :, 1:], alpha=_OUTER_TAP)
    across[:, :, 2:].add_(g[:, :, :-1], alpha=_OUTER_TAP)
    both = g.new_empty(n, height + 1, width + 1, channels)
    both[:, :1] = across[:, :1]
    torch.add(across[:, 1:], across[:, :-1], out=both[:, 1:-1])
    both[:, -1:] = across[:, -1:]
    both[:, :-2].add_(across[:, 1:], alpha=_OUTER_TAP)
    both[:, 2:].add_(across[:, :-1], alpha=_OUTER_TAP)
    return both


def _to_channels_first(x: Tensor) -> Tensor:
    """``[n, h, w, c]`` seen as ``[n, c, h, w]``."""
    return x.permute(0, 3, 1, 2)


class _FusedLayer(Function):
    """``SynthesisLayer`` after its affine map: x ``[n, h, w, i]``, styles ``[n, i]`` -> ``[n, h', w', o]``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        styles: Tensor,
        weight: Tensor,
        bias: Tensor,
        strength: Tensor | None,
        noise: Tensor | None,
        up: bool,
        clamp: float | None,
    ) -> Tensor:
        weight = _channels_last(weight, up)  # only factored weights are not yet
        n, height, width, inputs = x.shape
        outputs = len(weight)
        gain = LRELU_GAIN * _FILTER_GAIN if up else LRELU_GAIN
        scaled = (x.reshape(n, height, -1) * _row(styles, width)).view(n, height, width, inputs)
        kernel, how = (weight.transpose(0, 1), _DOUBLING) if up else (weight, _SAME)
        y = torch.ops.aten.convolution(_to_channels_first(scaled), kernel, None, *how).permute(0, 2, 3, 1)
        y = _blurred(y) if up else y
        energy = weight.square().sum(dim=(2, 3))
        factors = (styles.square() @ energy.t()).add_(_EPSILON).rsqrt_().mul_(gain)
        height, width = y.shape[1:3]
        z = y.reshape(n, height, width * outputs)
        offset = _offset(bias, strength, noise, height, width).view(1, height, width * outputs)
        torch.addcmul(offset, z, _row(factors, width), out=z)
        F.leaky_relu_(z, LRELU_SLOPE)
        if clamp is not None:
            z.clamp_(-clamp, clamp)
        ctx.save_for_backward(x, styles, weight, bias, strength, noise, energy, factors, z)
        ctx.up, ctx.clamp, ctx.gain = up, clamp, gain
        return z.view(n, height, width, outputs)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, styles, weight, bias, strength, noise, energy, factors, z = ctx.saved_tensors
        n, height, width, outputs = gradient.shape
        inputs = x.shape[-1]
        trained = ctx.needs_input_grad[2]
        g = gradient.reshape(n, height, width * outputs)
        if ctx.clamp is not None:
            g = g * (z.abs() < ctx.clamp)
        with_result = _summed(g * z, outputs)
        g = torch.ops.aten.leaky_relu_backward(g, z, LRELU_SLOPE, True)
        plain, noisy = _offset_sums(g.view(n, height * width, outputs), noise)
        with_offset = plain * (bias * LRELU_GAIN)
        for_strength = None
        if noisy is not None:
            with_offset = with_offset + noisy * (strength * LRELU_GAIN)
            for_strength = noisy.sum() * LRELU_GAIN
        # factors = gain (q + epsilon)^-1/2 with q = styles² energyᵀ, so their derivative by q is -factors³ / (2 gain²)
        for_energy = (with_result - with_offset) * factors.square() * (-1 / ctx.gain**2)
        g = g.mul_(_row(factors, width)).view(n, height, width, outputs)
        g = _blurred_transposed(g) if ctx.up else g
        height, width = x.shape[1:3]
        row, x = _row(styles, width), x.reshape(n, height, width * inputs)
        scaled = _to_channels_first((x * row).view(n, height, width, inputs))
        kernel, how = (weight.transpose(0, 1), _DOUBLING) if ctx.up else (weight, _SAME)
        for_scaled, for_weight, _ = torch.ops.aten.convolution_backward(
            _to_channels_first(g), scaled, kernel, None, *how, [True, trained, False]
        )
        if trained:
            for_weight = for_weight.transpose(0, 1) if ctx.up else for_weight
            for_weight.addcmul_(weight, (for_energy.t() @ styles.square())[:, :, None, None])
        for_scaled = for_scaled.permute(0, 2, 3, 1).reshape(n, height, width * inputs)
        for_styles = torch.addcmul(_summed(for_scaled * x, inputs), styles, for_energy @ energy)
        for_x = for_scaled.mul_(row).view(n, height, width, inputs) if ctx.needs_input_grad[0] else None
        for_bias = plain.sum(0) * LRELU_GAIN
        return for_x, for_styles, for_weight, for_bias, for_strength, None, None, None


def _offset(bias: Tensor, strength: Tensor | None, noise: Tensor | None, height: int, width: int) -> Tensor:
    """What is added before the activation, times its gain: ``[h * w, o]``."""
    if noise is None or strength is None:
        return (bias * LRELU_GAIN).expand(height * width, -1).contiguous()
    return torch.addcmul(bias * LRELU_GAIN, noise.reshape(-1, 1), strength * LRELU_GAIN)


def _offset_sums(g: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Sums over pixels of a gradient ``[n, h * w, o]``, and of its products with the noise: ``[n, o]`` each."""
    if noise is None:
        return g.sum(1), None
    plain, noisy = torch.matmul(torch.stack([torch.ones_like(noise).view(-1), noise.reshape(-1)]), g).unbind(1)
    return plain, noisy


class _Projected(Function):
    """Features ``[n, h, w, i]`` and a matrix for each photo ``[n, 3, i]`` -> ``[n, 3, h, w]``.

    Photo by photo: products with three rows are several times slower in one batched product.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        n, height, width, inputs = x.shape
        pixels = x.reshape(n, height * width, inputs)
        ctx.save_for_backward(pixels, weight)
        image = torch.stack([one @ pixel.t() for one, pixel in zip(weight, pixels, strict=True)])
        return image.view(n, -1, height, width)

    @staticmethod
    @first_derivative
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        pixels, weight = ctx.saved_tensors
        g = gradient.flatten(2)
        for_x, for_weight = torch.empty_like(pixels), torch.empty_like(weight)
        for index, one in enumerate(g):
            torch.mm(one.t(), weight[index], out=for_x[index])
            torch.mm(one, pixels[index], out=for_weight[index])
        return for_x.view(len(g), *gradient.shape[2:], -1), for_weight
