"""Trains stages: from the previous stage's weights, on new photos, replays and what a strategy learned.

Weights and learned tensors come from the store. If they were dropped, the stage that produced them is trained again,
to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from clstudy.records.stage_record import StageRecord, owned_by
from clstudy.seeding import derive_rng
from clstudy.storage.content_addressed_store import LEARNED, STAGE_RECORD, WEIGHTS, StudyStore
from clstudy.strategies.base import Generated, Past, Penalty, Trained
from clstudy.strategies.lookup import make_strategy
from clstudy.training.micro_batches import with_smaller_batches
from clstudy.training.personalise import TrainingDivergedError
from clstudy.trial.listener import Deaf, Listener
from clstudy.trial.photos import StagePhotos, loaded, stored_tensors
from clstudy.trial.requests import LearnedRequest, StageRequest, Support
from clstudy.trial.stage_locks import StageLocks, stored_or_computed
from clstudy.workloads.workload import StageInput, TrainedStage, Workload

T = TypeVar("T")


@dataclass(frozen=True)
class Hooked:
    """What a strategy's hooks gave a stage.

    Attributes:
        generated: photos to replay.
        penalty: term of the loss.
        frozen_bytes: size of the trained parameters of t-1, which were held for the hooks; None if there were none.
    """

    generated: Generated | None = None
    penalty: Penalty | None = None
    frozen_bytes: int | None = None


class StageTrainer:
    """Trains stages, and provides what trained stages left: weights by stage, learned tensors by request."""

    def __init__(
        self,
        workload: Workload[Any, Any],
        photos: StagePhotos,
        store: StudyStore,
        locks: StageLocks,
        wait_seconds: float,
    ):
        self._workload = workload
        self._photos = photos
        self._store = store
        self._locks = locks
        self._wait_seconds = wait_seconds

    # -- training -------------------------------------------------------------------------------------------

    def train(
        self, request: StageRequest, listener: Listener, micro_batch: int | None
    ) -> tuple[TrainedStage[Any], Hooked]:
        """Train one stage; returns also what the strategy's hooks gave it.

        Raises:
            TrainingDivergedError: the loss is not finite or absurdly large; the message says timestamp and step.
        """
        stream = (request.spec.seed, request.identity.name, request.t)
        parent = None if request.parent is None else self.weights(request.parent)
        hooked = self._hooks(request, parent)
        given = StageInput(
            new=self._photos.training(request.identity, request.trained_on),
            stored=self._photos.stored(request),
            generated=hooked.generated,
            penalty=hooked.penalty,
            learning_rate=request.spec.learning_rate,
            new_rng=derive_rng(*stream, "new photos"),
            replay_rng=derive_rng(*stream, "replay"),
        )
        try:
            trained = self._workload.train(
                self._workload.state(parent),
                given,
                on_step=lambda step, total, value: listener.progress(request.t, "train", step, total, value),
                micro_batch=micro_batch,
            )
        except TrainingDivergedError as error:
            raise TrainingDivergedError(f"timestamp {request.t}: {error}") from error
        return trained, hooked

    def _hooks(self, request: StageRequest, parent: Mapping[str, Tensor] | None) -> Hooked:
        if request.support is None or parent is None:
            return Hooked()
        strategy = make_strategy(request.support.strategy)
        network = self._network(parent)
        # what else a network consists of is shared and not a copy
        frozen_bytes = sum(value.nbytes for value in network.parameters() if value.requires_grad)
        past = self._past(request.support, network)
        stream = (request.spec.seed, request.identity.name, request.t)
        return Hooked(
            generated=strategy.replays(past, derive_rng(*stream, "generated replays")),
            penalty=strategy.penalty(past, derive_rng(*stream, "penalty")),
            frozen_bytes=frozen_bytes,
        )

    def _past(self, support: Support, network: nn.Module) -> Past:
        """What the hooks may use: memory, learned tensors, and the generator with the weights of t-1, frozen here."""
        learned = {} if support.learned is None else self.learned(support.learned)
        return Past(support.memory, learned, network.requires_grad_(False))

    def _network(self, weights: Mapping[str, Tensor]) -> nn.Module:
        return self._workload.network(self._workload.state(weights))

    def within_memory(
        self, request: StageRequest, compute: Callable[[int | None], T], first: int | None = None
    ) -> tuple[T, int | None]:
        """The result of ``compute`` with the largest micro-batch that fits on the device (``with_smaller_batches``)."""
        say = self._photos.say_halved(request.spec.trial_id)
        return with_smaller_batches(compute, self._workload.largest_batch, say, first=first)

    # -- what trained stages left -----------------------------------------------------------------------------

    def weights(self, request: StageRequest) -> dict[str, Tensor]:
        """The tuned weights of a finished stage, by name; trained again if they were dropped."""
        return stored_or_computed(
            self._locks,
            f"weights of {request.key}",
            lambda: self.stored_weights(request.key),
            lambda: self._trained_again(request),
            self._wait_seconds,
        )

    def stored_weights(self, key: str) -> dict[str, Tensor] | None:
        """The tuned weights of a stage, by name; None if they were dropped or never computed."""
        files = self._store.weights.get(key)
        if files is None and self._store.stage_has_weights(key):
            files = self._store.stages.get(key)
        return None if files is None else loaded(files[WEIGHTS], self._workload.device)

    def keep_weights(self, request: StageRequest, weights: Mapping[str, Tensor]) -> None:
        """Store what training changed in a stage's network."""
        files = {WEIGHTS: stored_tensors(weights), **self._owner(request)}
        self._store.weights.put(request.key, files)

    def _owner(self, request: StageRequest) -> dict[str, bytes]:
        return owned_by(request.identity.name, self._workload.processor)

    def _trained_again(self, request: StageRequest) -> dict[str, Tensor]:
        # use the micro-batch that the stage was scored with: another one differs in the last bits
        files = self._store.stages.get(request.key)
        first = None if files is None else StageRecord.decode(files[STAGE_RECORD]).micro_batch
        (trained, _), _ = self.within_memory(request, lambda size: self.train(request, Deaf(), size), first)
        self.keep_weights(request, trained.weights)
        return dict(trained.weights)

    def frozen(self, request: StageRequest) -> nn.Module:
        """The network of a finished stage, frozen."""
        return self._network(self.weights(request)).requires_grad_(False)

    def learned(self, request: LearnedRequest) -> dict[str, Tensor]:
        """What a strategy consolidated from a stage: read from the store, or computed from the stage's weights."""
        files = self._store.learned.get(request.key)
        if files is not None:
            return loaded(files[LEARNED], self._workload.device)
        stage, past = request.stage, None
        if request.before is not None:
            assert stage.parent is not None
            past = self._past(request.before, self._network(self.weights(stage.parent)))
        photos = self._photos.training(stage.identity, stage.trained_on)
        state = self._workload.state(self.weights(stage))
        trained = Trained(self._workload.network(state), len(photos), self._workload.photo_loss(state, photos))
        tensors = dict(make_strategy(request.strategy).consolidate(past, trained))
        self._store.learned.put(request.key, {LEARNED: stored_tensors(tensors), **self._owner(stage)})
        return tensors
