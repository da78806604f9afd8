"""How the networks' layers are computed: step by step, or in fewer passes over memory (no torch)."""

from __future__ import annotations

from dataclasses import dataclass

from clstudy.registry import Registry

PLAIN, FUSED = "plain", "fused"


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """One choice.

    Attributes:
        description: one line.
        fused: layers with a backward pass of their own (``clstudy.generators.fused_synthesis``,
            ``clstudy.metrics.fused_lpips``), and Adam in one pass over its state.
    """

    description: str
    fused: bool


KERNELS: Registry[Kernels] = Registry("kind of kernels")
KERNELS.register(PLAIN)(Kernels(description="one torch operation after the other", fused=False))
KERNELS.register(FUSED)(
    Kernels(
        description="channels last, layers with their own backward pass, Adam in one pass: the same mathematics, "
        "faster on a CPU; last digits differ",
        fused=True,
    )
)
