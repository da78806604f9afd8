"""study.yaml: the same bytes as ever, one error for whatever is wrong in it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from clstudy.analysis.study_plan import read_study
from clstudy.errors import UserError
from clstudy.records.progress import read_progress
from clstudy.records.study_record import (
    ChosenRate,
    StudyRecord,
    TrialEntry,
    read_complete_record,
    read_study_record,
    require_study,
    write_study_record,
)
from clstudy.settings.claims import Primary, Statement
from clstudy.settings.trial_spec import TrialSpec
from clstudy.study.privacy.names import without
from clstudy.study.stored_study import stored_trials

# as clstudy 0.1.0 wrote it at commit c61e4e6, without most of its profile and trials
WRITTEN = b"""\
name: small
description: ''
profile:
  name: smoke
  generator: embedded
  trainer:
    passes: 2
  required_files: []
data_set: made up
timestamps:
  anna: 3
  ben: 3
buffer_sizes:
- 2
claims:
- primary:
    protocol: reconstruction
    metric: lpips
    score: forgetting
    between:
    - er_hull
    - er_rand
  effects: null
  finished_trials: 0
  measured_stages: 0
trials:
- trial: anna-er_hull-k2-lr1e-05-s0
  identity: anna
  strategy: er_hull
  buffer_size: 2
  learning_rate: 1.0e-05
  seed: 0
- trial: ben-upper-lr0.003-s0
  identity: ben
  strategy: upper
  buffer_size: null
  learning_rate: 0.003
  seed: 0
  joint: true
chosen_rates:
- strategy: er_hull
  buffer_size: 2
  learning_rate: 1.0e-05
generator: generator
metric_files: {}
fingerprint:
  numerics: 1
  torch: '2.13'
data_digests:
  anna: c404176dcc521be9632766185bbafee1b40711033299e28dcb7618a1ec5ad162
  ben: eda6a9d555a493770f8095ed7ec51dded58931d6e0160dbae61f8b8a6f9fede3
versions:
  clstudy: 0.1.0
  onnxruntime: null
