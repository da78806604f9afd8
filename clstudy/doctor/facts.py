"""What the doctor finds out, as plain values, and the lines that it prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from clstudy.cluster.nodes import Span
from clstudy.safe_text import redacted
from clstudy.storage.places import Place

PASS, FIX, NOTE = "pass", "FIX", "note"

CPU_ONNX, GPU_ONNX = "onnxruntime", "onnxruntime-gpu"
"""Two packages with one folder: the one installed last is the one that runs."""


@dataclass(frozen=True)
class CheckLine:
    """One finding: ``kind`` is PASS, FIX or NOTE (worth knowing, no reason not to start)."""

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
    """What a process finds on its machine; travels from the nodes of a cluster.

    Args:
        versions: package -> version, of those that are installed.
        code: digest of clstudy's own source, which lies in ``folder``.
        memory: bytes.
        broken: package -> why it cannot be imported.
        unmet: what clstudy needs and is not installed so, in words.
        altered: what is wrong with the packaged weights, in words.
        gpus: their names, as the NVIDIA driver sees them.
        torch_gpus: as torch does; None where nobody asked it.
        torch_cuda: the CUDA that torch is built for, "" for a CPU build.
        visible_devices: CUDA_VISIBLE_DEVICES.
        disks: the one of Ray's own folder, then /dev/shm if there is one.
        auth_mode: RAY_AUTH_MODE in lower case, "" if unset.
        has_token: whether the environment names an authentication token of Ray's.
        node_types: what the autoscaler may start, by name: resources.
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
    has_token: bool = False
    node_types: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Probe:
    """What the driver could do in the storage.

    Args:
        folder: of our own in it, for this check.
        trouble: why the storage cannot be written, else empty.
        free: bytes; None for an object store.
        ahead: the clock of whoever keeps the storage, if that is known.
        locks: whether files can be locked, where that is how a study is held.
    """

    folder: Place
    trouble: str = ""
    free: int | None = None
    ahead: Span | None = None
    locks: bool = True


@dataclass(frozen=True)
class Seen:
    """What a node says of the storage: whether the driver's file is there, and what went wrong if anything did."""

    same: bool
    trouble: str = ""


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """MLflow as the driver finds it.

    Args:
        uri: its address.
        trouble: why it cannot be used, else empty.
        listens: addresses at which a server on this machine takes connections.
        file_system: kind of the one that a local database lies on.
    """

    uri: str
    trouble: str = ""
    listens: tuple[str, ...] = ()
    file_system: str = ""


def is_local(host: str) -> bool:
    """Whether a host name means this machine, whoever asks."""
    return host in ("localhost", "::1") or host.startswith("127.")
