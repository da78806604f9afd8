"""Trains and scores a class-conditional GAN, one category per timestamp.

Sources: C. Wu et al., "Memory Replay GANs" (1809.02058), sections 3 and 4; K. Shmelkov et al., "How good is my GAN?"
(1807.09499) for training a classifier on generated images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.errors import UserError
from clstudy.generators.class_conditional import ClassGAN, ConditionalGenerator, Critic, latents_of
from clstudy.generators.image_classifier import (
    ClassifierFacts,
    ImageClassifier,
    epochs,
    fresh_classifier,
    in_batches,
    trained_classifier,
)
from clstudy.identities.categories.orders import LABEL
from clstudy.images import photo_row, to_uint8
from clstudy.metrics.base import Metric
from clstudy.metrics.set_statistics import fid
from clstudy.records.rows import Row
from clstudy.seeding import derive_rng, derive_seed
from clstudy.settings.class_gan import ClassGANProfile, ClassGANSettings
from clstudy.settings.metric_facts import SYNTHESIS
from clstudy.settings.profile_sections import CATEGORY_SAMPLES
from clstudy.training.adversarial import ADVERSARIAL, class_loss
from clstudy.training.evaluation import SET_ROW, Entry
from clstudy.training.personalise import TrainingDivergedError, replay_draws
from clstudy.workloads.class_gan import ACCURACY, CLASSIFIER_FID, GENERATED, REVERSE_ACCURACY
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

_SHOWN = 8
_REPORTED = 20
_SET = "set"
_REVERSE_WIDTH = 8
_LAST = 0.1
"""Share of the steps whose mean loss is a stage's loss."""


@dataclass
class GANState:
    """Networks and optimisers; ``fresh``: nothing was trained yet."""

    generator: ConditionalGenerator
    critic: Critic
    generator_adam: torch.optim.Adam
    critic_adam: torch.optim.Adam
    fresh: bool

    @property
    def networks(self) -> dict[str, nn.Module]:
        """By name."""
        return {"generator": self.generator, "critic": self.critic}

    @property
    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """By name."""
        return {"generator_adam": self.generator_adam, "critic_adam": self.critic_adam}


@dataclass(frozen=True)
class CategoryTest:
    """One category's test: real images ``[n, 3, s, s]``, features ``[m, d]`` of real ones, latents to generate from.

    ``prepared``: what metrics of sets need of the real images, by name.
    """

    timestamp: int
    label: int
    digests: tuple[str, ...]
    images: Tensor
    features: np.ndarray
    latents: Tensor
    prepared: Mapping[str, Any]


