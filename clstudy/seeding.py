"""Seeds derived from names, never from the clock, the worker or the order of work."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def derive_seed(*parts: str | int) -> int:
    """Return a 63-bit seed that depends on every part and on nothing else.

    Parts are strings and integers, e.g. ``derive_seed(trial_seed, identity, t, "replay")``. Two different lists
    of parts give unrelated seeds.
    """
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def derive_rng(*parts: str | int) -> np.random.Generator:
    """Return a NumPy generator seeded with ``derive_seed(*parts)``."""
    return np.random.default_rng(derive_seed(*parts))
