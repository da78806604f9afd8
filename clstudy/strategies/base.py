"""What a strategy is: the choice of what survives of the past.

Who calls what, and when. A trial is a fold over timestamps; for each timestamp t the trial

1. inverts the training photos of t and wraps them in items (``make_items``), once, for all strategies;
2. personalises the generator on the photos of t, replaying ``memory.items`` of t-1 (nothing at t = 0);
3. calls ``strategy.select(memory, new, capacity, rng)`` and hands the returned memory to timestamp t+1.

``select`` is a pure function: it never changes its arguments, opens no photo, knows no weights, and takes all
randomness from ``rng``, which the trial derives from names (so no strategy needs a seed of its own). Equal
candidates give equal results in whatever order they are handed in; that holds because draws are made over the
candidates in canonical order, (timestamp, digest), which is also the order of the items in every memory. A memory
is plain data: it can be written as JSON (``memory_to_dict``), hashed, and read back bit for bit.

A strategy that stores photos subclasses ``PhotoStrategy`` and answers one question, ``choose``; it may not invent
items. Any other strategy subclasses ``Strategy`` directly and keeps small typed values in ``Memory.state``.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from clstudy.registry import Registry


@dataclass(frozen=True, eq=False)
class Item:
    """One training photo that can be stored.

    Attributes:
        digest: sha256 of the photo's file.
        timestamp: index of the timestamp it came from, >= 0.
        latent: its anchor, float32 ``[w_dim]``, finite; a read-only copy is kept.
        spread: mean distance of its anchor to the other training photos of its timestamp (see ``make_items``).
    """

    digest: str
    timestamp: int
    latent: np.ndarray
    spread: float

    def __post_init__(self) -> None:
        latent = np.array(self.latent, dtype=np.float32)
        if latent.ndim != 1 or not np.isfinite(latent).all():
            raise ValueError(f"latent of {self.digest!r}: expected finite numbers [w_dim], got shape {latent.shape}")
        if not (np.isfinite(self.spread) and self.spread >= 0):
            raise ValueError(f"spread of {self.digest!r}: expected a finite number >= 0, got {self.spread!r}")
        latent.flags.writeable = False
        object.__setattr__(self, "latent", latent)
        object.__setattr__(self, "timestamp", int(self.timestamp))
        object.__setattr__(self, "spread", float(self.spread))

    def _content(self) -> tuple[int, str, float, bytes]:
        return self.timestamp, self.digest, self.spread, self.latent.tobytes()

    def __eq__(self, other: object) -> bool:
        return self._content() == other._content() if isinstance(other, Item) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.timestamp, self.digest))


@dataclass(frozen=True)
class Memory:
    """What a strategy remembers between two timestamps.

    Attributes:
        items: the stored photos in canonical order.
        state: the strategy's own small state: strings, numbers, booleans, None, and lists and dicts of them.
    """

    items: tuple[Item, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)


class Strategy(ABC):
    """How the past is kept alive. Facts of the class say what the study may expect of it.

    Class attributes:
        name: what a search space calls it.
        description: one line with its source.
        stores_photos: whether ``select`` keeps min(capacity, candidates) photos (otherwise it keeps none).
        balanced: whether those photos obey the balance rule (``clstudy.strategies.balance``).
        uses_buffer_size: whether the buffer size changes anything; where it does not, there is one trial for all.
        joint: trained once on the photos of all timestamps, from the pretrained weights; not a continual learner.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    stores_photos: ClassVar[bool]
    balanced: ClassVar[bool]
    uses_buffer_size: ClassVar[bool]
    joint: ClassVar[bool] = False

    @abstractmethod
    def select(self, memory: Memory, new: Sequence[Item], capacity: int, rng: np.random.Generator) -> Memory:
        """Return what is remembered after a timestamp, given what was remembered before it and its photos.

        Called once per timestamp, after personalising. Nothing handed in may be changed.

        Args:
            memory: the memory after the timestamp before; ``Memory()`` at t = 0.
            new: the training photos of this timestamp, in any order.
            capacity: how many photos may be stored, >= 1 where the strategy uses the buffer size.
            rng: the only source of randomness.
        """


