"""Turns facts into lines: what passes, what must be fixed and how. Pure functions.

In all of them ``found`` maps a place ("this machine", a node, the driver) to its facts.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from clstudy.assets.model_files import FoundFiles, missing_lines, wanted_roles
from clstudy.cluster.nodes import Answer, Span
from clstudy.doctor.facts import CPU_ONNX, FIX, GPU_ONNX, NOTE, PASS, CheckLine, Facts, Probe, Seen, Tracking, is_local
from clstudy.doctor.gpu_extra import CUDA_PROVIDER, GPU_ONNX_ONLY
from clstudy.errors import UserError
from clstudy.safe_text import shown_address
from clstudy.settings.instruction_sets import INSTRUCTION_SETS, NATIVE
from clstudy.settings.profiles import Profile, Resources
from clstudy.storage.places import MIN_FREE_BYTES
from clstudy.study.preflight import left_out_metrics

MOST_SKEW_SECONDS = 2.0
_FULL_SHARE = 0.95
"""Share of the disk of Ray's own folder; if more is used, Ray neither spills nor accepts new objects."""
_OBJECT_STORE_SHARE, _OBJECT_STORE_MOST = 0.3, 200e9
"""Share of a machine's memory, and the most bytes, that Ray wants in /dev/shm by default."""
_NETWORK_SYSTEMS = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "gluster", "afs", "9p", "fuse.")

_INSTALL = "install the versions of constraints.txt on every machine: pip install -c constraints.txt -e '.[cluster]'"
_MOUNT_SHARED = "mount one network folder under this path on every node, or use s3://bucket/folder"
_START_MLFLOW = (
    "start it (mlflow server --host 127.0.0.1 --port 5000 --workers 1 --backend-store-uri sqlite:////PATH/mlflow.db), "
    "correct MLFLOW_TRACKING_URI, or unset it for a local database"
)


def judge_machine(where: str, facts: Facts) -> CheckLine:
    """What the machine has, in a line."""
    seen = facts.gpus or facts.torch_gpus or ()
    gpus = ", ".join(f"{count} x {name}" for name, count in Counter(seen).items()) or "no GPU"
    return CheckLine(PASS, "machine", f"{where}: {facts.cpus} CPUs, {_gb(facts.memory)} memory, {gpus}")


def judge_versions(found: Mapping[str, Facts]) -> list[CheckLine]:
    """Whether packages are installed, as new as clstudy needs them, and the same everywhere."""
    lines = []
    for where, facts in found.items():
        texts = [f"{package} cannot be imported: {trouble}" for package, trouble in facts.broken.items()]
        lines += [CheckLine(FIX, "versions", f"{text} ({where})", _INSTALL) for text in (*texts, *facts.unmet)]
    first = next(iter(found.values()))
    for package in first.versions:
        # a package that a node lacks altogether is among its unmet requirements
        groups = _groups(
            {where: _public(facts.versions[package]) for where, facts in found.items() if package in facts.versions}
        )
        if len(groups) > 1:
            lines.append(CheckLine(FIX, "versions", f"{package} differs: {_listed(groups)}", _INSTALL))
    if lines:
        return lines
    everywhere = "" if len(found) == 1 else f"the same in {len(found)} places: "
    listed = ", ".join(f"{package} {version}" for package, version in first.versions.items())
    return [CheckLine(PASS, "versions", everywhere + listed)]


def judge_code(found: Mapping[str, Facts]) -> list[CheckLine]:
    """Whether clstudy itself is the same everywhere (one version may have different code), and undamaged."""
    lines = [CheckLine(FIX, "code", f"{text} ({where})") for where, facts in found.items() for text in facts.altered]
    if len({facts.code for facts in found.values()}) > 1:
        groups = _groups({where: f"{facts.code[:8]} in {facts.folder}" for where, facts in found.items()})
        remedy = (
            "install the same commit on every node, and start the study from that code (`ray up` copies a clone to all "
            "nodes): rows from different code cannot be compared"
        )
        text = f"clstudy is not the same everywhere, whatever its version says: {_listed(groups)}"
        lines.append(CheckLine(FIX, "code", text, remedy))
    first = next(iter(found.values()))
    return lines or [
        CheckLine(PASS, "code", f"clstudy {first.code[:8]} in {first.folder}, its packaged weights undamaged")
    ]


