"""Our own files: a checkpoint as safetensors, with its settings and its origin."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from clstudy.assets.readers.errors import CheckpointError
from clstudy.assets.readers.tensor_files import LARGEST_HEADER
from clstudy.errors import UserError
from clstudy.generators.checkpoints.checkpoint import Checkpoint, FoundNetwork
from clstudy.generators.checkpoints.eg3d_networks import stylegan2_tensors
from clstudy.generators.checkpoints.sizes import checked_clamp, infer_settings
from clstudy.generators.eg3d import EG3DSettings
from clstudy.generators.stylegan2 import StyleGAN2Settings
from clstudy.storage.places import write_atomically

FORMAT_VERSION = 1
"""Version of our safetensors files; raised when an older clstudy could misread a newer file."""

_METADATA_KEY = "clstudy"


def write_safetensors(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint in our format, atomically; equal checkpoints give equal bytes.

    Raises:
        UserError: the path does not end in .safetensors or cannot be written.
    """
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: expected a name that ends in .safetensors, e.g. {path.with_suffix('.safetensors')}")
    document = {
        "format_version": FORMAT_VERSION,
        "kind": checkpoint.kind,
        "settings": checkpoint.settings.to_dict(),
        "source": checkpoint.format,
        "source_sha256": checkpoint.sha256,
        "notes": checkpoint.notes,
    }
    # One key only: safetensors writes metadata keys in an order that changes from run to run.
    # Contiguous: of another order in memory safetensors would write the wrong values, without a word.
    tensors = {name: np.asarray(value, order="C") for name, value in checkpoint.tensors.items()}
    content = save_safetensors(tensors, metadata={_METADATA_KEY: json.dumps(document, sort_keys=True)})
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


def read_safetensors(data: bytes) -> FoundNetwork:
    """Read what ``write_safetensors`` wrote.

    Raises:
        CheckpointError: something else wrote it, it is damaged, or its settings do not fit its tensors.
    """
    length = int.from_bytes(data[:8], "little")
    if length > LARGEST_HEADER:
        raise CheckpointError(
            f"it is a safetensors file whose header takes {length:,} bytes; expected at most {LARGEST_HEADER:,}, "
            "far more than a generator needs; convert the original checkpoint"
        )
    try:
        header = json.loads(data[8 : 8 + length])
        text = header.get("__metadata__", {}).get(_METADATA_KEY)
    except (ValueError, AttributeError, RecursionError):
        raise CheckpointError("it is a safetensors file that is cut off or damaged; copy or convert it again") from None
    if text is None:
        raise CheckpointError(
            "it is a safetensors file that `python -m clstudy.generators convert` did not write, so its sizes "
            "and its origin are unknown; convert the original checkpoint"
        )
    try:
        document = json.loads(text)
        version, sizes = document["format_version"], document["settings"]
        origin = f"converted from {document['source']}, sha256 {document['source_sha256']}"
        notes = tuple(str(note) for note in document["notes"])
        tensors = load_safetensors(data)
    except Exception:  # a damaged file can make the library fail in any way
        raise CheckpointError("it is a safetensors file that is cut off or damaged; copy or convert it again") from None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"it has format version {version}; this clstudy reads version {FORMAT_VERSION}; convert the original "
            "checkpoint with this clstudy"
        )
    try:
        settings = _SETTINGS[document["kind"]](sizes)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"its settings cannot be used ({error}); convert the original checkpoint again") from None
    # The tensors decide: settings in the file that contradict them are refused.
    if not _fits(settings, tensors):
        raise CheckpointError("its settings do not fit its tensors; convert the original checkpoint again")
    return FoundNetwork(format="clstudy safetensors", tensors=tensors, settings=settings, notes=(*notes, origin))


def _stylegan2_settings(sizes: Mapping[str, Any]) -> StyleGAN2Settings:
    unknown = set(sizes) - {entry.name for entry in fields(StyleGAN2Settings)}
    if unknown:
        raise ValueError(f"unknown settings {', '.join(sorted(unknown))}")
    checked_clamp(sizes.get("conv_clamp"))
    return StyleGAN2Settings(**sizes)


def _eg3d_settings(sizes: Mapping[str, Any]) -> EG3DSettings:
    settings = EG3DSettings.from_dict(sizes)
    for layers in (settings.backbone, settings.superresolution):
        checked_clamp(layers.conv_clamp)
    return settings


_SETTINGS: dict[str, Callable[[Mapping[str, Any]], StyleGAN2Settings | EG3DSettings]] = {
    StyleGAN2Settings.kind: _stylegan2_settings,
    EG3DSettings.kind: _eg3d_settings,
}


def _fits(settings: StyleGAN2Settings | EG3DSettings, tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether a StyleGAN2's sizes are those of its tensors; the other sizes of an EG3D show in the shapes alone."""
    layers = settings.backbone if isinstance(settings, EG3DSettings) else settings
    part = stylegan2_tensors(tensors) if isinstance(settings, EG3DSettings) else tensors
    return infer_settings(part, conv_clamp=layers.conv_clamp, img_channels=layers.img_channels) == layers
