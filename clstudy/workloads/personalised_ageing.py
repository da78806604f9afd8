"""Trains and scores a personal ageing adapter, age after age.

Source: L. Qi et al., "MyTimeMachine: Personalized Facial Age Transformation" (2411.14521), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.faces.ages import AgeEstimator
from clstudy.faces.embedding import IdentityEmbedder
from clstudy.faces.torch_embedder import TorchIdentityEmbedder
from clstudy.generators.ageing import AgeAdapter, AgedGenerator, Prior, latents_at, split_latents
from clstudy.generators.base import DomainGenerator
from clstudy.identities.known_ages import AGE, TARGET, Target
from clstudy.identities.known_geometry import MOMENT
from clstudy.images import photo_row, to_uint8
from clstudy.metrics.lpips import LPIPS
from clstudy.records.rows import Row
from clstudy.settings.ageing import AgeingProfile, AgeingSettings
from clstudy.settings.kernels import KERNELS
from clstudy.settings.profile_sections import AGE_STRIP, STRIP_AGES
from clstudy.training.ageing_losses import ages_beyond, beyond_losses, identity_losses, norm_losses
from clstudy.training.evaluation import NotFiniteError
from clstudy.training.personalise import LossLog, StepLoss, epochs, replay_draws, schedule, total_steps
from clstudy.workloads.ageing import (
    AGE_ERROR,
    AGED_IDENTITY,
    AGED_LPIPS,
    BETWEEN,
    BEYOND,
    ERROR_OVER_PRIOR,
    IDENTITY_GAIN,
    LEARNED,
)
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
_MOST_REMEMBERED = 1000
_FAR = 10.0
"""Years that a photo differs from an age at least to be aged to it in scoring, where photos at many ages are known."""

_OF_TARGET = {Target.BETWEEN: BETWEEN, Target.BEYOND: BEYOND}

Scores = Mapping[str, Tensor]
"""Metric -> values ``[n]``."""


@dataclass(frozen=True)
class AtHand:
    """The photos that a stage may look at: w ``[m, w_dim]``, ages ``[m]``, unit embeddings ``[m, d]``."""

    w: Tensor
    ages: Tensor
    embeddings: Tensor


@dataclass(frozen=True)
class Asked:
    """Faces to be made of photos, and what they are compared with.

    Attributes:
        protocol: what they are scored as.
        names: of the n rows.
        latents: of the photos at the ages that are asked for ``[n, w_dim + 1]``.
        references: unit embeddings ``[n, r, d]``, of which the most similar counts.
        truth: the true faces ``[n, 3, s, s]``; None where they are not known.
    """

    protocol: str
    names: tuple[str, ...]
    latents: Tensor
    references: Tensor
    truth: Tensor | None

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from others."""
        ages = split_latents(self.latents)[1]
        return (self.protocol, *self.names, *(f"{age:.3f}" for age in ages.tolist()))


@dataclass(frozen=True)
class AgeTest:
    """Test photos of one timestamp: all of them, and which are as they were taken.

    Attributes:
        timestamp: the photos' timestamp.
        digests, images, w, ages, embeddings: of n photos; w ``[n, w_dim]``, unit embeddings ``[n, d]``.
        own: places of those at their timestamp's own age.
        asked: what is asked of them by themselves; nothing where no moment is known at several ages.
        strip: the first moment's true faces at ``STRIP_AGES``, as far as they are known.
    """

    timestamp: int
    digests: tuple[str, ...]
    images: Tensor
    w: Tensor
    ages: Tensor
    embeddings: Tensor
    own: tuple[int, ...]
    asked: tuple[Asked, ...]
    strip: Mapping[int, Tensor]


