"""What a trial reports while it runs, and who receives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class StageReport:
    """What a listener learns about a finished stage. Images are uint8 RGB ``[h, w, 3]``."""

    t: int
    rows: pa.Table
    reused: bool
    seconds: float
    loss: float
    losses: np.ndarray | None
    """Loss of every training step, float32 ``[steps]``; None in stages of earlier versions, which did not keep it."""
    faces: np.ndarray
    buffer: np.ndarray | None
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Others that the workload made, by name."""


class Listener(Protocol):
    """Receives the progress of a trial; must not change anything."""

    def progress(self, t: int, phase: str, done: int, total: int, loss: float) -> None:
        """A step of training (phase "train") or a test set (phase "test") is done."""


class Deaf:
    """A listener that ignores everything."""

    def progress(self, t: int, phase: str, done: int, total: int, loss: float) -> None:
        return
