"""A driver's processes: Ray's are its descendants and outlive it by seconds."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sized
from contextlib import suppress
from pathlib import Path


def family(pid: int) -> set[int]:
    """A process and all its descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    members = {pid}
    while more := {child for child, parent in parents.items() if parent in members} - members:
        members |= more
    return members


def kill_driver(driver: subprocess.Popen[str] | subprocess.Popen[bytes], seconds: float = 120.0) -> None:
    """SIGKILL, and wait until its workers have followed it: until then they go on with their stages."""
    members = family(driver.pid)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    deadline = time.monotonic() + seconds
    while left := {pid for pid in members if _lives(pid)}:
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(left)} outlive their driver by {seconds:g} s")
        time.sleep(0.1)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill_after(
    command: list[str],
    folder: Path,
    stored: Callable[[], Sized],
    wanted: int,
    environment: Mapping[str, str],
    wait: float = 0.0,
) -> None:
    """Start a study in a folder, and SIGKILL it once so many of its stages are stored, and ``wait`` seconds later."""
    driver = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 450
    while len(stored()) < wanted and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(wait)
    kill_driver(driver)
