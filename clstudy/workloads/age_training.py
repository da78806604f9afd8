"""Trains an age adapter: every step ages photos at hand towards the ages of new and replayed ones, and beyond.

Source: L. Qi et al., "MyTimeMachine: Personalized Facial Age Transformation" (2411.14521), section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.faces.torch_embedder import TorchIdentityEmbedder
from clstudy.generators.ageing import AgeAdapter, AgedGenerator
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.ageing import AgeingProfile, AgeingSettings
from clstudy.settings.kernels import KERNELS
from clstudy.training.ageing_losses import ages_beyond, beyond_losses, identity_losses, norm_losses
from clstudy.training.personalise import LossLog, StepLoss, epochs, replay_draws, schedule, total_steps

_BATCH = 16


@dataclass(frozen=True)
class AtHand:
    """The photos that a stage may look at: w ``[m, w_dim]``, ages ``[m]``, unit embeddings ``[m, d]``.

    The first ``new`` of them are new, the others replayed.
    """

    w: Tensor
    ages: Tensor
    embeddings: Tensor
    new: int


@dataclass(frozen=True)
class AgedRows:
    """What is made: of photos w ``[n, w_dim]`` at ``photo_ages [n]``, faces at ``ages [n]``; which lie beyond."""

    w: Tensor
    photo_ages: Tensor
    ages: Tensor
    beyond: Tensor

    def at(self, index: Tensor) -> AgedRows:
        """Some of them."""
        return AgedRows(self.w[index], self.photo_ages[index], self.ages[index], self.beyond[index])


@dataclass(frozen=True)
class AdapterLoss:
    """The loss of faces that an adapter makes, by the weights of ``settings``."""

    settings: AgeingSettings
    lpips: LPIPS
    embedder: TorchIdentityEmbedder

    @torch.no_grad()
    def embedded(self, images: Tensor) -> Tensor:
        """Unit embeddings ``[n, d]`` of photos ``[n, 3, s, s]``."""
        return torch.cat([self.embedder(part) for part in torch.split(images, _BATCH)])

    def __call__(self, network: AgedGenerator, rows: AgedRows, at_hand: AtHand) -> Tensor:
        """The loss of each row ``[n]``."""
        settings = self.settings
        ws, added = network.aged(rows.w, rows.ages)
        images = network.synthesis(ws + added)
        made = self.embedder(images)
        losses = settings.norm_weight * norm_losses(added, rows.photo_ages, rows.ages)
        own, far = (~rows.beyond).nonzero()[:, 0], rows.beyond.nonzero()[:, 0]
        if len(own):
            one = identity_losses(made[own], rows.ages[own], at_hand.embeddings, at_hand.ages)
            losses = losses.index_add(0, own, settings.identity_weight * one)
        if len(far):
            with torch.no_grad():
                priors = network.synthesis(ws[far])
                kept = self.embedder(priors)
            one = beyond_losses(images[far], priors, self.lpips(images[far], priors), made[far], kept)
            losses = losses.index_add(0, far, settings.beyond_weight * one)
        return losses


def drawn_rows(
    at_hand: AtHand, towards: Tensor, span: Tensor, settings: AgeingSettings, rng: np.random.Generator
) -> AgedRows:
    """Photos at hand, drawn uniformly, and the ages that they are aged to.

    Args:
        at_hand: photos.
        towards: places of those whose ages are aged to.
        span: first and last learned age ``[2]``; ages beyond it are drawn, too (``ages_beyond``).
        settings: say how many.
        rng: draws photos and ages beyond.
    """
    beyond = settings.beyond_batch_size if settings.beyond_weight else 0
    uniform = torch.from_numpy(rng.random(beyond)).to(at_hand.ages)
    further = ages_beyond(uniform, span, settings.youngest, settings.oldest)
    ages = torch.cat([at_hand.ages[towards], further])
    source = torch.from_numpy(rng.integers(len(at_hand.w), size=len(ages))).to(towards.device)
    is_beyond = torch.arange(len(ages), device=towards.device) >= len(towards)
    return AgedRows(at_hand.w[source], at_hand.ages[source], ages, is_beyond)


def train_adapter(
    network: AgedGenerator,
    at_hand: AtHand,
    loss: AdapterLoss,
    profile: AgeingProfile,
    *,
    learning_rate: float,
    new_rng: np.random.Generator,
    replay_rng: np.random.Generator,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    on_step: Callable[[int, int, float], None],
    micro_batch: int | None = None,
) -> list[float]:
    """Train the adapter in place with a fresh Adam; returns the loss of every step.

    A step's loss is the mean over its rows, plus the penalty. With ``micro_batch``, at most that many rows are made at
    a time; the steps stay the same up to the rounding of their sums.

    Raises:
        TrainingDivergedError: a loss is NaN or infinite.
    """
    trainer, device = profile.trainer, at_hand.w.device
    widen(network.adapter, at_hand.ages[: at_hand.new])
    steps = total_steps(at_hand.new, trainer)
    towards = [schedule(epochs(at_hand.new, trainer.batch_size, new_rng), steps, device)]
    replayed = len(at_hand.w) - at_hand.new
    if replayed:
        draws = schedule(replay_draws(replayed, trainer.replay_batch_size, replay_rng), steps, device)
        towards.append(tuple(at_hand.new + index for index in draws))
    fused = KERNELS[profile.compute.kernels].fused or None
    adam = torch.optim.Adam(network.adapter.parameters(), lr=learning_rate, betas=trainer.betas, fused=fused)
    log = LossLog(steps, learning_rate, every=1)
    for index in zip(*towards, strict=True):
        rows = drawn_rows(at_hand, torch.cat(index), network.adapter.span, loss.settings, new_rng)
        adam.zero_grad(set_to_none=True)
        total = torch.zeros((), device=device)
        for part in torch.split(torch.arange(len(rows.ages), device=device), micro_batch or len(rows.ages)):
            share = loss(network, rows.at(part), at_hand).sum() / len(rows.ages)
            torch.autograd.backward(share)
            total = total + share.detach()
        with_penalty = total
        if penalty is not None:
            more = penalty(network)
            torch.autograd.backward(more)
            with_penalty = total + more.detach()
        log.add(StepLoss(total, with_penalty))
        adam.step()
        on_step(len(log.values), steps, log.values[-1])
    return log.values


def widen(adapter: AgeAdapter, ages: Tensor) -> None:
    """Let an adapter's span include ages ``[n]``."""
    adapter.span = torch.stack([torch.minimum(adapter.span[0], ages.min()), torch.maximum(adapter.span[1], ages.max())])