class PhotoStrategy(Strategy):
    """A strategy that stores photos: ``choose`` is all it has to say."""

    stores_photos = True
    uses_buffer_size = True

    def select(self, memory: Memory, new: Sequence[Item], capacity: int, rng: np.random.Generator) -> Memory:
        """Keep all candidates where they fit, otherwise those that ``choose`` names.

        Raises:
            ValueError: the capacity is below 1.
        """
        if capacity < 1:
            raise ValueError(f"{self.name}: the buffer must hold at least 1 photo, got a capacity of {capacity}")
        items = candidates(memory, new)
        if capacity < len(items):
            chosen = sorted(int(index) for index in self.choose(items, capacity, rng))
            items = tuple(items[index] for index in chosen)
        return Memory(items=items)

    @abstractmethod
    def choose(self, items: Sequence[Item], capacity: int, rng: np.random.Generator) -> Iterable[int]:
        """Return the indices of the ``capacity`` items to keep, all different, in any order.

        Args:
            items: the candidates in canonical order, more than ``capacity`` of them.
            capacity: how many to keep, >= 1.
            rng: the only source of randomness.
        """


STRATEGIES: Registry[type[Strategy]] = Registry("strategy")


def candidates(memory: Memory, new: Iterable[Item]) -> tuple[Item, ...]:
    """Return stored and new items in canonical order, (timestamp, digest), each photo of a timestamp once."""
    unique: dict[tuple[int, str], Item] = {}
    # The whole content is the sort key, so that the order handed in cannot matter even if a photo comes twice.
    for item in sorted((*memory.items, *new), key=Item._content):
        unique.setdefault((item.timestamp, item.digest), item)
    return tuple(unique.values())


def stack_latents(items: Sequence[Item]) -> np.ndarray:
    """Return the items' anchors as float64 ``[n, w_dim]``."""
    return np.stack([item.latent for item in items]).astype(np.float64)


def timestamps_of(items: Sequence[Item]) -> np.ndarray:
    """Return the items' timestamps as int64 ``[n]``."""
    return np.array([item.timestamp for item in items], dtype=np.int64)


def make_items(timestamp: int, digests: Sequence[str], latents: ArrayLike) -> list[Item]:
    """Wrap the training photos of one timestamp.

    ``spread`` is the mean Euclidean distance of a photo's anchor to the others' (0 for a photo alone). It is
    computed here, once, because most of the others are discarded later.

    Args:
        timestamp: its index.
        digests: the photos' digests.
        latents: their anchors ``[n, w_dim]``, taken as float32.

    Raises:
        ValueError: digests and latents do not match.
    """
    anchors = np.asarray(latents, dtype=np.float32)
    if anchors.ndim != 2 or len(anchors) != len(digests):
        raise ValueError(f"expected one latent [w_dim] for each of {len(digests)} photos, got shape {anchors.shape}")
    exact = anchors.astype(np.float64)
    others = max(len(exact) - 1, 1)
    spreads = [float(np.linalg.norm(exact - anchor, axis=1).sum() / others) for anchor in exact]
    return [
        Item(digest, timestamp, anchor, spread)
        for digest, anchor, spread in zip(digests, anchors, spreads, strict=True)
    ]


def memory_to_dict(memory: Memory) -> dict[str, Any]:
    """Return the memory as JSON-able values; ``memory_from_dict`` gives back an equal memory, bit for bit."""
    return {
        "items": [
            {
                "digest": item.digest,
                "timestamp": item.timestamp,
                "spread": item.spread,
                "latent": base64.b64encode(item.latent.astype("<f4").tobytes()).decode("ascii"),
            }
            for item in memory.items
        ],
        "state": dict(memory.state),
    }


def memory_from_dict(values: Mapping[str, Any]) -> Memory:
    """Return the memory that ``memory_to_dict`` wrote."""
    items = tuple(
        Item(
            digest=entry["digest"],
            timestamp=entry["timestamp"],
            latent=np.frombuffer(base64.b64decode(entry["latent"]), dtype="<f4"),
            spread=entry["spread"],
        )
        for entry in values["items"]
    )
    return Memory(items=items, state=dict(values["state"]))
