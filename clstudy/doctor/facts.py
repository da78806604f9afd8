"""What the doctor finds out, as plain values, and the lines that it prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from clstudy.cluster.nodes import Span
from clstudy.safe_text import redacted
from clstudy.storage.places import Place

PASS, FIX, NOTE = "pass", "FIX", "note"

CPU_ONNX, GPU_ONNX = "onnxruntime", "onnxruntime-gpu"
"""Two packages that install into the same folder: the one installed last is used."""


@dataclass(frozen=True)
class CheckLine:
    """One finding: ``kind`` is PASS, FIX or NOTE (worth knowing, but no reason not to start)."""

    kind: str
    what: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return redacted(f"{self.kind:<4}  {self.what}: {self.text}" + (f" -> {self.remedy}" if self.remedy else ""))


@dataclass(frozen=True)
class Disk:
    """A file system, in bytes."""

    path: str
    total: int
    free: int


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a process finds on its machine; the nodes of a cluster send it to the driver.

    Args:
        versions: package -> version, of those that are installed.
        code: digest of clstudy's own source, which is in ``folder``.
        memory: bytes.
        broken: package -> why it cannot be imported.
        unmet: requirements of clstudy that are missing or too old, in words.
        altered: what is wrong with the packaged weights, in words.
        gpus: names of the GPUs that the NVIDIA driver sees.
        torch_gpus: names of those that torch sees; None if it was not asked.
        torch_cuda: CUDA version that torch is built for, "" for a CPU build.
        visible_devices: CUDA_VISIBLE_DEVICES.
        disks: the disk of Ray's own folder, then /dev/shm if there is one.
        auth_mode: RAY_AUTH_MODE in lower case, "" if unset.
        flags: what the processor can do, as Linux names it; empty on other systems.
        has_token: whether the environment sets an authentication token for Ray.
        node_types: types of nodes that the autoscaler may start: name -> resources.
    """

    host: str
    versions: Mapping[str, str]
    code: str
    folder: str
    cpus: int
    memory: int
    broken: Mapping[str, str] = field(default_factory=dict)
    unmet: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    torch_gpus: tuple[str, ...] | None = None
    torch_cuda: str = ""
    visible_devices: str | None = None
    onnx_providers: tuple[str, ...] = ()
    disks: tuple[Disk, ...] = ()
    auth_mode: str = ""
    flags: frozenset[str] = frozenset()
    has_token: bool = False
    node_types: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Probe:
    """What the driver could do in the storage.

    Args:
        folder: temporary folder in it, for this check.
        trouble: why the storage cannot be written, else empty.
        free: bytes; None for an object store.
        ahead: how far the clock of the storage's server is ahead of ours, if that is known.
        locks: whether files can be locked, in storages where studies are locked that way.
    """

    folder: Place
    trouble: str = ""
    free: int | None = None
    ahead: Span | None = None
    locks: bool = True


@dataclass(frozen=True)
class Seen:
    """A node's view of the storage: whether it sees the driver's file, and what went wrong if anything did."""

    same: bool
    trouble: str = ""


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """MLflow as the driver finds it.

    Args:
        uri: its address.
        trouble: why it cannot be used, else empty.
        listens: addresses at which a server on this machine accepts connections.
        file_system: type of the file system that a local database is on.
    """

    uri: str
    trouble: str = ""
    listens: tuple[str, ...] = ()
    file_system: str = ""


def is_local(host: str) -> bool:
    """Whether a host name means this machine on every machine (localhost)."""
    return host in ("localhost", "::1") or host.startswith("127.")
