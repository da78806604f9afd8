"""EG3D generators (``TriPlaneGenerator``) of NVIDIA's repository, from the objects in their pickles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from clstudy.assets.readers.network_tensors import arrays, modules, tensor_refs
from clstudy.assets.readers.pickle_objects import PersistentObject, TensorRef
from clstudy.generators.checkpoints.checkpoint import FoundNetwork, refusal, short_repr
from clstudy.generators.checkpoints.nvidia import (
    format_words,
    require_multiplier,
    require_supported,
    shared_clamp,
    source_notes,
    stylegan2_part,
)
from clstudy.generators.checkpoints.sizes import infer_settings
from clstudy.generators.eg3d import EG3DSettings, RenderingSettings, UsualCamera
from clstudy.generators.super_resolution import PUBLISHED, SuperResolutionSettings
from clstudy.generators.tri_planes import PUBLISHED_AXES

_BACKBONE, _SUPERRESOLUTION, _DECODER = "backbone.", "superresolution.", "decoder."

_Value = TypeVar("_Value")


def is_eg3d(network: PersistentObject) -> bool:
    """Whether a network is an EG3D generator, by its class or by its parts."""
    parts = network.state.get("_modules")
    return network.class_name == "TriPlaneGenerator" or (
        isinstance(parts, dict) and {"backbone", "superresolution", "decoder"} <= parts.keys()
    )


def stylegan2_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The backbone's tensors of an EG3D generator, under the names of a StyleGAN2."""
    return _under(_BACKBONE, tensors)


def _under(prefix: str, named: Mapping[str, _Value]) -> dict[str, _Value]:
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}


def eg3d_network(network: PersistentObject, source: str, is_torch_file: bool) -> FoundNetwork:
    """Return the tensors of an EG3D generator with its settings; arguments as for ``nvidia_network``.

    Raises:
        CheckpointError: it is one that our EG3D does not reproduce.
    """
    parts, refs = dict(modules(network)), tensor_refs(network)
    options = _Options(network.state.get("rendering_kwargs"))
    features, hidden = _decoder_sizes(refs, parts, options)
    backbone = stylegan2_part(_under(_BACKBONE, parts), _under(_BACKBONE, refs), img_channels=3 * features)
    others = {name: ref for name, ref in refs.items() if name.startswith((_SUPERRESOLUTION, _DECODER))}
    tensors = {f"{_BACKBONE}{name}": value for name, value in backbone.tensors.items()} | arrays(others)
    superresolution, notes = _superresolution(parts, options)
    try:
        settings = EG3DSettings(
            backbone=infer_settings(backbone.tensors, conv_clamp=backbone.conv_clamp, img_channels=3 * features),
            superresolution=superresolution,
            rendering=_rendering(network, parts, options),
            features=features,
            hidden=hidden,
            decoder_lr_multiplier=options.number("decoder_lr_mul", 1.0),
            camera_scale=0.0 if options.flag("c_gen_conditioning_zero", False) else options.number("c_scale", 1.0),
            camera=UsualCamera(
                radius=options.number("avg_camera_radius", 2.7),
                pivot=options.point("avg_camera_pivot", (0.0, 0.0, 0.2)),
            ),
        )
    except ValueError as error:
        raise refusal(f"its rendering options cannot be used ({error})") from None
    return FoundNetwork(
        format=format_words(source, is_torch_file),
        tensors=tensors,
        settings=settings,
        notes=(*source_notes(source), *backbone.notes, *notes),
    )