def judge_instruction_sets(chosen: str, found: Mapping[str, Facts]) -> list[CheckLine]:
    """Whether all processors have what the profile holds them to, or are of one kind where it holds them to nothing."""
    what, needed = "processor", INSTRUCTION_SETS[chosen].flags
    lacking = [where for where, facts in found.items() if not facts.flags.issuperset(needed)]
    if lacking:
        others = [name for name, choice in INSTRUCTION_SETS.items() if _all_have(choice.flags, found)]
        text = f"compute.instruction_set is {chosen!r}, which {', '.join(lacking)} cannot compute with"
        return [CheckLine(FIX, what, text, f"choose {' or '.join(others)}, or leave these machines out")]
    best = {where: _best_instruction_set(facts) for where, facts in found.items()}
    groups = _groups(best)
    if chosen != NATIVE:
        return [CheckLine(PASS, what, f"every machine can compute with {chosen}, as compute.instruction_set says")]
    if len(groups) > 1:
        shared = [name for name, choice in INSTRUCTION_SETS.items() if choice.flags and _all_have(choice.flags, found)]
        text = f"{_listed(groups)}: the same stage differs in its last digits between them"
        one = f"--set compute.instruction_set={shared[-1]}" if shared else "leave machines of the other kind out"
        return [CheckLine(NOTE, what, text, f"for equal bits: {one}")]
    return [CheckLine(PASS, what, f"{next(iter(groups))}" + (" everywhere" if len(found) > 1 else ""))]


def _all_have(flags: Sequence[str], found: Mapping[str, Facts]) -> bool:
    return all(facts.flags.issuperset(flags) for facts in found.values())


def _best_instruction_set(facts: Facts) -> str:
    """The last one of the registry, which is in ascending order, that the processor has."""
    named = [(name, choice.flags) for name, choice in INSTRUCTION_SETS.items() if choice.flags]
    there = [name for name, flags in named if facts.flags.issuperset(flags)]
    return there[-1] if there else "neither " + " nor ".join(name for name, _ in named)


def judge_gpus(wanted: bool, found: Mapping[str, Facts], offered: Mapping[str, float]) -> list[CheckLine]:
    """Whether the driver, torch and Ray agree on the GPUs of every machine, where the profile wants GPUs.

    Args:
        offered: GPUs of a node as Ray counts them; empty where no cluster runs.
    """
    if not wanted:
        idle = sum(len(facts.gpus) for facts in found.values())
        return [
            CheckLine(PASS, "GPU", "the profile computes on CPUs" + (f"; GPUs that stay idle: {idle}" if idle else ""))
        ]
    judged = (_gpu_trouble(where, facts, offered.get(where)) for where, facts in found.items())
    lines = [CheckLine(FIX, "GPU", text, remedy) for text, remedy in filter(None, judged)]
    count = sum(len(facts.torch_gpus or ()) for facts in found.values())
    if lines or not count:  # ``judge_share`` reports it if there is none at all
        return lines
    return [CheckLine(PASS, "GPU", f"torch sees {count}" + (", and Ray offers them all" if offered else ""))]


def _gpu_trouble(where: str, facts: Facts, offered: float | None) -> tuple[str, str] | None:
    """What is wrong with the GPUs of a machine, and what to do; None if nothing is, or it has none."""
    if facts.torch_gpus is None:  # torch is broken or missing, which another line reports
        return None
    usable, name = len(facts.torch_gpus), facts.gpus[0] if facts.gpus else ""
    if name and not facts.torch_cuda:
        build = facts.versions.get("torch", "")
        text = f"{where} has {name}, and torch {build} there is built for CPUs"
        return text, "install a CUDA build: https://pytorch.org/get-started/locally/"
    if name and not usable and facts.visible_devices is not None:
        text = f"{where} has {name}, and CUDA_VISIBLE_DEVICES={facts.visible_devices!r} hides it"
        return text, "unset it (on a cluster: before `ray start`)"
    if name and not usable:
        text = f"{where} has {name}, and torch for CUDA {facts.torch_cuda} cannot use it"
        return text, "update the NVIDIA driver, or install torch for an older CUDA"
    if offered is not None and offered != usable:
        text = f"Ray offers {offered:g} GPU on {where}, torch sees {usable}"
        return text, f"start Ray there again, with --num-gpus={usable}"
    return None


def judge_onnx(wanted: bool, found: Mapping[str, Facts]) -> list[CheckLine]:
    """Which ONNX Runtime embeds faces on machines with GPUs: of two packages, the one installed last is used."""
    lines = []
    for where, facts in found.items():
        if not wanted or not (facts.gpus or facts.torch_gpus) or CPU_ONNX in facts.broken:
            continue
        both = {CPU_ONNX, GPU_ONNX} <= facts.versions.keys()
        if CUDA_PROVIDER not in facts.onnx_providers:
            lines.append(
                CheckLine(FIX, "onnxruntime", f"{where} has both packages, and uses the one for CPUs", GPU_ONNX_ONLY)
                if both
                else CheckLine(
                    NOTE, "onnxruntime", f"{where} has the one for CPUs: the ID metric is slow", GPU_ONNX_ONLY
                )
            )
        elif both:
            text = f"{where} has both packages; it uses the one for GPUs until the other is installed again"
            lines.append(CheckLine(NOTE, "onnxruntime", text, GPU_ONNX_ONLY))
        else:
            lines.append(CheckLine(PASS, "onnxruntime", f"{where} has the one for GPUs"))
    return lines


