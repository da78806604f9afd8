"""Trials and cells of a study as values, and the file names that follow from trials."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from clstudy.errors import UserError

MAX_NAME_BYTES = 200
"""Most bytes of a trial's id: file systems allow 255, and temporary names and file endings need some of them."""


@dataclass(frozen=True, kw_only=True)
class GridCell:
    """A cell of the grid, which gets one learning rate: strategy x buffer size (None if the strategy has none)."""

    strategy: str
    buffer_size: int | None

    @property
    def label(self) -> str:
        """The cell in words, e.g. ``er_rand K=3``."""
        return self.strategy if self.buffer_size is None else f"{self.strategy} K={self.buffer_size}"


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One trial: identity x strategy x buffer size x learning rate x seed.

    ``buffer_size`` is None for a strategy that does not depend on it (``lower``, ``upper``). ``timestamps``: joint
    training on the first so many alone (a space's ``grid.timestamps``); None: on all of the person's.
    """

    identity: str
    strategy: str
    buffer_size: int | None
    learning_rate: float
    seed: int
    timestamps: int | None = None

    @property
    def trial_id(self) -> str:
        """A name that is safe as a file name, e.g. ``person_00-er_hull-k10-lr0.003-s0``."""
        size = "" if self.buffer_size is None else f"-k{self.buffer_size}"
        length = "" if self.timestamps is None else f"-t{self.timestamps}"
        text = f"{self.identity}-{self.strategy}{size}{length}-lr{self.learning_rate:g}-s{self.seed}"
        return re.sub(r"^\.|[^\w.+-]", "_", text)

    def columns(self) -> dict[str, Any]:
        """Its columns in rows and ``study.yaml``: the id, then the fields (``clstudy.records.rows.TRIAL_FIELDS``)."""
        return {"trial": self.trial_id, **{name: value for name, value in asdict(self).items() if name != "timestamps"}}

    def config(self) -> dict[str, Any]:
        """Everything about it, as Tune hands it to a worker."""
        return {"trial": self.trial_id, **asdict(self)}


def refuse_equal_ids(trials: Iterable[TrialSpec]) -> None:
    """Refuse trials that would share a result file (names differ only in case or unsafe characters, rates in digit 7).

    Raises:
        UserError: two trials would, or a name is too long for a file.
    """
    by_id: dict[str, TrialSpec] = {}
    for trial in trials:
        if len(trial.trial_id.encode()) > MAX_NAME_BYTES:
            raise UserError(
                f"the trial {trial.trial_id[:60]}… would have a name of {len(trial.trial_id.encode())} bytes, too long "
                f"for a file (at most {MAX_NAME_BYTES}); give the identity, or the strategy's class, a shorter name"
            )
        other = by_id.setdefault(trial.trial_id.casefold(), trial)
        if other is not trial:
            raise UserError(
                f"two trials would both be called {trial.trial_id!r}: {other} and {trial}; rename an identity so that "
                "names differ in letters (not only in their case) or digits, or use learning rates that differ in "
                "their first six digits"
            )
