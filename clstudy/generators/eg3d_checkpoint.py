"""EG3D from a checkpoint file; anchors by optimisation under the pretrained generator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from clstudy.assets.readers.errors import CheckpointError
from clstudy.errors import UserError
from clstudy.generators.base import GENERATORS, DomainGenerator, GeneratorKind, GeneratorWeights
from clstudy.generators.checkpoints.reading import read_checkpoint
from clstudy.generators.eg3d import EG3D, EG3DSettings
from clstudy.generators.eg3d_copies import EG3DCopies
from clstudy.generators.synthesis_copies import arrays_under
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.profiles import Profile


class EG3DCheckpointKind(GeneratorKind):
    """Reads NVIDIA's pickles and our safetensors (``clstudy.generators.checkpoints``)."""

    description = "EG3D from a checkpoint file; photos need cameras"
    pretrained = True

    def read(self, files: Mapping[str, Path]) -> GeneratorWeights:
        path = files["generator"]
        checkpoint = read_checkpoint(path)
        if not isinstance(checkpoint.settings, EG3DSettings):
            raise CheckpointError(
                f"{path}: it is a StyleGAN2, a 2D generator; expected an EG3D, such as ffhqrebalanced512-128.pkl; name "
                "it: --weights generator=FILE",
                kind=checkpoint.kind,
            )
        arrays = {f"generator.{name}": value for name, value in checkpoint.tensors.items()}
        if "directions" in files:
            found = read_directions(files["directions"], checkpoint.settings.backbone.w_dim)
            arrays |= {f"direction.{name}": value for name, value in found.items()}
        return GeneratorWeights(arrays, {"settings": checkpoint.settings.to_dict()})

    def image_size(self, weights: GeneratorWeights, profile: Profile) -> int:
        return EG3DSettings.from_dict(weights.facts["settings"]).img_resolution

    def build(self, weights: GeneratorWeights, profile: Profile, device: torch.device, lpips: LPIPS) -> DomainGenerator:
        with torch.device("meta"):
            network = EG3D(EG3DSettings.from_dict(weights.facts["settings"]))
        network.load_state_dict(arrays_under("generator.", weights.arrays), assign=True)
        directions = arrays_under("direction.", weights.arrays)
        return EG3DCopies(network, profile, device, lpips, directions=directions)


def read_directions(path: Path, w_dim: int) -> dict[str, np.ndarray]:
    """Semantic directions by name from a safetensors file, float32 ``[w_dim]`` each.

    Raises:
        UserError: another kind of file, or a vector of another length, or one that is not finite.
    """
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"directions: {path} cannot be read as safetensors ({error})") from error
    for name, value in found.items():
        if value.shape != (w_dim,) or not np.isfinite(value).all():
            raise UserError(
                f"directions: {name} in {path} is of shape {value.shape}; expected {w_dim} finite numbers, a vector in "
                "this generator's w"
            )
    return {name: value.astype(np.float32) for name, value in found.items()}


GENERATORS.register("eg3d")(EG3DCheckpointKind())
