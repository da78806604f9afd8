"""EG3D from a checkpoint file; anchors by optimisation under the pretrained generator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from clstudy.assets.readers.errors import CheckpointError
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
        return GeneratorWeights(dict(checkpoint.tensors), {"settings": checkpoint.settings.to_dict()})

    def image_size(self, weights: GeneratorWeights, profile: Profile) -> int:
        return EG3DSettings.from_dict(weights.facts["settings"]).img_resolution

    def build(self, weights: GeneratorWeights, profile: Profile, device: torch.device, lpips: LPIPS) -> DomainGenerator:
        with torch.device("meta"):
            network = EG3D(EG3DSettings.from_dict(weights.facts["settings"]))
        network.load_state_dict(arrays_under("", weights.arrays), assign=True)
        return EG3DCopies(network, profile, device, lpips, freeze_renderer=profile.views.freeze_renderer)


GENERATORS.register("eg3d")(EG3DCheckpointKind())
