"""How exactly the networks compute, and on which device.

The packages' defaults are not used as they are: torch lets cuDNN convolutions run in TF32 unless told otherwise,
which would make ``float32`` a word without meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from clstudy.errors import UserError
from clstudy.profiles import ComputeSettings, Resources
from clstudy.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Precision:
    """One mode: tensor-core rounding of float32 products, and the type that convolutions compute in."""

    description: str
    tf32: bool = False
    autocast: torch.dtype | None = None


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
        autocast=torch.bfloat16,
    )
)


def torch_device(resources: Resources) -> torch.device:
    """The device a worker computes on: the GPU that Ray gave it, or the CPU.

    Raises:
        UserError: the profile asks for a GPU and torch sees none.
    """
    if not resources.gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            f"the profile asks for {resources.gpus:g} GPU per trial and torch {torch.__version__} sees none in this "
            "worker; install a CUDA build of torch, or compute on the CPU with --device cpu"
        )
    return torch.device("cuda")


def configure_torch(compute: ComputeSettings, resources: Resources) -> list[str]:
    """Set this process's numerics once: threads, TF32, deterministic kernels.

    Returns what could not be promised, in words (empty on a CPU): the same settings give the same bits there, and on
    CUDA wherever torch has a deterministic kernel.
    """
    torch.set_num_threads(resources.threads)
    tf32 = PRECISIONS[compute.precision].tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    if not resources.gpus:
        return []
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    return ["CUDA: equal bits only where torch has a deterministic kernel"]


def apply_compute(network: nn.Module, compute: ComputeSettings) -> None:
    """Set precision, recomputing and compilation of a ``SynthesisNetwork`` in place."""
    network.autocast = PRECISIONS[compute.precision].autocast  # type: ignore[assignment]
    network.recompute = compute.recompute  # type: ignore[assignment]
    if compute.compile:
        network.compile()
