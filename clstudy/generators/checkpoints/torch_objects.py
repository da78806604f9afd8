"""Recognise the network in a pickle or a torch file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clstudy.assets.readers.errors import CheckpointError, UnknownGlobals
from clstudy.assets.readers.pickle_objects import PersistentObject
from clstudy.assets.readers.restricted_pickle import read_objects
from clstudy.generators.checkpoints.checkpoint import FoundNetwork, refusal
from clstudy.generators.checkpoints.eg3d_networks import eg3d_network, is_eg3d
from clstudy.generators.checkpoints.nvidia import DISCRIMINATOR, nvidia_network
from clstudy.generators.checkpoints.rosinality import looks_like_rosinality, rosinality_network

_TENSORFLOW = (
    "it is a TensorFlow pickle of NVIDIA's older repositories (it names dnnlib.tflib.network); expected a PyTorch one; "
    "download the PyTorch version, or, if you trust its source, convert it with `python legacy.py --source=OLD.pkl "
    "--dest=NEW.pkl` of the stylegan2-ada-pytorch or stylegan3 repository"
)

_KNOWN_BY_NAMES: tuple[tuple[str, str, str], ...] = (("dnnlib.tflib.", _TENSORFLOW, "tensorflow"),)
"""Networks recognised by globals that we do not rebuild: prefix of them all, sentence, kind."""


def read_torch_objects(data: bytes) -> FoundNetwork:
    """Read the generator in a pickle or a torch file.

    Raises:
        CheckpointError: it holds no generator, another kind of network, or names that no published generator needs.
    """
    try:
        content, is_torch_file = read_objects(data)
    except UnknownGlobals as error:
        for prefix, sentence, kind in _KNOWN_BY_NAMES:
            # All of them: a harmful file must not pass for another kind of network, which the user may then open.
            if all(name.startswith(prefix) for name in error.names):
                raise CheckpointError(sentence, kind=kind) from error
        raise
    if isinstance(content, PersistentObject):
        return _nvidia(content, "a bare network", is_torch_file)
    if isinstance(content, dict):
        for key in ("G_ema", "G"):
            if isinstance(content.get(key), PersistentObject):
                return _nvidia(content[key], key, is_torch_file)
        for key in ("g_ema", "g"):
            if looks_like_rosinality(content.get(key)):
                return rosinality_network(content[key], content.get("latent_avg"), key)
        if looks_like_rosinality(content):
            return rosinality_network(content, content.get("latent_avg"), "bare")
        if _has_discriminator(content):
            raise CheckpointError(DISCRIMINATOR, kind="discriminator")
        keys = ", ".join(str(key)[:60] for key in list(content)[:6]) + (", …" if len(content) > 6 else "")
        raise refusal(f"it holds a dictionary without a generator (keys: {keys or 'none'})")
    raise refusal(f"it holds an object of type {type(content).__name__}, not a network")


def _nvidia(network: PersistentObject, source: str, is_torch_file: bool) -> FoundNetwork:
    read = eg3d_network if is_eg3d(network) else nvidia_network
    return read(network, source, is_torch_file)


def _has_discriminator(content: Mapping[Any, Any]) -> bool:
    """A snapshot with D only, or the state dict of rosinality's discriminator, alone or as ``d``."""
    return (
        isinstance(content.get("D"), PersistentObject)
        or "final_linear.0.weight" in content
        or (isinstance(content.get("d"), dict) and "final_linear.0.weight" in content["d"])
    )
