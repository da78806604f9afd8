"""Base classes of workloads: everything about a stage except keys, store, locks and order. Imports no torch.

Whatever its workload, a trial is a fold over timestamps: the strategy chooses what to keep, the requests and their keys
(``clstudy.trial.requests``) define the dependencies, the runner stores and locks. A workload defines the rest: which
settings can change its numbers, what a stage costs, what a search minimises and, once built in a worker, how a state is
trained and scored (``clstudy.workloads.personalised_generator`` is the first; ``clstudy.trial`` calls its methods).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from clstudy.errors import UserError
from clstudy.registry import Registry, instance_of, is_foreign, source_digest
from clstudy.settings.metric_facts import (
    MetricFacts,
    OwnMetric,
    known_metrics,
    own_metrics,
    packaged_metrics,
    row_names,
)
from clstudy.settings.profiles import Profile, key_document

if TYPE_CHECKING:  # a plan needs no torch
    import torch

    from clstudy.generators.base import GeneratorWeights
    from clstudy.workloads.workload import Workload


@dataclass(frozen=True)
class Objective:
    """What a search optimises.

    Args:
        panel: protocol and metric in one word, as tracking names them: ``reconstruction_lpips``.
        higher_is_better: whether higher values are better.
    """

    panel: str
    higher_is_better: bool

    def cost(self, scores: Mapping[str, float]) -> float:
        """What a search minimises: AIP so far, or AP if there is none (joint training has one row); NaN if neither.

        Args:
            scores: of a trial so far, named as in tracking: ``aip/…``, ``ap/…``.
        """
        found = scores.get(f"aip/{self.panel}", scores.get(f"ap/{self.panel}", math.nan))
        return -found if self.higher_is_better else found


class WorkloadKind(ABC):
    """A kind of workload, before anything is built.

    Class attributes:
        description: one line.
        conditions: what every photo needs in its sidecar files: name -> how many numbers.
        has_photo_loss: whether it offers the loss of one photo, which strategies that learn from a stage (ewc) need.
        has_prior: whether its network draws latents of what it has learned (``ClassGAN.prior``), which strategies that
            replay from the generator's prior (jtr, ra, dgr) need.
        further_protocols: of those that only some workloads score metrics under (``NOVEL_VIEW``, ``TURNED``,
            ``EDITED``), the ones that it has.
    """

    description: ClassVar[str]
    conditions: ClassVar[Mapping[str, int]] = MappingProxyType({})
    has_photo_loss: ClassVar[bool] = False
    has_prior: ClassVar[bool] = False
    further_protocols: ClassVar[tuple[str, ...]] = ()

    def measures(self, profile: Profile) -> tuple[MetricFacts, ...] | None:
        """Facts about the metrics in its rows, the main one first; None: those that the profile's evaluation names.

        Facts equal to a packaged metric's mean that metric; otherwise the name must not be a packaged metric's.
        """
        return None

    def further_measures(self, profile: Profile) -> tuple[MetricFacts, ...]:
        """Facts about what may be in its rows besides the metrics that the profile's evaluation names."""
        return ()

    def objective(self, profile: Profile) -> Objective:
        """What a search for learning rates optimises: the first of its measures, under the first of its protocols."""
        main = measured_facts(profile, own_measures(profile))[0]
        return Objective(panel=f"{main.protocols[0]}_{main.name}", higher_is_better=main.higher_is_better)

    @abstractmethod
    def sections(self, profile: Profile) -> Mapping[str, Any]:
        """The parts of a profile that can change a stage's numbers, by name: dataclasses, in a fixed order."""

    def key_sections(self, profile: Profile) -> dict[str, Any]:
        """``sections`` as they enter a stage's key."""
        return {name: key_document(part) for name, part in self.sections(profile).items()}

    @abstractmethod
    def training_work(self, profile: Profile, *, new: int, replayed: bool) -> float:
        """Photo passes of training one stage.

        Args:
            profile: its settings.
            new: number of photos trained on.
            replayed: whether every step also takes replayed (or generated) photos.
        """

    @abstractmethod
    def test_work(self, profile: Profile, tested: Sequence[int]) -> float:
        """Photo passes of scoring one stage on ``tested`` test photos of each timestamp so far."""

    @abstractmethod
    def build(
        self,
        profile: Profile,
        weights: GeneratorWeights,
        files: Mapping[str, Path],
        device: torch.device,
    ) -> Workload[Any, Any]:
        """Build the object that a worker keeps between stages.

        Args:
            profile: of the study.
            weights: of the pretrained generator.
            files: role -> weights file from outside the package, for metrics.
            device: where everything is computed.
        """


WORKLOADS: Registry[WorkloadKind] = Registry("workload", foreign=instance_of(WorkloadKind))


def workload_of(profile: Profile) -> WorkloadKind:
    """The workload of a profile.

    Raises:
        UserError: there is no workload of that name.
    """
    return WORKLOADS[profile.workload]


P = TypeVar("P", bound=Profile)


def profile_of(kind: type[P], profile: Profile, *, workload: str, use: Sequence[str]) -> P:
    """The profile, if it has the section of a workload, which has the workload's name.

    Args:
        kind: profiles that have it.
        profile: the study's.
        workload: its name.
        use: profiles to name instead.

    Raises:
        UserError: it has not.
    """
    if not isinstance(profile, kind):
        raise UserError(
            f"workload {workload} needs a profile with the section {workload}, and {profile.name!r} has none; use "
            f"{' or '.join(use)}, or make one from them: profile: {{base: {use[0]}, …}}"
        )
    return profile


def own_measures(profile: Profile) -> tuple[OwnMetric, ...]:
    """Metrics in a study's rows beyond the packaged ones: the user's own, or those that its workload measures.

    Raises:
        UserError: a metric of the user's own cannot be loaded, or a measure has another metric's name.
    """
    kind = workload_of(profile)
    measured = kind.measures(profile)
    if measured is None:
        measured, named = kind.further_measures(profile), own_metrics(profile.evaluation.metrics)
    else:
        named = ()
    name, packaged = profile.workload, packaged_metrics()
    taken = next((facts.name for facts in measured if packaged.get(facts.name, facts) != facts), None)
    if taken is not None:
        raise UserError(
            f"workload {name} measures {taken!r}, which is the name of a packaged metric with other facts; give it "
            "another name"
        )
    source = source_digest("workload", name) if is_foreign(name) else ""
    return named + tuple(
        OwnMetric(place=f"{name}:{facts.name}", source=source, facts=facts)
        for facts in measured
        if facts.name not in packaged
    )


def measured_facts(profile: Profile, own: Sequence[OwnMetric]) -> list[MetricFacts]:
    """Facts about every metric that a study's rows hold.

    Args:
        profile: the study's.
        own: the profile's ``own_measures``.
    """
    kind = workload_of(profile)
    measured = kind.measures(profile)
    if measured is not None:
        return list(measured)
    known = known_metrics(own)
    named = [known[name] for name in row_names(profile.evaluation.metrics, own).values()]
    return [*named, *kind.further_measures(profile)]
