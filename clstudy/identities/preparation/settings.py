"""Settings of one preparation, checked when they are constructed."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field

from clstudy.errors import UserError, nearest
from clstudy.faces.alignments import TRANSFORMS, usual_alignment
from clstudy.identities.preparation.filters import FilterSettings
from clstudy.identities.preparation.selection import Apart, Wanted
from clstudy.identities.preparation.video import Sampling

PREPARE_VERSION = 2
"""Increased by hand whenever the same source and settings start to give other photos."""


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """Settings of one preparation; checked when constructed.

    Raises:
        UserError: an impossible name, size, count or unknown choice.
    """

    identity: str
    size: int = 64
    train: int = 20
    test: int = 10
    alignment: str | None = None
    """``embedded``, ``ffhq`` or ``eg3d``; None: the default for the size."""
    detector: str = "packaged"
    sampling: Sampling = field(default_factory=Sampling)
    segments: int | None = None
    """Cut a single video into this many timestamps."""
    allow_fewer: bool = False
    """Keep timestamps with fewer photos than wanted, if there are at least 2 + 1; leave out the others, and files that
    cannot be read."""
    seed: int = 0
    limits: FilterSettings = field(default_factory=FilterSettings)
    apart: Apart = field(default_factory=Apart)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w .-]*", self.identity):
            raise UserError(f"identity {self.identity!r}; expected a folder name of letters, digits, '_', '-', '.'")
        least = {"size": (self.size, 32), "train": (self.train, 2), "test": (self.test, 1)}
        least["frames"] = (self.sampling.frames, 1)
        if self.segments is not None:
            least["segments"] = (self.segments, 1)
        for name, (given, expected) in least.items():
            if given < expected:
                raise UserError(f"prepare: {name} = {given}; expected at least {expected}")
        if self.sampling.every is not None and not 0 < self.sampling.every < math.inf:
            raise UserError(f"prepare: every = {self.sampling.every} seconds; expected a positive number")
        if not -1 <= self.limits.min_cosine <= 1:
            raise UserError(f"prepare: min-cosine = {self.limits.min_cosine}; expected a number from -1 to 1")
        for name, distance in asdict(self.apart).items():
            if not 0 <= distance < math.inf:
                raise UserError(f"prepare: {name.replace('_', '-')} = {distance}; expected a number from 0")
        if self.alignment is not None and self.alignment not in TRANSFORMS:
            raise UserError(
                f"unknown alignment {self.alignment!r}.{nearest(self.alignment, TRANSFORMS)} Known: "
                f"{', '.join(TRANSFORMS)}."
            )

    @property
    def wanted(self) -> Wanted:
        """Training and test photos wanted per timestamp."""
        return Wanted(train=self.train, test=self.test)

    @property
    def aligned(self) -> str:
        """The alignment that is used."""
        return self.alignment or usual_alignment(self.size)