def judge_share(
    share: Resources, free: Mapping[str, tuple[float, float]], node_types: Mapping[str, Mapping[str, float]]
) -> CheckLine:
    """Whether any machine has the share that a trial takes.

    Args:
        share: what one trial takes.
        free: (CPUs, GPUs) of every machine.
        node_types: what the autoscaler may add.
    """
    trial = f"a trial takes {share.cpus:g} CPU" + (f" and {share.gpus:g} GPU" if share.gpus else "")
    count = sum(_fits(share, cpus, gpus) for cpus, gpus in free.values())
    if count:
        return CheckLine(PASS, "room for trials", f"{trial}; {count} fit at a time")
    brought = [name for name, has in node_types.items() if _fits(share, has.get("CPU", 0), has.get("GPU", 0))]
    if brought:
        text = f"{trial}; no such node is up, the autoscaler starts {' or '.join(brought)} when there is work"
        return CheckLine(NOTE, "room for trials", text, "it could not be checked; run this again while one is up")
    none = f"{next(iter(free))} cannot give it" if len(free) == 1 else f"none of {_nodes(len(free))} can give it"
    remedy = "use a machine or a cluster that can (--address), or another profile; on small networks --device cpu does"
    return CheckLine(FIX, "room for trials", f"{trial}; {none}", remedy)


def _fits(share: Resources, cpus: float, gpus: float) -> int:
    parts = [cpus / share.cpus] if share.cpus else []
    parts += [gpus / share.gpus] if share.gpus else []
    return int(min(parts)) if parts else 1


def judge_disks(found: Mapping[str, Facts]) -> list[CheckLine]:
    """Whether Ray has room for its own files and for objects in shared memory."""
    lines, free = [], []
    for where, facts in found.items():
        for disk in facts.disks:
            full = 1 - disk.free / disk.total if disk.total else 0.0
            if disk.path == "/dev/shm":
                wanted = min(_OBJECT_STORE_SHARE * facts.memory, _OBJECT_STORE_MOST)
                if disk.total < wanted:
                    text = f"/dev/shm of {where} has {_gb(disk.total)}, Ray wants {_gb(wanted)} and uses its own folder"
                    lines.append(CheckLine(NOTE, "disk", text, f"in a container: --shm-size={wanted / 1e9:.0f}g"))
            elif full > _FULL_SHARE:
                text = f"{disk.path} of {where} is {full:.1%} full; Ray stops at {_FULL_SHARE:.0%}"
                lines.append(CheckLine(FIX, "disk", text, "make room, or point RAY_TMPDIR to a larger disk"))
            else:
                free.append(disk.free)
    if free:
        at_least = "" if len(free) == 1 else "at least "
        lines.append(CheckLine(PASS, "disk", f"{at_least}{_gb(min(free))} free for Ray's own files"))
    return lines


def judge_storage(place: str, probe: Probe, seen: Mapping[str, Seen], arrived: Iterable[str]) -> list[CheckLine]:
    """Whether the driver and all nodes read and write the same storage.

    Args:
        place: as the user named it.
        probe: what the driver could do.
        seen: by node; empty if there is only this machine.
        arrived: nodes whose file the driver found.
    """
    if probe.trouble:
        text, _, remedy = probe.trouble.rpartition("; ")
        if text:
            return [CheckLine(FIX, "storage", text, remedy)]
        return [CheckLine(FIX, "storage", f"{place}: {probe.trouble}", "fix it, or name another with --storage")]
    back = set(arrived)
    judged = (_storage_trouble(place, where, answer, where in back) for where, answer in seen.items())
    lines = [CheckLine(FIX, "storage", text, remedy) for text, remedy in filter(None, judged)]
    if not lines:
        shared = f" and {_nodes(len(seen))} write and read the same {place}" if seen else f" writes and reads {place}"
        lines.append(CheckLine(PASS, "storage", f"the driver{shared}" if seen else f"this machine{shared}"))
    if not probe.locks:
        text = f"files in {place} cannot be locked: nothing keeps two drivers from running the same study"
        lines.append(CheckLine(NOTE, "storage", text, "do not start a study twice, or mount it with locks"))
    return lines


