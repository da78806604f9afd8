"""Occasions as footage: each is a walk in front of a camera, of which training and test photos are single frames.

Training photos and test photos by frequency are frames of the main part of the walk, evenly spaced: a mode in which the
person stays longer is on more of them. No training photo is nearer than ``GAP`` frames to a test photo. Balanced test
photos are frames of a part that is held back, in which every mode gets equal time.

Random streams: a person does not depend on how many there are, an occasion not on how many follow, and more photos
begin with the fewer. When all frames of a walk are used up, it goes on (a further take).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clstudy.errors import UserError
from clstudy.identities.virtual.moment import Expression, Light, Moment, Pose
from clstudy.identities.virtual.person import OLDEST, Person
from clstudy.identities.virtual.presets import Preset
from clstudy.identities.virtual.setting import Setting, setting_of, usual_setting
from clstudy.identities.virtual.walk import (
    HELD_PER_MODE,
    MUSCLES,
    NAMES,
    PIECE,
    Piece,
    mode_centres,
    piece,
)
from clstudy.seeding import derive_rng, derive_seed

GAP = 3
"""Least distance in frames between a training and a test photo of a walk."""

_TRAIN_PLACES, _TEST_PLACES, _CYCLE = (0, 1, 2, 3), (6, 7), 10
"""Of ten consecutive frames, those that can become training photos and test photos."""

_ALL = -1
"""Stands for the timestamp where something belongs to all of them."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame of a walk.

    Attributes:
        moment: what the photo is of, but for the person.
        mode: the mode that the walk is in or moves to, from 0.
        number: place in the walk (takes counted through); None in the part that is held back.
    """

    moment: Moment
    mode: int
    number: int | None


class Occasion:
    """One timestamp of one person; frames are drawn on request.

    Args:
        person: who is filmed.
        preset: how occasions differ and how they move.
        seed: of the data.
        timestamp: which occasion, from 0.
        before: the same person's occasion before this one, if it is at hand: of a continuous walk, all that came before
            is then not walked again. Makes no difference to the frames.

    Raises:
        UserError: a negative timestamp, or the person would be too old by then.
    """

    def __init__(self, person: Person, preset: Preset, seed: int, timestamp: int, *, before: Occasion | None = None):
        if timestamp < 0:
            raise UserError(f"occasion {timestamp} of virtual person {person.index}; expected at least 0")
        self.age = person.base_age + preset.years * timestamp
        if self.age > OLDEST:
            raise UserError(
                f"virtual person {person.index} would be {self.age:.0f} years old at timestamp {timestamp}; expected "
                f"at most {OLDEST:.0f}. Ask for fewer timestamps or fewer years between them than {preset.years:g}"
            )
        self._key, self._preset, self._timestamp = (seed, person.index), preset, timestamp
        usual = usual_setting(seed, person.index, person.wears_glasses)
        self.setting: Setting = setting_of(usual, seed, person.index, timestamp, preset.drift)
        of = _ALL if preset.continuous else timestamp
        self.centres = mode_centres(preset, derive_rng("modes", *self._key, of))
        self._takes = [self._piece(timestamp, 0, self._start(before))]
        rng = derive_rng("choice of frames", *self._key, timestamp)
        self._offsets = rng.integers(0, PIECE, 2).tolist()
        self._mode_order = np.argsort(rng.integers(0, 1 << 62, preset.modes), kind="stable").tolist()

    def frames(self, take: int = 0) -> tuple[Frame, ...]:
        """All frames of a take's main part, in order."""
        return tuple(self._frame(take, place) for place in range(PIECE))

    def train(self, count: int) -> list[Frame]:
        """The first ``count`` training photos."""
        return self._evenly(count, _TRAIN_PLACES, self._offsets[0])

    def test(self, count: int) -> list[Frame]:
        """The first ``count`` test photos by frequency."""
        return self._evenly(count, _TEST_PLACES, self._offsets[1])

    def balanced(self, count: int) -> list[Frame]:
        """The first ``count`` balanced test photos: equally many of every mode, up to one."""
        return [self._held(number) for number in range(count)]

    def _evenly(self, count: int, places: tuple[int, ...], offset: int) -> list[Frame]:
        offered = [start + place for start in range(0, PIECE, _CYCLE) for place in places]
        order = evenly_spread(len(offered))
        takes = ((number // len(order), order[number % len(order)]) for number in range(count))
        return [self._frame(take, offered[(place + offset) % len(offered)]) for take, place in takes]

    def _held(self, number: int) -> Frame:
        lap, turn = divmod(number, self._preset.modes)
        take, place = divmod(lap, HELD_PER_MODE)
        mode = self._mode_order[turn]
        state = self._take(take).held[mode, place]
        return Frame(moment=self._moment(state, ("held back", number)), mode=mode, number=None)

    def _frame(self, take: int, place: int) -> Frame:
        stretch = self._take(take)
        number = take * PIECE + place
        moment = self._moment(stretch.states[place], ("walk", number))
        return Frame(moment=moment, mode=int(stretch.modes[place]), number=number)

    def _take(self, take: int) -> Piece:
        while len(self._takes) <= take:
            self._takes.append(self._piece(self._timestamp, len(self._takes), self._takes[-1].states[-1]))
        return self._takes[take]

    def _start(self, before: Occasion | None) -> np.ndarray | None:
        """Where the walk stands when this occasion begins."""
        if not self._preset.continuous:
            return None
        if before is not None:
            if (before._key, before._timestamp) != (self._key, self._timestamp - 1):
                raise ValueError(f"{before._key} at {before._timestamp} before {self._key} at {self._timestamp}")
            return np.asarray(before._takes[0].states[-1])
        state = None
        for earlier in range(self._timestamp):
            state = self._piece(earlier, 0, state).states[-1]
        return state

    def _piece(self, timestamp: int, take: int, start: np.ndarray | None) -> Piece:
        return piece(self._preset, self.centres, start, derive_rng("walk", *self._key, timestamp, take))

    def _moment(self, state: np.ndarray, noise: tuple[str, int]) -> Moment:
        at = dict(zip(NAMES, state.tolist(), strict=True))
        light = self.setting.light
        return Moment(
            age=self.age,
            expression=Expression(**{name: _within(at[name], 0, 1) for name in MUSCLES}),
            gaze=(_within(at["gaze_x"], -30, 30), _within(at["gaze_y"], -20, 20)),
            pose=Pose(
                yaw=_within(at["yaw"], -55, 55),
                pitch=_within(at["pitch"], -30, 30),
                roll=_within(at["roll"], -15, 15),
                zoom=_within(1 + at["zoom"], 0.8, 1.2),
                shift=(_within(at["shift_x"], -0.1, 0.1), _within(at["shift_y"], -0.1, 0.1)),
            ),
            light=Light(
                azimuth=_within(light.azimuth + at["azimuth"], -150, 150),
                elevation=_within(light.elevation + at["elevation"], -30, 85),
                colour=light.colour,
                ambient=light.ambient,
                ambient_colour=light.ambient_colour,
                strength=_within(light.strength * (1 + at["strength"]), 0.3, 2),
            ),
            backdrop=self.setting.backdrop,
            clothes=self.setting.clothes,
            glasses=self.setting.glasses,
            hat=self.setting.hat,
            noise=self._preset.noise,
            blur=_within(self._preset.blur + at["blur"], 0, 2.5),
            noise_seed=derive_seed("noise", *self._key, self._timestamp, *noise),
        )


def frames(person: Person, preset: Preset, seed: int, timestamp: int) -> tuple[Frame, ...]:
    """The walk of one occasion, all ``PIECE`` frames of its first take.

    Raises:
        UserError: as ``Occasion``.
    """
    return Occasion(person, preset, seed, timestamp).frames()


def evenly_spread(count: int) -> list[int]:
    """An order of ``range(count)`` whose every beginning is spread evenly: numbers by their bits in reverse."""
    bits = max(count - 1, 1).bit_length()
    reversed_ = (int(f"{number:0{bits}b}"[::-1], 2) for number in range(1 << bits))
    return [number for number in reversed_ if number < count]


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
