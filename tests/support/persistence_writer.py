"""Writes checkpoints with the structure of the published ones, from arrays of our own.

The pickles are made by the real pickler and the real torch; only the two modules whose names the files contain,
``torch_utils.persistence`` and ``dnnlib.util``, are stand-ins, present while a file is written.
"""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

MODULE_SRC = "raise SystemExit('the source inside a checkpoint was executed')\n" * 20


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> object:
    raise AssertionError("only its name is written")


class EasyDict(dict):
    """A dictionary subclass, as training options are kept in."""


class Persistent:
    """Reduced like the published networks: one call with a dictionary that holds the source and the state."""

    def __init__(self, class_name: str, state: dict[str, Any], module_src: str = MODULE_SRC):
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": module_src,
            "class_name": class_name,
            "state": state,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return _reconstruct_persistent_obj, (self.meta,)


class OSGDecoder(torch.nn.Module):
    """Plain, as the renderer is: EG3D's files name these classes."""


class ImportanceRenderer(torch.nn.Module):
    """Plain."""


class MipRayMarcher2(torch.nn.Module):
    """Plain."""


class RaySampler(torch.nn.Module):
    """Plain."""


@contextmanager
def published_names() -> Iterator[None]:
    """Let the stand-ins be found under the published names while something is pickled."""
    names: dict[str, Any] = {
        "torch_utils.persistence": _reconstruct_persistent_obj,
        "dnnlib.util": EasyDict,
        "training.triplane": OSGDecoder,
        "training.volumetric_rendering.renderer": ImportanceRenderer,
        "training.volumetric_rendering.ray_marcher": MipRayMarcher2,
        "training.volumetric_rendering.ray_sampler": RaySampler,
    }
    homes = {thing: thing.__module__ for thing in names.values()}
    added: dict[str, ModuleType] = {}
    for name, thing in names.items():
        steps = name.split(".")
        for count in range(1, len(steps) + 1):
            part = ".".join(steps[:count])
            if part not in added:
                added[part] = ModuleType(part)
                if count > 1:
                    setattr(added[".".join(steps[: count - 1])], steps[count - 1], added[part])
        setattr(added[name], thing.__name__, thing)
        thing.__module__ = name
    before = {name: sys.modules.get(name) for name in added}
    sys.modules.update(added)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
        for thing, home in homes.items():
            thing.__module__ = home


CLASSES = (
    (r"", "Generator"),
    (r"mapping", "MappingNetwork"),
    (r"synthesis", "SynthesisNetwork"),
    (r"synthesis\.b\d+", "SynthesisBlock"),
    (r"synthesis\.b\d+\.conv\d", "SynthesisLayer"),
    (r"synthesis\.b\d+\.torgb", "ToRGBLayer"),
    (r".*", "FullyConnectedLayer"),
)
BUFFERS = ("noise_const", "resample_filter", "w_avg")


def network(
    tensors: Mapping[str, np.ndarray],
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    classes: tuple[tuple[str, str], ...] = CLASSES,
    module_src: str = MODULE_SRC,
) -> Persistent:
    """Nest tensors by their dotted names; ``attributes`` maps patterns of part names to plain attributes."""
    states: dict[str, dict[str, Any]] = {}

    def state_of(part: str) -> dict[str, Any]:
        if part not in states:
            state = dict(torch.nn.Module().__dict__)
            state["_init_args"], state["_init_kwargs"] = (), EasyDict()
            for pattern, values in (attributes or {}).items():
                if re.fullmatch(pattern, part):
                    state.update(values)
            states[part] = state
            if part:
                parent, _, key = part.rpartition(".")
                class_name = next(name for pattern, name in classes if re.fullmatch(pattern, part))
                state_of(parent)["_modules"][key] = Persistent(class_name, state, module_src)
        return states[part]

    state_of("")
    for name, value in tensors.items():
        part, _, key = name.rpartition(".")
        tensor = torch.from_numpy(np.array(value))
        if key in BUFFERS:
            state_of(part)["_buffers"][key] = tensor
        else:
            state_of(part)["_parameters"][key] = torch.nn.Parameter(tensor)
    return Persistent(dict(classes).get("", "Generator"), states[""], module_src)


def synthesis_alone(
    tensors: Mapping[str, np.ndarray], attributes: Mapping[str, Mapping[str, Any]] | None = None
) -> Persistent:
    """Only the synthesis network of such tensors, under its own names, as MyStyle's ``train.py`` saves it."""
    prefix = "synthesis."
    classes = tuple((pattern.removeprefix("synthesis").removeprefix(r"\."), name) for pattern, name in CLASSES[2:])
    return network(
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)},
        {pattern.removeprefix(r"synthesis\."): values for pattern, values in (attributes or {}).items()},
        classes=classes,
    )


