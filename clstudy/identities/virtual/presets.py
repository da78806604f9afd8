"""How much a virtual person's occasions differ, and how the footage of one occasion moves: numbers under a name.

``python -m benchmarks.footage`` measures every preset beside real clips; the table is in
``clstudy/assets/VIRTUAL_PEOPLE.md``.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass

from clstudy.errors import UserError
from clstudy.registry import Registry

MOST_MODES = 8
"""Largest number of modes: each has an expression of its own."""

_RANGES = {
    "drift": (0.0, 1.0),
    "dwell_ratio": (0.2, 1.0),
    "spread": (0.1, 2.0),
    "step": (0.02, 1.0),
    "jitter": (0.0, 2.0),
    "noise": (0.0, 10.0),
    "blur": (0.0, 2.0),
    "years": (0.0, 70.0),
}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings of occasions and of the walk that is filmed on each.

    Attributes:
        description: a few words for lists of data sets.
        drift: how far light, backdrop and clothes of an occasion are from the person's usual ones, 0 to 1; 1: drawn
            anew each time. Kinds (of backdrop, neckline) change with this probability.
        continuous: all timestamps are consecutive pieces of one walk between the same modes under the usual light.
        modes: corners of pose, expression, gaze and light between which an occasion moves, 2 to 8.
        dwell_ratio: time spent in a mode in relation to that in the next longer one, 0.2 to 1 (equal).
        spread: how far modes lie apart; 1: yaw within 24 degrees, pitch within 11 (``walk.COORDINATES``).
        step: share of the way to the mode's centre that is covered from frame to frame.
        jitter: standard deviation around a mode's centre, in those of ``walk.COORDINATES``.
        noise: standard deviation of the sensor's noise in steps of 255.
        blur: usual blur, as in ``Moment``.
        years: by which the person is older at each timestamp than at the one before.

    Raises:
        UserError: a number is outside its range.
    """

    description: str
    drift: float
    continuous: bool = False
    modes: int = 5
    dwell_ratio: float = 0.5
    spread: float = 0.4
    step: float = 0.25
    jitter: float = 1.0
    noise: float = 3.0
    blur: float = 0.4
    years: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise UserError(f"preset of occasions: {name} = {value}; expected {low:g} to {high:g}")
        if not 2 <= self.modes <= MOST_MODES:
            raise UserError(f"preset of occasions: modes = {self.modes}; expected 2 to {MOST_MODES}")
        if self.continuous and self.drift:
            raise UserError(
                f"preset of occasions: drift = {self.drift} of a continuous walk, whose light, backdrop and clothes "
                "stay; set drift to 0, or continuous to False"
            )

    def digest(self) -> str:
        """sha256 of the numbers."""
        numbers = {name: value for name, value in asdict(self).items() if name != "description"}
        return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()


PRESETS: Registry[Preset] = Registry("preset of occasions")
"""From the most different occasions to the least."""

for _name, _preset in {
    "strong": Preset(description="every occasion in other light", drift=1.0),
    "clear": Preset(description="clearly different occasions", drift=0.7),
    "mild": Preset(description="mildly different occasions", drift=0.45),
    "slight": Preset(description="hardly different occasions", drift=0.2),
    "one_clip": Preset(description="one clip cut into occasions", drift=0.0, continuous=True),
}.items():
    PRESETS.register(_name)(_preset)

DEFAULT_PRESET = "clear"
"""The preset of the data set ``virtual``."""
