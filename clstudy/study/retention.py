"""Which stages' weights a study still needs (no torch, no Ray).

Rows of a stage are small and stay for ever. Its weights are large, and of use only to whoever trains on from them: so
under ``weights: last`` those of a stage in the middle go as soon as no planned trial can still build on it. The weights
of t = 0 (every strategy begins there) and of a trial's last stage always stay. What is dropped can be computed again,
from the weights before it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

POLICIES = ("last", "all")
"""What a search space may say under ``weights``."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The stages of one trial, as far as they are known.

    Attributes:
        lineage: trials of different lineages share no stage (identity, seed, learning rate).
        keys: stage keys in order, as far as the chosen memories determine them.
        learned: for each of them the key of what a strategy learned before it and uses in it, or None.
        done: how many of them are computed.
        finished: the trial has ended; it will compute nothing more.
        whole: ``keys`` are all the trial has.
    """

    lineage: Hashable
    keys: tuple[str, ...]
    learned: tuple[str | None, ...]
    done: int
    finished: bool
    whole: bool


def may_build_on(chain: Chain, key: str, place: int, line: Sequence[str]) -> bool:
    """Whether a trial may still train on from stage ``key``, which stands at ``place`` of the stages ``line``."""
    if chain.finished:
        return False
    if len(chain.keys) > place:
        return chain.keys[place] == key and chain.done <= place + 1
    # it is not known yet what the trial stores there: it may, if it came the same way (a key contains its past)
    return not chain.keys or chain.keys[-1] == line[len(chain.keys) - 1]


def droppable_weights(chains: Sequence[Chain]) -> set[str]:
    """Keys of computed stages whose weights no planned trial can still need."""
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
    """Keys of what was learned and is of no more use; what the last stage used stays, to say what it took.

    What is used in a stage is needed once more, to learn from that stage, before the next one begins.
    """
    used: dict[str, bool] = {}
    for chain in chains:
        for place, key in enumerate(chain.learned):
            if key is not None:
                over = (chain.finished or chain.done > place + 1) and not (chain.whole and place + 1 == len(chain.keys))
                used[key] = used.get(key, True) and over
    return {key for key, over in used.items() if over}
