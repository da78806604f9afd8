"""Conformance: what every strategy promises, checked on generated situations.

``check_strategy(make)`` plays short trials with the strategies that ``make`` returns and reports for each check
whether it held, and if not, in which situation. It needs no photos, no weights and no pytest:

    >>> from clstudy.strategies import STRATEGIES
    >>> all(finding.passed for finding in check_strategy(STRATEGIES["er_rand"]))
    True

From the command line: ``python -m clstudy.strategies check er_rand my_package.my_module:MyStrategy``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from clstudy.registry import Finding
from clstudy.strategies.balance import is_balanced
from clstudy.strategies.base import (
    STRATEGIES,
    Item,
    Strategy,
    memory_from_dict,
    memory_to_dict,
    timestamps_of,
)
from clstudy.strategies.testing.played_situations import (
    Make,
    Outcome,
    Record,
    SelectError,
    Step,
    error_text,
    memory_text,
    play,
    select_once,
)
from clstudy.strategies.testing.situations import SITUATIONS, Situation

_FACTS = {
    "name": str,
    "description": str,
    "stores_photos": bool,
    "stores_anchors": bool,
    "balanced": bool,
    "uses_buffer_size": bool,
    "joint": bool,
}


def check_strategy(make: Make, situations: Iterable[Situation] = SITUATIONS) -> list[Finding]:
    """Check a strategy against the contract of ``clstudy.strategies.base``.

    Args:
        make: returns a new instance at every call; a class without settings does.
        situations: the trials to play.

    Returns:
        One finding for each of ``CHECKS``, in that order. An exception inside the strategy is a finding, too;
        where ``make`` fails, that is the only one.
    """
    try:
        strategy = make()
    except Exception as error:
        return [Finding("facts", f"no instance could be made: {error_text(error)}")]
    record = play(make, strategy, situations)
    return [_judge(name, check, record) for name, check in CHECKS.items()]


def _judge(name: str, check: Callable[[Record], Iterator[str]], record: Record) -> Finding:
    if not record.steps and name not in ("facts", "runs"):
        return Finding(name, "not checked: select failed in every situation")
    try:
        problem = next(check(record), "")
    except SelectError as error:
        problem = str(error)
    except Exception as error:
        problem = error_text(error)
    return Finding(name, problem)


# Checks: each yields what is wrong, most informative first, or nothing.


def _facts(record: Record) -> Iterator[str]:
    """the class attributes are present, have the right types and agree with each other"""
    strategy = record.strategy
    kind = type(strategy)
    if not isinstance(strategy, Strategy):
        yield f"{kind.__name__} is not a subclass of clstudy.strategies.Strategy"
        return
    for fact, wanted in _FACTS.items():
        value = getattr(kind, fact, None)
        if not isinstance(value, wanted):
            yield f"class attribute {fact!r}: expected {wanted.__name__}, got {value!r}"
            return
    if not strategy.description.strip() or "\n" in strategy.description:
        yield f"description: expected one line, got {strategy.description!r}"
    names = [name for name, registered in STRATEGIES.items() if registered is kind]
    if names and strategy.name not in names:
        yield f"its name is {strategy.name!r}, but it is registered as {names[0]!r}"
    if not names and strategy.name in STRATEGIES:
        yield f"the name {strategy.name!r} belongs to a registered strategy; choose another"
    if strategy.stores_photos and strategy.stores_anchors:
        yield "stores_photos and stores_anchors are both True; items are kept for one or the other"
    if strategy.balanced and not strategy.stores_items():
        yield "balanced is True, but it stores neither photos nor anchors that could be balanced"
    if strategy.stores_items() and not strategy.uses_buffer_size:
        yield "uses_buffer_size is False, but it stores items, and how many depends on the buffer size"


def _runs(record: Record) -> Iterator[str]:
    """select returns a memory in every situation"""
    yield from record.errors


def _capacity(record: Record) -> Iterator[str]:
    """min(K, candidates) items are kept, or none where the strategy stores neither photos nor anchors"""
    stores = record.strategy.stores_items()
    for step in record.steps:
        wanted = min(step.situation.capacity, len(step.pool)) if stores else 0
        if len(step.after.items) != wanted:
            reason = "" if stores else ": it stores neither photos nor anchors"
            yield f"{step}: keeps {len(step.after.items)} of {len(step.pool)} candidates, expected {wanted}{reason}"


def _items(record: Record) -> Iterator[str]:
    """items are candidates, unaltered, each once"""
    for step in record.steps:
        known = {_key(item): item for item in step.pool}
        keys = [_key(item) for item in step.after.items]
        for item in step.after.items:
            if _key(item) not in known:
                yield f"{step}: keeps {_named(item)}, which is not a candidate"
            elif item != known[_key(item)]:
                yield f"{step}: {_named(item)} differs from its candidate in latent or spread"
            elif keys.count(_key(item)) > 1:
                yield f"{step}: keeps {_named(item)} {keys.count(_key(item))} times"


def _order(record: Record) -> Iterator[str]:
    """items are in canonical order (timestamp, digest)"""
    for step in record.steps:
        if [_key(item) for item in step.after.items] != sorted(_key(item) for item in step.after.items):
            yield f"{step}: the items are not in canonical order: {_listed(step.after.items)}"


def _balance(record: Record) -> Iterator[str]:
    """the balance rule holds, where the class declares it"""
    if not record.strategy.balanced:
        return
    for step in record.steps:
        places = {_key(item): index for index, item in enumerate(step.pool)}
        chosen = [places[_key(item)] for item in step.after.items if _key(item) in places]
        groups = timestamps_of(step.pool)
        if not is_balanced(groups, np.array(chosen, dtype=np.int64), step.situation.capacity):
            yield f"{step}: keeps {_shares(groups[chosen])} of {_shares(groups)}"


def _repeatable(record: Record) -> Iterator[str]:
    """the same seed gives the same answer"""
    for step in record.steps:
        again = select_once(record.make, step.situation, step.t, step.before)
        yield from _difference(step, again, "once more with the same seed")


def _instances(record: Record) -> Iterator[str]:
    """an instance used before selects the same as a new one"""
    for step in record.steps:
        again = select_once(lambda: record.strategy, step.situation, step.t, step.before)
        yield from _difference(step, again, "with an instance used before")


def _arrival(record: Record) -> Iterator[str]:
    """the order in which stored and new photos are passed does not matter"""
    for step in record.steps:
        shuffle = np.random.default_rng([step.situation.seed, step.t, 2])
        new = step.situation.photos(step.t)
        old = step.before.items
        before = replace(step.before, items=tuple(old[index] for index in shuffle.permutation(len(old))))
        shuffled = [new[index] for index in shuffle.permutation(len(new))]
        again = select_once(record.make, step.situation, step.t, before, shuffled)
        yield from _difference(step, again, "with the same photos in another order")


def _arguments(record: Record) -> Iterator[str]:
    """no argument is changed"""
    for step in record.steps:
        if step.outcome.changed:
            yield f"{step}: {step.outcome.changed}"


def _plain_data(record: Record) -> Iterator[str]:
    """a memory read back from JSON is the same, and so is what is selected from it"""
    for step in record.steps:
        try:
            text = json.dumps(memory_to_dict(step.after), allow_nan=False)
        except (TypeError, ValueError) as error:
            yield f"{step}: the state cannot be written as JSON: {error_text(error)}"
            return
        back = memory_from_dict(json.loads(text))
        if back != step.after:
            yield f"{step}: the state reads back from JSON as {_short(back.state)}; it was {_short(step.after.state)}"
        if step.t > 0:
            read = memory_from_dict(json.loads(json.dumps(memory_to_dict(step.before))))
            again = select_once(record.make, step.situation, step.t, read)
            yield from _difference(step, again, "from a memory written as JSON and read back")


def _global_generators(record: Record) -> Iterator[str]:
    """the global generators of numpy and random are left alone"""
    for step in record.steps:
        if step.outcome.drew:
            yield f"{step}: draws from the global generator of {step.outcome.drew}; draw from rng"


def _buffer_size(record: Record) -> Iterator[str]:
    """the buffer size changes nothing, where the class says that it does not use it"""
    if record.strategy.uses_buffer_size:
        return
    for step in record.steps:
        again = select_once(record.make, step.situation, step.t, step.before, capacity=0)  # as a trial without one
        yield from _difference(step, again, "with a capacity of 0")


def _hooks(record: Record) -> Iterator[str]:
    """hooks are repeatable, give what the trainer expects and leave the frozen generator alone"""
    strategy = record.strategy
    if not isinstance(strategy, Strategy) or not (strategy.changes_training() or strategy.learns()):
        return
    from clstudy.strategies.testing.hook_conformance import hook_faults  # imports torch, so only where needed

    for situation in {step.situation: None for step in record.steps}:
        memories = [step.after for step in record.steps if step.situation == situation]
        if len(memories) >= 2:
            faults = hook_faults(record.make, (memories[0], memories[1]), situation.latent_shape)
            yield from (f"{situation}: {fault}" for fault in faults)


CHECKS: dict[str, Callable[[Record], Iterator[str]]] = {
    "facts": _facts,
    "runs": _runs,
    "capacity": _capacity,
    "items": _items,
    "order": _order,
    "balance": _balance,
    "repeatable": _repeatable,
    "instances": _instances,
    "arrival": _arrival,
    "arguments": _arguments,
    "plain data": _plain_data,
    "global generators": _global_generators,
    "buffer size": _buffer_size,
    "hooks": _hooks,
}
"""All checks by name, in the order of their findings; each function's docstring says what has to hold."""


# Formatting of messages


def _key(item: Item) -> tuple[int, str]:
    return item.timestamp, item.digest


def _difference(step: Step, outcome: Outcome, how: str) -> Iterator[str]:
    again = outcome.memory
    if memory_text(again) == memory_text(step.after):
        return
    if again.items != step.after.items:
        yield f"{step}: keeps {_listed(step.after.items)}, and {how} {_listed(again.items)}"
    else:
        yield f"{step}: the state is {_short(step.after.state)}, and {how} {_short(again.state)}"


def _named(item: Item) -> str:
    return f"{item.timestamp}:{item.digest}"


def _listed(items: Iterable[Item]) -> str:
    return f"[{' '.join(map(_named, items))}]"


def _shares(groups: np.ndarray) -> str:
    timestamps, counts = np.unique(groups, return_counts=True)
    if len(timestamps) == 0:
        return "nothing"
    return ", ".join(f"{count} of t = {timestamp}" for timestamp, count in zip(timestamps, counts, strict=True))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
