"""Personalises a 3D generator: as ``PersonalisedGenerator``, with every photo seen from its camera.

Sources: L. Qi et al., "My3DGen" (2307.05468); the paper's 3D study.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.generators.eg3d_copies import EG3DCopies, SeenEG3D, depth_picture, usual_view
from clstudy.identities.cameras import CAMERA
from clstudy.images import photo_row, to_uint8
from clstudy.settings.profile_sections import TURNTABLE_YAWS
from clstudy.settings.profiles import ViewSettings
from clstudy.training.evaluation import TestSet
from clstudy.workloads.personalised_generator import PersonalisedGenerator
from clstudy.workloads.workload import Samples, ScoredStage, TestSamples, TrainedStage


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

    def evaluate(
        self,
        trained: TrainedStage[nn.Module],
        tests: Sequence[TestSet],
        *,
        timestamp: int,
        on_test_set: Callable[[int], None],
        micro_batch: int | None = None,
    ) -> ScoredStage:
        """As in 2D; the newest timestamp's first test photo, as the pretrained generator knows it, from five sides."""
        scored = super().evaluate(trained, tests, timestamp=timestamp, on_test_set=on_test_set, micro_batch=micro_batch)
        assert isinstance(trained.state, SeenEG3D) and tests[-1].cameras is not None
        return replace(scored, turntable=turntable(trained.state, tests[-1].start[:1], tests[-1].cameras[0]))


@torch.no_grad()
def turntable(module: SeenEG3D, latent: Tensor, camera: Tensor) -> np.ndarray:
    """A latent ``[1, *latent_shape]`` from ``TURNTABLE_YAWS``, images above depths: uint8 ``[2 s, 5 s, 3]``.

    Cropped like the photo that ``camera [25]`` took; in depths near is bright.
    """
    settings = module.network.settings
    images, depths = [], []
    for yaw in TURNTABLE_YAWS:
        view = torch.cat([usual_view(settings.camera, yaw).to(camera)[:16], camera[16:]])[None]
        seen = module.rendered(latent, view)
        images.append(to_uint8(seen.image)[0])
        depths.append(depth_picture(seen.depth, images[0].shape[0], settings.rendering)[0])
    return np.concatenate([photo_row(images), photo_row(depths)])


def random_views(
    count: int, views: ViewSettings, like: Tensor, rng: np.random.Generator, generator: EG3DCopies
) -> Tensor:
    """Usual cameras of a generator ``[count, 25]`` from random sides, drawn uniformly; of the type of ``like``."""
    yaws = rng.uniform(-views.synthesis_yaw, views.synthesis_yaw, count)
    pitches = rng.uniform(-views.synthesis_pitch, views.synthesis_pitch, count)
    seen = [usual_view(generator.settings.camera, yaw, pitch) for yaw, pitch in zip(yaws, pitches, strict=True)]
    return torch.stack(seen).to(like) if seen else like[None][:0]
