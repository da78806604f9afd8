"""Translate rosinality's StyleGAN2 (https://github.com/rosinality/stylegan2-pytorch) to our names and shapes.

Both scale weights when they are used, with the same constants, so values are copied as they are: mapping layers with
learning rate multiplier 0.01, modulated weights at unit variance. Two differences remain. A leading axis of length 1
is dropped. Demodulation adds 1e-8 to the energy of the *scaled* weights there and of the stored ones here, a relative
change under 1e-7 in a trained network; storing scaled weights instead would undo it and change what a learning rate
means. The weights of upsampling layers are not mirrored: both apply them in a transposed convolution as they are stored
(only the TensorFlow original mirrors them, and the converter from there handles it).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clstudy.assets.readers.errors import CheckpointError
from clstudy.assets.readers.network_tensors import arrays
from clstudy.assets.readers.pickle_objects import TensorRef
from clstudy.generators.checkpoints.checkpoint import FoundNetwork
from clstudy.generators.stylegan2 import fir_filter

_CONV = {
    "weight": "conv.weight",
    "affine.weight": "conv.modulation.weight",
    "affine.bias": "conv.modulation.bias",
    "bias": "activate.bias",
    "noise_strength": "noise.weight",
}
_TORGB = {
    "weight": "conv.weight",
    "affine.weight": "conv.modulation.weight",
    "affine.bias": "conv.modulation.bias",
    "bias": "bias",
}

_MOST_BLOCKS = 10
"""Blocks after the first: 8 to 4096 px."""


def looks_like_rosinality(names: object) -> bool:
    """Whether a dictionary has the parameter names of rosinality's generator."""
    return isinstance(names, Mapping) and {"input.input", "conv1.conv.weight", "to_rgb1.conv.weight"} <= names.keys()


def translate(
    theirs: Mapping[str, np.ndarray], latent_avg: np.ndarray | None, fir: np.ndarray
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return the tensors under our names, and notes on what the file does not hold.

    Args:
        theirs: the generator's state dict.
        latent_avg: mean w, ``[w_dim]`` or with leading axes of length 1.
        fir: the filter ``[4, 4]`` of our network; theirs must be the same.

    Raises:
        CheckpointError: a name is missing, a shape is impossible, or the filter differs.
    """
    reader = _Reader(theirs)
    ours: dict[str, np.ndarray] = {}
    notes: list[str] = []
    count = sum(name.startswith("to_rgbs.") and name.endswith(".conv.weight") for name in theirs)
    if count > _MOST_BLOCKS:
        raise CheckpointError(f"it has {count:,} layers to_rgbs; expected at most {_MOST_BLOCKS} (4096 px)")
    layers = sum(name.startswith("style.") and name.endswith(".weight") for name in theirs)
    for index in range(layers):
        for part in ("weight", "bias"):
            ours[f"mapping.fc{index}.{part}"] = reader.take(f"style.{index + 1}.{part}")  # style.0 has no parameters
    ours["synthesis.b4.const"] = reader.take("input.input", (-1, 4, 4))
    targets = [("b4.conv1", "conv1", 4)]
    for block in range(count):
        side = 8 * 2**block
        targets += [(f"b{side}.conv{i}", f"convs.{2 * block + i}", side) for i in (0, 1)]
    has_noise = any(name.startswith("noises.") for name in theirs)
    if not has_noise:
        notes.append("the file has no constant noise images; they are zero, so images are made without noise")
    for index, (target, source, side) in enumerate(targets):
        ours.update(_layer(reader, f"synthesis.{target}", source, _CONV))
        ours[f"synthesis.{target}.noise_const"] = (
            reader.take(f"noises.noise_{index}", (side, side)) if has_noise else np.zeros((side, side), np.float32)
        )
        ours[f"synthesis.{target}.resample_filter"] = fir
    for index in range(count + 1):
        side = 4 * 2**index
        ours.update(_layer(reader, f"synthesis.b{side}.torgb", f"to_rgbs.{index - 1}" if index else "to_rgb1", _TORGB))
        ours[f"synthesis.b{side}.resample_filter"] = fir
    for name, value in theirs.items():
        # stored with the gain 4 that compensates for the inserted zeros
        if name.endswith(".kernel") and (value.shape != fir.shape or not np.allclose(value, 4 * fir, atol=1e-6)):
            raise CheckpointError(f"its filter {name} is not [1, 3, 3, 1], the only one this StyleGAN2 has")
    ours["mapping.w_avg"] = _mean_latent(latent_avg, reader.width, notes)
    return ours, tuple(notes)


def _layer(reader: _Reader, target: str, source: str, parts: Mapping[str, str]) -> dict[str, np.ndarray]:
    layer = {f"{target}.{mine}": reader.take(f"{source}.{name}") for mine, name in parts.items()}
    for name, shape in (("weight", None), ("bias", (-1,)), ("noise_strength", ())):
        full = f"{target}.{name}"
        if full in layer:
            value = layer[full]
            layer[full] = reader.reshape(full, value, value.shape[1:] if shape is None else shape)
    return layer


def _mean_latent(latent_avg: np.ndarray | None, width: int, notes: list[str]) -> np.ndarray:
    if latent_avg is not None and latent_avg.size == width:
        notes.append("latent_avg found: it is w_avg")
        return latent_avg.reshape(width)
    found = "no latent_avg" if latent_avg is None else f"latent_avg of shape {list(latent_avg.shape)}, not one w,"
    notes.append(f"the file has {found}: w_avg is zero, so keep truncation off (truncation_psi 1)")
    return np.zeros(width, np.float32)


class _Reader:
    """Looks tensors up by name; errors name the tensor that is missing or has an impossible shape."""

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self._tensors = tensors

    @property
    def width(self) -> int:
        """Width of w."""
        width: int = self.take("conv1.conv.modulation.weight").shape[-1]
        return width

    def take(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        if name not in self._tensors or (shape is None and self._tensors[name].ndim == 0):
            raise CheckpointError(
                f"its state dict has no tensor {name}, which every generator of rosinality's repository has; "
                "save g_ema again with torch.save"
            )
        value = self._tensors[name]
        return value if shape is None else self.reshape(name, value, shape)

    def reshape(self, name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        try:
            return value.reshape(shape)
        except ValueError:
            raise CheckpointError(
                f"its tensor {name} has shape {list(value.shape)}, which does not fit {list(shape)} "
                "(-1: any); expected a StyleGAN2 of rosinality's repository"
            ) from None


def rosinality_network(state: Mapping[Any, Any], latent_avg: Any, source: str) -> FoundNetwork:
    """Return the tensors of a generator's state dict; ``source`` is its key in the file, or "bare".

    Raises:
        CheckpointError: as ``translate``.
    """
    mean = latent_avg.array() if isinstance(latent_avg, TensorRef) else None
    tensors, notes = translate(arrays(state), mean, fir_filter().numpy())
    if source == "g":
        notes = ("g_ema is not in the file; g was read, whose weights are not averaged over training", *notes)
    return FoundNetwork(format=f"rosinality state dict ({source})", tensors=tensors, notes=notes)
