"""Numerical precision of the networks: the modes, and the effect of each on the results (no torch)."""

from __future__ import annotations

from dataclasses import dataclass

from clstudy.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Precision:
    """One mode: tensor-core rounding of float32 products, and the type that convolutions compute in."""

    description: str
    tf32: bool = False
    autocast: str | None = None


PRECISIONS: Registry[Precision] = Registry("precision")
PRECISIONS.register("float32")(Precision(description="IEEE float32 everywhere: the protocol's mode"))
PRECISIONS.register("tf32")(
    Precision(
        description="products of convolutions and linear layers with 10 bits of mantissa on NVIDIA GPUs from Ampere on "
        "(relative error of a product about 5e-4), sums in float32; no effect on a CPU",
        tf32=True,
    )
)
PRECISIONS.register("bf16")(
    Precision(
        description="synthesis under bfloat16 autocast (8 bits of mantissa, relative error of a product about 4e-3); "
        "weights, losses, metrics and Adam stay in float32. On a config-f network with random weights at 256 px images "
        "move by 0.012 standard deviations (root mean square), LPIPS by 0.001 (benchmarks/personalize.py --effect)",
        autocast="bfloat16",
    )
)
