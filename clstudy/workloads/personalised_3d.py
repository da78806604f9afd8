"""Personalises a 3D generator: as ``PersonalisedGenerator``, with every photo seen from its camera.

Sources: L. Qi et al., "My3DGen" (2307.05468); the paper's 3D study.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.generators.eg3d import UsualCamera
from clstudy.generators.eg3d_copies import EG3DCopies, SeenEG3D, cropped_like, depth_picture, usual_view
from clstudy.identities.cameras import CAMERA, NUMBERS, mirrored
from clstudy.identities.known_geometry import DEPTH, MOMENT, partners
from clstudy.images import photo_row, to_uint8
from clstudy.settings.profile_sections import EDITED_FACES, TURNTABLE, TURNTABLE_YAWS
from clstudy.settings.profiles import ViewSettings
from clstudy.training.evaluation import Evaluation, Rebuilt, TestSet
from clstudy.training.personalise import TrainingPhotos
from clstudy.training.pivotal import tuned_copies
from clstudy.workloads.personalised_generator import PersonalisedGenerator, face_grid
from clstudy.workloads.seen_again import EDIT_EFFECTS, EditEffect, Seen, ViewedTestSet, further_scores, shots_of
from clstudy.workloads.workload import AnchoredSamples, Samples, TestSamples

_MOST_ANCHORS = 1000


@dataclass
class Personalised3D(PersonalisedGenerator):
    """The networks that a worker keeps loaded; a state is the network that is tuned.

    Where a strategy generates images, or looks at what the network makes, it sees it from the front.
    """

    _mirrored: dict[str, Tensor] = field(init=False, default_factory=dict)

    def cameras(self, samples: Samples) -> Tensor:
        """From where the photos were taken ``[n, 25]``."""
        return samples.conditions[CAMERA]

    def usual_cameras(self, count: int) -> Tensor:
        """The front."""
        return self._eg3d.front(count)

    @property
    def _eg3d(self) -> EG3DCopies:
        assert isinstance(self.generator, EG3DCopies)
        return self.generator

    def _photos(self, samples: AnchoredSamples, micro_batch: int | None = None) -> TrainingPhotos:
        photos = super()._photos(samples, micro_batch)
        if not self.profile.views.mirrored:
            return photos
        seen = torch.from_numpy(mirrored(self.cameras(samples).cpu().numpy())).to(photos.latents)
        images = samples.images.flip(3)
        latents = torch.cat(
            [
                self._mirrored_anchor(*one)
                for one in zip(samples.digests, torch.split(images, 1), torch.split(seen, 1), strict=True)
            ]
        )
        others = TrainingPhotos.prepare(latents, images, self.lpips, cameras=seen, micro_batch=micro_batch)
        both = TrainingPhotos.joined([photos, others])
        assert both is not None
        return both

    def _mirrored_anchor(self, digest: str, image: Tensor, camera: Tensor) -> Tensor:
        """Anchor ``[1, *latent_shape]`` of a photo's mirror image; kept, since stored photos are trained on often."""
        if digest not in self._mirrored:
            if len(self._mirrored) >= _MOST_ANCHORS:
                self._mirrored.clear()
            self._mirrored[digest] = self.generator.anchors_seen(image, camera).detach()
        return self._mirrored[digest]

    def reconstruction(self, state: nn.Module) -> Callable[[TestSet, Tensor], Rebuilt]:
        """By copies that are tuned to each photo, where the profile asks for it; and seen again (``seen_again``)."""

        def rebuilt(test: TestSet, latents: Tensor) -> Rebuilt:
            assert isinstance(test, ViewedTestSet)
            shots = shots_of(test, self.profile.views, self._eg3d.settings.camera, self._direction)
            copies = tuned_copies(
                state,
                latents,
                test.cameras,
                test.images,
                test.features,
                settings=self.profile.pivotal,
                lpips=self.lpips,
            )
            seen = Seen.of(copies, latents, shots)
            scores = further_scores(test, seen, shots, self.metrics, self._effect)
            shown = {EDITED_FACES: seen.images[0, shots.edited[0]].clamp(-1, 1)} if shots.edited else {}
            return Rebuilt(seen.images[:, 0], tuple(scores), shown)

        return rebuilt

    @property
    def _direction(self) -> Tensor | None:
        return self._eg3d.directions.get(self.profile.views.edit)

    @cached_property
    def _effect(self) -> EditEffect | None:
        name = self.profile.views.edit
        return EDIT_EFFECTS[name](self.profile.resources.threads) if name in EDIT_EFFECTS else None

    def test_set(self, samples: TestSamples) -> ViewedTestSet:
        """As in 2D, with cameras; combinations are seen from random sides, cropped like the test photos.

        What is known of the photos' geometry goes with them.
        """
        test = super().test_set(samples)
        views = random_views(len(test.combinations), self.profile.views, self._eg3d.settings.camera, samples.rng)
        usual = self.cameras(samples).median(dim=0).values
        moments = samples.conditions[MOMENT][:, 0].tolist() if MOMENT in samples.conditions else []
        known = {
            "combination_cameras": cropped_like(views, usual),
            "moments": tuple((met, self._prepared(samples.images[torch.from_numpy(met)])) for met in partners(moments)),
            "depths": _square(samples.conditions[DEPTH]) if DEPTH in samples.conditions else None,
        }
        return ViewedTestSet(**{**vars(test), **known})

    def _prepared(self, photos: Tensor) -> dict[str, Any]:
        return {metric.name: metric.prepare(photos) for metric in self.metrics if metric.in_reconstruction}

    def pictures(self, state: nn.Module, tests: Sequence[TestSet], found: Evaluation) -> dict[str, np.ndarray]:
        """``turntable``: the newest first test photo, as the pretrained generator knows it, from five sides.

        ``edited``: first reconstructions, edited ones below, if the generator knows the direction.
        """
        newest = tests[-1]
        assert isinstance(state, SeenEG3D) and newest.cameras is not None
        made = {TURNTABLE: turntable(state, newest.start[:1], newest.cameras[0])}
        edited = [shown[EDITED_FACES] for shown in found.shown if EDITED_FACES in shown]
        if edited:
            made[EDITED_FACES] = face_grid(to_uint8(torch.stack(found.examples)), to_uint8(torch.stack(edited)))
        return made


