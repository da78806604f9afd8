"""Gathers the facts of a machine; runs on the nodes of a cluster too."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

from clstudy.assets import AssetError, asset_path, manifest
from clstudy.cluster.nodes import why
from clstudy.doctor.facts import CPU_ONNX, GPU_ONNX, Disk, Facts
from clstudy.settings.instruction_sets import INSTRUCTION_SETS, processor_field
from clstudy.settings.version import __version__
from clstudy.storage.documents import read_yaml

_PACKAGES = ("ray", "torch", "numpy", "pyarrow", "optuna", "mlflow", CPU_ONNX, GPU_ONNX)


def gather_facts(look_for_gpus: bool) -> Facts:
    """Gather all facts; ``look_for_gpus`` imports torch, which takes seconds."""
    versions = installed_versions()
    imported = ("ray", "onnxruntime", "torch") if look_for_gpus else ("ray", "onnxruntime")
    broken = {name: trouble for name in imported if (trouble := _import_trouble(name))}
    torch_gpus = _torch_gpus() if look_for_gpus and "torch" not in broken else None
    return Facts(
        host=socket.gethostname(),
        versions=versions,
        code=source_digest(_package()),
        folder=str(_package()),
        cpus=os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        broken=broken,
        unmet=unmet_requirements(versions),
        altered=_altered(),
        gpus=_driver_gpus(),
        torch_gpus=torch_gpus,
        torch_cuda=torch_build(find_spec("torch")),
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        onnx_providers=_onnx_providers() if "onnxruntime" not in broken else (),
        disks=_disks(),
        auth_mode=os.environ.get("RAY_AUTH_MODE", "").lower(),
        flags=_processor_flags(),
        has_token=any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")),
        node_types=node_types(Path(os.path.expanduser("~/ray_bootstrap_config.yaml"))),
    )


def _processor_flags() -> frozenset[str]:
    """Only those that an instruction set needs; a processor has hundreds."""
    wanted = {flag for _, choice in INSTRUCTION_SETS.items() for flag in choice.flags}
    return frozenset(wanted.intersection(processor_field("flags").split()))


def _package() -> Path:
    return Path(__file__).resolve().parents[1]


def source_digest(package: Path) -> str:
    """sha256 of the Python files of a package and its asset manifest, by name and content."""
    digest = hashlib.sha256()
    for path in [*sorted(package.rglob("*.py")), *package.glob("assets/manifest.json")]:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def installed_versions() -> dict[str, str]:
    """Versions of Python, clstudy and the packages that it uses, as far as they are installed."""
    found = {name: _installed(name) for name in _PACKAGES}
    return {
        "python": platform.python_version(),
        "clstudy": __version__,
        **{name: version for name, version in found.items() if version},
    }


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def unmet_requirements(versions: Mapping[str, str]) -> tuple[str, ...]:
    """Requirements in clstudy's own metadata that are not met, in words; a clone that is not installed has only names.

    Args:
        versions: versions that are already known; others are looked up.
    """
    from packaging.requirements import Requirement

    try:
        listed = importlib.metadata.requires("clstudy") or []
    except importlib.metadata.PackageNotFoundError:
        listed = [name for name in _PACKAGES if name != GPU_ONNX]
    texts = []
    for wanted in map(Requirement, listed):
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        names = (CPU_ONNX, GPU_ONNX) if wanted.name == CPU_ONNX else (wanted.name,)
        there = [version for name in names if (version := versions.get(name) or _installed(name))]
        if not there:
            texts.append(f"{wanted.name} is not installed")
        elif not any(wanted.specifier.contains(version, prereleases=True) for version in there):
            texts.append(f"{wanted.name} is {there[0]}, clstudy needs {wanted.specifier}")
    return tuple(texts)


def _import_trouble(name: str) -> str:
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever a broken installation may raise
        absent = isinstance(error, ModuleNotFoundError) and error.name == name
        return "" if absent else why(error)  # a missing package is reported among the requirements
    return ""


def _altered() -> tuple[str, ...]:
    texts = []
    for name in manifest():
        try:
            asset_path(name)
        except AssetError as error:
            texts.append(str(error))
    return tuple(texts)


def _driver_gpus() -> tuple[str, ...]:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip()) if done.returncode == 0 else ()


def _torch_gpus() -> tuple[str, ...] | None:
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def torch_build(spec: ModuleSpec | None) -> str:
    """CUDA version that torch is built for, "" for a CPU build or without torch; read from its ``version.py``."""
    if spec is None or spec.origin is None:
        return ""
    try:
        text = Path(spec.origin).with_name("version.py").read_text(errors="replace")
    except OSError:
        return ""
    built_for = re.search(r"^cuda\b.*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return built_for[1] if built_for else ""


def _onnx_providers() -> tuple[str, ...]:
    try:
        import onnxruntime
    except ImportError:
        return ()
    return tuple(onnxruntime.get_available_providers())


def _disks() -> tuple[Disk, ...]:
    found = []
    for path in (Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()), Path("/dev/shm")):
        with suppress(OSError):
            usage = shutil.disk_usage(path)
            found.append(Disk(str(path), usage.total, usage.free))
    return tuple(found)


def node_types(file: Path) -> dict[str, dict[str, float]]:
    """Types of nodes that the autoscaler may start: name -> resources, from the file that ``ray up`` puts on a head."""
    try:
        types = read_yaml(file)["available_node_types"]
        return {name: dict(kind.get("resources") or {}) for name, kind in types.items() if kind.get("max_workers", 1)}
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return {}
