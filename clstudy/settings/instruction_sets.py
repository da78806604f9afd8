"""Instruction sets that a study can be held to, so that nodes of different kinds compute the same bits (no torch)."""

from __future__ import annotations

import os
import platform
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


_MAKERS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD"}
_TORCH_LIMIT, _ONEDNN_LIMIT = "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"


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


def processor_words(capability: str, environment: Mapping[str, str]) -> str:
    """A kind of processor as stages record it: maker (MKL chooses by it, too), instruction set in use, oneDNN's limit.

    Args:
        capability: as torch names it, e.g. ``AVX512``.
        environment: variables of the process that computes.
    """
    found = processor_field("vendor_id")
    limit = environment.get(_ONEDNN_LIMIT, "")
    known = {choice.capability: choice.environment.get(_ONEDNN_LIMIT) for _, choice in INSTRUCTION_SETS.items()}
    limited = f" (oneDNN: {limit})" if limit and limit != known.get(capability) else ""
    return f"{_MAKERS.get(found, found or platform.machine())} {capability}{limited}"


def likely_processor(name: str) -> str | None:
    """What workers on this machine will record, without loading torch; None if that cannot be told.

    Args:
        name: the setting ``compute.instruction_set``.
    """
    environment = {**os.environ, **INSTRUCTION_SETS[name].environment}
    flags = set(processor_field("flags").split())
    ordered = [one for _, one in INSTRUCTION_SETS.items() if one.capability is not None]  # the largest comes last
    able = [one.capability for one in ordered if flags.issuperset(one.flags)]
    limit = environment.get(_TORCH_LIMIT, "").upper()
    names = [one.capability for one in ordered]
    if limit:
        able = able[: names.index(limit) + 1] if limit in names else []
    return processor_words(able[-1], environment) if able and able[-1] else None
