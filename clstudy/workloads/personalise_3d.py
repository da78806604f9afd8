"""The workload ``personalise_3d``: as ``personalise``, with photos whose cameras are known and a 3D generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clstudy.identities.cameras import CAMERA, NUMBERS
from clstudy.settings.metric_facts import EDITED, NOVEL_VIEW, RECONSTRUCTION, TURNED, MetricFacts
from clstudy.settings.profiles import Profile
from clstudy.workloads.base import WORKLOADS
from clstudy.workloads.personalise import PersonaliseKind, built

if TYPE_CHECKING:
    import torch

    from clstudy.generators.base import GeneratorWeights
    from clstudy.workloads.personalised_generator import PersonalisedGenerator


DEPTH_ERROR = MetricFacts.of_workload("depth_error", "depth error", RECONSTRUCTION, higher_is_better=False)
"""Mean absolute difference to the known depth inside the face, in units of the world (a face is about 0.3 wide)."""

DEPTH_CORRELATION = MetricFacts.of_workload(
    "depth_correlation", "depth correlation", RECONSTRUCTION, higher_is_better=True
)
"""Pearson's, with the known depth inside the face; 0 for a flat face."""

EDIT_EFFECT = MetricFacts.of_workload("edit_effect", "effect", EDITED, higher_is_better=True)
"""How much more of what the direction adds an edited face shows than the unedited reconstruction."""


class Personalise3DKind(PersonaliseKind):
    """Photos as anchored latents and cameras (My3DGen, 2307.05468); scored through the cameras of unseen photos."""

    description = "tune a 3D generator to a person's photos with cameras; scored by inverting unseen photos"
    conditions = MappingProxyType({CAMERA: NUMBERS})
    further_protocols = (NOVEL_VIEW, TURNED, EDITED)

    def further_measures(self, profile: Profile) -> tuple[MetricFacts, ...]:
        """Depth, where it is known, and what an edit changes."""
        return DEPTH_ERROR, DEPTH_CORRELATION, EDIT_EFFECT

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