git_commit: null
"""
HULL = TrialSpec(identity="anna", strategy="er_hull", buffer_size=2, learning_rate=1e-5, seed=0)
UPPER = TrialSpec(identity="ben", strategy="upper", buffer_size=None, learning_rate=0.003, seed=0)
RECORD = StudyRecord(
    name="small",
    description="",
    profile={"name": "smoke", "generator": "embedded", "trainer": {"passes": 2}, "required_files": []},
    data_set="made up",
    timestamps={"anna": 3, "ben": 3},
    buffer_sizes=(2,),
    claims=(
        Statement(primary=Primary(metric="lpips", score="forgetting", between=("er_hull", "er_rand")), effects=None),
    ),
    trials=(TrialEntry.of(HULL, joint=False), TrialEntry.of(UPPER, joint=True)),
    chosen_rates=(ChosenRate(strategy="er_hull", buffer_size=2, learning_rate=1e-5),),
    generator="generator",
    metric_files={},
    fingerprint={"numerics": 1, "torch": "2.13"},
    data_digests={
        "anna": "c404176dcc521be9632766185bbafee1b40711033299e28dcb7618a1ec5ad162",
        "ben": "eda6a9d555a493770f8095ed7ec51dded58931d6e0160dbae61f8b8a6f9fede3",
    },
    versions={"clstudy": "0.1.0", "onnxruntime": None},
    git_commit=None,
)


def test_the_bytes_are_those_of_earlier_versions() -> None:
    assert RECORD.encode() == WRITTEN
    assert StudyRecord.decode(WRITTEN) == RECORD


def test_a_study_read_and_written_is_the_same_bytes(small_study: Path, tmp_path: Path) -> None:
    record = read_complete_record(small_study)
    write_study_record(tmp_path, record)
    for name in ("study.yaml", ".study.yaml.sha256"):
        assert (tmp_path / name).read_bytes() == (small_study / name).read_bytes()
    assert stored_trials(record)[0].trial_id == record.trials[0].trial


def test_a_record_with_the_trials_only_says_nothing_else(tmp_path: Path) -> None:
    """Files made by hand, and of versions before a field."""
    text = "trials:\n- {trial: a, identity: 7, strategy: lower, buffer_size: null, learning_rate: 3e-4, seed: 0}\n"
    (tmp_path / "study.yaml").write_text(text)
    record = read_study_record(tmp_path)
    assert record.document() == {
        "trials": [
            {
                "trial": "a",
                "identity": "7",
                "strategy": "lower",
                "buffer_size": None,
                "learning_rate": 0.0003,
                "seed": 0,
            }
        ]
    }
    assert read_study(tmp_path).name == tmp_path.name
    wanted = "data_digests, fingerprint, generator, name, profile, timestamps"
    with pytest.raises(UserError, match=rf"study\.yaml says nothing about {wanted}\. Give a folder that"):
        read_complete_record(tmp_path)
    with pytest.raises(UserError, match=r"says nothing about timestamps\.7\. Give"):
        record.timestamps_of("7")
    with pytest.raises(UserError, match=r"says nothing about timestamps\.7\. Give"):
        read_progress(tmp_path)


def test_one_number_of_timestamps_is_everybodys() -> None:
    record = StudyRecord.decode(b"{trials: [], timestamps: 4}")
    assert record.timestamps_of("anybody") == 4


def test_a_profile_may_be_its_name_only() -> None:
    assert StudyRecord.decode(b"{trials: [], profile: smoke}").profile_name == "smoke"
    assert StudyRecord.decode(b"{trials: [], profile: {name: smoke}}").profile_name == "smoke"
    assert StudyRecord.decode(b"{trials: [], profile: {}}").profile_name is None


def test_what_another_version_says_outlives_a_forgotten_person(tmp_path: Path) -> None:
    document = yaml.safe_load(WRITTEN)
    document["trials"][1]["colour"] = "blue"
    document["chosen_rates"][0]["tries"] = 3
    document |= {"ages": {"anna": 30, "ben": 40}, "note": "of anna"}
    record = StudyRecord.decode(yaml.safe_dump(document, sort_keys=False).encode())
    assert yaml.safe_load(record.encode()) == document
    kept = yaml.safe_load(without(record, {"anna"}).encode())
    assert kept["trials"] == [document["trials"][1]] and kept["chosen_rates"] == document["chosen_rates"]
    assert (kept["ages"], kept["note"]) == ({"ben": 40}, "of anna")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trials": {"a": "b"}}, "trials is {'a': 'b'}, expected a list"),
        ({"trials": [3]}, r"trials\[0\] is 3, expected a mapping"),
        ({"trials": [{}]}, r"trials\[0\] has no trial"),
        ({"timestamps": {"anna": True}}, "timestamps is True, expected a number from 1 to 1000"),
        ({"buffer_sizes": ["2"]}, "buffer_sizes is '2', expected a whole number"),
        ({"generator": ["x"]}, r"generator is \['x'\], expected text"),
        ({"claims": 7}, "claims is 7, expected a list of statements"),
        (
            {"chosen_rates": [{"strategy": "x", "buffer_size": 2, "learning_rate": "fast"}]},
            "is 'fast', expected a n",
        ),
    ],
)
def test_a_wrong_type_is_named_with_its_remedy(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_bytes(yaml.safe_dump(yaml.safe_load(WRITTEN) | change).encode())
    with pytest.raises(UserError, match=rf"study\.yaml cannot be understood \(.*{said}.*run the study again"):
        read_study_record(tmp_path)


def test_what_is_no_study_is_one_sentence(tmp_path: Path) -> None:
    for read in (require_study, read_study_record, read_complete_record, read_study, read_progress):
        with pytest.raises(
            UserError, match=r"is not a study: it has no study\.yaml\. Give a folder that `clstudy run`"
        ):
            read(tmp_path)
        with pytest.raises(UserError, match=r"no such study folder: .*\. Give a folder that `clstudy run` wrote"):
            read(tmp_path / "nothing")
    (tmp_path / "study.yaml").mkdir()
    with pytest.raises(UserError, match=r"is not a study: study\.yaml cannot be read \(Is a directory\)"):
        read_study_record(tmp_path)


# --- whatever is in the file -----------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, 2**63, -1])
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.binary(max_size=4)
    | st.dates()
    | st.sampled_from(["anna", "lower", "5% of lower", "lpips"])
)
FIELDS = [*yaml.safe_load(WRITTEN), *yaml.safe_load(WRITTEN)["trials"][1], "primary", "effects", "name", "metric"]
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | SCALARS.filter(lambda key: key == key), inner, max_size=4)
    ),
    max_leaves=12,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value of a document."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield (*path, key)
        yield from places(entry, (*path, key))


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The document with another value somewhere."""
    document: dict[str, Any] = copy.deepcopy(yaml.safe_load(WRITTEN))
    at: Any = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return document


DAMAGED = st.builds(changed, st.sampled_from(list(places(yaml.safe_load(WRITTEN)))), VALUES)


@settings(max_examples=60)
@given(document=DAMAGED | VALUES)
def test_no_content_ends_in_a_traceback(document: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    study = tmp_path_factory.getbasetemp() / "hostile"
    study.mkdir(exist_ok=True)
    (study / "study.yaml").write_bytes(yaml.safe_dump(document).encode())
    for read in (read_study, read_progress, read_complete_record):
        with suppress(UserError):
            read(study)
    with suppress(UserError):
        record = read_study_record(study)
        again = StudyRecord.decode(record.encode())
        assert again == replace(record, git_commit=again.git_commit) or has_nan(document)
        stored_trials(record)
        without(record, {"anna"}).encode()


def has_nan(value: Any) -> bool:
    """NaN differs from itself."""
    if isinstance(value, dict):
        return any(map(has_nan, value.values()))
    return any(map(has_nan, value)) if isinstance(value, list) else value != value
