"""How much choosing could matter, for the plan: from this study's own rows so far, or from one beside it (no torch)."""

from __future__ import annotations

from collections.abc import Mapping

from clstudy.analysis.headroom import HEADROOM, Headroom, read_headrooms, sentences
from clstudy.errors import UserError
from clstudy.records.study_record import NAME, StudyRecord
from clstudy.settings.profile_documents import profile_from_document
from clstudy.settings.space import SearchSpace
from clstudy.storage.documents import MOST_JSON_BYTES, STUDY
from clstudy.storage.places import Place, read_plain
from clstudy.strategies.lookup import strategy_class
from clstudy.study.preparation import PreparedStudy
from clstudy.trial.requests import identity_digest

UNKNOWN = (
    "headroom not measured yet: how much the choice of photos can matter here is known when lower, er_rand (two seeds) "
    "and upper have run on these photos"
)


def headroom_lines(prepared: PreparedStudy) -> list[str]:
    """Lines on the main metric's headroom at the planned buffer sizes; none if the space compares no choices."""
    if prepared.searching is not None or not compares_choices(prepared.space):
        return []
    for study in (prepared.out, *prepared.others):
        found = _of_interest(prepared, _headrooms(study))
        if found and (study == prepared.out or _same_photos(prepared, study)):
            whose = "this study" if study == prepared.out else f"study {study.name}, on photos of this one"
            first, *more = sentences(found)
            return [f"headroom {first} (from {whose})", *(f"         {sentence}" for sentence in more)]
    return [UNKNOWN]


def compares_choices(space: SearchSpace) -> bool:
    """Whether two strategies of a space, or more, choose what to store."""
    return sum(strategy_class(name).uses_buffer_size for name in space.grid.strategy) > 1


def _headrooms(study: Place) -> list[Headroom]:
    try:
        return read_headrooms(read_plain(study / "report" / HEADROOM, MOST_JSON_BYTES))
    except (OSError, ValueError):
        return []


def _of_interest(prepared: PreparedStudy, found: list[Headroom]) -> list[Headroom]:
    """Those of the first metric, at the planned sizes and, if listed there, rates."""
    if not found:
        return []
    main = (found[0].cell.protocol, found[0].cell.metric)
    planned = {(spec.buffer_size, spec.learning_rate) for spec in prepared.plan.trials if spec.buffer_size is not None}
    return [
        one
        for one in found
        if (one.cell.protocol, one.cell.metric) == main
        and any(size == one.cell.buffer_size and one.cell.learning_rate in (rate, None) for size, rate in planned)
    ]


def _same_photos(prepared: PreparedStudy, study: Place) -> bool:
    """Whether another study has these settings, and some of these people."""
    try:
        record = StudyRecord.decode(read_plain(study / NAME, STUDY.size))
    except (OSError, ValueError):
        return False
    ours = {identity.name: identity_digest(identity) for identity in prepared.data.identities}
    theirs = (record.data_digests or {}).items()
    if not isinstance(record.profile, Mapping) or not ours.items() & theirs:
        return False
    try:
        return profile_from_document(record.profile) == prepared.profile
    except UserError:  # of another version, or a class that is not here
        return False
