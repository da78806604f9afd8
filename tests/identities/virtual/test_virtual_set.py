"""The data sets ``virtual`` and ``virtual_<preset>``: what is on disk, and what it depends on."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clstudy.errors import UserError
from clstudy.identities.catalogue import DATA_SETS, is_outline, open_data_set
from clstudy.identities.check import inspect_folder
from clstudy.identities.dataset import DataSet, load_folder
from clstudy.identities.virtual.data_set import VirtualSettings, make_virtual, taken_again
from clstudy.identities.virtual.presets import DEFAULT_PRESET, PRESETS
from clstudy.settings.metric_facts import BALANCED_PHOTO

LENGTHS = {
    "age": 1,
    "balanced": 1,
    "camera": 25,
    "expression": 10,
    "gaze": 2,
    "landmarks": 136,
    "light": 10,
    "mode": 1,
    "pose": 6,
}
COUNTS: dict[str, Any] = {"timestamps": 2, "train": 4, "test": 3, "data_seed": 0}
SHA256 = {
    "person_00/t000/train/000.png": "9c810350dec9cd776df20a796fb940758be8eef82f46f2cea508ba761069384b",
    "person_01/t001/test/001.png": "ef77cc6e6cdcd371d16913022035bc60c5e1100c441b3981b3cc27565c0635ea",
}
"""Change with the renderer; then increase ``data_set.GENERATOR_VERSION``."""


def settings(**given: Any) -> VirtualSettings:
    return VirtualSettings(**{**COUNTS, "people": 2, "image_size": 64, "preset": DEFAULT_PRESET, **given})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return open_data_set("virtual", identities=2, cache=tmp_path_factory.mktemp("cache"), **COUNTS)


def test_photos_have_the_bytes_they_had_when_this_was_written(made: DataSet) -> None:
    assert {name: hashlib.sha256((made.root / name).read_bytes()).hexdigest() for name in SHA256} == SHA256


def test_the_folder_is_in_order(made: DataSet) -> None:
    inspection = inspect_folder(made.root, image_size=64)
    assert inspection.problems == ()
    assert inspection.counts() == (2, 4, 28)
    assert inspection.conditions() == LENGTHS


def test_test_photos_are_by_frequency_and_balanced_by_turns(made: DataSet) -> None:
    for identity in made.identities:
        for stamp in identity.timestamps:
            assert [photo.conditions[BALANCED_PHOTO] for photo in stamp.train] == [(0.0,)] * 4
            assert [photo.conditions[BALANCED_PHOTO] for photo in stamp.test] == [(0.0,), (1.0,), (0.0,)]


def test_the_camera_projects_a_head_onto_the_landmarks(made: DataSet) -> None:
    """Cameras of photos of one expression differ; the points in space that all of them see agree with each."""
    photos = [p for t in made.identities[0].timestamps for p in (*t.train, *t.test)]
    for photo in photos:
        camera = np.array(photo.conditions["camera"])
        to_world, intrinsics = camera[:16].reshape(4, 4), camera[16:].reshape(3, 3)
        np.testing.assert_allclose(to_world[:3, :3] @ to_world[:3, :3].T, np.eye(3), atol=1e-6)
        assert np.linalg.norm(to_world[:3, 3]) == pytest.approx(2.7, abs=1e-6)
        assert intrinsics[0, 0] == intrinsics[1, 1] > 1
    rays, origins = [], []
    for photo in photos:
        camera = np.array(photo.conditions["camera"])
        to_world, intrinsics = camera[:16].reshape(4, 4), camera[16:].reshape(3, 3)
        # the bridge of the nose, which no expression moves
        u, v = (np.array(photo.conditions["landmarks"]).reshape(68, 2)[27] + 0.5) / 64
        ray = to_world[:3, :3] @ np.linalg.solve(intrinsics, np.array([u, v, 1.0]))
        rays.append(ray / np.linalg.norm(ray))
        origins.append(to_world[:3, 3])
    across = [np.eye(3) - np.outer(ray, ray) for ray in rays]
    point = np.linalg.solve(
        np.sum(across, axis=0), np.sum([a @ o for a, o in zip(across, origins, strict=True)], axis=0)
    )
    missed = [np.linalg.norm(a @ (point - o)) for a, o in zip(across, origins, strict=True)]
    assert max(missed) < 0.005, "in world units, of which a face is about 0.4 high"


def test_depth_is_rendered_on_request(made: DataSet) -> None:
    given = VirtualSettings(**json.loads((made.root / "manifest.json").read_text())["settings"])
    photo = made.identities[1].timestamps[1].test[1]
    taken = taken_again(given, photo.path.relative_to(made.root).as_posix())
    np.testing.assert_array_equal(taken.image, photo.read())
    assert 2 < np.nanmin(taken.depth) < np.nanmax(taken.depth) < 3.5
    assert 0.2 < taken.mask.mean() < 1
    with pytest.raises(UserError, match=r"'person_09/t000/train/000.png' is not in this virtual data set; expected"):
        taken_again(given, "person_09/t000/train/000.png")


def test_larger_sets_begin_with_the_smaller_ones(made: DataSet, tmp_path: Path) -> None:
    make_virtual(tmp_path, settings(people=1, timestamps=3, train=5, test=5))
    smaller = [path for path in made.root.glob("person_00/*/*/*") if path.is_file()]
    assert len(smaller) == 2 * 7 * 2
    for path in smaller:
        assert (tmp_path / path.relative_to(made.root)).read_bytes() == path.read_bytes()


def test_the_manifest_records_what_was_made(made: DataSet) -> None:
    manifest = json.loads((made.root / "manifest.json").read_text())
    assert manifest["settings"]["preset"] == DEFAULT_PRESET
    assert manifest["preset"]["drift"] == PRESETS[DEFAULT_PRESET].drift
    assert manifest["totals"]["photos"] == 28 == sum(manifest["totals"]["of_modes"].values())
    assert set(manifest["timestamps"]) == {f"person_{i:02d}/t{t:03d}" for i in range(2) for t in range(2)}
    assert {name: entry["digest"] for name, entry in manifest["photos"].items()} == made.digests()


def test_an_altered_sidecar_is_noticed(tmp_path: Path) -> None:
    counts = COUNTS | {"timestamps": 1, "train": 2, "test": 1, "cache": tmp_path}
    made = open_data_set("virtual_one_clip", identities=1, **counts)
    sidecar = made.root / "person_00/t000/train/000.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"age": 33}))
    with pytest.raises(UserError, match=r"was altered \(missing, added or changed: person_00/t000/train/000.png\)"):
        open_data_set("virtual_one_clip", identities=1, **counts)


def test_photos_of_other_sizes(tmp_path: Path) -> None:
    make_virtual(tmp_path, settings(people=1, timestamps=1, train=1, test=1, image_size=96))
    photo = load_folder(tmp_path, image_size=96).identities[0].timestamps[0].train[0]
    assert photo.read(96).shape == (96, 96, 3)
    assert np.array(photo.conditions["landmarks"]).max() > 60


def test_looking_at_a_virtual_set_makes_none(made: DataSet, tmp_path: Path) -> None:
    seen = open_data_set("virtual_strong", identities=99, look_only=True, cache=tmp_path / "cache", **COUNTS)
    assert is_outline(seen) and not (tmp_path / "cache").exists()
    assert len(seen.identities) == 99

    def shape(data: DataSet) -> list[Any]:
        return [(one.name, [(t.index, len(t.train), len(t.test)) for t in one.timestamps]) for one in data.identities]

    assert shape(seen)[:2] == shape(made)


def test_every_preset_is_a_data_set() -> None:
    assert "virtual" in DATA_SETS
    assert all(name == DEFAULT_PRESET or f"virtual_{name}" in DATA_SETS for name in PRESETS)


def test_making_them_needs_no_network(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from clstudy.identities.catalogue import open_data_set; "
        f"open_data_set('virtual_mild', identities=1, timestamps=1, train=2, test=2, data_seed=0, "
        f"cache=Path({str(tmp_path)!r})); "
        "assert not {'torch', 'onnxruntime', 'ray'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"people": 0}, "people = 0; expected at least 1"),
        ({"timestamps": 1001}, "timestamps = 1001; expected 1 to 1000"),
        ({"image_size": 512}, "photos of 512 px; expected an even number from 64 to 256. Use a profile"),
        ({"image_size": 97}, "photos of 97 px; expected an even number"),
        ({"preset": "strnog"}, "unknown preset of occasions 'strnog'.*Did you mean 'strong'"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(**wrong)


def test_people_by_name(tmp_path: Path) -> None:
    wanted = COUNTS | {"cache": tmp_path}
    seen = open_data_set("virtual", names=["person_04"], look_only=True, **wanted)
    assert [one.name for one in seen.identities] == ["person_04"]
    with pytest.raises(UserError, match="unknown identity 'anna' in data set 'virtual'; its people are person_00"):
        open_data_set("virtual", names=["anna"], look_only=True, **wanted)
