"""The workload ``ageing`` in a worker: trains a personal age adapter, and scores the faces that it makes.

Source: L. Qi et al., "MyTimeMachine: Personalized Facial Age Transformation" (2411.14521), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.faces.torch_embedder import TorchIdentityEmbedder
from clstudy.generators.ageing import AgeAdapter, AgedGenerator, Prior, latents_at, split_latents
from clstudy.generators.base import DomainGenerator
from clstudy.identities.known_ages import AGE
from clstudy.images import photo_row, to_uint8
from clstudy.metrics.lpips import LPIPS
from clstudy.records.rows import Row
from clstudy.settings.ageing import AgeingProfile, AgeingSettings
from clstudy.settings.profile_sections import AGE_STRIP, STRIP_AGES
from clstudy.training.evaluation import Entry
from clstudy.workloads.age_scores import AgeScores
from clstudy.workloads.age_tests import AgeTest, age_test, of_earlier
from clstudy.workloads.age_training import AdapterLoss, AgedRows, AtHand, train_adapter
from clstudy.workloads.ageing import LEARNED
from clstudy.workloads.packing import packed, unpack
from clstudy.workloads.personalised_generator import face_grid
from clstudy.workloads.workload import (
    AnchoredSamples,
    Samples,
    ScoredStage,
    StageInput,
    TestSamples,
    TrainedStage,
    Workload,
)

_BATCH = 16


@dataclass
class PersonalisedAgeing(Workload[AgedGenerator, AgeTest]):
    """The networks that a worker keeps loaded; a state is an adapter with the networks beside it.

    A sample's latent, by which strategies choose, is its w and its age (``latents_at``).
    """

    profile: AgeingProfile
    generator: DomainGenerator
    synthesis: nn.Module
    prior: Prior
    scores: AgeScores
    lpips: LPIPS

    device: torch.device = field(init=False)
    largest_batch: int = field(init=False)

    def __post_init__(self) -> None:
        trainer = self.profile.trainer
        self.device = self.generator.device
        self.largest_batch = trainer.batch_size + trainer.replay_batch_size + self.settings.beyond_batch_size
        embedder = TorchIdentityEmbedder(self.profile.data.alignment).to(self.device).eval()
        self._loss = AdapterLoss(self.settings, self.lpips, embedder)

    @property
    def settings(self) -> AgeingSettings:
        """The profile's section."""
        return self.profile.ageing

    @property
    def notes(self) -> tuple[str, ...]:
        """None but where the embedder of the scores runs."""
        note = self.scores.embedder.device_note
        return () if note is None else (note,)

    def candidates(self, samples: Samples, micro_batch: int | None = None) -> Tensor:
        """w and age ``[n, w_dim + 1]``."""
        parts = torch.split(samples.images, micro_batch or max(len(samples), 1))
        w = torch.cat([self.generator.anchors(part) for part in parts])
        return latents_at(w, samples.conditions[AGE][:, 0])

    def state(self, weights: Mapping[str, Tensor] | None) -> AgedGenerator:
        """An adapter with the weights of a finished stage; None: one that adds nothing."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            adapter = AgeAdapter(
                num_ws=self.prior.num_ws,
                w_dim=self.prior.w_dim,
                neck=self.settings.neck,
                shared=self.settings.shared,
                age_width=self.settings.age_width,
                hidden=self.settings.hidden,
            ).to(self.device)
        if weights is not None:
            unpack(weights, {"adapter": adapter})
        return AgedGenerator(self.synthesis, self.prior, adapter)

    def network(self, state: AgedGenerator) -> nn.Module:
        """The state itself."""
        return state

    def train(
        self,
        state: AgedGenerator,
        given: StageInput,
        *,
        on_step: Callable[[int, int, float], None],
        micro_batch: int | None = None,
    ) -> TrainedStage[AgedGenerator]:
        """Train the adapter in place (``clstudy.workloads.age_training``), and freeze it."""
        losses = train_adapter(
            state,
            self._at_hand(given),
            self._loss,
            self.profile,
            learning_rate=given.learning_rate,
            new_rng=given.new_rng,
            replay_rng=given.replay_rng,
            penalty=given.penalty,
            on_step=on_step,
            micro_batch=micro_batch,
        )
        weights = packed({"adapter": state.adapter})
        state.requires_grad_(False)
        last = len(losses) // self.profile.trainer.epochs
        return TrainedStage(state, weights, float(np.mean(losses[-last:])), np.array(losses, np.float32))

    def _at_hand(self, given: StageInput) -> AtHand:
        """New, stored and generated photos, in this order."""
        latents, images = [given.new.latents], [given.new.images]
        for more in (given.stored, given.generated):
            if more is not None:
                latents.append(more.latents)
                images.append(more.images)
        w, ages = split_latents(torch.cat(latents))
        return AtHand(w, ages, self._loss.embedded(torch.cat(images)), len(given.new))

    def photo_loss(self, state: AgedGenerator, samples: AnchoredSamples) -> Callable[[int], Tensor]:
        """The loss of a photo aged to its own age."""
        w, ages = split_latents(samples.latents)
        at_hand = AtHand(w, ages, self._loss.embedded(samples.images), len(samples))

        def loss(index: int) -> Tensor:
            one = torch.tensor([index], device=self.device)
            rows = AgedRows(w[one], ages[one], ages[one], torch.zeros(1, dtype=torch.bool, device=self.device))
            return self._loss(state, rows, at_hand)[0]

        return loss

    def test_set(self, samples: TestSamples) -> AgeTest:
        """Test photos, and what is asked of them where their moments are known at several ages."""
        return age_test(samples, self.scores.embedder)

    @torch.no_grad()
    def evaluate(
        self,
        trained: TrainedStage[AgedGenerator],
        tests: Sequence[AgeTest],
        *,
        timestamp: int,
        on_test_set: Callable[[int], None],
        micro_batch: int | None = None,
    ) -> ScoredStage:
        """Photos aged to learned ages, between and beyond; one photo of each age above what was made of another."""
        state = trained.state
        rows: list[Row] = []
        above, below = [], []
        for test in tests:
            cell = Entry(timestamp, test.timestamp)
            for asked in test.asked or [of_earlier(tests, test)]:
                images = cell.finite(self._made(state, asked.latents, micro_batch), "a face")
                rows += self.scores.rows(asked, images, self._made_by_prior, cell)
                if asked.protocol == LEARNED:
                    above.append(test.images[test.own[0]])
                    below.append(images[0])
            on_test_set(test.timestamp)
        faces = face_grid(to_uint8(torch.stack(above)), to_uint8(torch.stack(below)))
        return ScoredStage(tuple(rows), faces, {AGE_STRIP: self._strip(state, tests[0])})

    def _made(self, state: AgedGenerator, latents: Tensor, micro_batch: int | None = None) -> Tensor:
        return torch.cat([state(part) for part in torch.split(latents, min(micro_batch or _BATCH, _BATCH))])

    def _made_by_prior(self, latents: Tensor) -> Tensor:
        return self._made(self.state(None), latents)

    def _strip(self, state: AgedGenerator, first: AgeTest) -> np.ndarray:
        """True faces (grey where unknown), the prior's and this state's at ``STRIP_AGES``: ``[3 s, 7 s, 3]``."""
        ages = torch.tensor(STRIP_AGES, dtype=torch.float32, device=self.device)
        latents = latents_at(first.w[[first.own[0]]].expand(len(ages), -1), ages)
        unknown = torch.zeros_like(first.images[0])
        truth = torch.stack([first.strip.get(age, unknown) for age in STRIP_AGES])
        made = [truth, self._made_by_prior(latents), self._made(state, latents)]
        return np.concatenate([photo_row(list(to_uint8(images))) for images in made])
