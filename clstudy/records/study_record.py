"""``study.yaml``: what a study was asked to do, and with what. Written and read here only (no torch, no Ray).

Files of old versions, or written by hand, lack fields, so nearly everything is optional; code that needs more than the
trials requires a ``CompleteRecord``. The fields mean the same in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import yaml

from clstudy.errors import UserError
from clstudy.settings.claims import Statement, read_statements
from clstudy.settings.metric_facts import OwnMetric, known_metrics, read_own_metrics
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.checksums import State, read_checked, write_checked
from clstudy.storage.documents import STUDY, load_yaml, shorten
from clstudy.storage.places import Place, first_line

NAME = "study.yaml"
MOST_TIMESTAMPS = 1000
"""Largest plausible number of timestamps in ``study.yaml``: matrices have the square of this many cells."""

_EXPECTED = "Give a folder that `clstudy run` wrote, such as runs/hull_sizes"
_REMEDY = "run the study again: it writes the file anew"
_WHOLE_NUMBERS = range(-(2**63), 2**63)  # as the rows hold them
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TrialEntry:
    """A trial of the plan.

    Attributes:
        trial: its id, which is the name of its files.
        buffer_size: None if the strategy does not depend on it.
        joint: whether its strategy is joint training; None if the file does not say.
        timestamps: joint training on the first so many alone; None: on all.
        other: fields from another version.
    """

    trial: str
    identity: str
    strategy: str
    buffer_size: int | None
    learning_rate: float
    seed: int
    joint: bool | None = None
    timestamps: int | None = None
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: TrialSpec, *, joint: bool) -> TrialEntry:
        """The entry of a planned trial; ``joint`` is only written if it is true."""
        return cls(**spec.columns(), joint=joint or None, timestamps=spec.timestamps)

    @property
    def spec(self) -> TrialSpec:
        """The trial as it was planned."""
        return TrialSpec(
            identity=self.identity,
            strategy=self.strategy,
            buffer_size=self.buffer_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
            timestamps=self.timestamps,
        )

    def document(self) -> dict[str, Any]:
        """As ``study.yaml`` holds it."""
        said = {name: getattr(self, name) for name in _names(TrialEntry)}
        optional = ("joint", "timestamps")
        return {name: value for name, value in said.items() if name not in optional or value is not None} | dict(
            self.other
        )

    @classmethod
    def read(cls, entry: object, where: str) -> TrialEntry:
        """Check an entry of the file.

        Raises:
            ValueError: it lacks a field, or one is of another type.
        """
        values = _mapping(entry, where)
        joint = values.get("joint")
        if joint is not None and not isinstance(joint, bool):
            raise ValueError(f"{where}.joint is {shorten(joint)}, expected true or false")
        return cls(
            trial=_text(_needed(values, "trial", where), f"{where}.trial"),
            identity=_text(_needed(values, "identity", where), f"{where}.identity"),
            strategy=_text(_needed(values, "strategy", where), f"{where}.strategy"),
            buffer_size=_optional(_whole, _needed(values, "buffer_size", where), f"{where}.buffer_size"),
            learning_rate=_rate(_needed(values, "learning_rate", where), f"{where}.learning_rate"),
            seed=_whole(_needed(values, "seed", where), f"{where}.seed"),
            joint=joint,
            timestamps=_optional(_count, values.get("timestamps"), f"{where}.timestamps"),
            other=_others(values, TrialEntry),
        )


@dataclass(frozen=True, kw_only=True)
class ChosenRate:
    """The learning rate that a search chose for a strategy and buffer size."""

    strategy: str
    buffer_size: int | None
    learning_rate: float
    other: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As ``study.yaml`` holds it."""
        return {name: getattr(self, name) for name in _names(ChosenRate)} | dict(self.other)

    @classmethod
    def read(cls, entry: object, where: str) -> ChosenRate:
        """Check an entry of the file.

        Raises:
            ValueError: it lacks a field, or one is of another type.
        """
        values = _mapping(entry, where)
        return cls(
            strategy=_text(_needed(values, "strategy", where), f"{where}.strategy"),
            buffer_size=_optional(_whole, _needed(values, "buffer_size", where), f"{where}.buffer_size"),
            learning_rate=_rate(_needed(values, "learning_rate", where), f"{where}.learning_rate"),
            other=_others(values, ChosenRate),
        )


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A study's settings; a field that is None is not in the file.

    Attributes:
        name: its search space's name.
        profile: settings as plain values (``clstudy.settings.profiles.Profile.to_dict``), or the profile's name only.
        data_set: name of the data set, or of the folder of photos.
        timestamps: identity -> number of timestamps; a single number if it is the same for all.
        buffer_sizes: of the plan, ascending.
        horizons: numbers of timestamps to report (a space's ``grid.timestamps``), ascending.
        claims: what the space claimed, and when (``clstudy.settings.claims``); empty if it never claimed anything.
        trials: in the plan's order.
        chosen_rates: the rate of every cell, if a search chose them.
        objective: protocol and metric that searches of this study's workload optimise, in one word; None: the first
            workload's, ``reconstruction_lpips``.
        generator: digest of the pretrained generator.
        metric_files: role -> sha256 of weights from outside the package that metrics use.
        metrics: those in its rows beyond the packaged ones: the user's own, or what its workload measures.
        fingerprint: everything about the machine's arithmetic that may change a bit.
        data_digests: identity -> digest over all photos.
        versions: package -> version; None for one that was not installed.
        git_commit: of clstudy's checkout; None if there was none; empty if the file does not say.
        other: fields from another version.
    """

    name: str | None = None
    description: str | None = None
    profile: Mapping[str, Any] | str | None = None
    data_set: str | None = None
    timestamps: Mapping[str, int] | int | None = None
    buffer_sizes: tuple[int, ...] | None = None
    horizons: tuple[int, ...] | None = None
    claims: tuple[Statement, ...] = ()
    trials: tuple[TrialEntry, ...]
    chosen_rates: tuple[ChosenRate, ...] | None = None
    objective: str | None = None
    generator: str | None = None
    metric_files: Mapping[str, str] | None = None
    metrics: tuple[OwnMetric, ...] = ()
    fingerprint: Mapping[str, Any] | None = None
    data_digests: Mapping[str, str] | None = None
    versions: Mapping[str, Any] | None = None
    git_commit: str | None = ""
    other: Mapping[str, Any] = field(default_factory=dict)

    @property
    def profile_name(self) -> str | None:
        """The profile's name, if the file has it."""
        name = self.profile.get("name") if isinstance(self.profile, Mapping) else self.profile
        return None if name is None else str(name)

    def timestamps_of(self, identity: str) -> int:
        """How many timestamps an identity has.

        Raises:
            UserError: the file does not say.
        """
        found = self.timestamps.get(identity) if isinstance(self.timestamps, Mapping) else self.timestamps
        if found is None:
            raise _unsaid(NAME, f"timestamps.{identity}")
        return found

    def document(self) -> dict[str, Any]:
        """As ``study.yaml`` holds it: plain values, in the file's order."""
        said = {name: getattr(self, name) for name in _names(StudyRecord)} | {
            "buffer_sizes": None if self.buffer_sizes is None else list(self.buffer_sizes),
            "horizons": None if self.horizons is None else list(self.horizons),
            "claims": [statement.document() for statement in self.claims] or None,
            "trials": [trial.document() for trial in self.trials],
            "metrics": {one.place: one.document() for one in self.metrics} or None,
            "chosen_rates": None if self.chosen_rates is None else [rate.document() for rate in self.chosen_rates],
        }
        commit = {} if said.pop("git_commit") == "" else {"git_commit": self.git_commit}
        plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in said.items()}
        return {name: value for name, value in plain.items() if value is not None} | commit | dict(self.other)

    def encode(self) -> bytes:
        """As the file holds it."""
        return yaml.safe_dump(self.document(), sort_keys=False).encode()

    @classmethod
    def decode(cls, content: bytes) -> StudyRecord:
        """Read the file.

        Raises:
            ValueError: it is not YAML, is nested too deeply, lists no trials, or a field has another type.
        """
        values = _mapping(load_yaml(content.decode()), "the file")
        metrics = read_own_metrics(values.get("metrics"))
        return cls(
            name=_optional(_text, values.get("name"), "name"),
            description=_optional(_text, values.get("description"), "description"),
            profile=_optional(_profile, values.get("profile"), "profile"),
            data_set=_optional(_text, values.get("data_set"), "data_set"),
            timestamps=_optional(_timestamps, values.get("timestamps"), "timestamps"),
            buffer_sizes=_optional(_sizes, values.get("buffer_sizes"), "buffer_sizes"),
            horizons=_optional(_horizons, values.get("horizons"), "horizons"),
            claims=read_statements(values.get("claims"), known_metrics(metrics)),
            trials=_entries(TrialEntry.read, _needed(values, "trials", "the file"), "trials"),
            chosen_rates=_optional(_chosen, values.get("chosen_rates"), "chosen_rates"),
            objective=_optional(_text, values.get("objective"), "objective"),
            generator=_optional(_text, values.get("generator"), "generator"),
            metric_files=_optional(_texts, values.get("metric_files"), "metric_files"),
            metrics=metrics,
            fingerprint=_optional(_mapping, values.get("fingerprint"), "fingerprint"),
            data_digests=_optional(_texts, values.get("data_digests"), "data_digests"),
            versions=_optional(_mapping, values.get("versions"), "versions"),
            git_commit=_optional(_text, values.get("git_commit", ""), "git_commit"),
            other=_others(values, StudyRecord),
        )

    def complete(self, path: Place) -> CompleteRecord:
        """This record with everything needed to compute, export or forget a study.

        Raises:
            UserError: fields are missing. ``path`` is the file to name.
        """
        lacking = [name for name, kind in _COMPLETE.items() if not isinstance(getattr(self, name), kind)]
        if lacking:
            raise _unsaid(path, ", ".join(sorted(lacking)))
        return CompleteRecord(**{entry.name: getattr(self, entry.name) for entry in fields(self)})


