"""Tries the storage and MLflow, and leaves them as they were."""

from __future__ import annotations

import fcntl
import ipaddress
import re
import struct
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa

from clstudy.cluster.nodes import Span, why
from clstudy.doctor.facts import Probe, Seen, Tracking, is_local
from clstudy.errors import UserError
from clstudy.storage.places import Place, RemotePath, free_bytes, require_writable, write_atomically
from clstudy.storage.trees import remove_tree
from clstudy.tracking.local_database import quiet_client

T = TypeVar("T")

_STORAGE_SECONDS = 60.0
_HTTP_SECONDS = 5.0
_SQLITE = "sqlite:///"


def within(seconds: float, action: Callable[[], T]) -> T:
    """Run ``action()`` in a thread of its own: a network folder whose server is gone must not hang the sheet.

    Raises:
        TimeoutError: it takes longer; the thread is abandoned and does not keep the process alive.
        Exception: whatever ``action`` raises.
    """
    answers: SimpleQueue[tuple[bool, Any]] = SimpleQueue()

    def act() -> None:
        try:
            answers.put((True, action()))
        except Exception as error:  # raised again below
            answers.put((False, error))

    threading.Thread(target=act, daemon=True).start()
    try:
        worked, result = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None
    if not worked:
        raise result
    value: T = result
    return value


# --- storage -------------------------------------------------------------------------------------------------------


@contextmanager
def storage_probe(place: Place, seconds: float = _STORAGE_SECONDS) -> Iterator[Probe]:
    """Write a file into a new folder in a storage; at the end the storage is as it was.

    Args:
        place: the storage; a folder that does not exist is created, and removed at the end.
        seconds: how long it may take to answer.
    """
    made: list[Path] = []
    folder = place / f".doctor-{uuid.uuid4().hex[:8]}"

    def write() -> Probe:
        if isinstance(place, Path):
            made.extend(path for path in (place, *place.parents) if not path.exists())
        require_writable(place)
        sent = time.time()
        write_atomically(folder / "driver", folder.name.encode())
        return Probe(
            # workers of a study also get the path with its links resolved
            folder=folder.resolve(),
            free=free_bytes(place),
            ahead=_ahead(folder / "driver", sent, time.time()),
            locks=isinstance(folder, RemotePath) or takes_locks(folder),
        )

    def tidy_up() -> None:
        remove_tree(folder)
        for path in made:
            path.rmdir()

    try:
        probe = within(seconds, write)
    except UserError as error:
        probe = Probe(folder, trouble=str(error))
    except (OSError, pa.ArrowException) as error:
        probe = Probe(folder, trouble=why(error))
    try:
        yield probe
    finally:
        with suppress(OSError, pa.ArrowException):
            within(seconds, tidy_up)


def _ahead(file: Place, sent: float, received: float) -> Span | None:
    """How far the clock of a file's server is ahead of ours, from the time stamp of a file written just now."""
    if isinstance(file, Path):
        stamp, grain = file.stat().st_mtime, 0.02  # a kernel stamps files with its last tick
    else:
        nanoseconds = file.system.get_file_info(file.path).mtime_ns
        if nanoseconds is None:
            return None
        stamp, grain = nanoseconds / 1e9, 1.0
    return stamp - received, stamp + grain - sent


def visit_storage(folder: Place, node: str) -> Seen:
    """On a node: look for the driver's file and, if it is there, write one beside it.

    Without the driver's file nothing is written: if the path is not shared, that would create it on the node.
    """
    try:
        if (folder / "driver").read_bytes() != folder.name.encode():
            return Seen(False, "the driver's file has different content there")
    except (FileNotFoundError, NotADirectoryError):
        return Seen(False)
    except (OSError, pa.ArrowException) as error:
        return Seen(False, why(error))
    try:
        write_atomically(folder / _file_of(node), node.encode())
    except (OSError, pa.ArrowException) as error:
        return Seen(True, why(error))
    return Seen(True)


def has_arrived(folder: Place, node: str) -> bool:
    """Whether the driver sees what a node wrote (looked up by name: listings of network folders lag behind)."""
    try:
        return (folder / _file_of(node)).read_bytes() == node.encode()
    except OSError:
        return False