class ClassConditionalGAN(Workload[GANState, CategoryTest]):
    """What a worker keeps loaded: the classifier of real images.

    A sample's latent, by which strategies choose and which their hooks hand to the network, is its features under that
    classifier, standardised (so that they are distributed like z), before its one-hot class.
    """

    def __init__(
        self,
        profile: ClassGANProfile,
        classifier: ImageClassifier,
        facts: ClassifierFacts,
        device: torch.device,
        metrics: Sequence[Metric] = (),
    ):
        settings = profile.class_gan
        for name, given, found in (
            ("data.image_size", profile.data.image_size, facts.size),
            ("class_gan.classes", settings.classes, len(facts.names)),
            ("class_gan.z_dim", settings.z_dim, len(classifier.mean)),
        ):
            if given != found:
                raise UserError(
                    f"{name} is {given}, and the classifier of real images is made for {found} (features before a "
                    "class are latents, so both must fit); give the classifier of these images: --weights "
                    "classifier=FILE"
                )
        self.profile = profile
        self.settings: ClassGANSettings = settings
        self.classifier = classifier
        self.device = device
        self._metrics = metrics
        self.largest_batch = 1  # batch normalisation sees a whole batch: a smaller one would be another computation
        self._loss = ADVERSARIAL[settings.adversarial]()

    def candidates(self, samples: Samples, micro_batch: int | None = None) -> Tensor:
        """Standardised features and one-hot classes ``[n, z_dim + classes]``."""
        features = self.classifier.standardised(in_batches(samples.images, self.classifier.features))
        return torch.cat([features, self._classes(samples)], dim=1)

    def _classes(self, samples: Samples) -> Tensor:
        """One-hot ``[n, classes]``.

        Raises:
            UserError: a label is not the number of a class.
        """
        labels = samples.conditions[LABEL][:, 0]
        wrong = labels[(labels != labels.round()) | (labels < 0) | (labels >= self.settings.classes)]
        if len(wrong):
            raise UserError(
                f"a photo has the label {float(wrong[0]):g}; expected a whole number from 0 to "
                f"{self.settings.classes - 1} (class_gan.classes)"
            )
        return nn.functional.one_hot(labels.long(), self.settings.classes).float()

    # -- states ---------------------------------------------------------------------------------------------------

    def state(self, weights: Mapping[str, Tensor] | None) -> GANState:
        """Networks and optimisers of a finished stage; None: untrained ones."""
        state = self._untrained(derive_seed("class_gan", "untrained"))
        if weights is not None:
            unpack(weights, state.networks, state.optimisers)
            state.fresh = False
        return state

    def _untrained(self, seed: int) -> GANState:
        settings, size = self.settings, self.profile.data.image_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            generator = ConditionalGenerator(
                z_dim=settings.z_dim, classes=settings.classes, width=settings.width, size=size
            )
            critic = Critic(classes=settings.classes, width=settings.width, size=size)
        generator.to(self.device)
        critic.to(self.device)

        def adam(network: nn.Module) -> torch.optim.Adam:
            return torch.optim.Adam(network.parameters(), lr=0.0, betas=settings.betas)

        return GANState(generator, critic, adam(generator), adam(critic), fresh=True)

    def network(self, state: GANState) -> ClassGAN:
        """The generator, with draws from its prior and its critic's labels; as in scoring, not in training."""
        state.critic.eval()
        return ClassGAN(state.generator.eval(), state.critic)

    # -- training -------------------------------------------------------------------------------------------------

    def train(
        self,
        state: GANState,
        given: StageInput,
        *,
        on_step: Callable[[int, int, float], None],
        micro_batch: int | None = None,
    ) -> TrainedStage[GANState]:
        """Train critic and generator by turns; from the trial's own random weights at the beginning."""
        if state.fresh:
            state = self._untrained(int(given.new_rng.integers(1 << 62)))
        for adam in (state.generator_adam, state.critic_adam):
            for group in adam.param_groups:
                group["lr"] = given.learning_rate
        state.generator.train()
        state.critic.train()
        pools = self._pools(given)
        state.generator.seen |= pools[0].classes.sum(0) > 0
        categories = int((pools[0].classes.sum(0) > 0).sum())
        total = self.settings.steps * categories
        losses = np.empty(total, np.float32)
        network = ClassGAN(state.generator, state.critic)
        for step in range(total):
            for _ in range(self.settings.critic_steps):
                real, classes = _drawn(pools)
                self._critic_step(state, real, classes, given.new_rng)
            losses[step] = self._generator_step(state, classes, given, network)
            if not np.isfinite(losses[step]):
                raise TrainingDivergedError(
                    f"the generator's loss is {losses[step]} in step {step + 1} of {total}; use a smaller learning "
                    f"rate (it is {given.learning_rate:g})"
                )
            if step % _REPORTED == 0 or step + 1 == total:
                on_step(step + 1, total, float(losses[step]))
        last = max(int(total * _LAST), 1)
        weights = packed(state.networks, state.optimisers)
        return TrainedStage(state, weights, float(losses[-last:].mean()), losses)

    def _pools(self, given: StageInput) -> list[_Pool]:
        """The images of a step's batches: new ones, and those that are replayed, stored and generated together."""
        settings = self.settings
        new = _Pool(given.new.images, self._classes(given.new), settings.batch_size, given.new_rng)
        parts = []
        if given.stored is not None:
            parts.append((given.stored.images, self._classes(given.stored)))
        if given.generated is not None:
            parts.append((given.generated.images, given.generated.latents[:, settings.z_dim :]))
        if not parts:
            return [new]
        images, classes = (torch.cat(values) for values in zip(*parts, strict=True))
        return [new, _Pool(images, classes, settings.replay_batch_size, given.replay_rng)]

    def _latents(self, classes: Tensor, rng: np.random.Generator) -> Tensor:
        z = rng.standard_normal((len(classes), self.settings.z_dim)).astype(np.float32)
        return torch.cat([torch.from_numpy(z).to(self.device), classes], dim=1)

    def _critic_step(self, state: GANState, real: Tensor, classes: Tensor, rng: np.random.Generator) -> None:
        with torch.no_grad():
            generated = state.generator(self._latents(classes, rng))
        scores, logits = state.critic(real)
        loss = self._loss.critic(scores, state.critic(generated)[0])
        shares = torch.from_numpy(rng.random(len(real)).astype(np.float32)).to(self.device)
        penalty = self._loss.penalty(lambda images: state.critic(images)[0], real, generated, shares)
        if penalty is not None:
            loss = loss + self.settings.gradient_penalty * penalty
        loss = loss + self.settings.class_weight * class_loss(logits, classes)
        state.critic_adam.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        state.critic_adam.step()

    def _generator_step(self, state: GANState, classes: Tensor, given: StageInput, network: ClassGAN) -> float:
        loss = self._generator_loss(state, self._latents(classes, given.new_rng), classes)
        if given.penalty is not None:
            loss = loss + given.penalty(network)
        state.generator_adam.zero_grad(set_to_none=True)
        torch.autograd.backward(loss, inputs=list(state.generator.parameters()))
        state.generator_adam.step()
        return float(loss.detach())

    def _generator_loss(self, state: GANState, latents: Tensor, classes: Tensor) -> Tensor:
        scores, logits = state.critic(state.generator(latents))
        return self._loss.generator(scores) + self.settings.class_weight * class_loss(logits, classes)

    def photo_loss(self, state: GANState, samples: AnchoredSamples) -> Callable[[int], Tensor]:
        """The generator's loss of one image of a sample's class, from a z that goes with the sample."""
        state.generator.eval()
        state.critic.eval()
        classes = self._classes(samples)

        def loss(index: int) -> Tensor:
            rng = derive_rng("photo loss", samples.digests[index])
            one = classes[[index]]
            return self._generator_loss(state, self._latents(one, rng), one)

        return loss

    # -- scoring --------------------------------------------------------------------------------------------------

    def test_set(self, samples: TestSamples) -> CategoryTest:
        """Test images; real features are those of the training images, which are more; latents are the same at every t.

        Raises:
            UserError: the images of a timestamp are of several classes.
        """
        labels = self._classes(samples).argmax(1)
        if bool((labels != labels[0]).any()):
            raise UserError(
                f"the test photos of timestamp {samples.timestamp} have several labels; the workload class_gan learns "
                "one category at a time"
            )
        z = samples.rng.standard_normal((self.settings.scored_images, self.settings.z_dim)).astype(np.float32)
        label = int(labels[0])
        return CategoryTest(
            timestamp=samples.timestamp,
            label=label,
            digests=samples.digests,
            images=samples.images,
            features=samples.anchors[:, : self.settings.z_dim].cpu().numpy().astype(np.float64),
            latents=latents_of(torch.from_numpy(z), torch.full((len(z),), label), self.settings.classes).to(
                self.device
            ),
            prepared={metric.name: metric.prepare(samples.images) for metric in self._metrics},
        )

    @torch.no_grad()
    def evaluate(
        self,
        trained: TrainedStage[GANState],
        tests: Sequence[CategoryTest],
        *,
        timestamp: int,
        on_test_set: Callable[[int], None],
        micro_batch: int | None = None,
    ) -> ScoredStage:
        """Accuracy and FID of each category's generated images, and reverse accuracy on its real test images."""
        generator = trained.state.generator.eval()
        made = [
            Entry(timestamp, test.timestamp).finite(in_batches(test.latents, generator), "a generated image")
            for test in tests
        ]
        learned = self._reverse_classifier(made, tests, timestamp)
        rows: list[Row] = []
        for test, images in zip(tests, made, strict=True):
            rows += self._scores(test, images, learned, timestamp)
            on_test_set(test.timestamp)
        first = [to_uint8(torch.cat([part[:1] for part in parts])) for parts in ([t.images for t in tests], made)]
        samples = np.concatenate([photo_row(list(to_uint8(images[:_SHOWN]))) for images in made])
        return ScoredStage(tuple(rows), face_grid(*first), {CATEGORY_SAMPLES: samples})

    def _scores(self, test: CategoryTest, images: Tensor, learned: ImageClassifier, timestamp: int) -> list[Row]:
        found = in_batches(images, self.classifier.features)
        known = self.classifier.of_features(found).argmax(1) == test.label
        features = self.classifier.standardised(found).cpu().numpy().astype(np.float64)
        recognised = in_batches(test.images, learned).argmax(1) == test.label
        scores: list[tuple[str, Sequence[str], list[float]]] = [
            (ACCURACY.name, [f"{index:03d}" for index in range(len(images))], known.float().tolist()),
            (REVERSE_ACCURACY.name, test.digests, recognised.float().tolist()),
            (CLASSIFIER_FID.name, [_SET], [fid(features, test.features)]),
        ]
        rows = [
            Row(timestamp, test.timestamp, GENERATED, metric, name, value)
            for metric, names, values in scores
            for name, value in zip(names, values, strict=True)
        ]
        for one in self._metrics:
            value = float(one.synthesis(images, test.prepared[one.name])[0])
            rows.append(Row(timestamp, test.timestamp, SYNTHESIS, one.name, SET_ROW, value))
        return rows

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how metrics are computed here."""
        return tuple(note for metric in self._metrics for note in metric.notes)

    def _reverse_classifier(
        self, made: Sequence[Tensor], tests: Sequence[CategoryTest], timestamp: int
    ) -> ImageClassifier:
        """A classifier that has seen generated images alone."""
        images = torch.cat(list(made))
        labels = torch.cat([torch.full((len(part),), test.label) for part, test in zip(made, tests, strict=True)])
        batch = 64
        passes = -(-self.settings.reverse_steps * batch // len(images))
        network = fresh_classifier(
            ["reverse", timestamp],
            classes=self.settings.classes,
            size=self.profile.data.image_size,
            width=_REVERSE_WIDTH,
        ).to(self.device)
        return trained_classifier(
            epochs(images, labels.to(self.device), passes, ["reverse", timestamp], batch), network
        )


class _Pool:
    """Images with their classes, drawn in endlessly reshuffled epochs."""

    def __init__(self, images: Tensor, classes: Tensor, batch: int, rng: np.random.Generator):
        self.images, self.classes = images, classes
        self._draws = replay_draws(len(images), batch, rng)

    def drawn(self) -> tuple[Tensor, Tensor]:
        """A batch."""
        index = torch.from_numpy(next(self._draws)).to(self.images.device)
        return self.images[index], self.classes[index]


def _drawn(pools: Sequence[_Pool]) -> tuple[Tensor, Tensor]:
    images, classes = zip(*(pool.drawn() for pool in pools), strict=True)
    return torch.cat(images), torch.cat(classes)
