"""Personalises a generator: photos as anchored latents, LPIPS + MSE, scored by inverting unseen photos.

Sources: protocol, steps 1 to 5; Y. Nitzan et al., "MyStyle" (2203.17272).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.generators.base import DomainGenerator
from clstudy.images import photo_row, to_uint8
from clstudy.metrics.base import Metric
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.kernels import KERNELS
from clstudy.settings.metric_facts import BALANCED_PHOTO
from clstudy.settings.profiles import Profile
from clstudy.training.evaluation import Evaluation, Rebuilt, TestSet, convex_combinations, evaluate
from clstudy.training.personalise import TrainingPhotos, personalise, photo_losses
from clstudy.training.rendering import rows_of
from clstudy.workloads.workload import (
    AnchoredSamples,
    Samples,
    ScoredStage,
    StageInput,
    TestSamples,
    TrainedStage,
    Workload,
)


@dataclass
class PersonalisedGenerator(Workload[nn.Module, TestSet]):
    """The networks that a worker keeps loaded; a state is the network that is tuned."""

    profile: Profile
    generator: DomainGenerator
    lpips: LPIPS
    metrics: Sequence[Metric]

    device: torch.device = field(init=False)
    largest_batch: int = field(init=False)

    def __post_init__(self) -> None:
        trainer = self.profile.trainer
        self.device = self.generator.device
        self.largest_batch = max(trainer.batch_size + trainer.replay_batch_size, self.profile.inversion.batch_size)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how metrics are computed here."""
        return tuple(note for metric in self.metrics for note in metric.notes)

    def candidates(self, samples: Samples, micro_batch: int | None = None) -> Tensor:
        """Anchors: latents under the pretrained generator (protocol, step 1)."""
        cameras = self.cameras(samples)
        parts = torch.split(torch.arange(len(samples)), micro_batch or max(len(samples), 1))
        return torch.cat([self._anchors(samples.images[rows], rows_of(cameras, rows)) for rows in parts])

    def _anchors(self, photos: Tensor, cameras: Tensor | None) -> Tensor:
        return self.generator.anchors(photos) if cameras is None else self.generator.anchors_seen(photos, cameras)

    def cameras(self, samples: Samples) -> Tensor | None:
        """The samples' cameras ``[n, 25]``, if the generator is told from where it is seen."""
        return None

    def state(self, weights: Mapping[str, Tensor] | None) -> nn.Module:
        """A network with the weights of a finished stage; None: the pretrained ones."""
        return self.generator.fresh(weights)

    def network(self, state: nn.Module) -> nn.Module:
        """The state itself."""
        return state

    def train(
        self,
        state: nn.Module,
        given: StageInput,
        *,
        on_step: Callable[[int, int, float], None],
        micro_batch: int | None = None,
    ) -> TrainedStage[nn.Module]:
        """Tune the network in place (``clstudy.training.personalise``), and freeze it."""
        new = self._photos(given.new, micro_batch)
        replays = [] if given.stored is None else [self._photos(given.stored, micro_batch)]
        if given.generated is not None:
            generated = given.generated
            replays.append(
                TrainingPhotos.prepare(
                    generated.latents,
                    generated.images,
                    self.lpips,
                    cameras=self.usual_cameras(len(generated.latents)),
                    micro_batch=micro_batch,
                )
            )
        losses: list[float] = []
        loss = personalise(
            state,
            new,
            TrainingPhotos.joined(replays),
            settings=self.profile.trainer,
            learning_rate=given.learning_rate,
            lpips=self.lpips,
            new_rng=given.new_rng,
            replay_rng=given.replay_rng,
            penalty=given.penalty,
            on_step=on_step,
            micro_batch=micro_batch,
            losses=losses,
            fused_adam=KERNELS[self.profile.compute.kernels].fused,
        )
        weights = self.generator.tunable_state(state)
        state.requires_grad_(False)  # scoring inverts photos through it
        return TrainedStage(state, weights, loss, np.array(losses, np.float32))

    def _photos(self, samples: AnchoredSamples, micro_batch: int | None = None) -> TrainingPhotos:
        return TrainingPhotos.prepare(
            samples.latents, samples.images, self.lpips, cameras=self.cameras(samples), micro_batch=micro_batch
        )

    def reconstruction(self, state: nn.Module) -> Callable[[TestSet, Tensor], Rebuilt] | None:
        """What makes the images of the latents found for test photos; None: the network itself."""
        return None

    def pictures(self, state: nn.Module, tests: Sequence[TestSet], found: Evaluation) -> dict[str, np.ndarray]:
        """``ScoredStage.pictures``."""
        return {}

    def usual_cameras(self, count: int) -> Tensor | None:
        """Cameras ``[count, 25]`` that the network uses when it is given none; None if it never has any."""
        return None

    def photo_loss(self, state: nn.Module, samples: AnchoredSamples) -> Callable[[int], Tensor]:
        """LPIPS + MSE of one photo at its anchor."""
        photos = self._photos(samples)

        def loss(index: int) -> Tensor:
            one = photos.rows(torch.tensor([index], device=self.device))
            return photo_losses(state, one, self.profile.trainer, self.lpips)[0]

        return loss

    def test_set(self, samples: TestSamples) -> TestSet:
        """Test photos with target features, what metrics prepare from them, and latents of the synthesis protocol."""
        with torch.no_grad():
            features = self.lpips.features(samples.images)
        return TestSet(
            timestamp=samples.timestamp,
            digests=samples.digests,
            images=samples.images,
            features=features,
            start=samples.latents,
            prepared={metric.name: metric.prepare(samples.images) for metric in self.metrics},
            combinations=convex_combinations(samples.anchors, self.profile.evaluation, samples.rng),
            balanced=_balanced(samples),
            cameras=self.cameras(samples),
        )

    def evaluate(
        self,
        trained: TrainedStage[nn.Module],
        tests: Sequence[TestSet],
        *,
        timestamp: int,
        on_test_set: Callable[[int], None],
        micro_batch: int | None = None,
    ) -> ScoredStage:
        """Rows of reconstruction and synthesis; photos above their reconstructions."""
        found = evaluate(
            trained.state,
            tests,
            self.metrics,
            train_timestamp=timestamp,
            inversion=self.profile.inversion,
            lpips=self.lpips,
            on_test_set=on_test_set,
            micro_batch=micro_batch,
            rebuilt_by=self.reconstruction(trained.state),
        )
        photos = torch.cat([test.images[:1] for test in tests])
        faces = face_grid(to_uint8(photos), to_uint8(torch.stack(found.examples)))
        return ScoredStage(found.rows, faces, self.pictures(trained.state, tests, found))


def _balanced(samples: TestSamples) -> frozenset[str]:
    """Digests of the photos in the balanced test set."""
    if BALANCED_PHOTO not in samples.conditions:
        return frozenset()
    marks = samples.conditions[BALANCED_PHOTO][:, 0].tolist()
    return frozenset(digest for digest, mark in zip(samples.digests, marks, strict=True) if mark == 1)


def face_grid(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Images ``[n, s, s, 3]`` above others (test photos above reconstructions): ``[2 s, n s, 3]`` (s at most 256)."""
    return np.concatenate([photo_row(list(above)), photo_row(list(below))])
