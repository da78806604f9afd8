"""The whole sheet: gathers facts, judges them, and yields each line as soon as it is known."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from clstudy.assets.model_files import FoundFiles
from clstudy.cluster.nodes import (
    NODE_SECONDS,
    Answer,
    Span,
    ask_nodes,
    clocks,
    living_nodes,
    ray_complaint,
    telling_part,
)
from clstudy.doctor.facts import PASS, CheckLine, Facts, Probe, Seen
from clstudy.doctor.gpu_extra import judge_gpu_extra
from clstudy.doctor.judges import (
    judge_answers,
    judge_auth,
    judge_auth_here,
    judge_clock,
    judge_code,
    judge_disks,
    judge_gpus,
    judge_instruction_sets,
    judge_machine,
    judge_onnx,
    judge_reach,
    judge_room,
    judge_share,
    judge_storage,
    judge_tracking,
    judge_versions,
    judge_weights,
)
from clstudy.doctor.machine import gather_facts
from clstudy.doctor.probes import ask_tracking, has_arrived, storage_probe, visit_storage
from clstudy.settings.profiles import Profile
from clstudy.storage.places import Place

HERE = "this machine"
DRIVER = "the driver"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user wants to run, checked.

    Args:
        profile: the profile, on the device that ``--device`` names.
        place: the storage.
        tracking_uri: MLflow's address.
        files: the weights found outside the package.
        weights: the ``--weights`` options.
        address: of a Ray cluster; None: this machine alone.
    """

    profile: Profile
    place: Place
    tracking_uri: str
    files: FoundFiles
    weights: Sequence[str] = ()
    address: str | None = None


def sheet(request: Request) -> Iterator[CheckLine]:
    """All findings, each as soon as it is known."""
    here = gather_facts(bool(request.profile.resources.gpus))
    with storage_probe(request.place) as probe:
        if request.address is None:
            yield from machine_lines(request, here, probe)
        else:
            yield from cluster_lines(request, request.address, here, probe)
    yield from judge_tracking(ask_tracking(request.tracking_uri))
    yield from judge_weights(request.profile, request.files, request.weights, request.address is not None)


def machine_lines(request: Request, here: Facts, probe: Probe) -> Iterator[CheckLine]:
    """Findings on this machine alone."""
    found, share = {HERE: here}, request.profile.resources
    yield judge_machine(HERE, here)
    yield from judge_versions(found)
    yield from judge_code(found)
    yield from processor_lines(request, found)
    yield from judge_gpus(bool(share.gpus), found, {})
    yield from judge_onnx(bool(share.gpus), found)
    yield from judge_gpu_extra(bool(share.gpus), found)
    yield judge_share(share, {HERE: (here.cpus, len(here.torch_gpus or ()))}, {})
    yield from judge_disks(found)
    yield judge_auth_here(here)
    yield from storage_lines(request, probe, {}, ())
    yield from judge_clock(time.time(), clock_of(probe))


def cluster_lines(request: Request, address: str, here: Facts, probe: Probe) -> Iterator[CheckLine]:
    """Findings on every node of a cluster; if it cannot be reached, on the driver."""
    refused = judge_reach(address, ray_complaint(address)) or connect(address)
    if refused is not None:
        yield refused
        yield from judge_versions({DRIVER: here})
        yield from judge_code({DRIVER: here})
        yield from storage_lines(request, probe, {}, ())
        return
    import ray

    try:
        yield from node_lines(request, here, probe)
    finally:
        ray.shutdown()


def connect(address: str) -> CheckLine | None:
    """Connect to a cluster that answers; returns what went wrong, if anything did."""
    from clstudy.cluster.ray_session import start_ray  # takes seconds: torch and Ray

    try:
        start_ray(address)
    except Exception as error:  # of Ray's many kinds, or a UserError
        return judge_reach(address, telling_part(str(error)) or type(error).__name__)
    return None


def node_lines(request: Request, here: Facts, probe: Probe) -> Iterator[CheckLine]:
    """Findings on the nodes of the cluster that this process is connected to."""
    nodes, share = living_nodes(), request.profile.resources
    yield CheckLine(PASS, "cluster", f"{len(nodes)} nodes: {', '.join(node.label for node in nodes)}")
    look_for_gpus, folder, usable = bool(share.gpus), probe.folder, not probe.trouble

    def examine(label: str) -> tuple[Facts, Seen]:
        return gather_facts(look_for_gpus), visit_storage(folder, label) if usable else Seen(False)

    answers = whole_facts(ask_nodes(nodes, examine, NODE_SECONDS))
    yield from judge_answers(answers)
    answered = {label: answer.value for label, answer in answers.items() if answer.value is not None}
    found = {label: facts for label, (facts, _) in answered.items()}
    yield from (judge_machine(label, facts) for label, facts in found.items())
    yield from judge_versions({DRIVER: here, **found})
    yield from judge_code({DRIVER: here, **found})
    yield from processor_lines(request, found)
    yield from judge_gpus(look_for_gpus, found, {node.label: node.gpus for node in nodes})
    yield from judge_onnx(look_for_gpus, found)
    yield from judge_gpu_extra(look_for_gpus, found)
    yield judge_share(share, {node.label: (node.cpus, node.gpus) for node in nodes}, here.node_types)
    yield from judge_disks(found)
    yield from judge_auth(found)
    seen = {label: visit for label, (_, visit) in answered.items()}
    yield from storage_lines(request, probe, seen, [label for label in seen if has_arrived(folder, label)])
    yield from judge_clock(time.time(), clocks([node for node in nodes if node.label in found]) | clock_of(probe))


def storage_lines(request: Request, probe: Probe, seen: Mapping[str, Seen], arrived: Sequence[str]) -> list[CheckLine]:
    """Findings on the storage."""
    place = str(request.place)
    return judge_storage(place, probe, seen, arrived) + judge_room(place, probe, request.profile)


def processor_lines(request: Request, found: Mapping[str, Facts]) -> list[CheckLine]:
    """Findings on the processors, where they compute; a GPU's bits do not depend on its host."""
    on_gpu = bool(request.profile.resources.gpus)
    return [] if on_gpu or not found else judge_instruction_sets(request.profile.compute.instruction_set, found)


def clock_of(probe: Probe) -> dict[str, Span]:
    """The storage's clock, if it is known."""
    return {"the storage": probe.ahead} if probe.ahead else {}


def whole_facts(answers: Mapping[str, Answer[tuple[Facts, Seen]]]) -> dict[str, Answer[tuple[Facts, Seen]]]:
    """The answers; those of another version of clstudy, with other facts, are replaced by an error."""
    names = {entry.name for entry in fields(Facts)}
    return {
        label: answer
        if answer.value is None or set(vars(answer.value[0])) == names
        else Answer(None, "its clstudy has no attribute that this one needs", answer.sent, answer.received)
        for label, answer in answers.items()
    }