def _storage_trouble(place: str, where: str, answer: Seen, arrived: bool) -> tuple[str, str] | None:
    if answer.trouble and answer.same:
        text = f"{where} cannot write {place}: {answer.trouble}"
        return text, "let the user that Ray runs as there write to it (folder permissions, or the machine's role)"
    if answer.trouble:
        return f"{where} cannot read {place}: {answer.trouble}", "fix permissions or credentials there"
    if not answer.same:
        return f"{place} on {where} is not the folder that the driver writes to: it is not shared", _MOUNT_SHARED
    if not arrived:
        return f"what {where} writes to {place} does not reach the driver: it is not shared", _MOUNT_SHARED
    return None


def judge_room(place: str, probe: Probe, profile: Profile) -> list[CheckLine]:
    """Whether a storage that can be written has room for a trial."""
    trial = profile.data.timestamps * profile.stage_bytes
    takes = f"a trial writes up to {_gb(trial)} ({profile.data.timestamps} stages)"
    if probe.trouble:
        return []
    if probe.free is None:
        return [CheckLine(PASS, "room", f"{place} is an object store; {takes}")]
    text, wanted = f"{_gb(probe.free)} free at {place}; {takes}", max(MIN_FREE_BYTES, 2 * trial)
    if probe.free < wanted:
        remedy = "make room, or name another place with --storage"
        return [CheckLine(FIX, "room", f"{text}, and none begins below {_gb(wanted)}", remedy)]
    return [CheckLine(PASS, "room", text)]


def judge_clock(now: float, ahead: Mapping[str, Span]) -> list[CheckLine]:
    """Whether other clocks agree with this machine's, which shows ``now`` (seconds since 1970, UTC)."""
    lines = []
    for where, (least, most) in ahead.items():
        if least > MOST_SKEW_SECONDS or most < -MOST_SKEW_SECONDS:
            by = f"{least:.1f} s ahead of" if least > 0 else f"{-most:.1f} s behind"
            remedy = "let both follow a time server (timedatectl set-ntp true, or chrony)"
            lines.append(CheckLine(FIX, "clock", f"the clock of {where} is at least {by} this machine's", remedy))
        elif max(-least, most) > MOST_SKEW_SECONDS:
            text = f"{where} takes {most - least:.1f} s to answer, too long to compare its clock"
            lines.append(CheckLine(NOTE, "clock", text, "run this again when it is idle"))
    if lines:
        return lines
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if not ahead:
        return [CheckLine(NOTE, "clock", f"{shown}, not compared with any other")]
    apart = max(max(-least, most) for least, most in ahead.values())
    others = " and ".join(ahead) if len(ahead) < 3 else f"all {len(ahead)} others"
    return [CheckLine(PASS, "clock", f"{shown}, at most {apart:.2f} s from {others}")]


def judge_tracking(found: Tracking) -> list[CheckLine]:
    """Whether MLflow can be used, and whether others can reach it too."""
    parts = urlsplit(found.uri)
    shown = shown_address(found.uri)
    local = parts.scheme == "sqlite"
    if found.trouble:
        return [
            CheckLine(
                FIX, "MLflow", f"{shown}: {found.trouble}", _tracking_remedy(found.trouble, parts.hostname, local)
            )
        ]
    lines = [CheckLine(PASS, "MLflow", f"{shown} {'can be written' if local else 'answers'}")]
    if found.file_system.startswith(_NETWORK_SYSTEMS):
        text = f"the database lies on {found.file_system}, where SQLite's locks cannot be trusted"
        remedy = "run `mlflow server` with its database on a disk of its own, and set MLFLOW_TRACKING_URI"
        lines.append(CheckLine(NOTE, "MLflow", text, remedy))
    open_to = [address for address in found.listens if not ipaddress.ip_address(address).is_loopback]
    if parts.scheme == "http" and parts.hostname and not is_local(parts.hostname):
        open_to = [parts.hostname]
    if open_to:
        text = f"the server listens at {', '.join(open_to)}: whoever reaches that can read and change every run"
        remedy = "bind it to 127.0.0.1 (--host) and open it through SSH, or protect it by a firewall and a login"
        lines.append(CheckLine(NOTE, "MLflow", text, remedy))
    return lines


def _tracking_remedy(trouble: str, host: str | None, local: bool) -> str:
    if local:
        return "fix its permissions, move it away, or name a tracking server with MLFLOW_TRACKING_URI"
    if re.search(r"\b403\b", trouble):
        return f"start the server with --allowed-hosts {host}, or reach it as 127.0.0.1 through SSH"
    if re.search(r"\b401\b", trouble):
        return "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    return _START_MLFLOW


