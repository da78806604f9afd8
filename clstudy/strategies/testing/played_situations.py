"""Situations played with a strategy, step by step, and what each call of ``select`` did."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from clstudy.strategies.base import (
    Item,
    Memory,
    Strategy,
    candidates,
    memory_to_dict,
)
from clstudy.strategies.testing.situations import Situation

Make = Callable[[], Strategy]


class SelectError(Exception):
    """A strategy raised an exception, or returned something that is not a memory; the message says where."""


@dataclass(frozen=True)
class Outcome:
    """What one call of ``select`` returned, and which rules it broke (empty strings: none)."""

    memory: Memory
    changed: str
    drew: str


@dataclass(frozen=True)
class Step:
    """One timestamp of one situation, played as a trial does: with a new instance."""

    situation: Situation
    t: int
    before: Memory
    outcome: Outcome

    def __str__(self) -> str:
        return f"{self.situation}, at t = {self.t}"

    @property
    def after(self) -> Memory:
        return self.outcome.memory

    @property
    def pool(self) -> tuple[Item, ...]:
        return candidates(self.before, self.situation.photos(self.t))


@dataclass(frozen=True)
class Record:
    """All steps that succeeded, and the errors of those that did not."""

    make: Make
    strategy: Strategy
    steps: tuple[Step, ...]
    errors: tuple[str, ...]


def play(make: Make, strategy: Strategy, situations: Iterable[Situation]) -> Record:
    """Play each situation to its end, or to the first timestamp at which the strategy fails."""
    steps: list[Step] = []
    errors: list[str] = []
    for situation in situations:
        memory = Memory()
        try:
            for t in range(len(situation.counts)):
                outcome = select_once(make, situation, t, memory)
                steps.append(Step(situation, t, memory, outcome))
                memory = outcome.memory
        except SelectError as error:
            errors.append(str(error))
    return Record(make, strategy, tuple(steps), tuple(errors))


def select_once(
    make: Make,
    situation: Situation,
    t: int,
    memory: Memory,
    new: Sequence[Item] | None = None,
    capacity: int | None = None,
) -> Outcome:
    """Call ``select`` on copies, so that a strategy that changes its arguments cannot spoil other checks."""
    new = situation.photos(t) if new is None else list(new)
    try:
        old = _copied(memory)
        arguments, generators = (memory_text(old), _contents(new)), _global_generators_now()
        after = make().select(old, new, situation.capacity if capacity is None else capacity, situation.rng(t))
        if not isinstance(after, Memory):
            raise TypeError(f"select returned {type(after).__name__}, expected Memory")
        wrong = [
            (memory_text(old) != arguments[0], "the memory passed in was changed"),
            (_contents(new) != arguments[1], "the list of new photos was changed"),
        ]
        drew = [
            name
            for name, one, two in zip(("numpy.random", "random"), generators, _global_generators_now(), strict=True)
            if one != two
        ]
        return Outcome(_copied(after), next((text for found, text in wrong if found), ""), " and ".join(drew))
    except Exception as error:
        changed = "" if capacity is None else f" with a capacity of {capacity}"
        raise SelectError(f"{situation}, at t = {t}{changed}: {error_text(error)}") from error


def _copied(memory: Memory) -> Memory:
    return replace(memory, state=copy.deepcopy(memory.state))


def _contents(items: Iterable[Item]) -> list[tuple[int, str, float, bytes]]:
    return [(item.timestamp, item.digest, item.spread, item.latent.tobytes()) for item in items]


def _global_generators_now() -> tuple[object, object]:
    """The states of numpy's and Python's global generators."""
    state: Any = np.random.get_state()
    return (state[1].tobytes(), *state[2:]), random.getstate()


def memory_text(memory: Memory) -> str:
    """Everything in a memory as a string; also where it is not plain data, which another check reports."""
    return json.dumps(memory_to_dict(memory), sort_keys=True, default=repr)


def error_text(error: BaseException) -> str:
    """Type and message of an error."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
