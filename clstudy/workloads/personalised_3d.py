"""Personalises a 3D generator: as ``PersonalisedGenerator``, with every photo seen from its camera.

Sources: L. Qi et al., "My3DGen" (2307.05468); the paper's 3D study.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from clstudy.generators.eg3d_copies import EG3DCopies, usual_view
from clstudy.identities.cameras import CAMERA
from clstudy.settings.profiles import ViewSettings
from clstudy.training.evaluation import TestSet
from clstudy.workloads.personalised_generator import PersonalisedGenerator
from clstudy.workloads.workload import Samples, TestSamples


class Personalised3D(PersonalisedGenerator):
    """The networks that a worker keeps loaded; a state is the network that is tuned.

    Where a strategy generates images, or looks at what the network makes, it sees it from the front.
    """

    def cameras(self, samples: Samples) -> Tensor:
        """From where the photos were taken ``[n, 25]``."""
        return samples.conditions[CAMERA]

    def usual_cameras(self, count: int) -> Tensor:
        """The front."""
        return usual_view(self._eg3d.settings.camera).to(self.device).expand(count, -1)

    @property
    def _eg3d(self) -> EG3DCopies:
        assert isinstance(self.generator, EG3DCopies)
        return self.generator

    def test_set(self, samples: TestSamples) -> TestSet:
        """As in 2D, with cameras; combinations are seen from random sides, cropped like the test photos."""
        test = super().test_set(samples)
        crop = self.cameras(samples)[:, 16:].median(dim=0).values
        views = self.profile.views
        seen = random_views(len(test.combinations), views, self.usual_cameras(1)[0], samples.rng, self._eg3d)
        return replace(test, combination_cameras=torch.cat([seen[:, :16], crop.expand(len(seen), -1)], dim=1))


def random_views(
    count: int, views: ViewSettings, like: Tensor, rng: np.random.Generator, generator: EG3DCopies
) -> Tensor:
    """Usual cameras of a generator ``[count, 25]`` from random sides, drawn uniformly; of the type of ``like``."""
    yaws = rng.uniform(-views.synthesis_yaw, views.synthesis_yaw, count)
    pitches = rng.uniform(-views.synthesis_pitch, views.synthesis_pitch, count)
    seen = [usual_view(generator.settings.camera, yaw, pitch) for yaw, pitch in zip(yaws, pitches, strict=True)]
    return torch.stack(seen).to(like) if seen else like[None][:0]
