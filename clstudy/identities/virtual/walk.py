"""A slow walk between modes of pose, gaze, light and expression: what moves while an occasion is filmed.

A walk is an array of states, one row per frame, in numbers that are the same on every machine (``exact``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clstudy.identities.virtual.moment import Expression
from clstudy.identities.virtual.presets import Preset

PIECE = 300
"""Frames of the main part of a walk, in which modes get unequal time: a minute at five frames a second."""

SETTLING, HELD_EVERY, HELD_PER_MODE = 16, 4, 10
"""In the held-back part each mode is visited once: frames until its centre is reached, then every so many frames one
that may be drawn, this many in all."""

_VISIT = 25
"""Frames of a usual visit to a mode."""


@dataclass(frozen=True)
class Coordinate:
    """Something that moves: centres of modes are within ``extent`` of 0, frames scatter around them by ``scatter``."""

    extent: float
    scatter: float


COORDINATES: dict[str, Coordinate] = {
    "yaw": Coordinate(24, 4),
    "pitch": Coordinate(11, 2.5),
    "gaze_x": Coordinate(14, 4),
    "gaze_y": Coordinate(8, 3),
    "azimuth": Coordinate(35, 4),
    "elevation": Coordinate(12, 3),
    "strength": Coordinate(0.16, 0.04),
    "roll": Coordinate(0, 2),
    "zoom": Coordinate(0, 0.03),
    "shift_x": Coordinate(0, 0.014),
    "shift_y": Coordinate(0, 0.014),
    "blur": Coordinate(0, 0.2),
}
"""Degrees, except: strength in shares of the light's; zoom, shift and blur as in ``Pose`` and ``Moment``. The last five
have no modes: they are the camera's and the alignment's inaccuracy."""

FACES: tuple[Expression, ...] = (
    Expression(),
    Expression(smile=0.8, squint=0.3),
    Expression(jaw=0.45, brow_up=0.2),
    Expression(jaw=0.3, brow_up=0.8, wide=0.6),
    Expression(frown=0.6, brow_down=0.6, press=0.3),
    Expression(pucker=0.7, brow_down=0.3),
    Expression(smile=0.9, jaw=0.45, squint=0.4),
    Expression(press=0.7, squint=0.6),
)
"""Expressions of modes; no two modes of an occasion have the same."""

MUSCLES = tuple(Expression().weights())
"""Names of an expression's weights."""

_MUSCLE_SCATTER = 0.12


NAMES = (*COORDINATES, *MUSCLES)
"""Names of a state's numbers."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a walk.

    Attributes:
        states: of the main part, ``[PIECE, d]``, columns as ``NAMES``.
        modes: in which mode each of its frames is or to which it moves, ``[PIECE]``.
        held: states of the held-back part that may be drawn, ``[modes, HELD_PER_MODE, d]``.
    """

    states: np.ndarray
    modes: np.ndarray
    held: np.ndarray


def mode_centres(preset: Preset, rng: np.random.Generator) -> np.ndarray:
    """States at the centres of the modes, ``[modes, d]``: a Latin hypercube.

    Along each coordinate every mode has a stratum of its own and stays in the middle half of it, so that two modes
    differ in every coordinate by at least half a stratum, and each has another expression.
    """
    count = preset.modes
    columns = []
    for coordinate in COORDINATES.values():
        within = 0.25 + 0.5 * rng.random(count)
        unit = 2 * (_order(count, rng) + within) / count - 1
        columns.append(coordinate.extent * preset.spread * unit)
    chosen = _order(len(FACES), rng)[:count]
    strength = min(2 * preset.spread, 1.0)
    weights = np.array([list(FACES[number].weights().values()) for number in chosen.tolist()]) * strength
    return np.concatenate([np.stack(columns, axis=1), weights], axis=1)


def piece(preset: Preset, centres: np.ndarray, start: np.ndarray | None, rng: np.random.Generator) -> Piece:
    """The next stretch of a walk.

    Args:
        preset: how it moves.
        centres: of the modes, ``[modes, d]``.
        start: state before its first frame, ``[d]``; None: at the centre of its first mode.
        rng: its stream.
    """
    modes = unequal_visits(preset, rng)
    states = _walked(preset, centres, centres[modes[0]] if start is None else start, modes, rng)
    per_mode = SETTLING + HELD_EVERY * HELD_PER_MODE
    visited = _order(preset.modes, rng)
    held = _walked(preset, centres, states[-1], np.repeat(visited, per_mode), rng)
    held = held.reshape(preset.modes, per_mode, -1)[:, SETTLING::HELD_EVERY]
    return Piece(states, modes, held[np.argsort(visited)])


def unequal_visits(preset: Preset, rng: np.random.Generator) -> np.ndarray:
    """The mode of each frame ``[PIECE]``: geometric shares of the time in random order, in visits of some seconds."""
    weights, weight, total = [], 1.0, 0.0
    for _ in range(preset.modes):
        weights.append(weight)
        total += weight
        weight *= preset.dwell_ratio
    frames = [max(int(PIECE * each / total), 1) for each in weights]
    frames[0] += PIECE - sum(frames)
    ranked = _order(preset.modes, rng).tolist()
    visits = []
    for mode, count in zip(ranked, frames, strict=True):
        number = max(round(count / _VISIT), 1)
        visits += [(mode, count // number + (k < count % number)) for k in range(number)]
    order = _order(len(visits), rng).tolist()
    return np.repeat([visits[k][0] for k in order], [visits[k][1] for k in order])


def _walked(
    preset: Preset, centres: np.ndarray, start: np.ndarray, modes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """States ``[n, d]``: every frame a step towards the mode's centre, and a random one.

    In the long run frames scatter around a centre by ``jitter`` times the coordinate's scatter, whatever the step.
    """
    scatter = np.array([each.scatter for each in COORDINATES.values()] + [_MUSCLE_SCATTER] * len(MUSCLES))
    push = scatter * (preset.jitter * np.sqrt(preset.step * (2 - preset.step)))
    pushes = _bells(rng, (len(modes), len(scatter))) * push
    state, states = start, []
    for mode, random in zip(modes.tolist(), pushes, strict=True):
        state = state + preset.step * (centres[mode] - state) + random
        states.append(state)
    return np.stack(states)


def _bells(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """``exact.bell`` for a whole array."""
    uniform = rng.random((12, *shape))
    total = np.full(shape, -6.0)
    for each in uniform:
        total = total + each
    return total


def _order(count: int, rng: np.random.Generator) -> np.ndarray:
    """A random order of ``range(count)``; numpy promises no order for ``permutation`` from version to version."""
    return np.argsort(rng.integers(0, 1 << 62, count), kind="stable")
