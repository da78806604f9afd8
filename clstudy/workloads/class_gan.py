"""The workload ``class_gan``: a class-conditional GAN learns one category after the other (Wu et al., 1809.02058)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clstudy.identities.categories.orders import LABEL
from clstudy.settings.class_gan import ClassGANProfile
from clstudy.settings.metric_facts import MetricFacts, packaged_metrics
from clstudy.settings.profiles import Profile
from clstudy.workloads.base import WORKLOADS, WorkloadKind, profile_of

if TYPE_CHECKING:
    import torch

    from clstudy.generators.base import GeneratorWeights
    from clstudy.workloads.class_conditional_gan import ClassConditionalGAN

GENERATED = "generated"
"""Protocol of all its scores: images generated of one category."""


ACCURACY = MetricFacts.of_workload("accuracy", "accuracy", GENERATED, higher_is_better=True)
"""Share of a category's generated images that a classifier of real images takes for it."""

REVERSE_ACCURACY = MetricFacts.of_workload("reverse_accuracy", "reverse accuracy", GENERATED, higher_is_better=True)
"""Share of its real test images that a classifier trained on generated images of all categories so far recognises."""

CLASSIFIER_FID = MetricFacts.of_workload(
    "classifier_fid", "FID (classifier's features)", GENERATED, higher_is_better=False, decimals=2
)
"""Fréchet distance between a category's generated and real images, in the features of the classifier of real ones."""


class ClassGANKind(WorkloadKind):
    """Generator and critic with an auxiliary classifier; both optimisers live on from category to category."""

    description = "a class-conditional GAN learns one category per timestamp; scored by classifiers"
    conditions = MappingProxyType({LABEL: 1})
    has_photo_loss = True
    has_prior = True

    def measures(self, profile: Profile) -> tuple[MetricFacts, ...]:
        """Accuracy comes first: it is what a search raises. Last what the profile names for sets of images."""
        of_sets = (packaged_metrics()[name] for name in set_metrics(profile))
        return ACCURACY, REVERSE_ACCURACY, CLASSIFIER_FID, *of_sets

    def sections(self, profile: Profile) -> Mapping[str, Any]:
        """Networks, losses, steps and scores."""
        return {"class_gan": _of_this(profile).class_gan}

    def training_work(self, profile: Profile, *, new: int, replayed: bool) -> float:
        """Images that generator and critic take in a category's steps."""
        settings = _of_this(profile).class_gan
        batch = settings.batch_size + (settings.replay_batch_size if replayed else 0)
        return float(settings.steps * batch * (1 + settings.critic_steps))

    def test_work(self, profile: Profile, tested: Sequence[int]) -> float:
        """Images that are generated, and taken by the classifier that learns from them."""
        settings = _of_this(profile).class_gan
        return float(len(tested) * settings.scored_images + settings.reverse_steps * 64)

    def build(
        self, profile: Profile, weights: GeneratorWeights, files: Mapping[str, Path], device: torch.device
    ) -> ClassConditionalGAN:
        """Networks are made for each state; the classifier of real images is loaded here."""
        from clstudy.generators.image_classifier import ClassifierFacts, network_of
        from clstudy.metrics import load_metrics
        from clstudy.metrics.base import METRICS, MetricSettings
        from clstudy.workloads.class_conditional_gan import ClassConditionalGAN

        known = _of_this(profile)
        facts = ClassifierFacts(tuple(weights.facts["names"]), int(weights.facts["size"]))
        load_metrics()
        measuring = MetricSettings(
            threads=profile.resources.threads, files=files, device=device, evaluation=profile.evaluation
        )
        metrics = [METRICS[name](measuring) for name in set_metrics(profile)]
        return ClassConditionalGAN(known, network_of(weights.arrays, facts).to(device), facts, device, metrics)


def set_metrics(profile: Profile) -> list[str]:
    """Names of the profile's packaged metrics of sets of generated images."""
    packaged = packaged_metrics()
    return [name for name in profile.evaluation.metrics if name in packaged and packaged[name].of_set]


def _of_this(profile: Profile) -> ClassGANProfile:
    return profile_of(ClassGANProfile, profile, workload="class_gan", use=("class_gan_small", "mergan"))


WORKLOADS.register("class_gan")(ClassGANKind())
