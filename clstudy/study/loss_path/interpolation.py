"""Networks on the straight line between two others: all parameters interpolated, or only weights, or only biases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from torch import Tensor

from clstudy.analysis.loss_path_numbers import GROUPS

Value = TypeVar("Value", Tensor, np.ndarray)
_IN_GROUP: Mapping[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "weights": lambda name: not is_bias(name),
    "biases": lambda name: is_bias(name),
}


def is_bias(name: str) -> bool:
    """Whether a parameter is a bias: its own name is ``bias``.

    So the biases of StyleGAN2's style layers count as biases (they start at 1 and scale channels); its noise
    strengths and its learned constant count as weights.
    """
    return name.rpartition(".")[2] == "bias"


def interpolate(start: Mapping[str, Value], end: Mapping[str, Value], alpha: float, group: str) -> dict[str, Value]:
    """Weights at ``alpha``: ``start + alpha * (end - start)`` for the group's parameters, ``start`` for all others.

    Args:
        start, end: arrays by parameter name, with equal names and shapes.
        alpha: in [0, 1]; 0 and 1 give the exact bits of ``start`` and (for the group) of ``end``.
        group: a name of ``GROUPS``.

    Raises:
        ValueError: an unknown group, ``alpha`` outside [0, 1], or different names or shapes.
    """
    if group not in GROUPS:
        raise ValueError(f"group is {group!r}, expected one of {', '.join(GROUPS)}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, expected a number from 0 to 1")
    shapes = [{name: tuple(value.shape) for name, value in side.items()} for side in (start, end)]
    if shapes[0] != shapes[1]:
        differing = sorted(name for name in {*start, *end} if shapes[0].get(name) != shapes[1].get(name))
        raise ValueError(f"the two ends belong to different networks: they differ in {', '.join(differing[:5])}")
    moves = _IN_GROUP[group]
    return {name: _between(value, end[name], alpha) if moves(name) else value for name, value in start.items()}


def _between(start: Value, end: Value, alpha: float) -> Value:
    # the formula is not used at the ends: rounding, and -0.0 + 0.0, would change bits
    return {0.0: start, 1.0: end}[alpha] if alpha in (0.0, 1.0) else start + alpha * (end - start)