def _file_of(node: str) -> str:
    return f"doctor-{node.replace('/', '-')}"


def takes_locks(folder: Path) -> bool:
    """Whether files in a folder can be locked."""
    with tempfile.TemporaryFile(dir=folder) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def file_system_of(path: Path, mounts: str) -> str:
    """Type of the file system that a path is on, from the text of ``/proc/mounts``; "" if it is not listed there."""
    rows = [line.split() for line in mounts.splitlines()]
    # a blank in a path is \040 there; of two mounts at one point the later one covers the other
    points = {Path(row[1].replace("\\040", " ")): row[2] for row in rows if len(row) >= 3}
    covering = [point for point in points if path == point or point in path.parents]
    return points[max(covering, key=lambda point: len(point.parts))] if covering else ""


# --- MLflow --------------------------------------------------------------------------------------------------------


def ask_tracking(uri: str) -> Tracking:
    """Try a tracking address the way a study's recorder uses it, without creating a database that does not exist."""
    if uri.startswith(_SQLITE):
        return _ask_database(uri, Path(uri.removeprefix(_SQLITE)))
    trouble = _health_trouble(uri) if uri.startswith("http") else ""
    return Tracking(uri=uri, trouble=trouble or _client_trouble(uri), listens=_listens(uri))


def _ask_database(uri: str, file: Path) -> Tracking:
    def look() -> Tracking:
        folder = next(folder for folder in file.absolute().parents if folder.is_dir())
        kind = file_system_of(folder.resolve(), _text("/proc/mounts"))
        try:
            require_writable(folder)
            return Tracking(uri=uri, trouble=_database_trouble(file), file_system=kind)
        except UserError as error:
            return Tracking(uri=uri, trouble=str(error).rpartition("; ")[0], file_system=kind)
        except OSError as error:
            return Tracking(uri=uri, trouble=why(error), file_system=kind)

    try:
        return within(_STORAGE_SECONDS, look)
    except TimeoutError as error:
        return Tracking(uri=uri, trouble=why(error))


def _database_trouble(file: Path) -> str:
    if not file.exists():
        return ""
    with file.open("r+b") as handle:
        head = handle.read(16)
    return "" if head in (b"", b"SQLite format 3\0") else "the file is not a SQLite database"


def _health_trouble(uri: str) -> str:
    bare = re.sub("//[^/@]*@", "//", uri).rstrip("/")  # urllib does not accept user:password@, and none is needed here
    try:
        with urllib.request.urlopen(f"{bare}/health", timeout=_HTTP_SECONDS) as response:
            said = response.read(64)
    except urllib.error.HTTPError as error:
        return f"/health says HTTP {error.code}"
    except (OSError, ValueError) as error:
        return f"does not answer ({why(getattr(error, 'reason', None) or error)})"
    return "" if said.strip() == b"OK" else "something answers there that is not MLflow"


def _client_trouble(uri: str) -> str:
    """Make a call as the recorder does: ``/health`` answers even those to whom the server refuses everything else."""
    try:
        quiet_client(uri).search_experiments(max_results=1)
    except Exception as error:  # MLflow's own, requests', SQLAlchemy's
        return why(error)
    return ""


def _listens(uri: str) -> tuple[str, ...]:
    parts = urlsplit(uri)
    if not parts.scheme.startswith("http") or not parts.hostname or not is_local(parts.hostname):
        return ()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    tables = ("/proc/net/tcp", "/proc/net/tcp6")
    return tuple(address for table in tables for address in listening_addresses(port, _text(table)))


def listening_addresses(port: int, table: str) -> tuple[str, ...]:
    """Addresses at which a port accepts connections, from the text of ``/proc/net/tcp`` or ``tcp6``."""
    rows = [line.split() for line in table.splitlines()]
    local = [row[1].split(":") for row in rows if len(row) > 3 and row[3] == "0A"]  # 0A: listening
    return tuple(_address(digits) for digits, number in local if int(number, 16) == port)


def _address(digits: str) -> str:
    words = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
    return str(ipaddress.ip_address(b"".join(struct.pack("=I", word) for word in words)))


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
