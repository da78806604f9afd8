"""The coordinator of a running study: the Ray actor that tracks which worker holds which stage, and all progress."""

from __future__ import annotations

import time
from typing import Any

import ray

ENOUGH = "so many stages were asked for"
LOCK_SECONDS = 20.0
"""A lock is free again once its worker has sent no heartbeat for this long."""


class Coordinator:
    """Stage locks and the state that the progress display reads. Nothing of it outlives the study's run."""

    def __init__(self, most_stages: int | None = None) -> None:
        self._most_stages = most_stages
        self._locks: dict[str, str] = {}
        self._heard: dict[str, float] = {}
        self._running: dict[str, dict[str, Any]] = {}
        self._finished: dict[str, str] = {}
        self._stages = {"computed": 0, "reused": 0, "seconds": 0.0, "repeated": 0}
        self._computed: set[str] = set()
        self._chains: dict[str, list[tuple[str, str | None]]] = {}
        self._lost: dict[str, int] = {}
        self._troubles: dict[str, str] = {}
        self._deaths = 0
        self._notes: dict[str, None] = {}  # a set that keeps its order
        self._stop = ""
        self._pause = ""

    def acquire(self, key: str, owner: str) -> bool:
        """Lock a stage; False while another living worker holds it."""
        now = time.monotonic()
        self._heard[owner] = now
        holder = self._locks.get(key)
        if holder not in (None, owner) and now - self._heard.get(holder, 0.0) < LOCK_SECONDS:
            return False
        self._locks[key] = owner
        return True

    def release(self, key: str, owner: str) -> None:
        """Release a lock if this worker holds it."""
        if self._locks.get(key) == owner:
            del self._locks[key]

    def beat(self, owner: str) -> None:
        """Take a worker's heartbeat."""
        self._heard[owner] = time.monotonic()

    def begin(self, trial: str) -> tuple[int, str]:
        """Start a trial; returns how many workers died on it since its last finished stage, and the last trouble."""
        self._chains[trial] = []
        return self._lost.get(trial, 0), self._troubles.get(trial, "")

    def died(self, trial: str) -> None:
        """Count the death of a trial's worker (or a worker that could not be set up)."""
        self._lost[trial] = self._lost.get(trial, 0) + 1
        self._deaths += 1

    def trouble(self, trial: str, text: str) -> None:
        """Record why a worker could not start a trial, for the error message if it keeps happening."""
        self._troubles[trial] = text

    def stop(self, reason: str) -> None:
        """Let no worker begin another stage; stages under way are finished."""
        self._stop = reason

    def pause(self, reason: str) -> None:
        """Let no worker begin another trial for this reason; an empty one ends the pause."""
        self._pause = reason

    def paused(self) -> str:
        """Why no trial may begin; empty if one may."""
        return "" if self._stop else self._pause

    def stopping(self) -> str:
        """Why the study is stopping; empty while it is not."""
        return self._stop

    def progress(self, trial: str, state: dict[str, Any]) -> None:
        """Record where a trial is: t, phase, done, total, loss."""
        if trial not in self._finished:
            self._running[trial] = state

    def stage(self, trial: str, key: str, learned: str | None, *, reused: bool, seconds: float) -> None:
        """Record a stage computed or read from the store; ``learned`` as in ``clstudy.study.retention.Chain``."""
        self._chains.setdefault(trial, []).append((key, learned))
        self._stages["reused" if reused else "computed"] += 1
        if reused:
            return
        self._lost.pop(trial, None)
        self._stages["repeated"] += key in self._computed
        self._computed.add(key)
        self._stages["seconds"] += seconds
        if self._most_stages is not None and self._stages["computed"] >= self._most_stages:
            self.stop(ENOUGH)

    def chains(self) -> tuple[dict[str, list[tuple[str, str | None]]], set[str]]:
        """Stages of every trial so far, and the trials that ended."""
        return {trial: list(chain) for trial, chain in self._chains.items()}, set(self._finished)

    def note(self, text: str) -> None:
        """Keep a worker's note for readers of the results; repetitions of the same note are dropped."""
        self._notes.setdefault(text)

    def finish(self, trial: str, failure: str) -> None:
        """Record that a trial ended; ``failure`` is empty or says why it failed."""
        self._running.pop(trial, None)
        self._finished[trial] = failure

    def snapshot(self) -> dict[str, Any]:
        """Everything that the display shows."""
        return {
            "running": dict(self._running),
            "finished": dict(self._finished),
            "stages": dict(self._stages),
            "notes": list(self._notes),
            "deaths": self._deaths,
            "stopping": self._stop,
        }


CoordinatorActor = ray.remote(num_cpus=0)(Coordinator)