@dataclass(frozen=True, kw_only=True)
class CompleteRecord(StudyRecord):
    """A record with all fields, as every run writes it once it is prepared."""

    name: str
    profile: Mapping[str, Any]
    timestamps: Mapping[str, int]
    generator: str
    fingerprint: Mapping[str, Any]
    data_digests: Mapping[str, str]

    @property
    def named_profile(self) -> str:
        """The profile's name.

        Raises:
            UserError: the file does not say.
        """
        if self.profile_name is None:
            raise _unsaid(NAME, "profile.name")
        return self.profile_name

    def digest_of_photos(self, identity: str) -> str:
        """The digest over all photos of an identity.

        Raises:
            UserError: the file does not say.
        """
        if identity not in self.data_digests:
            raise _unsaid(NAME, f"data_digests.{identity}")
        return self.data_digests[identity]


_COMPLETE: Mapping[str, type] = {
    "name": str,
    "profile": Mapping,
    "timestamps": Mapping,
    "generator": str,
    "fingerprint": Mapping,
    "data_digests": Mapping,
}
"""Fields that a ``CompleteRecord`` must have -> their type."""


def read_study_record(study: Place) -> StudyRecord:
    """The record in a study's folder, local or in an object store.

    Raises:
        UserError: no such folder, no ``study.yaml`` in it, or one that is damaged or cannot be understood.
    """
    content = require_study(study)
    try:
        return StudyRecord.decode(content)
    except ValueError as error:
        raise not_understood(study / NAME, error) from error


