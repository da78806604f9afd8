"""Test-time inversion: find the w whose image is closest to an unseen photo (protocol, "Reconstruction")."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from clstudy.metrics.lpips import LPIPS, Features, index_features
from clstudy.profiles import InversionSettings


def invert(
    module: nn.Module,
    targets: Tensor,
    features: Features,
    start: Tensor,
    *,
    settings: InversionSettings,
    lpips: LPIPS,
) -> Tensor:
    """Return w ``[n, w_dim]`` that minimise LPIPS + mse_weight * MSE (+ a prior) to targets ``[n, 3, s, s]``.

    Starts from ``start [n, w_dim]`` (the photo's latent under the *pretrained* generator, the same at every
    timestamp and for every strategy) and takes the same number of Adam steps for every photo. Adam is
    elementwise and the loss a sum over photos, so photos in a batch do not influence each other.
    ``module`` must not require gradients itself; its weights stay as they are.
    """
    found = []
    for rows in torch.arange(len(targets)).split(settings.batch_size):
        w = start[rows].clone().requires_grad_(True)
        wanted = index_features(features, rows)
        optimizer = torch.optim.Adam([w], lr=settings.learning_rate)
        for step in range(settings.steps):
            fall = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
            share = settings.final_rate + (1 - settings.final_rate) * fall
            optimizer.param_groups[0]["lr"] = settings.learning_rate * share
            images = module(w)
            loss = lpips.distance(lpips.features(images), wanted).sum()
            loss = loss + settings.mse_weight * (images - targets[rows]).square().mean(dim=(1, 2, 3)).sum()
            loss = loss + settings.prior_weight * (w - start[rows]).square().mean(dim=1).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        found.append(w.detach())
    return torch.cat(found)
