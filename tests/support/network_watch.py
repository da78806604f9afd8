"""Every address that a command, and all it starts, sends to or connects to, as the kernel sees it.

A seccomp filter stops each ``connect``, ``sendto``, ``sendmsg`` and ``sendmmsg`` until its address has been read and
lets it go on: C++ threads, daemons and statically linked programs are seen like Python. It needs no privileges and no
other program, but Linux 5.5 or newer on x86-64 or ARM.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import ipaddress
import os
import platform
import select
import struct
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CONNECT, _SENDTO, _SENDMSG, _SENDMMSG, _IO_URING = "connect", "sendto", "sendmsg", "sendmmsg", "io_uring_setup"
_MACHINES = {
    "x86_64": (0xC000003E, 317, {42: _CONNECT, 44: _SENDTO, 46: _SENDMSG, 307: _SENDMMSG, 425: _IO_URING}),
    "aarch64": (0xC00000B7, 277, {203: _CONNECT, 206: _SENDTO, 211: _SENDMSG, 269: _SENDMMSG, 425: _IO_URING}),
}
"""Machine -> its audit architecture, the number of ``seccomp``, the numbers of what is watched."""

# linux/seccomp.h, linux/bpf_common.h, linux/prctl.h
_SET_MODE_FILTER, _NEW_LISTENER, _NO_NEW_PRIVS = 1, 1 << 3, 38
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_RECEIVE, _ANSWER, _STILL_VALID = 0xC0502100, 0xC0182101, 0x40082102
_NOTIFICATION, _RESPONSE = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
_GO_ON = 1

_DNS = 53
_RESOLVER = "/run/systemd/resolve/"
"""Local sockets behind which names are looked up in the network."""


@dataclass(frozen=True)
class Contact:
    """A call with an address: which process, which call, whereto."""

    process: str
    call: str
    address: str
    local: bool
    """Whether it stays on this machine; a name server's port never counts as that."""


@dataclass
class Watched:
    """How a command ended, and every contact of it and of all processes it started."""

    returncode: int | None = None
    stdout: str = ""
    stderr: str = ""
    contacts: list[Contact] = field(default_factory=list)

    @property
    def outside(self) -> list[Contact]:
        """What went, or tried to go, beyond this machine."""
        return [contact for contact in self.contacts if not contact.local]


def run_watched(command: Sequence[str], *, timeout: float, **options: Any) -> Watched:
    """Run a command to its end, as ``subprocess.run(command, capture_output=True, text=True)``, and watch it.

    Raises:
        OSError: this kernel does not let a filter be set. Never watches less than everything instead.
    """
    watched, ready, listeners, troubles = Watched(), threading.Event(), [], []

    def launch() -> None:  # a filter holds for one thread and whatever that one starts
        try:
            listeners.append(_filter_this_thread())
            ready.set()
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)
            watched.returncode, watched.stdout, watched.stderr = done.returncode, done.stdout, done.stderr
        except BaseException as error:  # raised again where somebody sees it
            troubles.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=launch, daemon=True)
    thread.start()
    ready.wait()
    if listeners:
        try:
            _answer_all(listeners[0], thread, watched.contacts)
        finally:
            os.close(listeners[0])
    thread.join()
    if troubles:
        raise troubles[0]
    return watched


def _filter_this_thread() -> int:
    """Set the filter for this thread; returns the descriptor that hears of its calls."""
    architecture, seccomp, calls = _MACHINES[platform.machine()]
    libc = ctypes.CDLL(None, use_errno=True)
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 0, len(calls) + 1, architecture), (_LOAD, 0, 0, 0)]
    steps += [(_EQUAL, len(calls) - place, 0, number) for place, number in enumerate(calls)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS) failed")
    listener = libc.syscall(seccomp, _SET_MODE_FILTER, _NEW_LISTENER, program)
    if listener < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp with a listener failed ({os.strerror(number)}); Linux 5.5 or newer is needed")
    return listener


def _answer_all(listener: int, thread: threading.Thread, contacts: list[Contact]) -> None:
    """Note every call and let it go on, until the command has ended and nothing that it started is left."""
    calls = _MACHINES[platform.machine()][2]
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        happened = poll.poll(500)
        if not happened:
            if not thread.is_alive():
                return  # what is left of the command after half a second of silence is a daemon
            continue
        if not happened[0][1] & select.POLLIN:
            return
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # it died meanwhile
                continue
            raise
        identifier, pid, _, number, _, _, *arguments = _NOTIFICATION.unpack(buffer)
        try:
            found = _contacts(pid, calls[number], arguments)
        except OSError as error:
            found = [Contact(_process(pid), calls[number], f"unreadable ({error})", False)]
        with suppress(FileNotFoundError):
            fcntl.ioctl(listener, _STILL_VALID, struct.pack("=Q", identifier))  # else another process's memory was read
            contacts += found
        with suppress(OSError):
            fcntl.ioctl(listener, _ANSWER, bytearray(_RESPONSE.pack(identifier, 0, 0, _GO_ON)))


def _contacts(pid: int, call: str, arguments: Sequence[int]) -> list[Contact]:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:

        def read(place: int, size: int) -> bytes:
            memory.seek(place)
            return memory.read(size)

        def named(header: int) -> tuple[int, int]:  # msg_name and msg_namelen of a struct msghdr
            return struct.unpack("=QI", read(header, 12))

        if call == _IO_URING:
            return [Contact(_process(pid), call, "calls through io_uring cannot be seen", False)]
        if call == _CONNECT:
            places = [(arguments[1], arguments[2])]
        elif call == _SENDTO:
            places = [(arguments[4], arguments[5])]
        elif call == _SENDMSG:
            places = [named(arguments[1])]
        else:
            places = [named(arguments[1] + 64 * place) for place in range(arguments[2] & 0xFFFFFFFF)]
        addresses = [_address(read(place, min(size & 0xFFFFFFFF, 128))) for place, size in places if place]
    return [Contact(_process(pid), call, *address) for address in addresses if address is not None]


def _address(raw: bytes) -> tuple[str, bool] | None:
    """A ``struct sockaddr`` in words, and whether it is on this machine; None for those that are no places."""
    family = int.from_bytes(raw[:2], "little")
    if family in (0, 16):  # AF_UNSPEC takes a connection back, AF_NETLINK asks the kernel
        return None
    if family == 1:
        path = raw[2:].split(b"\0")[0].decode(errors="replace")
        return path, _RESOLVER not in path
    if family not in (2, 10):
        return f"address family {family}", False
    port = int.from_bytes(raw[2:4], "big")
    host = ipaddress.ip_address(raw[4:8] if family == 2 else raw[8:24])
    host = getattr(host, "ipv4_mapped", None) or host
    return f"{host} port {port}", (host.is_loopback or host.is_unspecified) and port != _DNS


def _process(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        words = "?"
    return f"{pid}: {words.strip()[:200]}"
