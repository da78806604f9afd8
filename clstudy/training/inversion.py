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
from clstudy.training.rendering import render, rows_of

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


@torch.enable_grad()
def invert(
    module: nn.Module,
    targets: Tensor,
    features: Features,
    start: Tensor,
    *,
    settings: InversionSettings,
    lpips: LPIPS,
    cameras: Tensor | None = None,
) -> Tensor:
    """Return latents that minimise LPIPS + mse_weight * MSE (+ a prior) to targets ``[n, 3, s, s]``.

    ``settings.latent_space`` selects their space: the generator's own ``[n, *latent_shape]`` ("w") or, for generators
    of w, W+: ws ``[n, num_ws, w_dim]``, equal in all layers at first; ``num_ws`` is the module's. Either goes into
    ``module``.

    Starts from ``start [n, *latent_shape]`` (the photo's latent under the *pretrained* generator, the same at every
    timestamp and for every strategy) and takes the same number of Adam steps for every photo, unless
    ``settings.stop_below`` ends a photo's search early. Adam is elementwise and the loss a sum over photos, so photos
    in a batch do not influence each other. ``cameras [n, 25]`` say from where photos were taken, where the generator
    needs to know; they stay as they are.
    ``module`` must not require gradients itself; its weights stay as they are.
    """
    beginning = LATENT_SPACES[settings.latent_space](start, module)
    parts = torch.split(torch.arange(len(targets)), settings.batch_size)
    return torch.cat(
        [
            _invert(
                module,
                targets[rows],
                index_features(features, rows),
                beginning[rows],
                rows_of(cameras, rows),
                settings,
                lpips,
            )
            for rows in parts
        ]
    )


def _invert(
    module: nn.Module,
    targets: Tensor,
    features: Features,
    beginning: Tensor,
    cameras: Tensor | None,
    settings: InversionSettings,
    lpips: LPIPS,
) -> Tensor:
    """Latents of the photos of one pass."""
    w = beginning.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([w], lr=settings.learning_rate)
    going = torch.arange(len(targets), device=w.device)
    found, least, mark = beginning.clone(), torch.full_like(targets[:, 0, 0, 0], math.inf), None
    for step in range(settings.steps):
        optimizer.param_groups[0]["lr"] = settings.learning_rate * _annealed(step, settings)
        images = render(module, w, cameras)
        losses = lpips.distance(lpips.features(images), features)
        losses = losses + settings.mse_weight * (images - targets).square().mean(dim=(1, 2, 3))
        losses = losses + settings.prior_weight * (w - beginning).square().flatten(1).mean(dim=1)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(losses.sum())
        optimizer.step()
        if not settings.stop_below:
            continue
        least = torch.minimum(least, losses.detach())
        if (step + 1) % settings.stop_after:
            continue
        moves = torch.ones_like(least, dtype=torch.bool) if mark is None else least <= (1 - settings.stop_below) * mark
        if not moves.all():
            found[going] = w.detach()
            rows = moves.nonzero()[:, 0]
            if not len(rows):
                return found
            w, optimizer = _kept(w, optimizer, rows)
            going, least, targets, beginning = going[rows], least[rows], targets[rows], beginning[rows]
            features, cameras = index_features(features, rows), rows_of(cameras, rows)
        mark = least
    found[going] = w.detach()
    return found


def _annealed(step: int, settings: InversionSettings) -> float:
    """The share of the learning rate at a step: cosine annealing to ``final_lr_fraction``."""
    fall = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return settings.final_lr_fraction + (1 - settings.final_lr_fraction) * fall


def _kept(w: Tensor, optimizer: torch.optim.Adam, rows: Tensor) -> tuple[Tensor, torch.optim.Adam]:
    """Some of the latents, and Adam with what it knows of them."""
    kept = w.detach()[rows].requires_grad_(True)
    other = torch.optim.Adam([kept], lr=optimizer.param_groups[0]["lr"])
    known = optimizer.state[w].items()
    other.state[kept] = {name: value[rows] if value.ndim else value for name, value in known}
    return kept, other
