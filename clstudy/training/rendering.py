"""Images of latents, for generators that also need to know from where they are seen."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def render(module: nn.Module, latents: Tensor, cameras: Tensor | None = None) -> Tensor:
    """Images ``[n, 3, s, s]`` of latents ``[n, *latent_shape]``, seen from cameras ``[n, 25]`` where there are any."""
    images: Tensor = module(latents) if cameras is None else module(latents, cameras)
    return images


def rows_of(cameras: Tensor | None, index: Tensor) -> Tensor | None:
    """The cameras at indices ``[m]``, if there are any."""
    return None if cameras is None else cameras[index]


def joined(parts: list[Tensor | None]) -> Tensor | None:
    """The cameras of several sets of photos in order; None if no set has any.

    Raises:
        ValueError: some sets have cameras and others have none.
    """
    given = [part for part in parts if part is not None]
    if not given:
        return None
    if len(given) < len(parts):
        raise ValueError(
            f"{len(parts) - len(given)} of {len(parts)} sets of photos have no cameras; expected all or none"
        )
    return torch.cat(given)
