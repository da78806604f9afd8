"""The watcher of a running study: progress display, dropped weights, budget, disk and signals."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray

from clstudy.cluster.study_settings import StudySettings
from clstudy.cluster.tune_adapter import Gate
from clstudy.storage.places import MIN_FREE_BYTES, Place, free_bytes
from clstudy.study.weight_cleanup import WeightKeeper
from clstudy.tracking.local_database import database_file

BUDGET = "the budget is used up"
DISK_FULL = "the disk stayed too full to begin another trial"
_DISK_PATIENCE_S = 900.0
Display = Callable[[Mapping[str, Any]], None]


class Watcher:
    """A thread beside ``fit``: shows the coordinator's snapshots, drops weights, watches budget, disk and signals."""

    def __init__(
        self,
        settings: StudySettings,
        coordinator: Any,
        gate: Gate,
        keeper: WeightKeeper | None,
        show: Display,
        say: Callable[[str], None],
        every: float = 0.5,
    ):
        self._settings = settings
        self._coordinator = coordinator
        self._gate = gate
        self._keeper = keeper
        self._show = show
        self._say = say
        self._every = every
        self._started = time.monotonic()
        self._full_since: float | None = None
        self._database: tuple[int, int] | None = None
        self._swept: tuple[int, int] | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=10)

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            try:
                self._update()
            except Exception:  # neither the display nor tidying up may stop a study
                continue

    def _update(self) -> None:
        snapshot = ray.get(self._coordinator.snapshot.remote(), timeout=5)
        self._check_limits(snapshot)
        self._check_database()
        if self._gate.reason and not snapshot["stopping"]:
            self._coordinator.stop.remote(self._gate.reason)
        self._show(snapshot)
        stages = snapshot["stages"]
        reached = (stages["computed"] + stages["reused"], len(snapshot["finished"]))
        if self._keeper is not None and reached != self._swept:  # all chains are too much to fetch twice a second
            self._keeper.sweep(*ray.get(self._coordinator.chains.remote(), timeout=5))
            self._swept = reached

    def _check_database(self) -> None:
        """Warn if MLflow's local database is deleted or replaced while the study runs."""
        now = database_file(self._settings.tracking_uri)
        if self._database is not None and now != self._database:
            self._say(lost_database(self._settings.tracking_uri, self._settings.out))
        self._database = now

    def _check_limits(self, snapshot: Mapping[str, Any]) -> None:
        settings = self._settings
        if settings.budget_seconds is not None and time.monotonic() - self._started > settings.budget_seconds:
            self._stop(BUDGET)
        if snapshot["stopping"]:
            self._gate.stop(snapshot["stopping"])
        free, wanted = free_bytes(settings.out), room_for_a_trial(settings)
        if free is None or free >= wanted:
            if self._gate.paused:
                self._say("there is room again: the study goes on")
                self._coordinator.pause.remote("")
            self._gate.paused, self._full_since = "", None
            return
        if self._full_since is None:
            self._full_since = time.monotonic()
            self._gate.paused = "low disk"
            self._coordinator.pause.remote(self._gate.paused)
            self._say(
                f"only {free / 1e9:.2f} GB are free at {settings.out}: no new trial begins below "
                f"{wanted / 1e9:.2f} GB. Make room; the study goes on by itself"
            )
        if not snapshot["running"] and time.monotonic() - self._full_since > _DISK_PATIENCE_S:
            self._stop(DISK_FULL)

    def _stop(self, reason: str) -> None:
        if not self._gate.reason:
            self._say(f"{reason}: finishing the stages in flight")
        self._gate.stop(reason)


def lost_database(uri: str, out: Place) -> str:
    """The warning that MLflow's database is gone, and what to do about it."""
    return (
        f"MLflow's database {uri} was deleted or replaced while the study was running. The rows are safe; runs that "
        "MLflow lacks are written again from them when the study ends, or by "
        f"`python -m clstudy.tracking rebuild {out} --to {uri}`"
    )


def room_for_a_trial(settings: StudySettings) -> int:
    """Free bytes below which no trial begins: room for what the trials under way may still write, and a reserve."""
    timestamps = max(len(identity.timestamps) for identity in settings.data.identities)
    return max(MIN_FREE_BYTES, 2 * timestamps * settings.basis.profile.stage_bytes)
