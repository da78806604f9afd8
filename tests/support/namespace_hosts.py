"""Several machines on this one: Linux namespaces with their own network, processes, home, /tmp and SSH server.

For tests of what happens between machines (root only). This machine's files are visible in all of them; a host's own
are its home, ``/tmp``, ``/run``, ``/mnt`` and ``/dev/shm``. The hosts see each other and nothing else. No network of
this machine is touched, and everything ends with the context.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

NETWORK = "10.77.0"
HOME = Path("/root")
_TOOLS = ("ip", "unshare", "nsenter", "sshd", "ssh", "ssh-keygen", "rsync")
_NAMESPACES = ("--net", "--mount", "--pid", "--uts", "--ipc")
_START_SECONDS = 20.0

_SSHD_CONFIG = """\
ListenAddress {address}
HostKey {keys}/host
AuthorizedKeysFile {keys}/user.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
PidFile none
"""

# Covers come last: what they hide must be bound below them first. bash stays as the first process, to collect the dead.
_INIT = """\
set -e
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir /run/sshd
{binds}
hostname {name}
ip link set lo up
echo ready > {folder}/ready
until ip -4 addr show scope global | grep -q inet; do sleep 0.1; done
{sshd} -D -f {folder}/sshd_config -E {folder}/sshd.log &
while true; do sleep 3600 & wait $!; done
"""


@dataclass(frozen=True)
class Host:
    """One machine; ``pid`` is its first process as counted here, ``home`` its home folder as seen from here."""

    name: str
    address: str
    pid: int
    home: Path

    def command(self, line: str, environment: Mapping[str, str] | None = None) -> list[str]:
        """The command that runs a line of bash on this host, as a new login would, from its home folder."""
        variables = {
            "HOME": str(HOME),
            "USER": "root",
            "PATH": f"{Path(sys.prefix) / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            **(environment or {}),
        }
        inside = ["env", "-i", *(f"{key}={value}" for key, value in variables.items())]
        return ["nsenter", "--target", str(self.pid), *_NAMESPACES, *inside, "bash", "-c", f"cd && {line}"]

    def run(
        self, line: str, environment: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a line of bash here; stdout and stderr come together."""
        return subprocess.run(
            self.command(line, environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    def processes(self) -> list[str]:
        """Command lines of what runs here, but for the host's own first process, its sleep and its SSH server."""
        listed = self.run("ps -ww -eo pid=,stat=,args=").stdout.splitlines()
        rows = [line.split(None, 2) for line in listed]
        own = ("sleep 3600", "sshd: /usr/sbin/sshd", "ps -ww", "bash -c cd && ps -ww")
        return [
            args for pid, state, args in rows if pid != "1" and not state.startswith("Z") and not args.startswith(own)
        ]


def missing() -> str:
    """Why there can be no such hosts here; empty if there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs Linux and root (network, mount and process namespaces)"
    absent = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if absent:
        return f"needs {', '.join(absent)} (apt-get install iproute2 util-linux openssh-server rsync)"
    probe = subprocess.run(
        ["unshare", *_NAMESPACES, "--fork", "ip", "link", "add", "probe", "type", "veth", "peer", "name", "other"],
        capture_output=True,
        text=True,
    )
    return f"this kernel gives no namespaces or veth pairs: {probe.stderr.strip()}" if probe.returncode else ""


@contextmanager
def namespace_hosts(
    folder: Path, names: Sequence[str], mounts: Mapping[Path, Path], visible: Sequence[Path] = ()
) -> Iterator[dict[str, Host]]:
    """Start hosts that reach each other by SSH as root, with a key that each has as ``~/.ssh/id_ed25519``.

    Args:
        folder: where their files go.
        names: host names; addresses are 10.77.0.1, .2, … in this order. The first one holds the network's bridge.
        mounts: path in every host (below ``/mnt``) -> folder of this machine: a storage that all share.
        visible: files and folders of this machine below ``/tmp`` or the home that the hosts see as well.
    """
    keys = folder / "keys"
    keys.mkdir(parents=True)
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / key], check=True)
    with ExitStack() as stack:
        hosts: dict[str, Host] = {}
        for number, name in enumerate(names, start=1):
            host = stack.enter_context(_started(folder / name, name, f"{NETWORK}.{number}", keys, mounts, visible))
            _connect(host, next(iter(hosts.values()), None), number)
            hosts[name] = host
        for host in hosts.values():
            _await_ssh(host, keys / "user")
        yield hosts


@contextmanager
def _started(
    folder: Path, name: str, address: str, keys: Path, mounts: Mapping[Path, Path], visible: Sequence[Path]
) -> Iterator[Host]:
    """One host without a network; killing its first process ends all that runs in it."""
    covers = {Path("/tmp"): folder / "tmp", HOME: folder / "home", Path("/mnt"): folder / "mnt"}
    for own in covers.values():
        own.mkdir(parents=True)
    shutil.copytree(keys, folder / "home" / ".ssh", copy_function=shutil.copy2)
    (folder / "home" / ".ssh" / "user").rename(folder / "home" / ".ssh" / "id_ed25519")
    (folder / "tmp").chmod(0o1777)
    (folder / "sshd_config").write_text(_SSHD_CONFIG.format(address=address, keys=keys))
    needed = [folder, keys, *visible]
    script = _INIT.format(
        binds="\n".join(_binds(covers, needed, mounts)),
        name=name,
        folder=shlex.quote(str(folder)),
        sshd=shutil.which("sshd"),
    )
    with (folder / "init.log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", *_NAMESPACES, "--fork", "--mount-proc", "--kill-child", "bash", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await((folder / "ready").is_file, f"{name} did not start: {(folder / 'init.log').read_text()}")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield Host(name, address, int(children[0]), folder / "home")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _binds(covers: Mapping[Path, Path], needed: Sequence[Path], mounts: Mapping[Path, Path]) -> list[str]:
    """Mount commands: first everything needed onto its place below a cover, then the covers themselves."""
    pairs = [(source, source) for source in needed] + [(source, target) for target, source in mounts.items()]
    lines = []
    for source, target in pairs:
        cover = next((covered for covered in covers if target.is_relative_to(covered)), None)
        if cover is None:
            continue
        place = shlex.quote(str(covers[cover] / target.relative_to(cover)))
        lines.append(f"mkdir -p {place}")
        lines.append(f"mount --bind {shlex.quote(str(source))} {place}")
    return lines + [f"mount --rbind {shlex.quote(str(own))} {covered}" for covered, own in sorted(covers.items())]


def _connect(host: Host, first: Host | None, number: int) -> None:
    """Give a host its address on the bridge; it has a default route, as machines have, that leads nowhere."""
    device = "bridge" if first is None else "eth0"
    if first is None:
        _ip(host, "link add bridge type bridge")
    else:
        _ip(first, f"link add port{number} type veth peer name eth0 netns {host.pid}")
        _ip(first, f"link set port{number} master bridge up")
    _ip(host, f"addr add {host.address}/24 dev {device}")
    _ip(host, f"link set {device} up")
    if first is not None:
        _ip(host, f"route add default via {first.address}")


def _ip(host: Host, arguments: str) -> None:
    subprocess.run(["nsenter", "--target", str(host.pid), "--net", "ip", *arguments.split()], check=True)


def _await_ssh(host: Host, key: Path) -> None:
    options = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=2")
    line = shlex.join(["ssh", "-q", "-i", str(key), *options, f"root@{host.address}", "true"])
    _await(lambda: host.run(line).returncode == 0, f"no SSH on {host.name}")


def _await(is_so: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.1)
