"""Describes what is installed of the extra ``gpu`` on machines that compute on CPUs, where it cannot be tried out."""

from __future__ import annotations

from collections.abc import Mapping

from clstudy.doctor.facts import CPU_ONNX, GPU_ONNX, NOTE, PASS, CheckLine, Facts

CUDA_PROVIDER = "CUDAExecutionProvider"
GPU_ONNX_ONLY = f"pip uninstall -y {CPU_ONNX} {GPU_ONNX} && pip install {GPU_ONNX}"
_CPU_ONNX_ONLY = f"pip uninstall -y {CPU_ONNX} {GPU_ONNX} && pip install {CPU_ONNX}"
_CUDA_TORCH = "a CUDA build of torch (https://pytorch.org/get-started/locally/)"


def judge_gpu_extra(wanted: bool, found: Mapping[str, Facts]) -> list[CheckLine]:
    """Lines on the builds of torch and ONNX Runtime on machines that need no GPU; never a reason not to start.

    If the profile wants GPUs, ``judge_gpus`` and ``judge_onnx`` judge the machines that have some. Machines with equal
    findings share a line.
    """
    places: dict[tuple[str, str, str], list[str]] = {}
    for where, facts in found.items():
        if wanted and (facts.gpus or facts.torch_gpus):
            continue
        places.setdefault(_finding(facts), []).append(where)
    return [CheckLine(kind, "gpu extra", f"{', '.join(at)}: {text}", how) for (kind, text, how), at in places.items()]


def _finding(facts: Facts) -> tuple[str, str, str]:
    """Kind, text and remedy for one machine."""
    onnx = [name for name in (CPU_ONNX, GPU_ONNX) if name in facts.versions]
    for_cuda = GPU_ONNX in onnx
    text = f"{_onnx_words(facts, onnx)}; {_torch_words(facts)}"
    if len(onnx) == 2:
        on_top = "GPUs" if CUDA_PROVIDER in facts.onnx_providers else "CPUs"
        shared = f"both packages use one folder, and the one installed last, now that for {on_top}, wins"
        return NOTE, f"{text}; {shared}", f"with an NVIDIA GPU: {GPU_ONNX_ONLY}; without: {_CPU_ONNX_ONLY}"
    if for_cuda != bool(facts.torch_cuda):
        missing = _CUDA_TORCH if for_cuda else GPU_ONNX_ONLY
        return NOTE, f"{text}; only one of them can use a GPU", f"on a machine with an NVIDIA GPU install {missing}"
    if for_cuda:
        return PASS, f"{text}; both can use a GPU", ""
    return PASS, text, f"on a machine with an NVIDIA GPU install {_CUDA_TORCH} and {GPU_ONNX} ({GPU_ONNX_ONLY})"


def _onnx_words(facts: Facts, installed: list[str]) -> str:
    named = " and ".join(f"{name} {facts.versions[name]}" for name in installed) or f"no {CPU_ONNX}"
    return f"{named} (providers: {', '.join(facts.onnx_providers) or 'none'})"


def _torch_words(facts: Facts) -> str:
    if "torch" not in facts.versions:
        return "no torch"
    built = f"for CUDA {facts.torch_cuda}" if facts.torch_cuda else "for CPUs"
    return f"torch {facts.versions['torch']} built {built}"
