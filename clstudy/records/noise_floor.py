"""``report/noise.json``: what another kind of processor changes in a study's scores. Written and read here only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from clstudy.storage.checksums import State, read_checked, write_checked
from clstudy.storage.documents import MOST_JSON_BYTES, is_number, json_object
from clstudy.storage.places import Place

NOISE = "report/noise.json"
"""With the report, so that whatever removes a person from the report removes this, too: its means have them in."""


@dataclass(frozen=True, kw_only=True)
class ScoreNoise:
    """The change of one score from one kind of processor to another.

    Attributes:
        trials: number of trials computed on both.
        rms: root mean square of the change of a trial's score.
        largest: largest change of a trial's score.
    """

    protocol: str
    metric: str
    score: str
    trials: int
    rms: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class NoiseFloor:
    """What the order of rounding alone changes.

    Attributes:
        here, there: kinds of processor that computed the study and its repetition.
        scores: one entry for each protocol, metric and score that both have.
    """

    here: str
    there: str
    scores: tuple[ScoreNoise, ...]

    def of(self, protocol: str, metric: str, score: str) -> ScoreNoise | None:
        """The entry of a score, or None."""
        return next(
            (one for one in self.scores if (one.protocol, one.metric, one.score) == (protocol, metric, score)), None
        )


def read_noise_floor(study: Place) -> NoiseFloor | None:
    """The study's noise floor; None if it was not measured, or the record is damaged."""
    try:
        state, content = read_checked(study / NOISE, MOST_JSON_BYTES)
        found = json_object(content) if state in (State.WHOLE, State.UNCHECKED) else {}
    except (OSError, ValueError):
        return None
    here, there, scores = (found.get(name) for name in ("here", "there", "scores"))
    if not (isinstance(here, str) and isinstance(there, str) and isinstance(scores, list)):
        return None
    entries = [entry for entry in scores if _is_entry(entry)]
    return NoiseFloor(here=here, there=there, scores=tuple(ScoreNoise(**entry) for entry in entries))


def write_noise_floor(study: Place, floor: NoiseFloor) -> None:
    """Write the file with its checksum."""
    write_checked(study / NOISE, (json.dumps(asdict(floor), indent=1) + "\n").encode())


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or set(entry) != {field.name for field in fields(ScoreNoise)}:
        return False
    numbers = {"trials", "rms", "largest"}
    return all(is_number(value) if name in numbers else isinstance(value, str) for name, value in entry.items())
