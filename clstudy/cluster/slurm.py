"""Batch scripts that run a study on the nodes of a SLURM allocation and put themselves back into the queue.

``ray symmetric-run`` is not used: it stops every Ray that the user has on a node, also another job's, and refuses to
start beside one. Here a job's Ray has a port, a token and a folder of its own, and ends with the job's step.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from clstudy.errors import UserError

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d{1,4}):(?P<minutes>[0-5]\d)(?::(?P<seconds>[0-5]\d))?")
_GIVE_UP, _SHORTEST_LEAD = 120, 180
"""Seconds before the limit at which stages in flight are given up; the least that may be asked for to finish them."""


def seconds_of(text: str, option: str = "--time") -> int:
    """Seconds of a time as SLURM writes it: ``HH:MM``, ``HH:MM:SS`` or ``DAYS-HH:MM:SS``.

    Raises:
        UserError: it is not one.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UserError(f"{option} is {text!r}; expected HH:MM:SS, HH:MM or DAYS-HH:MM:SS, such as 08:00:00")
    part = {name: int(value or 0) for name, value in match.groupdict().items()}
    return ((part["days"] * 24 + part["hours"]) * 60 + part["minutes"]) * 60 + part["seconds"]


def slurm_time(seconds: int) -> str:
    """The same in the other direction: ``DAYS-HH:MM:SS`` or ``HH:MM:SS``."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{rest:02}" if days else f"{hours:02}:{minutes:02}:{rest:02}"


@dataclass(frozen=True, kw_only=True)
class SlurmJob:
    """One job that runs a study.

    Args:
        name: of the job and of its files.
        run: what is typed after ``clstudy run``, without ``--address``.
        nodes: of the allocation.
        cpus: per node.
        gpus: per node.
        seconds: until SLURM ends the job.
        lead: seconds before that at which no new stage begins; a stage that is not over two minutes before the limit
            is given up (it is computed again after the restart).
        restarts: how often the job puts itself back into the queue at most.
        directives: further options of ``sbatch``, such as ``--partition=gpu``.
        setup: lines of shell before everything else, such as ``module load cuda``.
        python: words that start Python on every node.

    Raises:
        UserError: a count below its least value, a lead that does not fit, or ``--address`` among the words of ``run``.
    """

    name: str
    run: tuple[str, ...]
    nodes: int
    cpus: int
    seconds: int
    gpus: int = 0
    lead: int = 900
    restarts: int = 50
    directives: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    python: tuple[str, ...] = field(default_factory=lambda: (sys.executable,))

    def __post_init__(self) -> None:
        for option, count, least in (
            ("--nodes", self.nodes, 1),
            ("--cpus", self.cpus, 1),
            ("--gpus", self.gpus, 0),
            ("--restarts", self.restarts, 0),
        ):
            if count < least:
                raise UserError(f"{option} is {count}; expected at least {least}")
        if not _SHORTEST_LEAD <= self.lead < self.seconds:
            raise UserError(
                f"--lead is {slurm_time(self.lead)} of --time {slurm_time(self.seconds)}; expected less than the whole "
                f"time and at least {slurm_time(_SHORTEST_LEAD)}: long enough for a stage, which is finished before "
                "the job stops"
            )
        if any(word == "--address" or word.startswith("--address=") for word in self.run):
            raise UserError("--address is given; leave it out: the job starts a Ray cluster of its own and names it")
        for directive in self.directives:
            if not re.fullmatch(r"--?[A-Za-z][^\n]*", directive):
                raise UserError(
                    f"--sbatch is {directive!r}; expected an option of sbatch, such as --sbatch=--constraint=a100"
                )


_SCRIPT = r"""#!/bin/bash
@DIRECTIVES@
# Written by `clstudy slurm`; hand it in with `sbatch FILE`, from a folder that all nodes share. It starts Ray on every
# node of the allocation and the study on the first. Before the time is up it lets the stages in flight finish and puts
# itself back into the queue; the study then goes on where it was.
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:?hand this file in with sbatch}" || exit 2
@SETUP@
python=(@PYTHON@)
lead=@LEAD@ most_restarts=@RESTARTS@
driver='' watch='' out_of_time=''

# SLURM sends USR1 so many seconds before the limit. The driver's first TERM lets stages finish, a second stops at once.
end_in_time() {
  out_of_time=yes
  echo "clstudy: $lead seconds are left; no new stage begins"
  [ -n "$driver" ] || return
  kill -TERM "$driver" 2> /dev/null
  (sleep $((lead - @GIVE_UP@)); kill -TERM "$driver" 2> /dev/null) &
  watch=$!
}
trap end_in_time USR1

# Whoever has this token may use the job's Ray; it is made anew for every start and written nowhere.
RAY_AUTH_TOKEN=$("${python[@]}" -c 'import secrets; print(secrets.token_hex(32))') || exit 2
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
host=$("${python[@]}" -c 'import ray; print(ray.util.get_node_ip_address())') || exit 2
export address=$host:$((20000 + SLURM_JOB_ID % 10000)) stop_file=$SLURM_SUBMIT_DIR/@NAME@-$SLURM_JOB_ID.stop
rm -f "$stop_file"

