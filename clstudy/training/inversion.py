"""Test-time inversion: find the latent whose image is closest to an unseen photo (protocol, "Reconstruction")."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from clstudy.errors import UserError
from clstudy.metrics.lpips import LPIPS, Features, index_features
from clstudy.registry import Registry
from clstudy.settings.profiles import InversionSettings

LATENT_SPACES: Registry[Callable[[Tensor, nn.Module], Tensor]] = Registry("latent space")
"""Name -> function of latents ``[n, *latent_shape]`` and the generator that returns starting points in that space."""


@LATENT_SPACES.register("w")
def _in_w(w: Tensor, module: nn.Module) -> Tensor:
    return w


@LATENT_SPACES.register("w_plus")
def _in_w_plus(w: Tensor, module: nn.Module) -> Tensor:
    if w.ndim > 2:  # the generator's own latents already hold one for each layer
        return w
    layers = getattr(module, "num_ws", None)
    if not isinstance(layers, int):
        raise UserError(
            "inversion.latent_space is w_plus, and this generator has no num_ws: its layers do not take one latent "
            "each; use latent_space=w, which inverts in the generator's own latents"
        )
    return w[:, None].repeat(1, layers, 1)


def invert(
    module: nn.Module,
    targets: Tensor,
    features: Features,
    start: Tensor,
    *,
    settings: InversionSettings,
    lpips: LPIPS,
) -> Tensor:
    """Return latents that minimise LPIPS + mse_weight * MSE (+ a prior) to targets ``[n, 3, s, s]``.

    ``settings.latent_space`` selects their space: the generator's own ``[n, *latent_shape]`` ("w") or, for generators
    of w, W+: ws ``[n, num_ws, w_dim]``, equal in all layers at first; ``num_ws`` is the module's. Either goes into
    ``module``.

    Starts from ``start [n, *latent_shape]`` (the photo's latent under the *pretrained* generator, the same at every
    timestamp and for every strategy) and takes the same number of Adam steps for every photo. Adam is
    elementwise and the loss a sum over photos, so photos in a batch do not influence each other.
    ``module`` must not require gradients itself; its weights stay as they are.
    """
    found = []
    beginning = LATENT_SPACES[settings.latent_space](start, module)
    for rows in torch.split(torch.arange(len(targets)), settings.batch_size):
        w = beginning[rows].clone().requires_grad_(True)
        wanted = index_features(features, rows)
        optimizer = torch.optim.Adam([w], lr=settings.learning_rate)
        for step in range(settings.steps):
            fall = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
            share = settings.final_lr_fraction + (1 - settings.final_lr_fraction) * fall
            optimizer.param_groups[0]["lr"] = settings.learning_rate * share
            images = module(w)
            loss = lpips.distance(lpips.features(images), wanted).sum()
            loss = loss + settings.mse_weight * (images - targets[rows]).square().mean(dim=(1, 2, 3)).sum()
            loss = loss + settings.prior_weight * (w - beginning[rows]).square().flatten(1).mean(dim=1).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        found.append(w.detach())
    return torch.cat(found)