@dataclass
class PersonalisedAgeing(Workload[AgedGenerator, AgeTest]):
    """The networks that a worker keeps loaded; a state is an adapter with the networks beside it.

    A sample's latent, by which strategies choose, is its w and its age (``latents_at``).
    """

    profile: AgeingProfile
    generator: DomainGenerator
    synthesis: nn.Module
    prior: Prior
    estimator: AgeEstimator
    embedder: IdentityEmbedder
    lpips: LPIPS

    device: torch.device = field(init=False)
    largest_batch: int = field(init=False)
    _prior_scores: dict[tuple[str, ...], Scores] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        trainer = self.profile.trainer
        self.device = self.generator.device
        self.largest_batch = trainer.batch_size + trainer.replay_batch_size + self.settings.beyond_batch_size
        self._loss_embedder = TorchIdentityEmbedder(self.profile.data.alignment).to(self.device).eval()

    @property
    def settings(self) -> AgeingSettings:
        """The profile's section."""
        return self.profile.ageing

    @property
    def notes(self) -> tuple[str, ...]:
        """None but where the embedder of the scores runs."""
        note = self.embedder.device_note
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

    # -- training -------------------------------------------------------------------------------------------------

    def train(
        self,
        state: AgedGenerator,
        given: StageInput,
        *,
        on_step: Callable[[int, int, float], None],
        micro_batch: int | None = None,
    ) -> TrainedStage[AgedGenerator]:
        """Train the adapter in place: every step ages photos at hand towards the ages of new and replayed ones."""
        trainer = self.profile.trainer
        at_hand = self._at_hand(given)
        count, replayed = len(given.new), len(at_hand.w) - len(given.new)
        self._widen(state.adapter, at_hand.ages[:count])
        steps = total_steps(count, trainer)
        towards = [schedule(epochs(count, trainer.batch_size, given.new_rng), steps, self.device)]
        if replayed:
            draws = schedule(replay_draws(replayed, trainer.replay_batch_size, given.replay_rng), steps, self.device)
            towards.append(tuple(count + index for index in draws))
        adam = torch.optim.Adam(
            state.adapter.parameters(),
            lr=given.learning_rate,
            betas=trainer.betas,
            fused=KERNELS[self.profile.compute.kernels].fused or None,
        )
        log = LossLog(steps, given.learning_rate, every=1)
        for index in zip(*towards, strict=True):
            rows = self._drawn(at_hand, torch.cat(index), state.adapter.span, given.new_rng)
            adam.zero_grad(set_to_none=True)
            log.add(self._backpropagate(state, rows, at_hand, given, micro_batch))
            adam.step()
            on_step(len(log.values), steps, log.values[-1])
        loss = float(np.mean(log.values[steps - steps // trainer.epochs :]))
        weights = packed({"adapter": state.adapter})
        state.requires_grad_(False)
        return TrainedStage(state, weights, loss, np.array(log.values, np.float32))

    def _at_hand(self, given: StageInput) -> AtHand:
        """New, stored and generated photos, in this order."""
        latents, images = [given.new.latents], [given.new.images]
        for more in (given.stored, given.generated):
            if more is not None:
                latents.append(more.latents)
                images.append(more.images)
        w, ages = split_latents(torch.cat(latents))
        return AtHand(w, ages, self._embedded(torch.cat(images)))

    @torch.no_grad()
    def _embedded(self, images: Tensor) -> Tensor:
        return torch.cat([self._loss_embedder(part) for part in torch.split(images, _BATCH)])

    @staticmethod
    def _widen(adapter: AgeAdapter, ages: Tensor) -> None:
        adapter.span = torch.stack(
            [torch.minimum(adapter.span[0], ages.min()), torch.maximum(adapter.span[1], ages.max())]
        )

    def _drawn(self, at_hand: AtHand, towards: Tensor, span: Tensor, rng: np.random.Generator) -> _Rows:
        """Photos at hand, drawn uniformly, and the ages that they are aged to: those of photos, and ones beyond."""
        settings = self.settings
        beyond = settings.beyond_batch_size if settings.beyond_weight else 0
        uniform = torch.from_numpy(rng.random(beyond)).to(at_hand.ages)
        further = ages_beyond(uniform, span, settings.youngest, settings.oldest)
        ages = torch.cat([at_hand.ages[towards], further])
        source = torch.from_numpy(rng.integers(len(at_hand.w), size=len(ages))).to(self.device)
        is_beyond = torch.arange(len(ages), device=self.device) >= len(towards)
        return _Rows(at_hand.w[source], at_hand.ages[source], ages, is_beyond)

    def _backpropagate(
        self, state: AgedGenerator, rows: _Rows, at_hand: AtHand, given: StageInput, micro_batch: int | None
    ) -> StepLoss:
        """Add the gradients of the rows' mean loss and of the penalty, each part in a pass of its own."""
        total = torch.zeros((), device=self.device)
        for part in torch.split(torch.arange(len(rows.ages), device=self.device), micro_batch or len(rows.ages)):
            loss = self._losses(state, rows.at(part), at_hand).sum() / len(rows.ages)
            torch.autograd.backward(loss)
            total = total + loss.detach()
        if given.penalty is None:
            return StepLoss(total, total)
        more = given.penalty(state)
        torch.autograd.backward(more)
        return StepLoss(total, total + more.detach())

    def _losses(self, state: AgedGenerator, rows: _Rows, at_hand: AtHand) -> Tensor:
        """The loss of each row ``[n]``."""
        settings = self.settings
        ws, added = state.aged(rows.w, rows.ages)
        images = state.synthesis(ws + added)
        made = self._loss_embedder(images)
        losses = settings.norm_weight * norm_losses(added, rows.photo_ages, rows.ages)
        own, far = (~rows.beyond).nonzero()[:, 0], rows.beyond.nonzero()[:, 0]
        if len(own):
            one = identity_losses(made[own], rows.ages[own], at_hand.embeddings, at_hand.ages)
            losses = losses.index_add(0, own, settings.identity_weight * one)
        if len(far):
            with torch.no_grad():
                priors = state.synthesis(ws[far])
                kept = self._loss_embedder(priors)
            one = beyond_losses(images[far], priors, self.lpips(images[far], priors), made[far], kept)
            losses = losses.index_add(0, far, settings.beyond_weight * one)
        return losses

    def photo_loss(self, state: AgedGenerator, samples: AnchoredSamples) -> Callable[[int], Tensor]:
        """The loss of a photo aged to its own age."""
        w, ages = split_latents(samples.latents)
        at_hand = AtHand(w, ages, self._embedded(samples.images))

        def loss(index: int) -> Tensor:
            one = torch.tensor([index], device=self.device)
            rows = _Rows(w[one], ages[one], ages[one], torch.zeros(1, dtype=torch.bool, device=self.device))
            return self._losses(state, rows, at_hand)[0]

        return loss

    # -- scoring --------------------------------------------------------------------------------------------------

    def test_set(self, samples: TestSamples) -> AgeTest:
        """Test photos, and what is asked of them where their moments are known at several ages."""
        w, ages = split_latents(samples.latents)
        kinds = samples.conditions[TARGET][:, 0].tolist() if TARGET in samples.conditions else [0.0] * len(samples)
        moments = samples.conditions[MOMENT][:, 0].tolist() if MOMENT in samples.conditions else range(len(samples))
        known = _Photos(samples, w, ages, self.embedder(samples.images), kinds, list(moments))
        return AgeTest(
            timestamp=samples.timestamp,
            digests=samples.digests,
            images=samples.images,
            w=w,
            ages=ages,
            embeddings=known.embeddings,
            own=tuple(known.own),
            asked=tuple(known.asked()),
            strip=known.strip(),
        )

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
            for asked in test.asked or [_of_earlier(tests, test)]:
                images = self._made(state, asked.latents, micro_batch)
                if not bool(images.isfinite().all()):
                    raise NotFiniteError(
                        f"a face of timestamp {test.timestamp} under the model of timestamp {timestamp} is NaN or "
                        "infinite; use a smaller learning rate"
                    )
                rows += self._rows(asked, images, timestamp, test.timestamp)
                if asked.protocol == LEARNED:
                    above.append(test.images[test.own[0]])
                    below.append(images[0])
            on_test_set(test.timestamp)
        faces = face_grid(to_uint8(torch.stack(above)), to_uint8(torch.stack(below)))
        return ScoredStage(tuple(rows), faces, {AGE_STRIP: self._strip(state, tests[0])})

    def _made(self, state: AgedGenerator, latents: Tensor, micro_batch: int | None = None) -> Tensor:
        return torch.cat([state(part) for part in torch.split(latents, min(micro_batch or _BATCH, _BATCH))])

    def _rows(self, asked: Asked, images: Tensor, t: int, k: int) -> Iterator[Row]:
        scores = dict(self._scores(asked, images))
        prior = self._of_prior(asked)
        for gain, metric in ((IDENTITY_GAIN, AGED_IDENTITY), (ERROR_OVER_PRIOR, AGE_ERROR)):
            scores[gain.name] = scores[metric.name] - prior[metric.name]
        for name, values in scores.items():
            for image, value in zip(asked.names, values.tolist(), strict=True):
                yield Row(t, k, asked.protocol, name, image, value)

    def _scores(self, asked: Asked, images: Tensor) -> Scores:
        shown = images.clamp(-1, 1)
        made = self.embedder(shown)
        ages = split_latents(asked.latents)[1].cpu()
        scores = {
            AGED_IDENTITY.name: torch.einsum("nrd,nd->nr", asked.references, made).amax(dim=1),
            AGE_ERROR.name: (self.estimator(shown) - ages).abs(),
        }
        if asked.truth is not None:
            truth = torch.split(asked.truth, _BATCH)
            each = [self.lpips(one, true).cpu() for one, true in zip(torch.split(shown, _BATCH), truth, strict=True)]
            scores[AGED_LPIPS.name] = torch.cat(each)
        return scores

    def _of_prior(self, asked: Asked) -> Scores:
        """What the prior alone scores, the same for every stage."""
        if asked.key not in self._prior_scores:
            if len(self._prior_scores) >= _MOST_REMEMBERED:
                self._prior_scores.clear()
            self._prior_scores[asked.key] = self._scores(asked, self._made(self.state(None), asked.latents))
        return self._prior_scores[asked.key]

    def _strip(self, state: AgedGenerator, first: AgeTest) -> np.ndarray:
        """True faces (grey where unknown), the prior's and this state's at ``STRIP_AGES``: ``[3 s, 7 s, 3]``."""
        ages = torch.tensor(STRIP_AGES, dtype=torch.float32, device=self.device)
        latents = latents_at(first.w[[first.own[0]]].expand(len(ages), -1), ages)
        unknown = torch.zeros_like(first.images[0])
        truth = torch.stack([first.strip.get(age, unknown) for age in STRIP_AGES])
        made = [truth, self._made(self.state(None), latents), self._made(state, latents)]
        return np.concatenate([photo_row(list(to_uint8(images))) for images in made])


@dataclass(frozen=True)
class _Rows:
    """What a step makes: of photos w ``[n, w_dim]`` at ``photo_ages [n]``, faces at ``ages [n]``; which lie beyond."""

    w: Tensor
    photo_ages: Tensor
    ages: Tensor
    beyond: Tensor

    def at(self, index: Tensor) -> _Rows:
        return _Rows(self.w[index], self.photo_ages[index], self.ages[index], self.beyond[index])


@dataclass(frozen=True)
class _Photos:
    """A timestamp's test photos with what is known of each."""

    samples: TestSamples
    w: Tensor
    ages: Tensor
    embeddings: Tensor
    kinds: Sequence[float]
    moments: Sequence[float]

    @property
    def own(self) -> list[int]:
        """Places of the photos as they were taken."""
        return [place for place, kind in enumerate(self.kinds) if kind == Target.OWN]

    def asked(self) -> Iterator[Asked]:
        """Photos at other ages aged to the timestamp's own; own ones aged to ages that are not learned."""
        back: list[tuple[int, int]] = []
        out: dict[str, list[tuple[int, int]]] = {protocol: [] for protocol in (BETWEEN, BEYOND)}
        for own in self.own:
            for other in range(len(self.kinds)):
                if self.moments[other] != self.moments[own] or self.kinds[other] == Target.OWN:
                    continue
                if abs(float(self.ages[other] - self.ages[own])) >= _FAR:
                    back.append((other, own))
                if (protocol := _OF_TARGET.get(Target(int(self.kinds[other])))) is not None:
                    out[protocol].append((own, other))
        for protocol, pairs in ((LEARNED, back), *out.items()):
            if pairs:
                photos, truths = map(list, zip(*pairs, strict=True))
                names = photos if protocol == LEARNED else truths
                yield Asked(
                    protocol,
                    tuple(self.samples.digests[place] for place in names),
                    latents_at(self.w[photos], self.ages[truths]),
                    self.embeddings[truths][:, None],
                    self.samples.images[truths],
                )

    def strip(self) -> dict[int, Tensor]:
        """Age -> photo of the first moment."""
        first = self.moments[self.own[0]]
        return {
            round(float(self.ages[place])): self.samples.images[place]
            for place in range(len(self.kinds))
            if self.moments[place] == first
        }


def _of_earlier(tests: Sequence[AgeTest], test: AgeTest) -> Asked:
    """Test photos of all earlier timestamps (of the first: its own) aged to the mean age of a timestamp's.

    For photos whose moments are known at one age only: compared with the timestamp's own test photos.
    """
    sources = [one for one in tests if one.timestamp < test.timestamp] or [test]
    age = test.ages[list(test.own)].mean()
    w = torch.cat([one.w[list(one.own)] for one in sources])
    references = test.embeddings[list(test.own)]
    return Asked(
        LEARNED,
        tuple(one.digests[place] for one in sources for place in one.own),
        latents_at(w, age.expand(len(w))),
        references.expand(len(w), *references.shape),
        None,
    )
