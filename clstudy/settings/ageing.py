"""Settings of the workload ``ageing``: a personal adapter of latents beside a global age prior."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from clstudy.settings.profile_sections import DataSettings, Profile

SAME_AGE = 3.0
"""Ages that differ by at most so many years count as one (MyTimeMachine, 2411.14521)."""

_Count = Annotated[int, Field(ge=1)]
_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Age = Annotated[float, Field(ge=0, le=120)]


@dataclass(frozen=True, kw_only=True)
class AgeingSettings:
    """A personal adapter that learns ages one after the other (MyTimeMachine, 2411.14521).

    ``neck``, ``shared``, ``age_width``, ``hidden``: sizes of the adapter's layers (``AgeAdapter``; published: 32, 128,
    16, 512). Every step ages photos towards the ages of the new and replayed photos that the section ``trainer``
    counts, and ``beyond_batch_size`` photos beyond all ages learned so far, down to ``youngest`` or up to ``oldest``
    years.
    Weights of the losses: ``identity_weight`` of 1 minus the largest cosine to own photos of that age,
    ``beyond_weight`` of the distance to what the prior makes beyond the learned ages (0: it is not held there),
    ``norm_weight`` of the adapter's output, which counts more the more years are between photo and target.
    """

    neck: _Count = 32
    shared: _Count = 128
    age_width: _Count = 16
    hidden: _Count = 512
    beyond_batch_size: Annotated[int, Field(ge=0)] = 2
    youngest: _Age = 18.0
    oldest: _Age = 85.0
    identity_weight: _Weight = 1.0
    beyond_weight: _Weight = 1.0
    norm_weight: _Weight = 0.1

    def __post_init__(self) -> None:
        if not self.youngest < self.oldest:
            raise ValueError(f"expected ageing.youngest < ageing.oldest, got {self.youngest:g} and {self.oldest:g}")


@dataclass(frozen=True, kw_only=True)
class AgeingProfile(Profile):
    """A profile with the section ``ageing``.

    Of ``trainer`` it takes epochs, batches and Adam's betas; ``inversion`` and ``evaluation`` have no part in it, since
    photos are aged as they come, and the workload has scores of its own.
    """

    workload: str = "ageing"
    required_files: tuple[str, ...] = ("embedded_age_prior", "age_estimator")
    data: DataSettings = field(
        default_factory=lambda: DataSettings(name="virtual_ages", timestamps=4, train=8, test=24)
    )
    ageing: AgeingSettings = field(default_factory=AgeingSettings)
