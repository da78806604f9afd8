"""What may be known of a photo's age: how old the person is, and whether it shows a moment at another age.

All are conditions of photos (``clstudy.identities.conditions``); ageing needs the first, and scores against the truth
use the others where they are.
"""

from __future__ import annotations

from enum import IntEnum

from clstudy.settings.ageing import SAME_AGE

AGE = "age"
"""Name of the condition with a person's age in a photo, in years."""

TARGET = "target"
"""Name of the condition of a test photo that says what it shows (``Target``). Photos of one moment share the number
``moment`` (``known_geometry.MOMENT``). Without the condition, every photo is as it was taken."""


class Target(IntEnum):
    """What a test photo shows: its moment as it was, or at another age than that of its timestamp."""

    OWN = 0
    LEARNED = 1
    """An age of some timestamp, within ``SAME_AGE``."""
    BETWEEN = 2
    """An age between those of two timestamps."""
    BEYOND = 3
    """An age before that of the first timestamp or after that of the last."""


def target_among(age: float, learned: list[int] | list[float]) -> Target:
    """What an age is to those of a person's timestamps."""
    if min(abs(age - one) for one in learned) <= SAME_AGE:
        return Target.LEARNED
    return Target.BETWEEN if min(learned) < age < max(learned) else Target.BEYOND
