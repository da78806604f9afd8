"""What a measured path is: the same piece of work done by clstudy and by a stated baseline, in one process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

OURS, BASELINE = "ours", "baseline"


@dataclass(frozen=True)
class Work:
    """Something that can be done again and again.

    Attributes:
        run: does it once. A number that it returns is the seconds it took by another clock, instead of this one's.
        units: how many of the path's units that is. A baseline that would take minutes does fewer.
        flop: floating-point operations of one run; None where arithmetic is not what it does.
    """

    run: Callable[[], object]
    units: float = 1.0
    flop: float | None = None


@dataclass(frozen=True)
class Prepared:
    """A path with its inputs in memory.

    Attributes:
        sides: ``ours``, and ``baseline`` where it has one.
        facts: numbers that say how much there is to do, for the reader.
    """

    sides: Mapping[str, Work]
    facts: Mapping[str, float] = field(default_factory=dict)


class HotPath(ABC):
    """A path that studies spend their time on.

    Class attributes:
        title: what is done, in a few words.
        unit: what seconds are given for.
        baseline: what it is compared with, in a few words.
        elapsed: measured by the clock on the wall, because other processes take part; otherwise by processor time.
        rounds: how often it is done, unless ``--rounds`` says otherwise.
        warmed_up: whether each side runs once before it is measured.
        comparable: whether other checkouts can do it (``benchmarks.checkout``).
    """

    title: ClassVar[str]
    unit: ClassVar[str]
    baseline: ClassVar[str]
    elapsed: ClassVar[bool] = False
    rounds: ClassVar[int] = 5
    warmed_up: ClassVar[bool] = True
    comparable: ClassVar[bool] = False

    @abstractmethod
    def prepare(self, folder: Path) -> Prepared:
        """Load and make everything that is not measured; ``folder`` is this path's own and empty."""
