"""Instruction sets that a study can be held to, so that nodes of different kinds compute the same bits (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clstudy.registry import Registry

NATIVE = "native"
"""The setting's default: every machine computes with the best that its processor has."""


def processor_field(name: str) -> str:
    """What Linux says of this machine's first processor under a name (``vendor_id``, ``flags``); empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name), "")


@dataclass(frozen=True, kw_only=True)
class InstructionSet:
    """One choice.

    Attributes:
        description: one line.
        capability: what ``torch.backends.cpu.get_cpu_capability()`` must return; None: whatever it returns.
        flags: of the processor that it needs, as Linux names them.
        environment: variables that libraries read when they are loaded, so they must be set when a process starts.
    """

    description: str
    capability: str | None = None
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


INSTRUCTION_SETS: Registry[InstructionSet] = Registry("instruction set")
INSTRUCTION_SETS.register(NATIVE)(InstructionSet(description="whatever the processor has"))
INSTRUCTION_SETS.register("avx2")(
    InstructionSet(
        description="AVX2 at most: any x86 server since 2015",
        capability="AVX2",
        flags=("avx2", "fma"),
        environment={
            "ATEN_CPU_CAPABILITY": "avx2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "OPENBLAS_CORETYPE": "Haswell",
        },
    )
)
INSTRUCTION_SETS.register("avx512")(
    InstructionSet(
        description="AVX-512 without later extensions: Intel since Skylake-SP, AMD since Zen 4",
        capability="AVX512",
        flags=("avx512f", "avx512bw", "avx512dq", "avx512vl"),
        environment={
            "ATEN_CPU_CAPABILITY": "avx512",
            "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
            "MKL_ENABLE_INSTRUCTIONS": "AVX512",
            "OPENBLAS_CORETYPE": "SkylakeX",
        },
    )
)