def judge_weights(profile: Profile, found: FoundFiles, options: Sequence[str], cluster: bool) -> list[CheckLine]:
    """Whether the files that a profile needs from outside the package are there."""
    if not any(wanted_roles(profile)):
        return [CheckLine(PASS, "weights", f"profile {profile.name!r} has all of them in the package")]
    # what is missing and, after the first full stop, how to get it
    missing = (text.partition(". ") for text in missing_lines(found, options))
    lines = [CheckLine(FIX, "weights", what, remedy) for what, _, remedy in missing]
    try:
        left_out = left_out_metrics(profile, found, ())
    except UserError as error:
        return [*lines, CheckLine(FIX, "weights", str(error), "see the lines of the missing files")]
    for metric, reason in left_out.items():
        what, _, remedy = reason.partition("; ")
        lines.append(CheckLine(NOTE, "weights", f"{metric} will not be computed: {what}", remedy))
    if found.paths:
        there = ", ".join(f"{role} {path.name} ({found.digests[role][:8]})" for role, path in found.paths.items())
        fetched = "; nodes that lack them fetch them from the storage when a study begins" if cluster else ""
        lines.append(CheckLine(PASS, "weights", f"{there}{fetched}"))
    return lines


def judge_auth_here(facts: Facts) -> CheckLine:
    """Whether strangers can run code through Ray's ports while a study runs on this machine alone."""
    if facts.auth_mode == "disabled":
        text = "RAY_AUTH_MODE=disabled: while a study runs, whoever reaches Ray's ports can run code as you"
        return CheckLine(NOTE, "Ray token", text, "unset it, unless nobody else reaches this machine")
    return CheckLine(
        PASS, "Ray token", "set in the environment" if facts.has_token else "every run makes one of its own"
    )


def judge_auth(found: Mapping[str, Facts]) -> list[CheckLine]:
    """Whether strangers can run code on the nodes of a running cluster."""
    bare = [where for where, facts in found.items() if facts.auth_mode != "token"]
    if bare:
        text = f"{', '.join(bare)}: whoever reaches Ray's ports there can run any code"
        remedy = (
            "`ray get-auth-token --generate`, that ~/.ray/auth_token and RAY_AUTH_MODE=token on every node before "
            "`ray start`; or a firewall that lets in only the nodes"
        )
        return [CheckLine(NOTE, "Ray token", text, remedy)]
    return [CheckLine(PASS, "Ray token", f"wanted by {_nodes(len(found))}")] if found else []


def judge_answers(answers: Mapping[str, Answer[Any]]) -> list[CheckLine]:
    """A line for every node from which nothing came back."""
    lines = []
    for where, answer in answers.items():
        if answer.value is not None:
            continue
        other = any(sign in answer.trouble for sign in ("No module named", "has no attribute", "cannot import name"))
        remedy = (
            "install clstudy there, the same commit as the driver's"
            if other
            else "look at `ray status` and at that node's memory and disk; start Ray there again"
        )
        lines.append(CheckLine(FIX, "node", f"{where}: {answer.trouble}", remedy))
    return lines


def judge_reach(address: str, complaint: str | None) -> CheckLine | None:
    """What is wrong if a cluster cannot be reached; None if nothing is.

    Args:
        complaint: Ray's message, "" if it has none, None if nothing answered in time.
    """
    if complaint == "":
        return None
    start = "start it with `ray up cluster.yaml` or `ray start --head`, or correct --address"
    if complaint is None:
        return CheckLine(FIX, "cluster", f"{address} does not answer", f"{start}; a firewall must let its port through")
    if any(sign in complaint for sign in ("AuthToken", "has_token", "Unauthenticated")):
        remedy = "the head's ~/.ray/auth_token (or RAY_AUTH_TOKEN) and RAY_AUTH_MODE=token here too"
        return CheckLine(FIX, "cluster", f"{address} wants a token that this process does not have", remedy)
    if "ersion mismatch" in complaint:
        return CheckLine(FIX, "cluster", f"{address}: {complaint}", _INSTALL)
    return CheckLine(FIX, "cluster", f"{address}: {complaint}", start)


def _groups(values: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for where, value in values.items():
        groups.setdefault(value, []).append(where)
    return groups


def _listed(groups: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{value} ({', '.join(places)})" for value, places in groups.items())


def _public(version: str) -> str:
    """A version without its build: torch 2.13.0+cpu on the head and +cu126 on a GPU node are fine together."""
    return version.partition("+")[0]


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def _nodes(count: int) -> str:
    return f"{count} node{'' if count == 1 else 's'}"
