"""Runs functions on the nodes of a Ray cluster and compares their clocks. Ray is imported where it is used."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

NODE_SECONDS = 90.0
"""For a node to answer, from a worker process that must first be started."""
_REACH_SECONDS = 20.0
_PORT_SECONDS = 5.0
_LONGEST = 300


def ray_complaint(address: str, seconds: float = _REACH_SECONDS) -> str | None:
    """Check whether a Ray cluster accepts us: "" if so, else Ray's message; None if nothing answers in time.

    This runs in a process of its own: with a wrong address or token Ray tries for minutes, or ends its process.
    """
    if refusal := _port_refusal(address):
        return refusal
    named = [] if address == "auto" else ["--address", address]
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", *named]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode == 0 or "No such command" in done.stderr:  # no promise of Ray's: without it we try to connect
        return ""
    return telling_part(done.stderr) or f"`ray health-check` ended with {done.returncode}"


def _port_refusal(address: str) -> str:
    """Why nothing can be reached at host:port (a quick check); "" if something answers, or without a port."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return ""
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PORT_SECONDS).close()
    except (OSError, OverflowError) as error:
        return f"nothing answers there ({why(error)})"
    return ""


def telling_part(text: str) -> str:
    """The line of a failed process's output that says what went wrong; "" if it wrote nothing."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if "ersion mismatch" in line:
            return " ".join(lines[number : number + 6])[:_LONGEST]
    telling = [line for line in lines if re.search(r"has_token|^[\w.]*Error\b|No module named", line)]
    return (telling or lines or [""])[-1][:_LONGEST]


@dataclass(frozen=True)
class Node:
    """A living node: its id in Ray, its name in the doctor's sheet, and what Ray offers there."""

    id: str
    label: str
    cpus: float
    gpus: float


def living_nodes() -> list[Node]:
    """Nodes of the connected cluster; several on one host are labelled with the beginning of their ids."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # of Ray
    hosts = [node["NodeManagerHostname"] for node in alive]
    return [
        Node(
            id=node["NodeID"],
            label=host if hosts.count(host) == 1 else f"{host}/{node['NodeID'][:6]}",
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
        )
        for node, host in zip(alive, hosts, strict=True)
    ]


def ask_nodes(nodes: Sequence[Node], action: Callable[[str], T], seconds: float) -> dict[str, Answer[T]]:
    """Run ``action(label)`` on every node at once; a node that fails or hangs does not affect the others' answers."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(action)
    sent, waiting, answers = {}, {}, {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        sent[node.label] = time.time()
        waiting[task.options(scheduling_strategy=there).remote(node.label)] = node.label
    deadline = time.monotonic() + seconds
    while waiting:
        done, _ = ray.wait(list(waiting), num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
        received = time.time()
        for call in done or list(waiting):
            label = waiting.pop(call)
            try:
                value, trouble = ray.get(call, timeout=0 if not done else None), ""
            except Exception as error:  # of Ray's many kinds, or the action's own
                value, trouble = None, _task_trouble(error, seconds)
            answers[label] = Answer(value, trouble, sent[label], received)
    return {node.label: answers[node.label] for node in nodes}


def _task_trouble(error: Exception, seconds: float) -> str:
    import ray

    if isinstance(error, ray.exceptions.GetTimeoutError):
        return f"no answer within {seconds:.0f} s"
    return telling_part(str(error)) or type(error).__name__


def clocks(nodes: Sequence[Node], rounds: int = 3) -> dict[str, Span]:
    """How far every node's clock is ahead of ours (s), at least and at most, from the quickest of several calls."""
    bounds: dict[str, Span] = {}
    for _ in range(rounds):
        for label, answer in ask_nodes(nodes, lambda label: time.time(), NODE_SECONDS).items():
            if answer.value is not None:
                least, most = bounds.get(label, (-float("inf"), float("inf")))
                bounds[label] = (max(least, answer.value - answer.received), min(most, answer.value - answer.sent))
    return bounds


Span = tuple[float, float]
"""How far a clock is ahead of the driver's, in seconds: at least, at most (the time a call takes blurs it)."""


@dataclass(frozen=True)
class Answer(Generic[T]):
    """A node's answer: a value or, if it is None, what went wrong; and when the driver asked and heard (s, UTC)."""

    value: T | None
    trouble: str
    sent: float
    received: float


def why(error: BaseException) -> str:
    """The first line of an error's message."""
    lines = str(getattr(error, "strerror", None) or error).strip().splitlines()
    return textwrap.shorten(lines[0] if lines else type(error).__name__, 300, placeholder=" …")
