"""Infer the sizes of a StyleGAN2 from the names and shapes of its tensors, and check tensors against sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from clstudy.assets.readers.errors import CheckpointError
from clstudy.generators.checkpoints.checkpoint import refusal, short_repr
from clstudy.generators.eg3d import EG3DSettings
from clstudy.generators.stylegan2 import StyleGAN2Settings, fir_filter

LARGEST_SIDE = 4096
_MOST_LAYERS = 64

_NAMES = {StyleGAN2Settings.kind: "a StyleGAN2", EG3DSettings.kind: "an EG3D"}


def checked_clamp(value: Any) -> float | None:
    """Return the bound ``conv_clamp`` as a file gives it, None for no bound.

    Raises:
        CheckpointError: it is not a positive number.
    """
    if value is None:
        return None
    if not isinstance(value, int | float | np.number) or not 0 < value < math.inf:
        raise refusal(f"the conv_clamp of its layers is {short_repr(value)}, not a positive number")
    return float(value)


def infer_settings(
    tensors: Mapping[str, np.ndarray], *, conv_clamp: float | None, img_channels: int = 3
) -> StyleGAN2Settings:
    """Return the settings whose network has tensors of these names and shapes, and makes ``img_channels``.

    ``channel_max`` is the largest number of channels, ``channel_base`` the smallest base that gives all of them.

    Raises:
        CheckpointError: a tensor is missing, or no settings fit.
    """
    sides = sorted({int(match[1]) for name in tensors if (match := re.match(r"synthesis\.b(\d{1,5})\.", name))})
    if len(sides) < 2 or sides != [4 * 2**power for power in range(len(sides))]:
        raise refusal(f"its resolutions are {sides[:12]}; a StyleGAN2 has 4, 8, … up to its own")
    if sides[-1] > LARGEST_SIDE:
        raise refusal(f"its images are {sides[-1]} px wide; expected at most {LARGEST_SIDE}")
    layers = [name for name in tensors if re.fullmatch(r"mapping\.fc\d+\.weight", name)]
    if len(layers) > _MOST_LAYERS:
        raise refusal(f"its mapping has {len(layers):,} layers; expected at most {_MOST_LAYERS}")
    w_dim = tensor_shape(tensors, "synthesis.b4.conv1.affine.weight", 2)[1]
    # a synthesis network alone has a mean latent (that of what it was tuned from, or zero) and nothing else
    is_bare = [name for name in tensors if name.startswith("mapping.")] == ["mapping.w_avg"]
    first = (0, w_dim) if is_bare else tensor_shape(tensors, "mapping.fc0.weight", 2)
    c_dim = embedded = 0
    if "mapping.embed.weight" in tensors:
        embedded, c_dim = tensor_shape(tensors, "mapping.embed.weight", 2)
    channels = {side: tensor_shape(tensors, f"synthesis.b{side}.conv1.weight", 4)[0] for side in sides}
    colours = tensor_shape(tensors, f"synthesis.b{sides[-1]}.torgb.weight", 4)[0]
    if colours != img_channels:
        raise refusal(f"its images have {colours} channels (img_channels), and this StyleGAN2 makes {img_channels}")
    base, maximum = channel_rule(channels)
    return StyleGAN2Settings(
        img_resolution=sides[-1],
        z_dim=first[1] - embedded,
        c_dim=c_dim,
        w_dim=w_dim,
        channel_base=base,
        channel_max=maximum,
        mapping_layers=len(layers),
        conv_clamp=conv_clamp,
        img_channels=img_channels,
        embed_features=embedded if embedded not in (0, w_dim) else None,
    )


def channel_rule(channels: Mapping[int, int]) -> tuple[int, int]:
    """Return (base, maximum) with ``min(base // r, maximum)`` channels at every resolution r; the smallest such base.

    Raises:
        CheckpointError: there is no such pair.
    """
    maximum = max(channels.values())
    low = max(count * side for side, count in channels.items())
    high = min(((count + 1) * side - 1 for side, count in channels.items() if count < maximum), default=low)
    if low > high or maximum < 1:
        shown = ", ".join(f"{side} px: {count}" for side, count in sorted(channels.items()))
        raise refusal(
            f"its channels ({shown}) follow no rule min(channel_base // resolution, channel_max), by which this "
            "StyleGAN2 is built"
        )
    return low, maximum


def tensor_shape(tensors: Mapping[str, np.ndarray], name: str, ndim: int) -> tuple[int, ...]:
    """Return the shape of a tensor.

    Raises:
        CheckpointError: it is missing, or has another number of axes or an empty one.
    """
    if name not in tensors:
        raise refusal(f"its tensor {name} is missing")
    shape = tensors[name].shape
    if len(shape) != ndim or not all(shape):
        raise refusal(f"its tensor {name} has shape {list(shape)}; expected {ndim} axes, none of them empty")
    return shape


def checked_tensors(
    tensors: Mapping[str, np.ndarray], settings: StyleGAN2Settings | EG3DSettings
) -> dict[str, np.ndarray]:
    """Return float32 tensors in the order of our state dict after checking names, shapes and values against it.

    Raises:
        CheckpointError: a tensor is missing, unknown, of another shape, not finite, or a filter that is not ours.
    """
    layers = settings.backbone if isinstance(settings, EG3DSettings) else settings
    if min(layers.z_dim, layers.w_dim) < 1:
        raise refusal(f"its sizes cannot be (z_dim {layers.z_dim}, mapping layers {layers.mapping_layers})")
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in settings.network().state_dict().items()}
    missing, surplus = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or surplus:
        raise refusal(
            f"its tensors are not those of {_NAMES[settings.kind]} with {settings.img_resolution} px"
            + (f"; missing: {_some(missing)}" if missing else "")
            + (f"; unknown: {_some(surplus)}" if surplus else "")
        )
    fir = fir_filter().numpy()
    checked = {}
    for name, shape in expected.items():
        value = tensors[name]
        if value.shape != shape:
            raise refusal(f"its tensor {name} has shape {list(value.shape)}; a network of its sizes has {list(shape)}")
        value = np.ascontiguousarray(value, np.float32).reshape(shape)
        if not np.isfinite(value).all():
            raise CheckpointError(
                f"its tensor {name} holds NaN or infinity: the file is damaged or its training failed"
            )
        if name.endswith(".resample_filter") and not np.allclose(value, fir, atol=1e-6):
            raise refusal(f"its filter {name} is not [1, 3, 3, 1], the only one our networks have")
        checked[name] = value
    return checked


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
