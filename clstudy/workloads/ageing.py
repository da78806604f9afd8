"""The workload ``ageing``: a personal adapter learns what somebody looks like, age after age (MyTimeMachine)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clstudy.identities.known_ages import AGE
from clstudy.settings.ageing import AgeingProfile
from clstudy.settings.metric_facts import MetricFacts
from clstudy.settings.profiles import Profile
from clstudy.workloads.base import WORKLOADS, WorkloadKind, profile_of

if TYPE_CHECKING:
    import torch

    from clstudy.generators.base import GeneratorWeights
    from clstudy.workloads.personalised_ageing import PersonalisedAgeing

LEARNED, BETWEEN, BEYOND = "aged_learned", "aged_between", "aged_beyond"
"""Protocols: photos of other ages aged to that of timestamp k; photos of timestamp k aged to ages between those of two
timestamps, and to ages before the first or after the last one's."""

_ALL = (LEARNED, BETWEEN, BEYOND)

AGED_IDENTITY = MetricFacts.of_workload("aged_id", "identity at that age", *_ALL, higher_is_better=True)
"""Identity cosine to the true face at that age; where it is not known, the largest to test photos of that age."""

AGE_ERROR = MetricFacts.of_workload("age_error", "age error (years)", *_ALL, higher_is_better=False, decimals=2)
"""How many years an estimator's age of the made face is off the age that was asked for."""

AGED_LPIPS = MetricFacts.of_workload("aged_lpips", "LPIPS at that age", *_ALL, higher_is_better=False)
"""LPIPS to the true face at that age, where it is known."""

IDENTITY_GAIN = MetricFacts.of_workload("id_over_prior", "identity over the prior's", *_ALL, higher_is_better=True)
"""``aged_id`` minus that of the prior alone."""

ERROR_OVER_PRIOR = MetricFacts.of_workload(
    "age_error_over_prior", "age error over the prior's (years)", *_ALL, higher_is_better=False, decimals=2
)
"""``age_error`` minus that of the prior alone."""


class AgeingKind(WorkloadKind):
    """An age prior that is never changed, and an adapter per person beside it (Qi et al., 2411.14521)."""

    description = "a personal adapter learns ages one after the other; scored on faces at ages learned and not learned"
    conditions = MappingProxyType({AGE: 1})
    has_photo_loss = True

    def measures(self, profile: Profile) -> tuple[MetricFacts, ...]:
        """Identity at the asked age comes first: it is what a search raises."""
        return AGED_IDENTITY, AGE_ERROR, AGED_LPIPS, IDENTITY_GAIN, ERROR_OVER_PRIOR

    def sections(self, profile: Profile) -> Mapping[str, Any]:
        """Adapter and losses, and how long it is trained."""
        return {"trainer": profile.trainer, "ageing": _of_this(profile).ageing}

    def training_work(self, profile: Profile, *, new: int, replayed: bool) -> float:
        """Faces that are made: towards the ages of new and replayed photos, and beyond the learned ages."""
        trainer = profile.trainer
        steps = trainer.epochs * -(-new // trainer.batch_size)
        replay = trainer.replay_batch_size if replayed else 0
        return float(trainer.epochs * new + steps * (replay + _of_this(profile).ageing.beyond_batch_size))

    def test_work(self, profile: Profile, tested: Sequence[int]) -> float:
        """Every test photo is made once or twice, without gradients."""
        return float(sum(tested))

    def build(
        self, profile: Profile, weights: GeneratorWeights, files: Mapping[str, Path], device: torch.device
    ) -> PersonalisedAgeing:
        """Generator, prior, estimator of ages, LPIPS, and both forms of the identity embedder."""
        from clstudy.faces.ages import AgeEstimator
        from clstudy.faces.embedding import IdentityEmbedder
        from clstudy.generators import load_generators
        from clstudy.generators.age_priors import frozen_synthesis, open_prior
        from clstudy.generators.base import GENERATORS
        from clstudy.training.numerics import loss_lpips
        from clstudy.workloads.age_scores import AgeScores
        from clstudy.workloads.personalised_ageing import PersonalisedAgeing

        load_generators()
        lpips = loss_lpips(profile.compute, device)
        alignment = profile.data.alignment
        generator = GENERATORS[profile.generator].build(weights, profile, device, lpips)
        synthesis = frozen_synthesis(generator)
        return PersonalisedAgeing(
            _of_this(profile),
            generator=generator,
            synthesis=synthesis,
            prior=open_prior(_prior_file(files), synthesis, generator.latent_shape[-1]).to(device),
            scores=AgeScores(
                IdentityEmbedder(profile.resources.threads, device=device, alignment=alignment),
                AgeEstimator(files["age_estimator"], alignment=alignment, device=device),
                lpips,
            ),
            lpips=lpips,
        )


def _prior_file(files: Mapping[str, Path]) -> Path:
    """The file of the prior: that of a checkpoint's, or that of the packaged generator."""
    return files.get("age_prior") or files["embedded_age_prior"]


def _of_this(profile: Profile) -> AgeingProfile:
    return profile_of(AgeingProfile, profile, workload="ageing", use=("embedded_ageing", "mytimemachine"))


WORKLOADS.register("ageing")(AgeingKind())
