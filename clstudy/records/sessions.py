"""``sessions.json``: the expected and actual time of every run of a study (no torch, no Ray)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from clstudy.settings.profiles import Resources
from clstudy.storage.checksums import State, read_checked, write_checked
from clstudy.storage.documents import MOST_JSON_BYTES, is_number, load_json
from clstudy.storage.places import Place

FILE = "sessions.json"


@dataclass(frozen=True, kw_only=True)
class Session:
    """One run of the main command on a study.

    Attributes:
        began: UTC, to the second.
        part: "trials", "search" (of learning rates) or "pilot".
        ended: "finished", or why it stopped before its end.
        stages_planned: most stages to compute according to the plan.
        expected_seconds, seconds: wall time.
        expected_worker_seconds, worker_seconds: summed over workers.
        gpus, cpus: of one worker.
        price_per_hour: of one GPU (of one core if trials use no GPU), as given; None if not given.
        deaths: number of workers that died during the run.
    """

    began: str
    part: str
    ended: str
    stages_planned: int
    stages_computed: int
    stages_reused: int
    stages_repeated: int
    expected_seconds: float
    seconds: float
    expected_worker_seconds: float
    worker_seconds: float
    gpus: float
    cpus: float
    price_per_hour: float | None
    deaths: int
    weights_dropped: int


def now() -> str:
    """The present time in UTC, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())


def read_sessions(study: Place) -> list[Session]:
    """All runs of a study in order; empty if the record is missing or damaged."""
    try:
        state, content = read_checked(study / FILE, MOST_JSON_BYTES)
        entries = load_json(content) if state in (State.WHOLE, State.UNCHECKED) else []
    except (OSError, ValueError):
        return []
    return [Session(**entry) for entry in entries if _is_session(entry)] if isinstance(entries, list) else []


def add_session(study: Place, session: Session) -> None:
    """Append a run to the record."""
    entries: list[dict[str, Any]] = [asdict(one) for one in [*read_sessions(study), session]]
    write_checked(study / FILE, (json.dumps(entries, indent=1) + "\n").encode())


def _is_session(entry: object) -> bool:
    """Whether an entry of the file has every field of a session, each of its type."""
    if not isinstance(entry, Mapping) or set(entry) != {field.name for field in fields(Session)}:
        return False
    words = {"began", "part", "ended"}
    return all(
        isinstance(value, str) if name in words else is_number(value) or (name == "price_per_hour" and value is None)
        for name, value in entry.items()
    )


def hours_unit(resources: Resources) -> str:
    """The unit of a worker's hours: "GPU-hours" or "core-hours"."""
    return "GPU-hours" if resources.gpus else "core-hours"


def unit_hours(resources: Resources, worker_seconds: float) -> float:
    """Worker time in ``hours_unit``."""
    return worker_seconds / 3600 * (resources.gpus or resources.cpus)


def priced_hours(resources: Resources, worker_seconds: float, price: float | None) -> str:
    """Worker time in words, with its cost if an hour has a price: "1.50 GPU-hours, 3.00 at 2 each"."""
    hours = unit_hours(resources, worker_seconds)
    paid = "" if price is None else f", {hours * price:.2f} at {price:g} each"
    return f"{hours:.2f} {hours_unit(resources)}{paid}"


def duration(seconds: float) -> str:
    """A duration in a readable unit: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