# One task per node: the first is Ray's head. A worker that dies does not end the others.
srun --nodes=@NODES@ --ntasks=@NODES@ --ntasks-per-node=1 --cpus-per-task=@CPUS@ @GPUS@--kill-on-bad-exit=0 bash -c '
  umask 077
  folder=/tmp/clstudy-ray-$SLURM_JOB_ID  # short: sockets lie in it; the same on all nodes: Ray asks for that
  mkdir -p -m 700 "$folder" && [ -O "$folder" ] || { echo "clstudy: $folder is not mine on $(hostname)"; exit 2; }
  trap "rm -rf $folder" EXIT
  if [ "$SLURM_PROCID" = 0 ]; then
    role=(--head --node-ip-address="${address%:*}" --port="${address##*:}" --temp-dir="$folder")
    role+=(--include-dashboard=false)
  else
    role=(--address="$address")
    for attempt in {1..150}; do (exec 3<> "/dev/tcp/${address%:*}/${address##*:}") 2> /dev/null && break; sleep 2; done
  fi
  "$@" -m ray.scripts.scripts start "${role[@]}" --num-cpus=@CPUS@ --num-gpus=@GPU_COUNT@ \
    --disable-usage-stats --block > "$SLURM_SUBMIT_DIR/@NAME@-ray-$SLURM_PROCID.log" 2>&1 &
  ray=$!
  trap "kill $ray; wait $ray" TERM INT
  # a signal for the step would have SLURM kill it seconds later, before Ray has put its things away
  while kill -0 $ray 2> /dev/null && [ ! -e "$stop_file" ]; do sleep 1; done
  kill $ray 2> /dev/null
  wait $ray
  [ "$SLURM_PROCID" != 0 ] || touch "$stop_file"  # without the head the others have nothing to do
  true
' clstudy "${python[@]}" &
cluster=$!
stop_ray() {
  trap '' USR1 TERM
  touch "$stop_file"
  for second in {1..45}; do kill -0 "$cluster" 2> /dev/null || break; sleep 1; done
  rm -f "$stop_file"
  kill "$cluster" 2> /dev/null
}
trap stop_ray EXIT

"${python[@]}" -m clstudy.cluster.slurm_nodes "$address" @NODES@ &
nodes=$!
while kill -0 "$nodes" 2> /dev/null; do
  if ! kill -0 "$cluster" 2> /dev/null; then
    kill "$nodes"
    echo "clstudy: Ray ended before all nodes had joined; why: @NAME@-ray-*.log here"
    exit 2
  fi
  sleep 1
done
wait "$nodes" || exit 2

"${python[@]}" -m clstudy.run @RUN@ --address "$address" &
driver=$!
[ -z "$out_of_time" ] || end_in_time
trap 'kill -TERM "$driver" 2> /dev/null' TERM
while :; do
  wait "$driver"
  code=$?
  { [ "$code" -gt 128 ] && kill -0 "$driver" 2> /dev/null; } || break
done
[ -z "$watch" ] || kill "$watch" 2> /dev/null

if [ -n "$out_of_time" ] && [ "$code" -ge 128 ]; then
  if [ "${SLURM_RESTART_COUNT:-0}" -ge "$most_restarts" ]; then
    echo "clstudy: restarted $most_restarts times already; hand the file in again to go on"
  else
    echo "clstudy: back into the queue"
    stop_ray
    scontrol requeue "$SLURM_JOB_ID" && sleep 30
  fi
fi
exit "$code"
"""


def batch_script(job: SlurmJob) -> str:
    """The file for ``sbatch``."""
    directives = (
        f"--job-name={job.name}",
        f"--nodes={job.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={job.cpus}",
        *([f"--gpus-per-node={job.gpus}"] if job.gpus else []),
        f"--time={slurm_time(job.seconds)}",
        f"--signal=B:USR1@{job.lead}",
        "--requeue",
        "--open-mode=append",
        f"--output={job.name}-%j.log",
        *job.directives,
    )
    values = {
        "DIRECTIVES": "\n".join(f"#SBATCH {directive}" for directive in directives),
        "SETUP": "\n".join(job.setup),
        "PYTHON": shlex.join(job.python),
        "LEAD": str(job.lead),
        "GIVE_UP": str(_GIVE_UP),
        "RESTARTS": str(job.restarts),
        "NODES": str(job.nodes),
        "CPUS": str(job.cpus),
        "GPUS": f"--gpus-per-node={job.gpus} " if job.gpus else "",
        "GPU_COUNT": str(job.gpus),
        "NAME": job.name,
        "RUN": shlex.join(job.run),
    }
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match[1]], _SCRIPT)


def submit(script: Path) -> str:
    """Hand a batch script in; returns what ``sbatch`` says.

    Raises:
        UserError: there is no ``sbatch`` here, or it refuses the script.
    """
    try:
        done = subprocess.run(["sbatch", str(script)], capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(
            f"no sbatch on this machine; {script} is written: hand it in where SLURM is, with "
            f"`sbatch {shlex.quote(str(script))}`"
        ) from None
    if done.returncode:
        raise UserError(f"sbatch refuses {script}: {' '.join((done.stderr or done.stdout).split())}")
    return done.stdout.strip()


def job_name(space: str) -> str:
    """A name for the job of a space or of a space's file, without what a shell or SLURM would take amiss."""
    return "clstudy-" + (re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(space).stem) or "study")
