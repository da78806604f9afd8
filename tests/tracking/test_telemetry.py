"""Libraries report nothing; and the watch that says so of a run (in test_run.py) sees what it must."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clstudy.tracking.telemetry import SWITCHES, without_ray_dashboard_process
from tests.support.network_watch import run_watched

REACH_OUT = """
import os, socket, subprocess, sys
def attempt(action):
    try:
        action()
    except OSError:
        pass
if sys.argv[1:] != ["child"]:
    attempt(lambda: socket.create_connection(("127.0.0.1", 1), timeout=0.1))
    attempt(lambda: socket.create_connection(("192.0.2.1", 80), timeout=0.1))
    attempt(lambda: socket.create_connection(("2001:db8::1", 80), timeout=0.1))
    attempt(lambda: socket.create_connection(("169.254.169.254", 80), timeout=0.1))
    code = open("/proc/self/cmdline").read().split(chr(0))[2]
    subprocess.run([sys.executable, "-c", code, "child"], start_new_session=True)
else:
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    attempt(lambda: datagram.sendto(b"x", ("192.0.2.2", 9)))
    attempt(lambda: datagram.sendmsg([b"x"], [], 0, ("192.0.2.3", 9)))
    attempt(lambda: datagram.connect(("127.0.0.53", 53)))
"""


def test_the_watch_sees_what_leaves_the_machine_also_from_children() -> None:
    done = run_watched([sys.executable, "-c", REACH_OUT], timeout=30)
    assert done.returncode == 0, done.stderr
    assert [(contact.call, contact.address) for contact in done.outside] == [
        ("connect", "192.0.2.1 port 80"),
        ("connect", "2001:db8::1 port 80"),
        ("connect", "169.254.169.254 port 80"),
        ("sendto", "192.0.2.2 port 9"),
        ("sendmsg", "192.0.2.3 port 9"),
        ("connect", "127.0.0.53 port 53"),
    ]
    assert "127.0.0.1 port 1" in [contact.address for contact in done.contacts if contact.local]
    assert len({contact.process for contact in done.outside}) == 2


def test_the_watch_stops_no_longer_than_its_command(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_watched([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.5)
    with pytest.raises(FileNotFoundError):
        run_watched([str(tmp_path / "nothing")], timeout=5)


def left_by(code: str, folder: Path, settings: dict[str, str]) -> set[str]:
    """Names of the files that a fresh Python leaves in an empty home."""
    folder.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **settings}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, timeout=120)
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("library", "file"), [("onnxruntime", "deviceid"), ("mlflow", "telemetry.json")], ids=["onnxruntime", "mlflow"]
)
def test_importing_clstudy_keeps_libraries_from_making_up_an_id(library: str, file: str, tmp_path: Path) -> None:
    assert file in left_by(f"import {library}", tmp_path / "without", {}), "nothing to switch off: renew this test"
    turned_on = {"ORT_DISABLE_TELEMETRY": "0", "MLFLOW_DISABLE_TELEMETRY": "false"}
    assert file not in left_by(f"import clstudy, {library}", tmp_path / "with", turned_on)


def test_switches_are_set_here_and_in_children() -> None:
    assert {name: os.environ[name] for name in SWITCHES} == dict(SWITCHES)
    code = "import os, clstudy; print(dict(os.environ))"
    shown = subprocess.run([sys.executable, "-c", code], env={"RAY_USAGE_STATS_ENABLED": "1"}, capture_output=True)
    assert all(f"'{name}': '{value}'" in shown.stdout.decode() for name, value in SWITCHES.items())


def test_rays_function_comes_back() -> None:
    from ray._private import services

    before = services.start_api_server
    with pytest.raises(RuntimeError), without_ray_dashboard_process():
        assert services.start_api_server() == ("", None)
        raise RuntimeError
    assert services.start_api_server is before
