"""What a workload is: everything about a stage that is not keys, store, claims or order. Imports no torch.

A trial is a fold over timestamps whatever its workload: the strategy chooses what to keep, the requests and their keys
(``clstudy.trial.requests``) say what depends on what, the runner stores and claims. A workload says the rest: which
settings can change its numbers, what a stage costs, what a search minimises, and, built in a worker, how a state is
trained and scored (``clstudy.workloads.personalised_generator`` is the first; what it offers is what
``clstudy.trial`` calls).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from clstudy.registry import Registry, instance_of
from clstudy.settings.profiles import Profile, key_document

if TYPE_CHECKING:  # a plan needs no torch
    import torch

    from clstudy.generators.base import GeneratorWeights
    from clstudy.workloads.workload import Workload


class WorkloadKind(ABC):
    """A kind of work, before anything is built.

    Class attributes:
        description: one line.
        objective: running score that a search minimises, as the tracking page names it.
        final_objective: what it minimises where there is no running score (joint training has one row).
    """

    description: ClassVar[str]
    objective: ClassVar[str]
    final_objective: ClassVar[str]

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
            new: photos trained on.
            replayed: whether every step takes replayed photos (or generated ones) as well.
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
        """Make what a worker keeps between stages.

        Args:
            profile: of the study.
            weights: of the pretrained generator.
            files: role -> weights file outside the package, for metrics.
            device: where everything is computed.
        """


WORKLOADS: Registry[WorkloadKind] = Registry("workload", foreign=instance_of(WorkloadKind))

FIRST_WORKLOAD = "personalise"
"""The workload of studies that knew no other: their keys do not name it."""


def workload_of(profile: Profile) -> WorkloadKind:
    """The workload of a profile.

    Raises:
        UserError: there is none of that name.
    """
    return WORKLOADS[profile.workload]
