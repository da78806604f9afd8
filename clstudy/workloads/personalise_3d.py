"""The workload ``personalise_3d``: as ``personalise``, with photos whose cameras are known and a 3D generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clstudy.identities.cameras import CAMERA, NUMBERS
from clstudy.settings.profiles import Profile
from clstudy.workloads.base import WORKLOADS
from clstudy.workloads.personalise import PersonaliseKind, built

if TYPE_CHECKING:
    import torch

    from clstudy.generators.base import GeneratorWeights
    from clstudy.workloads.personalised_generator import PersonalisedGenerator


class Personalise3DKind(PersonaliseKind):
    """Photos as anchored latents and cameras (My3DGen, 2307.05468); scored through the cameras of unseen photos."""

    description = "tune a 3D generator to a person's photos with cameras; scored by inverting unseen photos"
    conditions = MappingProxyType({CAMERA: NUMBERS})

    def sections(self, profile: Profile) -> Mapping[str, Any]:
        """Those of ``personalise``, from where combinations are seen, and pivotal tuning."""
        return {**super().sections(profile), "views": profile.views, "pivotal": profile.pivotal}

    def training_work(self, profile: Profile, *, new: int, replayed: bool) -> float:
        """As in 2D; mirror images are photos like others."""
        return super().training_work(profile, new=new * (2 if profile.views.mirrored else 1), replayed=replayed)

    def test_work(self, profile: Profile, tested: Sequence[int]) -> float:
        """Every inversion step, and every step of pivotal tuning, takes each test photo once."""
        return super().test_work(profile, tested) + float(sum(tested) * profile.pivotal.steps)

    def build(
        self, profile: Profile, weights: GeneratorWeights, files: Mapping[str, Path], device: torch.device
    ) -> PersonalisedGenerator:
        """Generator, LPIPS and metrics."""
        from clstudy.workloads.personalised_3d import Personalised3D

        return built(Personalised3D, profile, weights, files, device)


WORKLOADS.register("personalise_3d")(Personalise3DKind())
