"""Pivotal tuning: a throw-away copy of the generator is tuned until the latent found for a photo makes that photo.

Source: D. Roich et al., "Pivotal Tuning for Latent-based Editing of Real Images" (2106.05744), section 3.2.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from clstudy.metrics.lpips import LPIPS, Features, index_features
from clstudy.settings.profile_sections import PivotalSettings
from clstudy.training.rendering import render, rows_of


def tuned_copies(
    module: nn.Module,
    latents: Tensor,
    cameras: Tensor | None,
    targets: Tensor,
    features: Features,
    *,
    settings: PivotalSettings,
    lpips: LPIPS,
) -> Iterator[nn.Module]:
    """Copies of ``module``, one after the other, each tuned until its latent makes its photo of ``[n, 3, s, s]``.

    All weights of a copy are tuned, by LPIPS + MSE with Adam, until LPIPS is below ``settings.enough`` or for
    ``settings.steps``. ``module`` itself stays as it is. With no steps it is ``module`` that comes, every time.
    """
    for index in torch.split(torch.arange(len(latents)), 1):
        if not settings.steps:
            yield module
            continue
        tuned = copy.deepcopy(module).requires_grad_(True)
        optimizer = torch.optim.Adam(tuned.parameters(), lr=settings.learning_rate)
        latent, camera, target = latents[index], rows_of(cameras, index), targets[index]
        known = index_features(features, index)
        with torch.enable_grad():
            for _ in range(settings.steps):
                image = render(tuned, latent, camera)
                distance = lpips.distance(lpips.features(image), known).sum()
                if float(distance.detach()) <= settings.enough:
                    break
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(distance + (image - target).square().mean())
                optimizer.step()
        yield tuned.requires_grad_(False)
