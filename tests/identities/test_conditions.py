"""Conditions of photos: read from sidecars, checked, part of a photo's digest, sent along, forgotten."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clstudy.cli.identities import main
from clstudy.cluster.node_files import Inputs, photos_of
from clstudy.errors import UserError
from clstudy.identities.catalogue import DATA_SETS, PackagedSet, open_data_set
from clstudy.identities.check import inspect_folder
from clstudy.identities.conditions import MOST_NUMBERS, Conditions
from clstudy.identities.dataset import DataSet, Identity, Photo, load_folder
from clstudy.identities.preparation.output_folder import require_place
from clstudy.identities.preparation.settings import PrepareSettings
from clstudy.storage.trees import list_files
from clstudy.study.privacy.photo_folders import photo_folders, remove_photos
from clstudy.study.search.validation_people import hold_out_third
from clstudy.trial.requests import identity_digest

SIDE = 16


def sidecar(path: Path, content: object) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One person, two timestamps, photos 0 to 2 to train on and 0 to test on."""
    rng = np.random.default_rng(0)
    for t in ("t0", "t1"):
        for split, count in (("train", 3), ("test", 1)):
            place = tmp_path / "photos" / "anna" / t / split
            place.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(place / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def conditioned(folder: Path) -> Path:
    for t, age in (("t0", 20), ("t1", 30)):
        sidecar(folder / "anna" / t / "conditions.json", {"age": age, "gaze": [1, 0, -0.0]})
    sidecar(folder / "anna" / "t0" / "train" / "1.json", {"gaze": [0.5, 0.25, 0]})
    return folder


def load(root: Path) -> DataSet:
    return load_folder(root, image_size=SIDE)


def test_a_photos_own_sidecar_adds_to_that_of_its_timestamp_or_replaces_it(conditioned: Path) -> None:
    first, second = load(conditioned).identities[0].timestamps
    assert [dict(photo.conditions) for photo in first.train] == [
        {"age": (20.0,), "gaze": (1.0, 0.0, 0.0)},
        {"age": (20.0,), "gaze": (0.5, 0.25, 0.0)},
        {"age": (20.0,), "gaze": (1.0, 0.0, 0.0)},
    ]
    assert second.test[0].conditions["age"] == (30.0,)
    assert inspect_folder(conditioned, image_size=SIDE).conditions() == {"age": 1, "gaze": 3}
    with pytest.raises(TypeError):
        first.train[0].conditions["age"] = (1.0,)  # type: ignore[index]


def test_without_sidecars_a_digest_is_that_of_the_file_and_with_them_of_both(folder: Path) -> None:
    before = load(folder)
    for photo in photos_of(before.identities):
        assert photo.conditions == {} and photo.digest == hashlib.sha256(photo.path.read_bytes()).hexdigest()
    sidecar(folder / "anna" / "t0" / "conditions.json", {"age": 20})
    sidecar(folder / "anna" / "t1" / "conditions.json", {"age": [20.0]})
    after = load(folder)
    for one, two in zip(photos_of(before.identities), photos_of(after.identities), strict=True):
        text = json.dumps(
            {"conditions": {"age": [20.0]}, "photo": one.file_digest}, separators=(",", ":")
        )  # what a reader of the docstring would write
        assert two.file_digest == one.file_digest and two.digest == hashlib.sha256(text.encode()).hexdigest()
        assert np.array_equal(two.read(SIDE), one.read(SIDE))
    assert identity_digest(after.identities[0]) != identity_digest(before.identities[0])
    assert list(after.digests().values()) == [photo.digest for photo in photos_of(after.identities)]
    sidecar(folder / "anna" / "t0" / "train" / "2.json", {"age": 21})
    changed = load(folder).digests().items() - after.digests().items()
    assert [name for name, _ in changed] == ["anna/t0/train/2.png"]


NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)
VALUES = st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True), st.lists(NUMBERS, min_size=1))


