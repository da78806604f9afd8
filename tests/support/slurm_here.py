"""A SLURM of this machine alone: a real slurmctld and two slurmd, nodes ``one`` and ``two`` of two cores each."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun", "sinfo")
_NODES = ("one", "two")


def missing() -> str:
    """Why there can be none here; "" if there can."""
    absent = [name for name in _PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"needs {', '.join(absent)} (Debian: slurmctld slurmd slurm-client slurm-wlm-basic-plugins)"
    return "" if os.geteuid() == 0 else "slurmd needs root"


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def _configuration(folder: Path) -> str:
    control, *ports = _free_ports(1 + len(_NODES))
    nodes = "\n".join(
        f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=2000 State=UNKNOWN"
        for name, port in zip(_NODES, ports, strict=True)
    )
    return f"""
ClusterName=here
SlurmctldHost=localhost
SlurmctldPort={control}
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=10
SchedulerParameters=requeue_delay=1,sched_interval=2
PropagateResourceLimits=NONE
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def _until(is_so, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(1)


@contextmanager
def slurm_here(folder: Path) -> Iterator[dict[str, str]]:
    """Start it and give the environment in which ``sbatch`` and the others find it; everything ends with the block."""
    (folder / "state").mkdir(parents=True)
    configuration = folder / "slurm.conf"
    configuration.write_text(_configuration(folder))
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in (["slurmctld", "-D"], *(["slurmd", "-D", "-N", name] for name in _NODES))
    ]

    def idle() -> bool:
        said = subprocess.run(["sinfo", "-h", "-o", "%T %D"], env=environment, capture_output=True, text=True).stdout
        return said.split() == ["idle", str(len(_NODES))]

    try:
        _until(idle, 60, "both nodes are idle")
        yield environment
    finally:
        subprocess.run(["scancel", "--full", "--user=root"], env=environment, capture_output=True)
        time.sleep(1)
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(30)
