"""The trainer core: fine-tune a generator so that it maps anchors to their photos, with replay mixed in.

Protocol, step 2 ("Personalise"); the one implementation for every profile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.errors import UserError
from clstudy.metrics.lpips import LPIPS, Features, index_features, join_features
from clstudy.registry import Registry
from clstudy.settings.profiles import TrainerSettings
from clstudy.training.rendering import joined, render, rows_of

_SYNC_STEPS = 20
"""Steps between two reads of the loss on a GPU, since every read makes the host wait for the device."""

_LPIPS_LIMIT = 8.05
"""Upper bound of the LPIPS of any two images, in range or not: twice the largest head weight of every level, summed.

LPIPS compares unit vectors u, v without negative parts, so head·(u - v)² <= head·(u² + v²) <= 2 max(head).
"""

_SANE_MSE = 100.0
"""MSE of colours that are off by ten, five times the whole range from -1 to 1, within which it cannot exceed 4.

Raw images leave the range a little, and for a few steps further at a high learning rate. Measured on two small
generators with rates from 0.003 to 10: runs that learn never exceeded a loss of 4, the others went past 10^7 within 60
steps.
"""


class TrainingDivergedError(UserError):
    """The loss is not finite, or beyond what images can reach; the message names the step."""


@dataclass(frozen=True)
class TrainingPhotos:
    """Photos with their anchors, in canonical order, and the LPIPS features of the photos (computed once).

    Shapes: latents ``[n, *latent_shape]``, images ``[n, 3, s, s]`` in [-1, 1], features per level ``[n, c, h, w]``,
    cameras ``[n, 25]`` for a generator that is told from where it is seen.
    """

    latents: Tensor
    images: Tensor
    features: Features
    cameras: Tensor | None = None

    def __len__(self) -> int:
        return len(self.latents)

    @classmethod
    def prepare(
        cls,
        latents: Tensor,
        images: Tensor,
        lpips: LPIPS,
        *,
        cameras: Tensor | None = None,
        micro_batch: int | None = None,
    ) -> TrainingPhotos:
        """Compute the target features, of all photos together or of ``micro_batch`` at a time."""
        with torch.no_grad():
            if micro_batch is None:
                return cls(latents, images, lpips.features(images), cameras)
            features = join_features(lpips.features(part) for part in torch.split(images, micro_batch))
            return cls(latents, images, features, cameras)

    @classmethod
    def joined(cls, parts: Sequence[TrainingPhotos]) -> TrainingPhotos | None:
        """All photos of the parts in order, or None if there are none."""
        filled = [part for part in parts if len(part)]
        if not filled:
            return None
        return cls(
            torch.cat([part.latents for part in filled]),
            torch.cat([part.images for part in filled]),
            join_features(part.features for part in filled),
            joined([part.cameras for part in filled]),
        )

    def rows(self, index: Tensor) -> TrainingPhotos:
        """The photos at indices ``[m]``."""
        return TrainingPhotos(
            self.latents[index], self.images[index], index_features(self.features, index), rows_of(self.cameras, index)
        )


def photo_losses(module: nn.Module, photos: TrainingPhotos, settings: TrainerSettings, lpips: LPIPS) -> Tensor:
    """LPIPS + mse_weight * MSE of each photo ``[n]``."""
    images = render(module, photos.latents, photos.cameras)
    mse = (images - photos.images).square().mean(dim=(1, 2, 3))
    losses: Tensor = lpips.distance(lpips.features(images), photos.features) + settings.mse_weight * mse
    return losses


def epochs(count: int, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless shuffled epochs over ``count`` photos in batches; the last short batch of an epoch is kept."""
    while True:
        order = rng.permutation(count)
        for start in range(0, count, batch):
            yield order[start : start + batch]


