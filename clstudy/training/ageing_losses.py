"""The three losses of a personal ageing adapter (MyTimeMachine, 2411.14521, section 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clstudy.settings.ageing import SAME_AGE


def identity_losses(made: Tensor, ages: Tensor, own: Tensor, own_ages: Tensor) -> Tensor:
    """1 - the largest cosine to own photos within ``SAME_AGE`` years: personalised ageing ``[n]``, in [0, 2].

    Args:
        made: unit embeddings ``[n, d]`` of images made at ``ages [n]``.
        ages: target ages in years; each is within ``SAME_AGE`` of an own photo's.
        own: unit embeddings ``[m, d]`` of the person's photos at ``own_ages [m]``.
        own_ages: in years.
    """
    cosines = made @ own.t()
    far = (ages[:, None] - own_ages).abs() > SAME_AGE
    losses: Tensor = 1 - cosines.masked_fill(far, -torch.inf).amax(dim=1)
    return losses


def norm_weights(photo_ages: Tensor, ages: Tensor) -> Tensor:
    """Weights ``[n]`` of the adapter's norm: 1 - cos(pi (age - photo's age) / 100), 0 for a photo's own age."""
    return 1 - torch.cos(math.pi * (ages - photo_ages) / 100)


def norm_losses(added: Tensor, photo_ages: Tensor, ages: Tensor) -> Tensor:
    """Adaptive w-norm ``[n]``: ``norm_weights`` times the mean square of what is added ``[n, layers, w_dim]``."""
    return norm_weights(photo_ages, ages) * added.square().mean(dim=(1, 2))


def beyond_losses(images: Tensor, priors: Tensor, lpips: Tensor, made: Tensor, kept: Tensor) -> Tensor:
    """Extrapolation regularisation ``[n]``: L2 + LPIPS + 1 - cosine to what the prior makes.

    Args:
        images: ``[n, 3, s, s]``.
        priors: the prior's images, likewise.
        lpips: between both ``[n]``.
        made: unit embeddings ``[n, d]`` of the images.
        kept: those of the prior's images.
    """
    return (images - priors).square().mean(dim=(1, 2, 3)) + lpips + 1 - (made * kept).sum(dim=1)


def ages_beyond(uniform: Tensor, span: Tensor, youngest: float, oldest: float) -> Tensor:
    """Ages ``[n]`` of uniform numbers ``[n]`` in [0, 1), uniform over what lies beyond the learned ages.

    That is from ``youngest`` to ``oldest`` without ``span [2]`` (first and last learned age) and ``SAME_AGE`` around
    it; empty if nothing lies there.
    """
    below = max(float(span[0]) - SAME_AGE - youngest, 0.0)
    above = max(oldest - float(span[1]) - SAME_AGE, 0.0)
    if below + above == 0:
        return uniform[:0]
    at = uniform * (below + above)
    return torch.where(at < below, youngest + at, oldest - (below + above - at))