def ordinary(*, conv_clamp: float | None = None, fp16_from: int = 10**6) -> dict[str, dict[str, Any]]:
    """Plain attributes as a network trained with the published settings has them (some are NumPy scalars)."""
    found: dict[str, dict[str, Any]] = {
        "": {"img_channels": 3, "_init_kwargs": EasyDict(synthesis_kwargs=EasyDict(conv_clamp=conv_clamp))},
        r"synthesis\.b\d+": {"architecture": "skip", "use_fp16": False, "img_channels": 3},
        r"synthesis\.b\d+\.conv\d": {
            "activation": "lrelu",
            "conv_clamp": conv_clamp,
            "use_noise": True,
            "act_gain": np.sqrt(2),
            "padding": 1,
        },
        r"synthesis\.b\d+\.torgb": {"conv_clamp": conv_clamp, "weight_gain": np.float64(0.25)},
        r"mapping\.fc\d+": {"activation": "lrelu", "weight_gain": 0.01 / np.sqrt(24), "bias_gain": 0.01},
        r".*\.(affine|embed)": {"activation": "linear", "weight_gain": np.float64(0.2), "bias_gain": 1},
    }
    for side in (4, 8, 16, 32, 64, 128, 256, 512, 1024):
        if side >= fp16_from:
            found[rf"synthesis\.b{side}"] = {**found[r"synthesis\.b\d+"], "use_fp16": True}
    return found


def discriminator() -> Persistent:
    """A few parts of a discriminator."""
    rng = np.random.default_rng(3)
    names = {"b8.fromrgb.weight": (4, 3, 1, 1), "b8.conv0.weight": (4, 4, 3, 3), "b4.out.weight": (1, 4)}
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in names.items()}
    return network(tensors, classes=(("", "Discriminator"), (".*", "DiscriminatorBlock")))


def snapshot(g_ema: Persistent) -> dict[str, Any]:
    """What the official training writes."""
    options = EasyDict(class_name="training.dataset.ImageFolderDataset", resolution=32, xflip=np.bool_(True))
    weights = np.arange(6, dtype=np.int64).reshape(2, 3)
    return {
        "G": g_ema,
        "D": discriminator(),
        "G_ema": g_ema,
        "training_set_kwargs": options,
        "augment_pipe": None,
        "progress": {"cur_nimg": np.array(25000), "weights": weights, "fortran": np.asfortranarray(weights)},
    }


def dump(path: Path, content: object, *, protocol: int = 4) -> Path:
    """Pickle under the published names."""
    with published_names(), path.open("wb") as file:
        pickle.dump(content, file, protocol=protocol)
    return path


def torch_dump(path: Path, content: object, *, zipped: bool = True) -> Path:
    """``torch.save`` under the published names."""
    with published_names():
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


EG3D_CLASSES = (
    (r"", "TriPlaneGenerator"),
    (r"backbone", "Generator"),
    *((rf"backbone\.{pattern}", name) for pattern, name in CLASSES[1:-1]),
    (r"superresolution", "SuperresolutionHybrid2X"),
    (r"superresolution\.block0", "SynthesisBlockNoUp"),
    (r"superresolution\.block1", "SynthesisBlock"),
    (r"superresolution\.block\d\.conv\d", "SynthesisLayer"),
    (r"superresolution\.block\d\.torgb", "ToRGBLayer"),
    CLASSES[-1],
)


def eg3d_attributes(
    rendering: Mapping[str, Any], resolution: int, *, conv_clamp: float | None = None
) -> dict[str, dict[str, Any]]:
    """Plain attributes as EG3D networks have them; the super-resolution may be clamped (trained in float16)."""
    own = {
        "rendering_kwargs": EasyDict(rendering),
        "neural_rendering_resolution": resolution,
        "img_channels": 3,
        "_last_planes": None,
    }
    found = {f"backbone\\.{pattern}": dict(values) for pattern, values in ordinary().items() if pattern}
    for pattern, values in found.items():
        if "img_channels" in values:
            found[pattern] = values | {"img_channels": 96}
    found |= {
        r"backbone": {"img_channels": 96},
        r"superresolution": {"input_resolution": 64, "sr_antialias": True},
        r"superresolution\.block\d": {"architecture": "skip", "img_channels": 3, "use_fp16": conv_clamp is not None},
        r"superresolution\.block\d\.(conv\d|torgb)": {"conv_clamp": conv_clamp},
        r"decoder\.net\.\d": {"activation": "linear", "bias_gain": 1},
    }
    return {"": own, **found}


def eg3d_network(
    tensors: Mapping[str, np.ndarray], attributes: Mapping[str, Mapping[str, Any]], plane_axes: np.ndarray
) -> Persistent:
    """An EG3D generator as its repository pickles it: decoder and renderer are plain torch modules."""
    net = network(tensors, attributes, classes=EG3D_CLASSES)
    modules = net.meta["state"]["_modules"]
    layers = modules["decoder"].meta["state"]["_modules"]["net"].meta["state"]["_modules"]
    decoder, sequence = OSGDecoder(), torch.nn.Sequential()
    sequence._modules |= {"0": layers["0"], "1": torch.nn.Softplus(), "2": layers["2"]}
    decoder.hidden_dim = 64
    decoder.net = sequence
    renderer, sampler = ImportanceRenderer(), RaySampler()
    renderer.ray_marcher = MipRayMarcher2()
    renderer.plane_axes = torch.from_numpy(plane_axes)
    sampler.ray_origins_h = None
    modules |= {"decoder": decoder, "renderer": renderer, "ray_sampler": sampler}
    return net
