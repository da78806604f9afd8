"""A generator that is personalised: photos as anchored latents, LPIPS + MSE, scored by inverting unseen photos.

Sources: protocol, steps 1 to 5; Y. Nitzan et al., "MyStyle" (2203.17272).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.generators.base import DomainGenerator
from clstudy.images import photo_row, to_uint8, to_unit_range
from clstudy.metrics.base import Metric
from clstudy.metrics.lpips import LPIPS
from clstudy.records.rows import Row
from clstudy.settings.profiles import Profile
from clstudy.strategies.base import Generated, Penalty
from clstudy.training.evaluation import TestSet, convex_combinations, evaluate
from clstudy.training.personalise import TrainingPhotos, personalise, photo_losses

_SHOWN_REPLAYS = 10
"""Generated replays in the picture of a stage's buffer."""


@dataclass(frozen=True)
class TrainedStage:
    """A stage after training: the network, its losses, what a strategy generated for it."""

    module: nn.Module
    weights: Mapping[str, Tensor]
    """What training changed in it, by name."""
    loss: float
    """Mean of the last epoch."""
    losses: np.ndarray
    """Of every step, float32 ``[steps]``."""
    generated: Generated | None


@dataclass(frozen=True)
class ScoredStage:
    """A trained stage with its rows and its face grid: photos above their reconstructions, uint8 ``[2 s, n s, 3]``."""

    trained: TrainedStage
    rows: tuple[Row, ...]
    faces: np.ndarray


@dataclass(frozen=True, kw_only=True)
class TrainingInput:
    """What one stage is trained on.

    Args:
        new: photos of the stage's timestamps.
        stored: photos of the buffer.
        generated: what the strategy generates in place of stored photos.
        penalty: what it adds to the loss.
        learning_rate: of Adam.
        new_rng, replay_rng: streams that the order of photos is drawn from.
    """

    new: TrainingPhotos
    stored: TrainingPhotos | None
    generated: Generated | None
    penalty: Penalty | None
    learning_rate: float
    new_rng: np.random.Generator
    replay_rng: np.random.Generator


@dataclass
class PersonalisedGenerator:
    """The networks that a worker keeps warm, and what it does with them. Knows no store, no keys and no other stage."""

    profile: Profile
    generator: DomainGenerator
    lpips: LPIPS
    metrics: Sequence[Metric]

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return self.generator.device

    @property
    def largest_batch(self) -> int:
        """Photos in the largest pass of a stage."""
        trainer = self.profile.trainer
        return max(trainer.batch_size + trainer.replay_batch_size, self.profile.inversion.batch_size)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how metrics are computed here."""
        return tuple(note for metric in self.metrics for note in metric.notes)

    # -- photos ---------------------------------------------------------------------------------------------

    def images(self, photos: Sequence[np.ndarray]) -> Tensor:
        """Photos uint8 ``[s, s, 3]`` as float32 ``[n, 3, s, s]`` in [-1, 1], on the device."""
        return to_unit_range(np.stack(photos)).to(self.device)

    def anchors(self, images: Tensor, micro_batch: int | None = None) -> Tensor:
        """Latents ``[n, w_dim]`` of photos ``[n, 3, s, s]`` under the pretrained generator."""
        parts = [images] if micro_batch is None else torch.split(images, micro_batch)
        return torch.cat([self.generator.anchors(part) for part in parts])

    def training_photos(self, latents: Tensor, images: Tensor, micro_batch: int | None = None) -> TrainingPhotos:
        """Photos with their latents and target features."""
        return TrainingPhotos.prepare(latents, images, self.lpips, micro_batch=micro_batch)

    def test_set(
        self,
        timestamp: int,
        digests: tuple[str, ...],
        images: Tensor,
        *,
        start: Tensor,
        anchors: Tensor,
        rng: np.random.Generator,
    ) -> TestSet:
        """Test photos and everything about them that no model changes.

        Args:
            timestamp: theirs.
            digests: of the photos, in their order.
            images: ``[n, 3, s, s]``.
            start: their latents ``[n, w_dim]`` under the pretrained generator.
            anchors: latents ``[m, w_dim]`` of the timestamp's training photos, which synthesis combines.
            rng: stream of the synthesis.
        """
        with torch.no_grad():
            features = self.lpips.features(images)
        return TestSet(
            timestamp=timestamp,
            digests=digests,
            images=images,
            features=features,
            start=start,
            prepared={metric.name: metric.prepare(images) for metric in self.metrics},
            combinations=convex_combinations(anchors, self.profile.evaluation, rng),
        )

    # -- a stage --------------------------------------------------------------------------------------------

    def network(self, weights: Mapping[str, Tensor] | None) -> nn.Module:
        """A new network with the weights of a finished stage; None: the pretrained ones."""
        return self.generator.fresh(weights)

    def train(
        self,
        module: nn.Module,
        given: TrainingInput,
        *,
        on_step: Callable[[int, int, float], None],
        micro_batch: int | None = None,
    ) -> TrainedStage:
        """Train a network in place, and freeze it.

        Raises:
            TrainingDivergedError: the loss is not finite, or beyond all sense.
        """
        replays = [given.stored]
        if given.generated is not None:
            replays.append(self.training_photos(given.generated.latents, given.generated.images, micro_batch))
        losses: list[float] = []
        loss = personalise(
            module,
            given.new,
            TrainingPhotos.joined([photos for photos in replays if photos is not None]),
            settings=self.profile.trainer,
            learning_rate=given.learning_rate,
            lpips=self.lpips,
            new_rng=given.new_rng,
            replay_rng=given.replay_rng,
            penalty=given.penalty,
            on_step=on_step,
            micro_batch=micro_batch,
            losses=losses,
        )
        weights = self.generator.tunable_state(module)
        module.requires_grad_(False)  # scoring inverts photos through it
        return TrainedStage(module, weights, loss, np.array(losses, np.float32), given.generated)

    def photo_loss(self, module: nn.Module, photos: TrainingPhotos, index: int) -> Tensor:
        """The training loss of one photo, a scalar."""
        one = photos.rows(torch.tensor([index], device=self.device))
        return photo_losses(module, one, self.profile.trainer, self.lpips)[0]

    def score(
        self,
        trained: TrainedStage,
        test_sets: Sequence[TestSet],
        *,
        timestamp: int,
        on_test_set: Callable[[int], None],
        micro_batch: int | None = None,
    ) -> ScoredStage:
        """Score a trained stage on the test photos of all timestamps so far.

        Raises:
            NotFiniteError: an image, a latent or a metric's value is not finite.
        """
        found = evaluate(
            trained.module,
            test_sets,
            self.metrics,
            train_timestamp=timestamp,
            inversion=self.profile.inversion,
            lpips=self.lpips,
            on_test_set=on_test_set,
            micro_batch=micro_batch,
        )
        photos = torch.cat([test.images[:1] for test in test_sets])
        return ScoredStage(trained, found.rows, face_grid(to_uint8(photos), to_uint8(torch.stack(found.examples))))

    def replay_picture(self, generated: Generated) -> np.ndarray:
        """Some of what a strategy generated, side by side: uint8 ``[s, n s, 3]``."""
        return photo_row(list(to_uint8(generated.images[:_SHOWN_REPLAYS])))


def face_grid(photos: np.ndarray, rebuilt: np.ndarray) -> np.ndarray:
    """Test photos ``[n, s, s, 3]`` above their reconstructions: ``[2 s, n s, 3]`` (s at most 256)."""
    return np.concatenate([photo_row(list(photos)), photo_row(list(rebuilt))])
