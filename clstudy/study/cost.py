"""Estimates a study's cost: work in photo passes, and seconds per pass from measured stages (no torch, no Ray).

A stage spends nearly all its time on passes of one photo through generator and LPIPS, forward and backward: in the
trainer's steps and in the test-time inversions of all earlier test photos. So a stage's *work* is the number of these
passes. Seconds per pass carry over between timestamps, strategies and studies with the same settings; seconds per
stage do not (the last timestamp tests five times as many photos as the first).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clstudy.settings.profiles import PROFILES, Profile
from clstudy.storage.content_addressed_store import Timing
from clstudy.storage.documents import MOST_JSON_BYTES, is_number, load_json
from clstudy.storage.places import Place, read_plain, write_atomically
from clstudy.storage.trees import folders_in
from clstudy.trial.work import work_of

HISTORY = "history.json"
"""File in a study's folder: seconds, work and stages so far by ``cost_kind``, for the plans of neighbouring studies."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """A worker's seconds per photo pass, and where the number comes from."""

    seconds_per_pass: float
    source: str
    stages: int


def pace_from(timings: Iterable[Timing], kind: str) -> Pace | None:
    """The pace of a study's own stages; None if it has none of this kind."""
    known = [timing for timing in timings if timing.work and timing.kind == kind]
    if not known:
        return None
    seconds, work = sum(timing.seconds for timing in known), sum(timing.work or 0.0 for timing in known)
    return Pace(seconds_per_pass=seconds / work, source="the stages computed so far", stages=len(known))


def pace_of_profile(profile: Profile) -> Pace:
    """The pace that follows from a profile's seconds of an average stage.

    Those were measured with the profile's own photos, epochs and inversion steps, so the profile is taken as it is
    registered: a study with other settings or more photos has another amount of work at the same pace.
    """
    usual = PROFILES[profile.name]() if profile.name in PROFILES else profile
    data = usual.data
    works = [
        work_of(usual, new=data.train, replayed=t > 0, tested=[data.test] * (t + 1)) for t in range(data.timestamps)
    ]
    return Pace(
        seconds_per_pass=profile.stage_seconds * len(works) / sum(works), source=profile.estimate_from, stages=0
    )


def write_history(study: Place, timings: Sequence[Timing]) -> None:
    """Sum up a study's timings for the plans of other studies on the same storage."""
    totals: dict[str, dict[str, float]] = {}
    for timing in timings:
        if timing.kind is not None and timing.work:
            total = totals.setdefault(timing.kind, {"seconds": 0.0, "work": 0.0, "stages": 0})
            total["seconds"] += timing.seconds
            total["work"] += timing.work
            total["stages"] += 1
    write_atomically(study / HISTORY, json.dumps(totals, indent=1).encode())


def pace_of_neighbours(study: Place, kind: str) -> Pace | None:
    """The pace of other studies in the same storage (``write_history``); None if none has such stages."""
    seconds = work = 0.0
    stages = 0
    for name, document in _neighbours(study.parent):
        entry = document.get(kind)
        if name == study.name or not isinstance(entry, Mapping):
            continue
        found = [entry.get(what) for what in ("seconds", "work", "stages")]
        numbers = [float(value) for value in found if is_number(value) and value > 0]
        if len(numbers) == len(found):  # a damaged file is no reason to stop
            seconds, work, stages = seconds + numbers[0], work + numbers[1], stages + int(numbers[2])
    if not work:
        return None
    return Pace(
        seconds_per_pass=seconds / work, source=f"{stages} stages of other studies in this storage", stages=stages
    )


def _neighbours(storage: Place) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for place in folders_in(storage):
        try:
            document = load_json(read_plain(place / HISTORY, MOST_JSON_BYTES))
        except (OSError, ValueError):
            continue
        if isinstance(document, dict):
            found.append((place.name, document))
    return found
