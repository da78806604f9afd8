"""The trainer core: fine-tune a generator so that its anchors give the photos, with replay mixed in.

Protocol, step 2 ("Personalise"); the one implementation for every profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.errors import UserError
from clstudy.metrics.lpips import LPIPS, Features, index_features
from clstudy.profiles import TrainerSettings

_SYNC_STEPS = 20
"""On a GPU the loss is looked at this often: every look makes the host wait for the device."""


class TrainingDivergedError(UserError):
    """The loss is no longer a finite number; the message says at which step."""


@dataclass(frozen=True)
class TrainingPhotos:
    """Photos with their anchors, in canonical order, and the LPIPS features of the photos (computed once).

    Shapes: latents ``[n, w_dim]``, images ``[n, 3, s, s]`` in [-1, 1], features per level ``[n, c, h, w]``.
    """

    latents: Tensor
    images: Tensor
    features: Features

    def __len__(self) -> int:
        return len(self.latents)

    @classmethod
    def prepare(cls, latents: Tensor, images: Tensor, lpips: LPIPS) -> TrainingPhotos:
        """Compute the target features."""
        with torch.no_grad():
            return cls(latents, images, lpips.features(images))

    @classmethod
    def joined(cls, parts: Sequence[TrainingPhotos]) -> TrainingPhotos | None:
        """All photos of the parts in order, or None if there are none."""
        filled = [part for part in parts if len(part)]
        if not filled:
            return None
        levels = zip(*(part.features for part in filled), strict=True)
        return cls(
            torch.cat([part.latents for part in filled]),
            torch.cat([part.images for part in filled]),
            tuple(torch.cat(maps) for maps in levels),
        )

    def rows(self, index: Tensor) -> TrainingPhotos:
        """The photos of an index ``[m]``."""
        return TrainingPhotos(self.latents[index], self.images[index], index_features(self.features, index))


def photo_losses(module: nn.Module, photos: TrainingPhotos, settings: TrainerSettings, lpips: LPIPS) -> Tensor:
    """LPIPS + mse_weight * MSE of each photo ``[n]``."""
    images = module(photos.latents)
    mse = (images - photos.images).square().mean(dim=(1, 2, 3))
    return lpips.distance(lpips.features(images), photos.features) + settings.mse_weight * mse


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
    return settings.passes * -(-new_photos // settings.batch_size)


def schedule(draws: Iterator[np.ndarray], steps: int, device: torch.device) -> tuple[Tensor, ...]:
    """The index batches of all steps, moved to the device at once: nothing is moved inside the loop."""
    batches = list(islice(draws, steps))
    flat = torch.from_numpy(np.concatenate(batches)).to(device)
    return flat.split([len(batch) for batch in batches])


class LossLog:
    """Losses of all steps, read from the device every few steps and after the last."""

    def __init__(self, steps: int, learning_rate: float, *, every: int):
        self.values: list[float] = []
        self._waiting: list[Tensor] = []
        self._steps = steps
        self._learning_rate = learning_rate
        self._every = every

    def add(self, loss: Tensor) -> bool:
        """Take the loss of a step (a detached scalar); returns whether ``values`` is complete now.

        Raises:
            TrainingDivergedError: a loss is NaN or infinite.
        """
        self._waiting.append(loss)
        if len(self._waiting) < self._every and len(self.values) + len(self._waiting) < self._steps:
            return False
        for value in torch.stack(self._waiting).tolist():
            if not np.isfinite(value):
                raise TrainingDivergedError(
                    f"the loss became {value} at step {len(self.values) + 1} of {self._steps} with learning rate "
                    f"{self._learning_rate:g}; use a smaller learning rate"
                )
            self.values.append(value)
        self._waiting.clear()
        return True


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
) -> float:
    """Tune every parameter of ``module`` in place and return the mean loss of the last epoch.

    Each step takes ``batch_size`` new photos and, if there is a buffer, ``replay_batch_size`` replayed ones; its
    loss is the mean over all of them of LPIPS + mse_weight * MSE, plus ``penalty(module)`` where a strategy has one.
    Adam starts fresh.

    Raises:
        TrainingDivergedError: the loss is NaN or infinite.
    """
    module.requires_grad_(True)
    device = new.latents.device
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate, betas=settings.betas)
    steps = total_steps(len(new), settings)
    batches = [schedule(epochs(len(new), settings.batch_size, new_rng), steps, device)]
    sources = [new]
    if replay is not None and len(replay):
        batches.append(schedule(replay_draws(len(replay), settings.replay_batch_size, replay_rng), steps, device))
        sources.append(replay)
    log = LossLog(steps, learning_rate, every=1 if device.type == "cpu" else _SYNC_STEPS)
    for indices in zip(*batches, strict=True):
        batch = TrainingPhotos.joined([source.rows(index) for source, index in zip(sources, indices, strict=True)])
        assert batch is not None
        loss = photo_losses(module, batch, settings, lpips).mean()
        if penalty is not None:
            # after the photos and in a pass of its own, so that a penalty of weight 0 leaves every bit as it is
            loss = loss + penalty(module)
        looked = log.add(loss.detach())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if looked and on_step is not None:
            on_step(len(log.values), steps, log.values[-1])
    module.requires_grad_(False)
    return float(np.mean(log.values[steps - steps // settings.passes :]))
