"""Reads a study's progress, and which driver is running it, from its folder alone (no torch, no Ray)."""

from __future__ import annotations

import time
from calendar import timegm
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clstudy.records.failures import read_failures
from clstudy.records.sessions import Session, read_sessions
from clstudy.records.stage_record import StageRecord
from clstudy.records.study_record import NAME, StudyRecord, read_study_record
from clstudy.storage.content_addressed_store import STAGE_RECORD, StudyStore, is_key
from clstudy.storage.driver_lock import driver_at
from clstudy.storage.places import Place
from clstudy.storage.trees import list_files, written_at

NEWEST = 5
"""Number of stages that are listed one by one."""


@dataclass(frozen=True, kw_only=True)
class FinishedStage:
    """A finished stage, and when it was finished.

    Attributes:
        written: Unix time.
        seconds: its worker's; None if they were not recorded.
        what: person, timestamp and seed in words; empty if its record cannot be read.
    """

    written: float
    seconds: float | None
    what: str


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The plan in ``study.yaml``.

    Attributes:
        trials: their ids.
        stages: an upper limit: strategies share t = 0 of a person, seed and learning rate, and later stages if they
            keep the same photos, which is not known in advance. None if a search for learning rates left stages too.
    """

    trials: tuple[str, ...]
    stages: int | None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a study has done.

    Attributes:
        driver: card of the running driver; empty if there is none.
        planned: None until ``study.yaml`` exists (a search for learning rates writes it at its end).
        finished: trials of the plan with a result.
        failed: planned trials without a result that failed in the last complete run -> why.
        stages: number of finished stages in the folder, of this plan and earlier ones.
        newest: the stages finished last, newest first.
        sessions: runs that ended.
        seconds_left: wall time if a driver is running, otherwise time of one worker; None if there is nothing to
            estimate it from. Tends to be too high, as ``Planned.stages`` does.
    """

    driver: Mapping[str, Any]
    planned: Planned | None
    finished: int
    failed: Mapping[str, str]
    stages: int
    newest: tuple[FinishedStage, ...]
    sessions: tuple[Session, ...]
    seconds_left: float | None

    @property
    def open_trials(self) -> int:
        """Number of planned trials that neither finished nor failed."""
        return 0 if self.planned is None else len(self.planned.trials) - self.finished - len(self.failed)


def read_progress(study: Place) -> Progress:
    """Read a study's folder.

    Raises:
        UserError: it is not a study, or ``study.yaml`` is damaged.
        OSError: the storage does not answer.
    """
    driver, store = driver_at(study), StudyStore(study)
    stages = len(store.stages.sizes())
    begun = bool(driver or stages) and not (study / NAME).exists()
    planned = None if begun else _planned(read_study_record(study))
    results = {name.removesuffix(".parquet") for name in list_files(study / "results") if name.endswith(".parquet")}
    trials = () if planned is None else planned.trials
    finished = results.intersection(trials)
    failed = {trial: why for trial, why in read_failures(study).items() if trial in trials and trial not in finished}
    times = {name.removesuffix(".json"): moment for name, moment in written_at(store.timings).items()}
    times = {key: moment for key, moment in times.items() if is_key(key)}
    newest = sorted(times, key=lambda key: (-times[key], key))[:NEWEST]
    left = None
    if planned is not None and planned.stages is not None and len(finished) + len(failed) < len(trials):
        left = _seconds_left(max(planned.stages - stages, 0), driver, times, store)
    return Progress(
        driver=driver,
        planned=planned,
        finished=len(finished),
        failed=failed,
        stages=stages,
        newest=tuple(_finished_stage(store, key, times[key]) for key in newest),
        sessions=tuple(read_sessions(study)),
        seconds_left=left,
    )


def _planned(record: StudyRecord) -> Planned:
    stages, shared = 0, set()
    for entry in record.trials:
        if entry.joint:
            stages += 1
            continue
        stages += record.timestamps_of(entry.identity) - 1
        shared.add((entry.identity, entry.seed, entry.learning_rate))
    searched = record.chosen_rates is not None
    trials = tuple(entry.trial for entry in record.trials)
    return Planned(trials=trials, stages=None if searched else stages + len(shared))


def _seconds_left(left: int, driver: Mapping[str, Any], times: Mapping[str, float], store: StudyStore) -> float | None:
    """Estimate the time left at the pace of the present run, or else in time of one worker."""
    if not driver:
        seconds = store.seconds_per_stage()
        return left * sum(seconds) / len(seconds) if seconds else None
    try:
        began = timegm(time.strptime(str(driver.get("since")), "%Y-%m-%d %H:%M:%S UTC"))
    except ValueError:
        return None
    mine = [moment for moment in times.values() if moment >= began]
    return left * (max(mine) - began) / len(mine) if mine else None


def _finished_stage(store: StudyStore, key: str, written: float) -> FinishedStage:
    timing = store.timing(key)
    content = store.stages.file(key, STAGE_RECORD)
    try:
        asked = None if content is None else StageRecord.decode(content).asked
    except ValueError:
        asked = None
    what = (
        "" if asked is None else f"{asked.identity}, t = {asked.t}, seed {asked.seed}, {_replayed(len(asked.stored))}"
    )
    return FinishedStage(written=written, seconds=None if timing is None else timing.seconds, what=what)


def _replayed(count: int) -> str:
    return f"{count} stored photos" if count else "no replay"