def replay_draws(count: int, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless full batches from endlessly reshuffled epochs, repeating when ``count`` is below ``batch``."""
    queue: list[int] = []
    while True:
        while len(queue) < batch:
            queue.extend(rng.permutation(count).tolist())
        yield np.array(queue[:batch])
        del queue[:batch]


def total_steps(new_photos: int, settings: TrainerSettings) -> int:
    """Optimiser steps of one stage: ``passes`` epochs over the new photos."""
    return settings.epochs * -(-new_photos // settings.batch_size)


def schedule(draws: Iterator[np.ndarray], steps: int, device: torch.device) -> tuple[Tensor, ...]:
    """The index batches of all steps, moved to the device at once: nothing is moved inside the loop."""
    batches = list(islice(draws, steps))
    flat = torch.from_numpy(np.concatenate(batches)).to(device)
    return torch.split(flat, [len(batch) for batch in batches])


Batches = tuple[Tensor, ...]
"""Indices of the photos of every step."""

SHORT_BATCH_REPLAY: Registry[Callable[[Batches, Batches, TrainerSettings], Batches]] = Registry("short batch replay")
"""Name -> function of full replay batches and batches of new photos; returns what is replayed at every step."""


@SHORT_BATCH_REPLAY.register("full")
def _replay_in_full(replay: Batches, new: Batches, settings: TrainerSettings) -> Batches:
    return replay


@SHORT_BATCH_REPLAY.register("as_new")
def _replay_as_new(replay: Batches, new: Batches, settings: TrainerSettings) -> Batches:
    full = settings.batch_size
    return tuple(old if len(batch) == full else old[: len(batch)] for old, batch in zip(replay, new, strict=True))


class StepLoss(NamedTuple):
    """Loss of one step as detached scalars: of its photos alone, and with the penalty (equal if there is none)."""

    photos: Tensor
    total: Tensor


def backpropagate(
    module: nn.Module,
    batch: TrainingPhotos,
    settings: TrainerSettings,
    lpips: LPIPS,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    *,
    micro_batch: int | None = None,
) -> StepLoss:
    """Add the gradients of a step's loss, mean over the photos plus penalty, to those of the parameters.

    With ``micro_batch``, that many photos at most go forward and backward together, each part with its share of the
    mean, and the penalty in a pass of its own (which may hold more images than that; the strategy decides how many).
    The sums are the same, in another order.
    """
    if micro_batch is None:
        loss = photo_losses(module, batch, settings, lpips).mean()
        # after the photos and in a pass of its own, so that a penalty of weight 0 leaves every bit as it is
        total = loss if penalty is None else loss + penalty(module)
        torch.autograd.backward(total)
        return StepLoss(loss.detach(), total.detach())
    parts = []
    for rows in torch.split(torch.arange(len(batch), device=batch.latents.device), micro_batch):
        part = photo_losses(module, batch.rows(rows), settings, lpips).mean() * (len(rows) / len(batch))
        torch.autograd.backward(part)
        parts.append(part.detach())
    photos = torch.stack(parts).sum()
    if penalty is None:
        return StepLoss(photos, photos)
    more = penalty(module)
    torch.autograd.backward(more)
    return StepLoss(photos, photos + more.detach())


def largest_sane_loss(settings: TrainerSettings) -> float:
    """Photo loss (LPIPS + mse_weight * MSE) above which the generator no longer makes images.

    LPIPS is bounded whatever the images are, so a run explodes in MSE; with ``mse_weight`` 0 this is never reached.
    """
    return _LPIPS_LIMIT + settings.mse_weight * _SANE_MSE


class LossLog:
    """Losses of all steps, read from the device every few steps and after the last.

    ``limit``: largest allowed loss of the photos. The penalty has no limit: its scale depends on the strategy.
    """

    def __init__(self, steps: int, learning_rate: float, *, every: int, limit: float = math.inf):
        self.values: list[float] = []
        self._waiting: list[StepLoss] = []
        self._steps = steps
        self._learning_rate = learning_rate
        self._every = every
        self._limit = limit

    def add(self, loss: StepLoss) -> bool:
        """Add the loss of a step; return whether ``values``, the losses with penalty, is complete now.

        Raises:
            TrainingDivergedError: a loss is NaN or infinite, or that of the photos is above the limit.
        """
        self._waiting.append(loss)
        if len(self._waiting) < self._every and len(self.values) + len(self._waiting) < self._steps:
            return False
        # one transfer for all pending losses
        for photos, total in torch.stack([value for step in self._waiting for value in step]).view(-1, 2).tolist():
            if not math.isfinite(total):
                raise self._diverged(total)
            if photos > self._limit:
                raise self._diverged(photos, f" (above {self._limit:g} the output is not an image any more)")
            self.values.append(total)
        self._waiting.clear()
        return True

    def _diverged(self, value: float, aside: str = "") -> TrainingDivergedError:
        return TrainingDivergedError(
            f"the loss became {value:g} at step {len(self.values) + 1} of {self._steps} with learning rate "
            f"{self._learning_rate:g}{aside}; use a smaller learning rate"
        )


def personalise(
    module: nn.Module,
    new: TrainingPhotos,
    replay: TrainingPhotos | None,
    *,
    settings: TrainerSettings,
    learning_rate: float,
    lpips: LPIPS,
    new_rng: np.random.Generator,
    replay_rng: np.random.Generator,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
    micro_batch: int | None = None,
    losses: list[float] | None = None,
    fused_adam: bool = False,
) -> float:
    """Tune every parameter of ``module`` that requires a gradient, in place; return the mean loss of the last epoch.

    Each step takes ``batch_size`` new photos and, if there is a buffer, ``replay_batch_size`` replayed ones; its
    loss is the mean over all of them of LPIPS + mse_weight * MSE, plus ``penalty(module)`` where a strategy has one.
    ``short_batch_replay`` sets how many are replayed beside the short last batch of an epoch. Adam starts fresh. With
    ``micro_batch``, at most that many photos are in memory at once; the steps stay the same up to the rounding of their
    sums (``backpropagate``). The loss of every step is appended to ``losses``. ``fused_adam`` updates all parameters in
    one pass over memory (last digits differ).

    Raises:
        TrainingDivergedError: the loss is NaN or infinite, or that of the photos is above ``largest_sane_loss``.
    """
    device = new.latents.device
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=learning_rate, betas=settings.betas, fused=fused_adam or None)
    steps = total_steps(len(new), settings)
    batches = [schedule(epochs(len(new), settings.batch_size, new_rng), steps, device)]
    sources = [new]
    if replay is not None and len(replay):
        draws = schedule(replay_draws(len(replay), settings.replay_batch_size, replay_rng), steps, device)
        batches.append(SHORT_BATCH_REPLAY[settings.short_batch_replay](draws, batches[0], settings))
        sources.append(replay)
    every = 1 if device.type == "cpu" else _SYNC_STEPS
    log = LossLog(steps, learning_rate, every=every, limit=largest_sane_loss(settings))
    for indices in zip(*batches, strict=True):
        batch = TrainingPhotos.joined([source.rows(index) for source, index in zip(sources, indices, strict=True)])
        assert batch is not None
        optimizer.zero_grad(set_to_none=True)
        looked = log.add(backpropagate(module, batch, settings, lpips, penalty, micro_batch=micro_batch))
        optimizer.step()
        if looked and on_step is not None:
            on_step(len(log.values), steps, log.values[-1])
    if losses is not None:
        losses.extend(log.values)
    return float(np.mean(log.values[steps - steps // settings.epochs :]))