def require_study(study: Place) -> bytes:
    """The content of a study's ``study.yaml``, as it was written; anything that is not a study is refused here.

    Raises:
        UserError: no such folder, no ``study.yaml`` in it, or a damaged one.
    """
    if not study.is_dir():
        raise UserError(f"no such study folder: {study}. {_EXPECTED}.")
    try:
        state, content = read_checked(study / NAME, STUDY.size)
    except OSError as error:
        raise UserError(f"{study} is not a study: {NAME} cannot be read ({first_line(error)}). {_EXPECTED}.") from error
    if state is State.ABSENT:
        raise UserError(f"{study} is not a study: it has no {NAME}. {_EXPECTED}.")
    if state is State.DAMAGED:
        raise UserError(
            f"{study / NAME} does not match its checksum: it changed since it was written. To mend it, {_REMEDY}."
        )
    return content


def read_complete_record(study: Place) -> CompleteRecord:
    """The record of a study, complete enough to compute, export, track or change it.

    Raises:
        UserError: as ``read_study_record``, or a field is missing.
    """
    return read_study_record(study).complete(study / NAME)


def write_study_record(study: Place, record: StudyRecord) -> None:
    """Write ``study.yaml`` and its checksum."""
    write_checked(study / NAME, record.encode())


def not_understood(path: Place, error: Exception) -> UserError:
    """The message for a ``study.yaml`` with unexpected content."""
    message = " ".join(str(error).split())[:300]
    return UserError(f"{path} cannot be understood ({message}). To mend it, {_REMEDY}.")