class _Options:
    """Rendering options (``rendering_kwargs``) with values checked; a missing one is the default."""

    def __init__(self, values: Any):
        self._values: Mapping[str, Any] = values if isinstance(values, dict) else {}

    def number(self, name: str, default: float) -> float:
        return self._number(name, self._values.get(name, default))

    def _number(self, name: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, float | int | np.number) or not np.isfinite(value):
            raise self._refused(name, value, "a number")
        return float(value)

    def count(self, name: str, default: int) -> int:
        value = self._values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise self._refused(name, value, "a whole number")
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._values.get(name, default)
        if not isinstance(value, bool | np.bool_):
            raise self._refused(name, value, "true or false")
        return bool(value)

    def point(self, name: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
        value = self._values.get(name, default)
        if not isinstance(value, list | tuple) or len(value) != 3:
            raise self._refused(name, value, "three numbers")
        x, y, z = (self._number(name, number) for number in value)
        return x, y, z

    def require(self, name: str, *allowed: Any) -> Any:
        value = self._values.get(name, allowed[0])
        if not any(type(value) is type(one) and value == one for one in allowed):
            raise self._refused(name, value, " or ".join(map(repr, allowed)))
        return value

    @staticmethod
    def _refused(name: str, value: object, expected: str) -> Exception:
        return refusal(f"its rendering option {name} is {short_repr(value)}, and this EG3D has only {expected}")


def _decoder_sizes(
    refs: Mapping[str, TensorRef], parts: Mapping[str, PersistentObject], options: _Options
) -> tuple[int, int]:
    """Features of a plane and width of the hidden layer."""
    first = refs.get(f"{_DECODER}net.0.weight")
    if first is None or len(first.size) != 2 or not all(first.size):
        raise refusal("its decoder is not two fully connected layers (decoder.net.0, decoder.net.2)")
    for name in ("net.0", "net.2"):
        if f"{_DECODER}{name}" in parts:
            require_multiplier(_DECODER + name, parts[_DECODER + name], options.number("decoder_lr_mul", 1.0))
    hidden, features = first.size
    return features, hidden


def _superresolution(
    parts: Mapping[str, PersistentObject], options: _Options
) -> tuple[SuperResolutionSettings, tuple[str, ...]]:
    """Sizes of the super-resolution by its class, and what a user should know about it."""
    whole = parts.get("superresolution")
    name = "missing" if whole is None else whole.class_name[:60]
    if whole is None or name not in PUBLISHED:
        raise refusal(f"its super-resolution is {name}, and this EG3D has only {', '.join(PUBLISHED)}")
    for part, module in _under(_SUPERRESOLUTION, parts).items():
        require_supported(part, module)
    layers = [
        parts[f"{_SUPERRESOLUTION}{block}.{layer}"]
        for block in ("block0", "block1")
        for layer in ("conv0", "conv1", "torgb")
        if f"{_SUPERRESOLUTION}{block}.{layer}" in parts
    ]
    noise = options.require("superresolution_noise_mode", "none", "const", "random")
    half = any(module.state.get("use_fp16") for module in _under(_SUPERRESOLUTION, parts).values())
    notes = ["its super-resolution was trained in float16; read as float32"] * half
    if noise == "random":
        notes.append("its super-resolution adds random noise; it is left out here, so that images are repeatable")
    settings = replace(
        PUBLISHED[name],
        antialias=options.flag("sr_antialias", True),
        noise=noise == "const",
        conv_clamp=shared_clamp(layers),
    )
    return settings, tuple(notes)


def _rendering(
    network: PersistentObject, parts: Mapping[str, PersistentObject], options: _Options
) -> RenderingSettings:
    options.require("disparity_space_sampling", False)
    options.require("clamp_mode", "softplus")
    return RenderingSettings(
        resolution=_Options(network.state).count("neural_rendering_resolution", 64),
        near=options.number("ray_start", 2.25),
        far=options.number("ray_end", 3.3),
        box=options.number("box_warp", 1.0),
        coarse=options.count("depth_resolution", 48),
        fine=options.count("depth_resolution_importance", 48),
        white_background=options.flag("white_back", False),
        plane_axes=_plane_axes(parts.get("renderer")),
    )


def _plane_axes(renderer: PersistentObject | None) -> tuple[tuple[int, int], ...]:
    """World axes along the planes' sides: two rows of each matrix in ``plane_axes [3, 3, 3]``."""
    matrices = None if renderer is None else renderer.state.get("plane_axes")
    if matrices is None:
        return PUBLISHED_AXES
    if not isinstance(matrices, TensorRef) or matrices.size != (3, 3, 3):
        raise refusal(f"the plane_axes of its renderer are {short_repr(matrices)}, not three matrices")
    values = matrices.array()
    if not np.isin(values, (0, 1)).all() or (values.sum(1) != 1).any() or (values.sum(2) != 1).any():
        raise refusal("the plane_axes of its renderer are not permutations of the world's axes")
    return tuple((int(across), int(down)) for across, down in values.argmax(2)[:, :2])