@given(VALUES)
def test_conditions_are_values(values: dict[str, list[float]]) -> None:
    """Equal ones hash and digest alike, whatever the order of their names; they survive a pickle, as to a worker."""
    one, two = Conditions(values), Conditions(dict(reversed(values.items())))
    assert one == two == {name: tuple(numbers) for name, numbers in values.items()} and hash(one) == hash(two)
    photo = Photo(Path("a.png"), "0" * 64, values)
    back = pickle.loads(pickle.dumps(photo))
    assert back == photo and hash(back) == hash(photo) and back.digest == Photo(Path("b.png"), "0" * 64, two).digest
    assert bool(values) == (photo.digest != photo.file_digest)


A_PHOTO = {"age": 20}
BAD: dict[str, tuple[Mapping[str, object], str]] = {
    "no JSON": ({"conditions.json": "{age: 20}"}, "t0/conditions.json: not valid JSON"),
    "not text": ({"conditions.json": "\udcff"}, "t0/conditions.json: it is not a text file in UTF-8"),
    "a list": ({"conditions.json": [20]}, "t0/conditions.json: [20]; expected named numbers"),
    "a NaN": ({"conditions.json": '{"age": NaN}'}, "condition 'age' is nan; expected a finite number or a flat list"),
    "infinite": ({"conditions.json": '{"age": 1e999}'}, "condition 'age' is inf; expected a finite number"),
    "beyond float32": ({"conditions.json": '{"age": 1e39}'}, "condition 'age' is 1e+39; expected a finite number"),
    "a huge integer": ({"conditions.json": f'{{"age": {10**400}}}'}, "condition 'age' is 1000"),
    "a bool": ({"conditions.json": {"smiles": True}}, "condition 'smiles' is True; expected a finite number"),
    "a text": ({"conditions.json": {"age": "20"}}, "condition 'age' is '20'; expected"),
    "null": ({"conditions.json": {"age": None}}, "condition 'age' is None; expected"),
    "nested": (
        {"conditions.json": {"gaze": [[1, 0], [0, 1]]}},
        "condition 'gaze' has [1, 0] in its list; expected",
    ),
    "a group": ({"conditions.json": {"gaze": {"yaw": 1}}}, "condition 'gaze' is {'yaw': 1}; expected"),
    "empty": ({"conditions.json": {"gaze": []}}, "condition 'gaze' is an empty list"),
    "a name": ({"conditions.json": {"Age": 20}}, "condition 'Age': expected a name of a-z, 0-9 and _"),
    "too many": (
        {"conditions.json": {"c": [0] * 401}},
        f"401 numbers in its conditions; expected at most {MOST_NUMBERS}",
    ),
    "too large": ({"conditions.json": '{"age": 20}' + " " * 100_000}, "bytes, expected at most 100,000"),
    "nested without end": ({"conditions.json": "[" * 90_000}, "t0/conditions.json: not valid JSON"),
    "without its photo": (
        {"train/9.json": A_PHOTO},
        "t0/train/9.json: sidecar without its photo: expected 9.png or .jpg",
    ),
    "in a split": ({"train/conditions.json": A_PHOTO}, "t0/train/conditions.json: sidecar without its photo"),
    "of a person": ({"../conditions.json": A_PHOTO}, "anna/conditions.json: would never be read; expected it as"),
    "of all": ({"../../conditions.json": A_PHOTO}, "conditions.json: would never be read; expected it as"),
    "capitals": ({"train/0.JSON": A_PHOTO}, "t0/train/0.JSON: sidecars end in .json, in small letters; rename it"),
    "of one photo only": (
        {"train/1.json": A_PHOTO},
        "anna/t0/train/0.png: no condition 'age' (also for 6 more), which 1 of 8 photos have; give it to all photos",
    ),
    "of one timestamp only": (
        {"conditions.json": A_PHOTO},
        "anna/t1/train/0.png: no condition 'age' (also for 3 more)",
    ),
    "another length": (
        {"conditions.json": {"c": [1, 2]}, "../t1/conditions.json": {"c": [1, 2]}, "test/0.json": {"c": [1, 2, 3]}},
        "anna/t0/test/0.png: condition 'c' of length 3; expected 2, as 7 of 8 photos have",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_conditions_are_listed_with_file_value_and_what_was_expected(folder: Path, case: str) -> None:
    files, expected = BAD[case]
    for name, content in files.items():
        path = folder / "anna" / "t0" / name
        if isinstance(content, str):
            path.write_bytes(content.encode(errors="surrogateescape"))
        else:
            sidecar(path, content)
    (problem,) = inspect_folder(folder, image_size=SIDE).problems
    assert expected in problem and len(problem) < 400
    with pytest.raises(UserError, match="has 1 problem"):
        load(folder)


def test_two_photos_of_one_name_and_numbers_of_two_sidecars(folder: Path) -> None:
    place = folder / "anna" / "t0" / "train"
    Image.fromarray(np.full((SIDE, SIDE, 3), 9, np.uint8)).save(place / "0.jpg")
    for t in ("t0", "t1"):
        sidecar(folder / "anna" / t / "conditions.json", {"a": [0] * 300, "b": 1})
    sidecar(place / "0.json", {"b": 2})
    sidecar(place / "1.json", {"c": [0] * 300})
    problems = inspect_folder(folder, image_size=SIDE).problems
    assert len(problems) == 2, problems
    assert "t0/train/0.json: sidecar of 2 photos of one name" in problems[0]
    assert "t0/train/1.png: 601 numbers in its conditions" in problems[1]


def test_sidecars_that_are_no_files(folder: Path) -> None:
    (folder / "anna" / "t0" / "train" / "0.json").mkdir()
    (folder / "anna" / "t0" / "conditions.json").symlink_to(folder / "nowhere.json")
    os.mkfifo(folder / "anna" / "t1" / "conditions.json")
    problems = inspect_folder(folder, image_size=SIDE).problems
    assert [problem.split(":")[0] for problem in problems] == [
        "anna/t0/conditions.json",
        "anna/t0/train/0.json",
        "anna/t1/conditions.json",
    ]


def test_other_json_files_go_on_working(folder: Path) -> None:
    before = load(folder)
    for name in ("manifest.json", "prepared.json", "cameras.json", "notes.json"):
        sidecar(folder / name, "not even JSON")
        sidecar(folder / "anna" / name, "not even JSON")
        sidecar(folder / "anna" / "t0" / name, "not even JSON")
        if name != "notes.json":
            sidecar(folder / "anna" / "t0" / "train" / name, "not even JSON")
    (folder / "anna" / "t0" / "train" / "anchors.safetensors").write_bytes(b"")
    (folder / "anna" / "t0" / "train" / "._0.json").write_bytes(b"\0")  # macOS on other file systems
    assert load(folder) == before


def test_check_says_which_conditions_there_are(conditioned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(conditioned), "--size", str(SIDE), "--no-drift"]) == 0
    assert "conditions: age (1 number), gaze (3 numbers)" in capsys.readouterr().out
    for path in conditioned.rglob("*.json"):
        path.unlink()
    assert main(["check", str(conditioned), "--size", str(SIDE), "--no-drift"]) == 0
    assert "conditions" not in capsys.readouterr().out


def test_photos_held_out_for_validation_keep_their_conditions(conditioned: Path) -> None:
    person = load(conditioned).identities[0]
    derived = hold_out_third(person)
    for whole, part in zip(person.timestamps, derived.timestamps, strict=True):
        assert {*part.train, *part.test} == {*whole.train}
        assert all(photo.conditions for photo in (*part.train, *part.test))


# --- other nodes ---------------------------------------------------------------------------------------------------


def test_conditions_arrive_on_a_node_that_has_no_files(
    conditioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    (tmp_path / "node").mkdir()
    inputs = Inputs(tmp_path / "study", "token")
    data = load(conditioned)
    before = [photo.read(SIDE) for photo in photos_of(data.identities)]
    assert inputs.provide(data, {}, {}) == 8 and inputs.provide(data, {}, {}) == 0
    names = {f"{photo.digest}.png" for photo in photos_of(data.identities)}
    # by the digests that stages know, or nobody could tell whose they are (``forget``)
    assert set(list_files(inputs.folder)) == names
    sent: Identity = pickle.loads(pickle.dumps(data.identities[0]))
    shutil.rmtree(conditioned)
    there = inputs.local_identity(sent)
    assert {path.name for path in inputs.cache.glob("*.png")} == names
    assert identity_digest(there) == identity_digest(data.identities[0])
    for photo, original, pixels in zip(photos_of((there,)), photos_of(data.identities), before, strict=True):
        assert photo.conditions == original.conditions and np.array_equal(photo.read(SIDE), pixels)
    shutil.rmtree(inputs.cache)
    (inputs.folder / min(names)).write_bytes(b"half")
    with pytest.raises(UserError, match="damaged"):
        inputs.local_identity(sent)


# --- forgetting ----------------------------------------------------------------------------------------------------


def stored(tmp_path: Path, photos: Path) -> tuple[Path, Path]:
    """A study and a data set beside it, in the storage."""
    inside = tmp_path / "runs" / "data" / "photos"
    shutil.copytree(photos, inside)
    return tmp_path / "runs" / "study", inside


@pytest.mark.parametrize("later", [False, True])
def test_forgetting_removes_sidecars_with_photos(conditioned: Path, tmp_path: Path, later: bool) -> None:
    """Also where the sidecars came only after the study, or one of them changed since."""
    digests = set(load(conditioned).digests().values())
    if later:
        digests = {photo.file_digest for photo in photos_of(load(conditioned).identities)}
    study, inside = stored(tmp_path, conditioned)
    sidecar(inside / "anna" / "t0" / "train" / "1.json", "no JSON any more")
    (found,) = photo_folders(study, "photos", "anna", digests)
    assert found.what == "photos and the conditions beside them"
    remove_photos(found)
    assert not inside.exists(), "nobody and nothing is left in it"


def test_photos_with_other_conditions_are_somebody_elses(conditioned: Path, tmp_path: Path) -> None:
    digests = set(load(conditioned).digests().values())
    study, inside = stored(tmp_path, conditioned)
    for path in inside.rglob("*.png"):
        Image.fromarray(np.full((SIDE, SIDE, 3), 9, np.uint8)).save(path)
    assert photo_folders(study, "photos", "anna", digests) == []


# --- data sets made by the package, and by prepare -----------------------------------------------------------------


class Conditioned(PackagedSet):
    description = "a fake"

    def settings(self, wanted: Any) -> dict[str, int | str]:
        return {"version": 1}

    def build(self, root: Path, settings: Any, cache: Path) -> None:
        photos = {}
        for number, split in enumerate(("train", "test")):
            path = root / "p" / "t0" / split / "0.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(np.full((SIDE, SIDE, 3), number, np.uint8)).save(path)
            sidecar(path.with_suffix(".json"), {"label": number})
            name = path.relative_to(root).as_posix()
            photos[name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "conditions": {"label": [number]}}
        sidecar(root / "manifest.json", {"photos": photos})


def test_a_packaged_set_is_checked_with_its_conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATA_SETS._entries, "fake", Conditioned())
    wanted: dict[str, Any] = {"timestamps": 1, "train": 1, "test": 1, "data_seed": 0, "image_size": SIDE}
    data = open_data_set("fake", cache=tmp_path, **wanted)
    assert data.identities[0].timestamps[0].test[0].conditions == {"label": (1.0,)}
    assert open_data_set("fake", cache=tmp_path, **wanted) == data
    sidecar(data.root / "p" / "t0" / "train" / "0.json", {"label": 7})
    with pytest.raises(UserError, match=r"was altered \(missing, added or changed: p/t0/train/0.png\)"):
        open_data_set("fake", cache=tmp_path, **wanted)


def test_prepare_does_not_replace_conditions(conditioned: Path, tmp_path: Path) -> None:
    source = tmp_path / "film.mp4"
    source.write_bytes(b"")
    (conditioned / "anna" / "prepared.json").write_text("{}")
    settings = PrepareSettings(identity="anna")
    with pytest.raises(UserError, match=r"has conditions of photos .* move them away first"):
        require_place(source, conditioned, tmp_path / "report", settings)
