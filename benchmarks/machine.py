"""The machine that figures were measured on, and what its matrix product reaches."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch

_SIZE, _TRIES = 1024, 3


def describe() -> dict[str, Any]:
    """Processor, cores, instruction set that torch uses, versions."""
    from clstudy.settings.instruction_sets import processor_field  # earlier checkouts, which never ask, lack it

    return {
        "processor": processor_field("model name") or platform.processor() or "unknown",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "clstudy": version("clstudy"),
        "system": f"{platform.system()} {platform.machine()}",
    }


def matrix_product() -> Callable[[], float]:
    """Returns a function that measures one float32 product of two square matrices: FLOP per second, the best of three.

    The best, because it stands for what the processor can do; torch's own threads, because that is what paths have.
    """
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(_SIZE, _SIZE, generator=rng) for _ in range(2))
    product = torch.empty(_SIZE, _SIZE)

    def measured() -> float:
        seconds = []
        for _ in range(_TRIES):
            started = time.process_time()
            torch.matmul(a, b, out=product)
            seconds.append(time.process_time() - started)
        return 2 * _SIZE**3 / min(seconds)

    measured()
    return measured
