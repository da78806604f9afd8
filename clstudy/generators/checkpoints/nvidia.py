"""StyleGAN2 networks of NVIDIA's repositories, from the objects in their pickles."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clstudy.assets.readers.errors import CheckpointError
from clstudy.assets.readers.network_tensors import arrays, modules, tensor_refs
from clstudy.assets.readers.pickle_objects import PersistentObject, TensorRef
from clstudy.generators.checkpoints.checkpoint import FoundNetwork, refusal, short_repr
from clstudy.generators.checkpoints.sizes import LARGEST_SIDE, checked_clamp, tensor_shape

STYLEGAN3 = (
    "it is a StyleGAN3 generator; expected StyleGAN2, whose layers differ; download a StyleGAN2 checkpoint (the "
    "stylegan3 repository lists them too)"
)
DISCRIMINATOR = (
    "it holds a discriminator and no generator; expected G_ema or g_ema; give the snapshot that holds the generator"
)


@dataclass(frozen=True, kw_only=True)
class StyleGAN2Part:
    """What was read of a StyleGAN2, alone or within another network.

    Attributes:
        tensors: under the names of ``StyleGAN2.state_dict()``.
        conv_clamp: bound that all its layers share.
        notes: what a user should know, one sentence each.
    """

    tensors: dict[str, np.ndarray]
    conv_clamp: float | None
    notes: tuple[str, ...]


def nvidia_network(network: PersistentObject, source: str, is_torch_file: bool) -> FoundNetwork:
    """Return the tensors of a StyleGAN2, or of its synthesis network alone, with the facts in its attributes.

    Args:
        network: as the file stores it.
        source: where it lies in the file, for the format's description: "G_ema", "G" or "a bare network".
        is_torch_file: whether ``torch.save`` wrote the file; a pickle otherwise.

    Raises:
        CheckpointError: it is another network, or one that our StyleGAN2 does not reproduce.
    """
    parts = dict(modules(network))
    refs = tensor_refs(network)
    is_bare = "b4.const" in refs
    if is_bare:  # under the names that it has within a generator
        parts = {f"synthesis.{name}".removesuffix("."): part for name, part in parts.items()}
        refs = {f"synthesis.{name}": ref for name, ref in refs.items()}
    _require_stylegan2(network, parts, refs, is_bare=is_bare)
    found = stylegan2_part(parts, refs)
    tensors, notes = found.tensors, [*source_notes(source), *found.notes]
    if is_bare:
        tensors["mapping.w_avg"] = np.zeros(tensor_shape(tensors, "synthesis.b4.conv1.affine.weight", 2)[1], np.float32)
        notes.append(SYNTHESIS_ALONE)
    return FoundNetwork(
        format=format_words(source, is_torch_file), tensors=tensors, conv_clamp=found.conv_clamp, notes=tuple(notes)
    )


def format_words(source: str, is_torch_file: bool) -> str:
    """What such a file is called."""
    return "torch file of an NVIDIA module" if is_torch_file else f"NVIDIA pickle ({source})"


def source_notes(source: str) -> tuple[str, ...]:
    """What a user should know about where in the file the network lies."""
    return ("G_ema is not in the file; G was read, whose weights are not averaged over training",) * (source == "G")


def stylegan2_part(
    parts: Mapping[str, PersistentObject], refs: Mapping[str, TensorRef], *, img_channels: int = 3
) -> StyleGAN2Part:
    """Return a StyleGAN2's tensors and what its attributes say.

    Args:
        parts: name within the network -> part.
        refs: name within the network -> tensor.
        img_channels: what it must make: colours, or the features of tri-planes.

    Raises:
        CheckpointError: it has an attribute that our StyleGAN2 does not support.
    """
    for name, part in parts.items():
        require_supported(name, part, img_channels)
    notes = []
    half = sorted(
        int(match[1]) for name, part in parts.items() if part.state.get("use_fp16") and (match := _block(name))
    )
    if half:
        span = f"{half[0]}…{half[-1]} px" if len(half) > 1 else f"{half[0]} px"
        notes.append(f"blocks {span} were trained in float16; read as float32")
    tensors = arrays(refs)
    tensors.update(_absent_noise(parts, tensors, notes))
    if "mapping.w_avg" not in tensors and "mapping.fc0.weight" in tensors:
        tensors["mapping.w_avg"] = np.zeros(len(tensors["mapping.fc0.weight"]), np.float32)
        notes.append("the file has no w_avg: it is zero, so keep truncation off (truncation_psi 1)")
    layers = [part for name, part in parts.items() if re.fullmatch(r"synthesis\.b\d+\.(conv0|conv1|torgb)", name)]
    return StyleGAN2Part(tensors=tensors, conv_clamp=shared_clamp(layers), notes=tuple(notes))


def _block(name: str) -> re.Match[str] | None:
    return re.fullmatch(r"synthesis\.b(\d+)", name)


SYNTHESIS_ALONE = (
    "it is a synthesis network alone, as MyStyle's train.py saves it: no mapping network, and no mean latent to start "
    "anchors from. A study takes that from MyStyle's encoder (--weights encoder=FILE) or from the network that it was "
    "tuned from (--weights base=ffhq.pkl)"
)


def _require_stylegan2(
    network: PersistentObject, parts: Mapping[str, PersistentObject], names: Iterable[str], *, is_bare: bool
) -> None:
    """Refuse every other kind of network with an error that names it."""
    names = set(names)
    classes = {part.class_name for part in parts.values()}
    if "SynthesisInput" in classes or any(re.match(r"synthesis\.L\d+_\d+_\d+\.", name) for name in names):
        raise CheckpointError(STYLEGAN3, kind="stylegan3")
    if "Discriminator" in network.class_name or any(".fromrgb." in f".{name}" for name in names):
        raise CheckpointError(DISCRIMINATOR, kind="discriminator")
    if "synthesis.b4.const" not in names or ("mapping.fc0.weight" not in names and not is_bare):
        raise refusal(f"it holds a network of class {network.class_name[:60]}, which is not a StyleGAN2 generator")


_ACTIVATIONS = {"conv0": "lrelu", "conv1": "lrelu", "affine": "linear", "embed": "linear"}


def require_supported(name: str, part: PersistentObject, img_channels: int = 3) -> None:
    """Refuse a part with an attribute that our StyleGAN2 does not support; a missing attribute is the default.

    Raises:
        CheckpointError: for the first such attribute.
    """
    last = name.rpartition(".")[2]
    is_mapping_layer = re.fullmatch(r"mapping\.fc\d+", name) is not None
    expected = {
        "architecture": "skip",
        "activation": "lrelu" if is_mapping_layer else _ACTIVATIONS.get(last),
        "img_channels": img_channels,
    }
    for attribute, value in expected.items():
        found = part.state.get(attribute, value)
        if value is not None and found != value:
            where = f" of {name}" if name else ""
            raise refusal(f"its {attribute}{where} is {short_repr(found)}, and this StyleGAN2 has only {value!r}")
    if is_mapping_layer or last in ("affine", "embed"):
        multiplier = 0.01 if is_mapping_layer else 1.0
        require_multiplier(name, part, multiplier)


def require_multiplier(name: str, layer: PersistentObject, multiplier: float) -> None:
    """Refuse a fully connected layer with another multiplier of its equalised learning rate."""
    found = _attribute(layer, "bias_gain", "lr_multiplier", multiplier)
    if not isinstance(found, float | int | np.number) or not math.isclose(found, multiplier, rel_tol=1e-6):
        raise refusal(
            f"the learning rate multiplier (lr_multiplier) of {name} is {short_repr(found)}, and this StyleGAN2 "
            f"has only {multiplier}"
        )


def _attribute(part: PersistentObject, attribute: str, argument: str, default: Any) -> Any:
    """An attribute of a part; where it is missing, the argument of its constructor, else the default."""
    arguments = part.state.get("_init_kwargs")
    given = arguments.get(argument, default) if isinstance(arguments, dict) else default
    return part.state.get(attribute, given)


def shared_clamp(layers: Iterable[PersistentObject]) -> float | None:
    """The ``conv_clamp`` that all layers share.

    Raises:
        CheckpointError: they differ.
    """
    bounds = {checked_clamp(_attribute(part, "conv_clamp", "conv_clamp", None)) for part in layers}
    if len(bounds) > 1:
        shown = ", ".join(sorted(map(str, bounds)))
        raise refusal(f"its layers have different conv_clamp ({shown}), and this StyleGAN2 has one for all")
    return bounds.pop() if bounds else None


def _absent_noise(
    parts: Mapping[str, PersistentObject], tensors: Mapping[str, np.ndarray], notes: list[str]
) -> dict[str, np.ndarray]:
    """Zero noise for layers that were built without it (use_noise false); images stay the same."""
    absent = {}
    for name, part in parts.items():
        match = re.fullmatch(r"(synthesis\.b(\d{1,5}))\.conv[01]", name)
        if match and part.state.get("use_noise") is False and f"{name}.noise_const" not in tensors:
            side = int(match[2])
            if f"{match[1]}.torgb.weight" not in tensors or side > LARGEST_SIDE or side.bit_count() != 1:
                continue
            absent[f"{name}.noise_const"] = np.zeros((side, side), np.float32)
            absent[f"{name}.noise_strength"] = np.zeros((), np.float32)
    if absent:
        notes.append("the network has no noise inputs; they are zero here, which gives the same images")
    return absent