def _square(depths: Tensor) -> Tensor:
    """Conditions ``depth [n, r r]`` as ``[n, r, r]``."""
    side = math.isqrt(depths.shape[1])
    return depths.reshape(-1, side, side)


@torch.no_grad()
def turntable(module: SeenEG3D, latent: Tensor, camera: Tensor) -> np.ndarray:
    """A latent ``[1, *latent_shape]`` from ``TURNTABLE_YAWS``, images above depths: uint8 ``[2 s, 5 s, 3]``.

    Cropped like the photo that ``camera [25]`` took; in depths near is bright.
    """
    settings = module.network.settings
    images, depths = [], []
    for yaw in TURNTABLE_YAWS:
        seen = module.rendered(latent, cropped_like(usual_view(settings.camera, yaw), camera)[None])
        images.append(to_uint8(seen.image)[0])
        depths.append(depth_picture(seen.depth, images[0].shape[0], settings.rendering)[0])
    return np.concatenate([photo_row(images), photo_row(depths)])


def random_views(count: int, views: ViewSettings, camera: UsualCamera, rng: np.random.Generator) -> Tensor:
    """A generator's usual camera at random sides, drawn uniformly: float32 ``[count, 25]``."""
    yaws = rng.uniform(-views.synthesis_yaw, views.synthesis_yaw, count)
    pitches = rng.uniform(-views.synthesis_pitch, views.synthesis_pitch, count)
    seen = [usual_view(camera, yaw, pitch) for yaw, pitch in zip(yaws, pitches, strict=True)]
    return torch.cat([torch.zeros(0, NUMBERS), *(one[None] for one in seen)])
