"""What may be known of a photo's geometry besides its camera: which photos show one moment, and how deep the face is.

Both are conditions of photos (``clstudy.identities.conditions``). Scores of 3D generators use them where they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

MOMENT = "moment"
"""Name of the condition whose number photos of one person at one timestamp share if cameras took them at once."""

DEPTH = "depth"
"""Name of the condition with a photo's depths: r x r numbers, row by row, each the mean distance from the camera along
the rays through its part of the photo, in the camera's units; 0 where nothing is known (outside the face)."""


def geometry_problem(conditions: Mapping[str, Sequence[float]]) -> str | None:
    """What is wrong with a photo's ``moment`` or ``depth``, as one sentence; None: nothing."""
    moment, depth = conditions.get(MOMENT, (0.0,)), conditions.get(DEPTH, (0.0,))
    if len(moment) != 1:
        return f"condition {MOMENT!r} has {len(moment)} numbers; expected one, shared by photos taken at once"
    if math.isqrt(len(depth)) ** 2 != len(depth):
        return f"condition {DEPTH!r} has {len(depth)} numbers; expected r x r of them, such as 256 (16 x 16)"
    if min(depth) < 0:
        return f"condition {DEPTH!r} has {min(depth):g} in its list; expected distances, and 0 where none is known"
    return None


def partners(moments: Sequence[float]) -> list[np.ndarray]:
    """For each photo, others of its moment: in the first array one of them, in the second another, and so on.

    Args:
        moments: number of each photo's moment.

    Returns:
        Arrays int64 ``[n]`` of places, as many as the largest moment has other photos; a photo's own place where its
        moment has no further photo. Over all arrays, a photo meets each other one of its moment once.
    """
    places = np.arange(len(moments))
    groups = [places[np.asarray(moments) == one] for one in dict.fromkeys(moments)]
    found = []
    for turn in range(1, max(map(len, groups), default=0)):
        met = places.copy()
        for group in groups:
            if turn < len(group):
                met[group] = np.roll(group, -turn)
        found.append(met)
    return found
