"""StyleGAN2 networks of NVIDIA's repositories, from the objects in their pickles."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from clstudy.assets.readers.errors import CheckpointError
from clstudy.assets.readers.network_tensors import arrays, modules, tensor_refs
from clstudy.assets.readers.pickle_objects import PersistentObject
from clstudy.generators.checkpoints.checkpoint import FoundNetwork, refusal, short_repr
from clstudy.generators.checkpoints.sizes import LARGEST_SIDE, checked_clamp, tensor_shape

EG3D = (
    "it is an EG3D generator (TriPlaneGenerator), a 3D checkpoint; expected a 2D StyleGAN2 generator; give a StyleGAN2 "
    "checkpoint, such as one for FFHQ"
)
STYLEGAN3 = (
    "it is a StyleGAN3 generator; expected StyleGAN2, whose layers differ; download a StyleGAN2 checkpoint (the "
    "stylegan3 repository lists them too)"
)
DISCRIMINATOR = (
    "it holds a discriminator and no generator; expected G_ema or g_ema; give the snapshot that holds the generator"
)


def nvidia_network(network: PersistentObject, source: str, is_torch_file: bool) -> FoundNetwork:
    """Return the tensors of a generator, or of its synthesis network alone, with the facts in its attributes.

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
    for name, part in parts.items():
        _require_supported(name, part)
    notes = []
    if source == "G":
        notes.append("G_ema is not in the file; G was read, whose weights are not averaged over training")
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
    if is_bare:
        tensors["mapping.w_avg"] = np.zeros(tensor_shape(tensors, "synthesis.b4.conv1.affine.weight", 2)[1], np.float32)
        notes.append(SYNTHESIS_ALONE)
    words = "torch file of an NVIDIA module" if is_torch_file else f"NVIDIA pickle ({source})"
    return FoundNetwork(format=words, tensors=tensors, conv_clamp=_conv_clamp(parts), notes=tuple(notes))


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
    if network.class_name == "TriPlaneGenerator" or any(name.startswith("backbone.synthesis.") for name in names):
        raise CheckpointError(EG3D, kind="eg3d")
    if "SynthesisInput" in classes or any(re.match(r"synthesis\.L\d+_\d+_\d+\.", name) for name in names):
        raise CheckpointError(STYLEGAN3, kind="stylegan3")
    if "Discriminator" in network.class_name or any(".fromrgb." in f".{name}" for name in names):
        raise CheckpointError(DISCRIMINATOR, kind="discriminator")
    if "synthesis.b4.const" not in names or ("mapping.fc0.weight" not in names and not is_bare):
        raise refusal(f"it holds a network of class {network.class_name[:60]}, which is not a StyleGAN2 generator")


_ACTIVATIONS = {"conv0": "lrelu", "conv1": "lrelu", "affine": "linear", "embed": "linear"}


def _require_supported(name: str, part: PersistentObject) -> None:
    """Refuse a part with an attribute that our StyleGAN2 does not support; a missing attribute is the default."""
    last = name.rpartition(".")[2]
    is_mapping_layer = re.fullmatch(r"mapping\.fc\d+", name) is not None
    expected = {
        "architecture": "skip",
        "activation": "lrelu" if is_mapping_layer else _ACTIVATIONS.get(last),
        "img_channels": 3,
    }
    for attribute, value in expected.items():
        found = part.state.get(attribute, value)
        if value is not None and found != value:
            where = f" of {name}" if name else ""
            raise refusal(f"its {attribute}{where} is {short_repr(found)}, and this StyleGAN2 has only {value!r}")
    if is_mapping_layer or last in ("affine", "embed"):
        multiplier = 0.01 if is_mapping_layer else 1.0
        found = _attribute(part, "bias_gain", "lr_multiplier", multiplier)
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


def _conv_clamp(parts: Mapping[str, PersistentObject]) -> float | None:
    """The bound that all layers share."""
    layers = {name: part for name, part in parts.items() if re.fullmatch(r"synthesis\.b\d+\.(conv0|conv1|torgb)", name)}
    bounds = {checked_clamp(_attribute(part, "conv_clamp", "conv_clamp", None)) for part in layers.values()}
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
