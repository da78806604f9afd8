"""What a workload does in a worker: samples to latents, a state trained on samples, a state scored on test samples.

Who calls what, and when. For each timestamp t of a trial, the runner (``clstudy.trial``)

1. calls ``candidates`` for the latents of the photos of t, once for all strategies, and hands them to the strategy as
   items (``clstudy.strategies.base.make_items``);
2. makes the ``state`` that the previous stage left (at t = 0 the pretrained one), and has ``train`` change it, using
   the photos of t, what the strategy stored, and what its hooks supply;
3. makes a ``test_set`` of the test photos of every timestamp k <= t, once per person and seed, and has ``evaluate``
score the state on all of them.

Keys, locks, the store, retraining and the order of all this belong to the runner: a workload does not deal with them,
nor with any stage but the current one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.images import photo_row, to_uint8
from clstudy.records.rows import Row
from clstudy.settings.profiles import Profile
from clstudy.strategies.base import Generated, Penalty
from clstudy.training.processor import kind_of_processor

S = TypeVar("S")
T = TypeVar("T")
_SHOWN_REPLAYS = 10
"""Largest number of generated replays in the picture of a stage's buffer."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """n photos in canonical order, with what is known about them.

    Attributes:
        digests: one for each photo with its conditions.
        images: float32 ``[n, 3, s, s]`` in [-1, 1], on the workload's device.
        conditions: name -> float32 ``[n, width]``, from the photos' sidecar files (camera, age, class).
    """

    digests: tuple[str, ...]
    images: Tensor
    conditions: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, kw_only=True)
class AnchoredSamples(Samples):
    """Samples with the latents ``[n, *latent_shape]`` that ``Workload.candidates`` found for them."""

    latents: Tensor


@dataclass(frozen=True, kw_only=True)
class TestSamples(AnchoredSamples):
    """Test samples of one timestamp.

    Attributes:
        timestamp: the samples' timestamp.
        anchors: latents ``[m, *latent_shape]`` of the timestamp's training photos.
        rng: a stream of the trial's seed, the person and this timestamp: the same at every t and for every strategy.
    """

    timestamp: int
    anchors: Tensor
    rng: np.random.Generator


@dataclass(frozen=True, kw_only=True)
class StageInput:
    """What one stage is trained on.

    Attributes:
        new: samples of the stage's timestamps.
        stored: samples of the buffer; None if there is none.
        generated: samples that the strategy's hook generated for replay.
        penalty: the term that its hook adds to the loss; called once per step with ``Workload.network`` of the state.
        learning_rate: the trial's.
        new_rng, replay_rng: streams that the order of new and of replayed samples is drawn from.
    """

    new: AnchoredSamples
    stored: AnchoredSamples | None
    generated: Generated | None
    penalty: Penalty | None
    learning_rate: float
    new_rng: np.random.Generator
    replay_rng: np.random.Generator


@dataclass(frozen=True)
class TrainedStage(Generic[S]):
    """A stage after training.

    Attributes:
        state: the one to be scored.
        weights: everything that the next stage starts from, by name: what training changed, and the state of optimisers
            that live on.
        loss: mean over the last epoch.
        losses: the loss of every step, float32 ``[steps]``.
    """

    state: S
    weights: Mapping[str, Tensor]
    loss: float
    losses: np.ndarray


@dataclass(frozen=True)
class ScoredStage:
    """A stage's rows, and pictures that show its results.

    Attributes:
        rows: all of them.
        faces: uint8 ``[h, w, 3]``.
        pictures: others that the workload makes, by name (a-z, 0-9 and _): uint8 ``[h, w, 3]``.
    """

    rows: tuple[Row, ...]
    faces: np.ndarray
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)


class Workload(ABC, Generic[S, T]):
    """What a worker keeps loaded between stages, and what it does with it.

    ``S`` is the state that stages hand on (one network or several, with optimisers if they live on). ``T`` is whatever
    the workload prepares from test samples before it scores a state on them.

    Attributes:
        profile: of the study.
        device: where everything is computed.
        largest_batch: samples in the largest pass of a stage; smaller ones are tried if the GPU has no room for it.
    """

    profile: Profile
    device: torch.device
    largest_batch: int

    @cached_property
    def processor(self) -> str:
        """Kind of processor that computes here (``clstudy.training.processor``), as stored values say it."""
        return kind_of_processor(self.device)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how things are computed here."""
        return ()

    @abstractmethod
    def candidates(self, samples: Samples, micro_batch: int | None = None) -> Tensor:
        """Latents ``[n, *latent_shape]`` of samples under the pretrained networks; strategies choose by them.

        Args:
            samples: training or test photos of one timestamp.
            micro_batch: most samples in a pass; None: as many as there are.
        """

    @abstractmethod
    def state(self, weights: Mapping[str, Tensor] | None) -> S:
        """A new state from a trained stage's ``TrainedStage.weights``; None gives the pretrained one."""

    @abstractmethod
    def network(self, state: S) -> nn.Module:
        """The generator in a state, as hooks see it: latents ``[n, *latent_shape]`` -> images ``[n, 3, s, s]``.

        Its trained parameters require gradients.
        """

    @abstractmethod
    def train(
        self,
        state: S,
        given: StageInput,
        *,
        on_step: Callable[[int, int, float], None],
        micro_batch: int | None = None,
    ) -> TrainedStage[S]:
        """Train a state, which may be changed in place.

        Args:
            state: fresh from ``state``.
            given: samples, hooks, streams.
            on_step: called with (step, total steps, loss) from time to time.
            micro_batch: most samples in a pass; gradients are accumulated, so that the mathematics stays the same.

        Raises:
            TrainingDivergedError: the loss is not finite or absurdly large.
        """

    def photo_loss(self, state: S, samples: AnchoredSamples) -> Callable[[int], Tensor]:
        """The training loss of one sample (by index), a scalar with gradients, as ``consolidate`` receives it.

        A workload that has one declares it (``WorkloadKind.has_photo_loss``); otherwise such strategies are refused
        beforehand.

        Raises:
            NotImplementedError: this workload has none.
        """
        raise NotImplementedError(f"workload {self.profile.workload} offers no loss of one photo")

    @abstractmethod
    def test_set(self, samples: TestSamples) -> T:
        """Test samples and everything about them that does not depend on the state; kept between trials of a person."""

    @abstractmethod
    def evaluate(
        self,
        trained: TrainedStage[S],
        tests: Sequence[T],
        *,
        timestamp: int,
        on_test_set: Callable[[int], None],
        micro_batch: int | None = None,
    ) -> ScoredStage:
        """Score a trained state on the test sets of all timestamps so far.

        Args:
            trained: what ``train`` returned.
            tests: test sets of the timestamps 0 to t.
            timestamp: t.
            on_test_set: called with the timestamp of each finished test set.
            micro_batch: most samples in a pass.

        Raises:
            NotFiniteError: an image, a latent or a metric's value is not finite.
        """

    def replay_picture(self, generated: Generated) -> np.ndarray:
        """Some of what a strategy generated, side by side: uint8 ``[s, n s, 3]``."""
        return photo_row(list(to_uint8(generated.images[:_SHOWN_REPLAYS])))
