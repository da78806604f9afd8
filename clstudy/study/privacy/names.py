"""Recognises a person's name in a study: in files, in names of trials, in study.yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import yaml

from clstudy.records.study_record import StudyRecord
from clstudy.settings.trial_spec import TrialSpec
from clstudy.study.search.validation_people import VALIDATION_MARK


def with_derived(name: str) -> frozenset[str]:
    """The person's name, and that of the person a learning-rate search derives from two thirds of their photos."""
    return frozenset({name, name + VALIDATION_MARK})


def file_name(name: str) -> str:
    """A person's name as it appears at the start of a trial's id (``TrialSpec.trial_id``)."""
    spec = TrialSpec(identity=name, strategy="x", buffer_size=None, learning_rate=1.0, seed=0)
    return spec.trial_id.removesuffix("-x-lr1-s0")


def names_somebody(content: bytes, names: Iterable[str]) -> bool:
    """Whether one of the names occurs in a file as a word, either plain or escaped as in JSON and YAML."""
    in_yaml = {yaml.safe_dump(name, width=10_000).splitlines()[0].strip("\"'") for name in names}
    forms = {*names, *(json.dumps(name)[1:-1] for name in names), *in_yaml}
    words = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return re.search(rf"(?<!\w)(?:{words})(?!\w)".encode(), content) is not None


def names_files(content: bytes, names: Collection[str]) -> bool:
    """As ``names_somebody``, but also finds the form that starts trial ids and the names of their files."""
    return names_somebody(content, names) or any(f"{file_name(name)}-".encode() in content for name in names)


def without(record: StudyRecord, names: Collection[str]) -> StudyRecord:
    """A study's record as if it had been planned without these people.

    Settings stay as they are: a word in them may only look like a name. Fields of other versions may be about people.
    """
    trials = tuple(trial for trial in record.trials if trial.identity not in names)
    sizes = {trial.buffer_size for trial in trials if trial.buffer_size is not None}
    return replace(
        record,
        trials=trials,
        buffer_sizes=None if record.buffer_sizes is None else tuple(sorted(sizes)),
        timestamps=_dropped(record.timestamps, names),
        data_digests=_dropped(record.data_digests, names),
        other=_dropped(record.other, names),
    )


def _dropped(value: Any, names: Collection[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _dropped(entry, names) for key, entry in value.items() if key not in names}
    if isinstance(value, list):
        return [_dropped(entry, names) for entry in value if not (isinstance(entry, str) and entry in names)]
    return value
