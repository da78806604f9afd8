"""The kind of processor that computes, and holding it to an instruction set.

torch, oneDNN and MKL choose their kernels by the processor, and each kernel rounds its sums in an order of its own.
"""

from __future__ import annotations

import os

import torch

from clstudy.errors import UserError
from clstudy.settings.instruction_sets import INSTRUCTION_SETS, processor_words


def kind_of_processor(device: torch.device) -> str:
    """What bits depend on beyond settings and versions: maker and instruction set of the processor, or the GPU's name.

    The instruction set is the one in use, which may be below what the processor has.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_words(torch.backends.cpu.get_cpu_capability(), os.environ)


def require_instruction_set(name: str) -> None:
    """Check that this process computes with the instruction set that the settings name.

    Raises:
        UserError: the processor lacks it, or the libraries were loaded without the variables that choose it.
    """
    wanted, here = INSTRUCTION_SETS[name], torch.backends.cpu.get_cpu_capability()
    unset = {key: value for key, value in wanted.environment.items() if os.environ.get(key) != value}
    if wanted.capability in (None, here) and not unset:
        return
    raise UserError(
        f"compute.instruction_set is {name!r}, and torch computes with {here} in this process; where the processor has "
        "it (see `clstudy doctor`), set these variables before Python starts: "
        + " ".join(f"{key}={value}" for key, value in wanted.environment.items())
    )
