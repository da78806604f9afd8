"""For operations with a hand-written backward pass: it is the first derivative and no more."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

from clstudy.errors import UserError

R = TypeVar("R")


def first_derivative(backward: Callable[..., R]) -> Callable[..., R]:
    """Decorate a ``Function.backward`` that cannot be differentiated again.

    torch's own ``once_differentiable`` does not notice a second derivative where the first one's incoming gradient is
    constant, as that of a weighted sum of pixels is, and would give a wrong one.

    Raises:
        UserError: a second derivative was asked for (``create_graph=True``).
    """

    @wraps(backward)
    def checked(*args: Any) -> R:
        if torch.is_grad_enabled():
            raise UserError(
                "a second derivative was asked for (create_graph=True), and compute.kernels is 'fused', which has "
                "first derivatives alone; compute with --set compute.kernels=plain"
            )
        return backward(*args)

    return checked
