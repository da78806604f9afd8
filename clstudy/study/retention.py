"""Decides which stages' weights a study still needs (no torch, no Ray).

A stage's rows are small and are kept for ever. Its weights are large, and only needed to train on from them. So under
``weights: last`` the weights of a middle stage are dropped as soon as no planned trial can still build on it. The
weights of t = 0 (where every strategy begins) and of a trial's last stage are always kept. Dropped weights can be
computed again from the weights before them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

POLICIES = ("last", "all")
"""The values that a search space may have under ``weights``."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The stages of one trial, as far as they are known.

    Attributes:
        lineage: trials of different lineages share no stage (identity, seed, learning rate).
        keys: stage keys in order, as far as the memories chosen so far determine them.
        learned: for each stage, the key of what a strategy learned before it and uses in it, or None.
        done: how many of these stages are computed.
        finished: whether the trial has ended and will compute nothing more.
        whole: whether ``keys`` has all of the trial's stages.
    """

    lineage: Hashable
    keys: tuple[str, ...]
    learned: tuple[str | None, ...]
    done: int
    finished: bool
    whole: bool


def may_build_on(chain: Chain, key: str, place: int, line: Sequence[str]) -> bool:
    """Whether a trial may still train on from stage ``key``, which has index ``place`` in the stages ``line``."""
    if chain.finished:
        return False
    if len(chain.keys) > place:
        return chain.keys[place] == key and chain.done <= place + 1
    # what the trial stores there is not known yet: it may reach the stage if its past is the same (it is part of a key)
    return not chain.keys or chain.keys[-1] == line[len(chain.keys) - 1]


def droppable_weights(chains: Sequence[Chain]) -> set[str]:
    """Keys of computed stages with weights that no planned trial can need any more."""
    keep = {chain.keys[0] for chain in chains if chain.keys}
    keep |= {chain.keys[-1] for chain in chains if chain.whole}
    lines: dict[str, tuple[Chain, int]] = {}
    relatives: dict[Hashable, list[Chain]] = {}
    for chain in chains:
        relatives.setdefault(chain.lineage, []).append(chain)
        for place, key in enumerate(chain.keys[: chain.done]):
            lines.setdefault(key, (chain, place))
    return {
        key
        for key, (line, place) in lines.items()
        if key not in keep and not any(may_build_on(other, key, place, line.keys) for other in relatives[line.lineage])
    }


def droppable_learned(chains: Sequence[Chain]) -> set[str]:
    """Keys of learned tensors that are no longer needed; those of a last stage are kept, to report their size.

    What a stage uses is needed once more, to learn from that stage before the next one begins.
    """
    used: dict[str, bool] = {}
    for chain in chains:
        for place, key in enumerate(chain.learned):
            if key is not None:
                over = (chain.finished or chain.done > place + 1) and not (chain.whole and place + 1 == len(chain.keys))
                used[key] = used.get(key, True) and over
    return {key for key, over in used.items() if over}
