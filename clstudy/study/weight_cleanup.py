"""Drops weights that no planned trial needs any more, while a study runs (no torch, no Ray)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from clstudy.storage.content_addressed_store import StudyStore
from clstudy.study.retention import Chain, droppable_learned, droppable_weights


class WeightKeeper:
    """Keeps the weights of t = 0, of last stages, and of stages that a planned trial may still build on.

    Args:
        store: the study's.
        planned: trial -> what was known about its stages when the study began.
    """

    def __init__(self, store: StudyStore, planned: Mapping[str, Chain]):
        self._store = store
        self._planned = planned
        self._dropped: set[str] = set()
        self._weights = 0

    def sweep(self, stages: Mapping[str, Sequence[tuple[str, str | None]]], finished: set[str]) -> int:
        """Drop what has become droppable; returns how many stages lost their weights in this run so far.

        Args:
            stages: (key, key of what was learned before) of the stages that each trial has reached in this run.
            finished: trials that ended in this run.
        """
        chains = [
            progressed(self._planned.get(trial) or new_chain(trial), stages.get(trial, ()), trial in finished)
            for trial in {**self._planned, **stages}
        ]
        for key in droppable_weights(chains) - self._dropped:
            with suppress(OSError):  # the next sweep tries again
                self._store.weights.remove(key)
                self._dropped.add(key)
                self._weights += 1
        for key in droppable_learned(chains) - self._dropped:
            with suppress(OSError):
                self._store.learned.remove(key)
                self._dropped.add(key)
        return self._weights


def new_chain(trial: str) -> Chain:
    """The chain of an unplanned trial: one of a learning-rate search, with a rate that no other trial has."""
    return Chain(lineage=trial, keys=(), learned=(), done=0, finished=False, whole=False)


def progressed(chain: Chain, reached: Sequence[tuple[str, str | None]], finished: bool) -> Chain:
    """A planned chain with the stages that its trial has reached since."""
    keys, learned = chain.keys, chain.learned
    if len(reached) > len(keys):
        keys = tuple(key for key, _ in reached)
        learned = tuple(what for _, what in reached)
    return replace(
        chain,
        keys=keys,
        learned=learned,
        done=max(chain.done, len(reached)),
        finished=chain.finished or finished,
        whole=chain.whole or finished,
    )