def _unsaid(path: Place | str, what: str) -> UserError:
    return UserError(f"{path} says nothing about {what}. {_EXPECTED}.")


# --- types of values -------------------------------------------------------------------------------------------------


def _names(kind: type[TrialEntry | ChosenRate | StudyRecord]) -> tuple[str, ...]:
    return tuple(entry.name for entry in fields(kind) if entry.name != "other")


def _others(values: Mapping[str, Any], kind: type[TrialEntry | ChosenRate | StudyRecord]) -> dict[str, Any]:
    known = _names(kind)
    return {name: value for name, value in values.items() if name not in known}


def _needed(values: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in values:
        raise ValueError(f"{where} has no {name}")
    return values[name]


def _optional(convert: Callable[[Any, str], T], value: Any, where: str) -> T | None:
    return None if value is None else convert(value, where)


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {shorten(value)}, expected a mapping")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{where} is {shorten(value)}, expected a list")
    return value


def _text(value: object, where: str) -> str:
    """A string field; YAML may read an unquoted name as a number or a date."""
    if value is None or isinstance(value, dict | list | set | tuple):
        raise ValueError(f"{where} is {shorten(value)}, expected text")
    return str(value)


def _whole(value: object, where: str) -> int:
    if type(value) is not int or value not in _WHOLE_NUMBERS:
        raise ValueError(f"{where} is {shorten(value)}, expected a whole number")
    return value


def _rate(value: object, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # also of "3e-4"
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where} is {shorten(value)}, expected a number")
    return number


def _texts(value: object, where: str) -> dict[str, str]:
    return {str(name): _text(entry, f"{where}.{name}") for name, entry in _mapping(value, where).items()}


def _profile(value: object, where: str) -> dict[str, Any] | str:
    return value if isinstance(value, dict) else _text(value, where)


def _timestamps(value: object, where: str) -> dict[str, int] | int:
    if isinstance(value, dict):
        return {str(name): _count(count, where) for name, count in value.items()}
    return _count(value, where)


def _count(value: object, where: str) -> int:
    if type(value) is not int or not 1 <= value <= MOST_TIMESTAMPS:
        raise ValueError(
            f"{where} is {shorten(value)}, expected a number from 1 to {MOST_TIMESTAMPS} or a mapping identity: number"
        )
    return value


def _sizes(value: object, where: str) -> tuple[int, ...]:
    return tuple(_whole(size, where) for size in _list(value, where) if size is not None)


def _horizons(value: object, where: str) -> tuple[int, ...]:
    return tuple(sorted({_count(count, where) for count in _list(value, where)}))


def _entries(read: Callable[[object, str], T], value: object, where: str) -> tuple[T, ...]:
    return tuple(read(entry, f"{where}[{number}]") for number, entry in enumerate(_list(value, where)))


def _chosen(value: object, where: str) -> tuple[ChosenRate, ...]:
    return _entries(ChosenRate.read, value, where)
