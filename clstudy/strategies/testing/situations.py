"""The short generated trials that conformance is checked on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from clstudy.strategies.base import (
    Item,
    make_items,
)

W = (8,)
"""Shape of a latent in w."""

W_PLUS = (3, 4)
"""Shape of a latent in W+: one for each of three layers."""


@dataclass(frozen=True)
class Situation:
    """A short generated trial.

    Attributes:
        counts: training photos of each timestamp, each >= 1.
        capacity: the buffer size K, >= 1.
        distinct: how many different latents there are in the whole trial; None: every photo has its own.
        seed: of photos and draws.
        latent_shape: of every latent.
    """

    counts: tuple[int, ...]
    capacity: int
    distinct: int | None = None
    seed: int = 0
    latent_shape: tuple[int, ...] = W

    def photos(self, t: int) -> list[Item]:
        """The training photos of timestamp t, the same at every call."""
        rng = np.random.default_rng([self.seed, t])
        count = self.counts[t]
        latents = rng.normal(size=self.latent_shape) + rng.normal(size=(count, *self.latent_shape))
        if self.distinct is not None:
            few = np.random.default_rng(self.seed).normal(size=(self.distinct, *self.latent_shape))
            latents = few[rng.integers(self.distinct, size=count)]
        return make_items(t, [rng.bytes(4).hex() for _ in range(count)], latents)

    def rng(self, t: int) -> np.random.Generator:
        """A fresh generator for the selection at timestamp t, always with the same seed."""
        return np.random.default_rng([self.seed, t, 1])

    def __str__(self) -> str:
        photos = ", ".join(map(str, self.counts))
        times = f"{len(self.counts)} timestamps of {photos} photos" if len(self.counts) > 1 else f"{photos} photos"
        latents = "" if self.distinct is None else f" ({self.distinct} different latents)"
        latents += f", latents of shape {self.latent_shape}" if len(self.latent_shape) > 1 else ""
        return f"{times}{latents}, K = {self.capacity}, seed {self.seed}"


SITUATIONS: tuple[Situation, ...] = tuple(
    Situation(counts, capacity, distinct)
    for (counts, distinct), capacity in product(
        (
            ((7,), None),  # one timestamp
            ((5, 5, 5, 5), None),
            ((1, 7, 2, 9), None),  # uneven
            ((1, 1, 1, 1, 1, 1), None),  # one photo per timestamp
            ((6, 4, 6), 3),  # duplicate latents, within and across timestamps
            ((5, 5), 1),  # nothing but duplicates
        ),
        (1, 2, 3, 5, 10),
    )
) + tuple(Situation((4, 3, 4), capacity, latent_shape=W_PLUS) for capacity in (3, 10))
"""What ``check_strategy`` plays by default: all orders of K, timestamps and candidates, and latents in W and W+."""
