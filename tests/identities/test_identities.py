"""Data sets: the folder check, the loader, synthetic people and the catalogue."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clstudy.cli.identities import main
from clstudy.errors import PhotoError, UserError
from clstudy.identities.appearance import SHADOWS, WORN, put_on, timestamp_appearance
from clstudy.identities.catalogue import DATA_SETS, PackagedSet, is_outline, open_data_set, require_equal_timestamps
from clstudy.identities.check import inspect_folder
from clstudy.identities.dataset import DataSet, load_folder
from clstudy.identities.people import FaceTools, draw_person
from clstudy.identities.synthetic import MIN_COSINE, make_synthetic
from clstudy.images import to_unit_range


def save_photo(path: Path, seed: int, *, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def save_folder(root: Path, *, people: int = 2, timestamps: int = 2, train: int = 2, test: int = 1) -> Path:
    seed = 0
    for person in range(people):
        for t in range(timestamps):
            for split, count in (("train", train), ("test", test)):
                for number in range(count):
                    save_photo(root / f"p{person}" / f"t{t:02d}" / split / f"{number}.png", seed)
                    seed += 1
    return root


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_folder(tmp_path / "photos")


# --- loading -----------------------------------------------------------------------------------------------------


def test_load_folder(folder, monkeypatch):
    (folder / "manifest.json").write_text("{}")
    (folder / ".hidden").mkdir()
    (folder / "p0" / "t00" / "train" / ".DS_Store").write_text("")
    (folder / "p0" / "t00" / "train" / "cameras.json").write_text("{}")
    save_photo(folder / "p0" / "t00" / "train" / "x.JPG", 99)
    monkeypatch.chdir(folder.parent)
    data = load_folder(Path("photos"))
    assert data.name == "photos"
    assert [identity.name for identity in data.identities] == ["p0", "p1"]
    first = data.identities[0]
    assert [(stamp.index, stamp.name) for stamp in first.timestamps] == [(0, "t00"), (1, "t01")]
    assert [photo.path.name for photo in first.timestamps[0].train] == ["0.png", "1.png", "x.JPG"]
    photo = first.timestamps[0].test[0]
    assert photo.digest == hashlib.sha256(photo.path.read_bytes()).hexdigest()
    # workers have another working directory
    assert photo.path.is_absolute()
    np.testing.assert_array_equal(photo.read(64), np.asarray(Image.open(photo.path)))
    assert data.digests()["p0/t00/test/0.png"] == photo.digest
    assert len(data.digests()) == 13


def test_load_folder_lists_all_problems(folder):
    (folder / "p0" / "t00" / "train" / "0.png").write_bytes(b"no image")
    shutil.rmtree(folder / "p1" / "t01" / "test")
    with pytest.raises(UserError) as caught:
        load_folder(folder)
    assert "2 problems" in str(caught.value)
    assert "p0/t00/train/0.png" in str(caught.value)
    assert "p1/t01" in str(caught.value)


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match="does not exist; expected a folder with <identity>/<timestamp>"):
        load_folder(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        load_folder(tmp_path / "file")


def test_photo_read_errors_name_the_file(folder):
    photo = load_folder(folder).identities[0].timestamps[0].train[0]
    with pytest.raises(PhotoError, match=r"0\.png.*wrong size 64x64, expected 32x32"):
        photo.read(32)
    original = photo.path.read_bytes()
    save_photo(photo.path, 12345)
    with pytest.raises(PhotoError, match=r"0\.png changed"):
        photo.read()
    photo.path.write_bytes(original[:-40])
    with pytest.raises(PhotoError, match=r"0\.png changed"):
        photo.read()
    broken = replace(photo, file_digest=hashlib.sha256(original[:-40]).hexdigest())
    with pytest.raises(PhotoError, match=r"0\.png: unreadable image"):
        broken.read()
    save_photo(photo.path, 1, mode="L")
    grey = replace(photo, file_digest=hashlib.sha256(photo.path.read_bytes()).hexdigest())
    with pytest.raises(PhotoError, match=r"0\.png: wrong mode L, expected RGB"):
        grey.read()
    photo.path.unlink()
    with pytest.raises(PhotoError, match=r"0\.png can no longer be read"):
        photo.read()
    photo.path.mkdir()
    with pytest.raises(PhotoError, match=r"0\.png can no longer be read"):
        photo.read()


def test_select(folder):
    data = load_folder(folder)
    assert [identity.name for identity in data.select(["p1", "p0"]).identities] == ["p1", "p0"]
    with pytest.raises(UserError, match=r"unknown identity 'p11'.*Did you mean 'p1'"):
        data.select(["p0", "p11"])
    with pytest.raises(UserError, match="twice"):
        data.select(["p0", "p0"])
    with pytest.raises(UserError, match="no identity"):
        data.select([])


# --- check -------------------------------------------------------------------------------------------------------


def plant_problems(root: Path) -> dict[str, str]:
    """Spoil a folder of 3 people in every way; returns path -> part of the expected message."""
    truncated = root / "p0" / "t00" / "train" / "0.png"
    truncated.write_bytes(truncated.read_bytes()[:3000])
    (root / "p0" / "t00" / "train" / "empty.png").write_bytes(b"")
    (root / "p0" / "t00" / "train" / "notes.txt").write_text("hello")
    save_photo(root / "p0" / "t00" / "train" / "grey.png", 100, mode="L")
    save_photo(root / "p0" / "t00" / "train" / "alpha.png", 101, mode="RGBA")
    save_photo(root / "p0" / "t00" / "test" / "wide.png", 102, size=(80, 64))
    # the same pixels as a train photo of another timestamp, in another file format
    Image.open(root / "p0" / "t00" / "train" / "1.png").save(
        root / "p0" / "t01" / "test" / "copy.png", compress_level=0
    )
    shutil.copy(root / "p0" / "t01" / "train" / "0.png", root / "p0" / "t01" / "train" / "again.png")
    shutil.rmtree(root / "p1" / "t00" / "test")
    (root / "p1" / "t01" / "train" / "0.png").unlink()
    (root / "p1" / "t01" / "train" / "1.png").unlink()
    (root / "p1" / "t02").mkdir()
    shutil.rmtree(root / "p2" / "t00")
    shutil.rmtree(root / "p2" / "t01")
    (root / "p3" / "train").mkdir(parents=True)
    return {
        "p0/t00/train/0.png": "unreadable image",
        "p0/t00/train/empty.png": "unreadable image",
        "p0/t00/train/notes.txt": "not a .png or .jpg",
        "p0/t00/train/grey.png": "wrong mode L",
        "p0/t00/train/alpha.png": "wrong mode RGBA",
        "p0/t00/test/wide.png": "wrong size 80x64",
        "p0/t01/test/copy.png": "duplicate photo in train and test: same pixels as p0/t00/train/1.png",
        "p0/t01/train/again.png": "duplicate photo twice in train",
        "p1/t00": "missing test set: test/ does not exist",
        "p1/t01": "missing train set: train/ is empty",
        "p1/t02": "empty timestamp",
        "p2": "no timestamp",
        "p3": "must lie inside a timestamp",
    }


def test_check_reports_every_problem_at_once(tmp_path, capsys):
    root = save_folder(tmp_path / "photos", people=3)
    assert main(["check", str(root)]) == 0
    assert "identities: 3, timestamps: 6, readable photos: 18" in capsys.readouterr().out
    expected = plant_problems(root)
    assert main(["check", str(root)]) == 1
    lines = [line.removeprefix("  - ") for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(lines) == len(expected)
    for path, message in expected.items():
        assert any(line.startswith(f"{path}: ") and message in line for line in lines), f"{path}: {message}\n{lines}"


def test_check_other_exit_codes(tmp_path, capsys, folder):
    (tmp_path / "bare").mkdir()
    assert main(["check", str(tmp_path / "bare")]) == 1
    assert "no identity" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["check", str(folder), "--size", "32"]) == 1
    assert "12 problem(s)" in capsys.readouterr().out
    assert main(["check", str(folder), "--size", "-3"]) == 2


# --- appearance --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tools() -> FaceTools:
    return FaceTools.load()


@pytest.fixture(scope="module")
def landmarks(tools) -> np.ndarray:
    """68 plausible points in an aligned photo: those found in a portrait."""
    face = tools.finder.find(draw_person(tools, 7, 0).portrait)
    assert face is not None
    return face.landmarks


@pytest.mark.parametrize("worn", list(WORN))
@pytest.mark.parametrize("size", [64, 96])
def test_everything_worn_changes_the_photo_where_it_is(worn, size, landmarks):
    photo = np.full((size, size, 3), 128, np.uint8)
    points = (landmarks + 0.5) * size / 64 - 0.5
    appearance = replace(timestamp_appearance(0, 0, 0, 0), shadow="none", worn_colour=(0.9, 0.1, 0.2), gamma=1.0)
    bare = put_on(photo, points, replace(appearance, worn="nothing")).astype(int)
    changed = abs(put_on(photo, points, replace(appearance, worn=worn)).astype(int) - bare).max(-1) > 8
    share = changed.mean()
    assert share == 0 if worn == "nothing" else 0.02 < share < 0.45
    # mouth and chin stay visible
    assert not changed[int(points[30:, 1].max()) :].any()


@pytest.mark.parametrize("shadow", list(SHADOWS))
def test_shadows_only_take_light_away(shadow, landmarks):
    photo = np.full((64, 64, 3), 160, np.uint8)
    appearance = replace(timestamp_appearance(0, 0, 0, 0), worn="nothing", shadow_depth=0.6)
    lit = put_on(photo, landmarks, replace(appearance, shadow="none")).astype(int)
    shaded = put_on(photo, landmarks, replace(appearance, shadow=shadow)).astype(int)
    assert (shaded <= lit).all()
    darker = (lit - shaded > 15).any(-1).mean()
    assert darker == 0 if shadow == "none" else 0.1 < darker < 0.95


def test_appearances_are_reproducible_and_neighbours_differ():
    series = [timestamp_appearance(3, 1, t, 0) for t in range(8)]
    assert series == [timestamp_appearance(3, 1, t, 0) for t in range(8)]
    for before, after in zip(series, series[1:], strict=False):
        assert before.worn != after.worn
        assert before.shadow != after.shadow
        assert np.linalg.norm(np.subtract(before.tint, after.tint)) > 0.05
    assert timestamp_appearance(3, 2, 0, 0) != series[0] != timestamp_appearance(3, 1, 0, 1)
    varied = series[0].varied(np.random.default_rng(0))
    assert varied != series[0]
    assert (varied.worn, varied.shadow, varied.tint) == (series[0].worn, series[0].shadow, series[0].tint)


# --- synthetic people --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory, tools) -> DataSet:
    root = tmp_path_factory.mktemp("synthetic")
    make_synthetic(root, people=2, timestamps=3, train=4, test=2, data_seed=5, tools=tools)
    return load_folder(root)


def test_synthetic_layout_and_manifest(synthetic, tools):
    assert [identity.name for identity in synthetic.identities] == ["person_00", "person_01"]
    for identity in synthetic.identities:
        assert [stamp.name for stamp in identity.timestamps] == ["t00", "t01", "t02"]
        assert {(len(stamp.train), len(stamp.test)) for stamp in identity.timestamps} == {(4, 2)}
    digests = synthetic.digests()
    assert len(set(digests.values())) == len(digests) == 36
    manifest = json.loads((synthetic.root / "manifest.json").read_text())
    assert manifest["settings"] == {"people": 2, "timestamps": 3, "train": 4, "test": 2, "data_seed": 5}
    assert {path: entry["sha256"] for path, entry in manifest["photos"].items()} == digests
    assert min(entry["identity_cosine"] for entry in manifest["photos"].values()) >= MIN_COSINE
    for stamp in manifest["timestamps"].values():
        assert stamp["draws"] >= 6 + sum(stamp["rejected"].values())
    # the recorded cosine is that of the photo on disk
    person = draw_person(tools, 5, 1)
    photo = synthetic.identities[1].timestamps[2].test[1]
    cosine = float(tools.embedder(to_unit_range(photo.read(64)[None]))[0].numpy() @ person.embedding)
    recorded = manifest["photos"][photo.path.relative_to(synthetic.root).as_posix()]["identity_cosine"]
    assert cosine == pytest.approx(recorded, abs=1e-4)


@pytest.mark.parametrize(
    "smaller",
    [{"people": 1, "timestamps": 1, "train": 4, "test": 2}, {"people": 1, "timestamps": 2, "train": 1, "test": 1}],
)
def test_smaller_synthetic_sets_are_prefixes(synthetic, tmp_path, tools, smaller):
    """Same settings, fewer of everything: the same photos, because every stream has its own seed."""
    make_synthetic(tmp_path, **smaller, data_seed=5, tools=tools)
    small, large = load_folder(tmp_path).digests(), synthetic.digests()
    assert small == {path: large[path] for path in small}


def test_another_data_seed_gives_other_people(synthetic, tmp_path, tools):
    make_synthetic(tmp_path, people=1, timestamps=1, train=1, test=1, data_seed=6, tools=tools)
    assert not set(load_folder(tmp_path).digests().values()) & set(synthetic.digests().values())


def test_synthetic_photos_keep_the_person(synthetic, tools):
    portraits = np.stack([draw_person(tools, 5, index).embedding for index in range(2)])
    for index, identity in enumerate(synthetic.identities):
        photos = np.stack([p.read(64) for stamp in identity.timestamps for p in stamp.train + stamp.test])
        cosines = tools.embedder(to_unit_range(photos)).numpy() @ portraits.T
        assert cosines[:, index].mean() > 0.5
        assert (cosines[:, index] > cosines[:, 1 - index]).all()


def test_synthetic_timestamps_look_different(synthetic):
    for identity in synthetic.identities:
        stamps = [np.stack([photo.read(64) for photo in stamp.train]).astype(float) for stamp in identity.timestamps]
        within = np.mean([abs(a - b).mean() for stamp in stamps for i, a in enumerate(stamp) for b in stamp[:i]])
        means = [stamp.mean(0) for stamp in stamps]
        between = min(abs(a - b).mean() for i, a in enumerate(means) for b in means[:i])
        assert between > 1.2 * within
        assert within > 2, "photos of one timestamp are not copies"


def test_synthetic_counts_are_validated(tmp_path):
    with pytest.raises(UserError, match="test = 0"):
        make_synthetic(tmp_path, people=1, timestamps=1, train=1, test=0, data_seed=0)


# --- catalogue ---------------------------------------------------------------------------------------------------

COUNTS = {"timestamps": 2, "train": 2, "test": 1, "data_seed": 0}


def test_more_people_keep_the_first_ones(tmp_path):
    counts = {"timestamps": 1, "train": 1, "test": 1, "data_seed": 0, "cache": tmp_path}
    two = open_data_set("synthetic", identities=2, **counts)
    three = open_data_set("synthetic", identities=3, **counts)
    assert (two.name, len(two.identities), len(three.identities)) == ("synthetic", 2, 3)
    assert two.root != three.root
    assert two.digests().items() <= three.digests().items()
    named = open_data_set("synthetic", names=["person_02", "person_00"], **counts)
    assert named.root == three.root
    assert [identity.name for identity in named.identities] == ["person_02", "person_00"]
    with pytest.raises(UserError, match="unknown identity 'anna'"):
        open_data_set("synthetic", names=["anna"], **counts)
    with pytest.raises(UserError, match="64x64"):
        open_data_set("synthetic", image_size=128, **counts)


class FakeSet(PackagedSet):
    description = "for tests"

    def __init__(self, fails: bool = False):
        self.builds, self.fails = 0, fails

    def settings(self, wanted):
        return {"timestamps": wanted.timestamps}

    def build(self, root, settings, cache):
        self.builds += 1
        save_folder(root, timestamps=settings["timestamps"])
        if self.fails:
            raise KeyboardInterrupt
        photos = {
            path.relative_to(root).as_posix(): {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in root.glob("*/*/*/*.png")
        }
        (root / "manifest.json").write_text(json.dumps({"photos": photos}))


def test_packaged_sets_are_built_once(tmp_path, monkeypatch):
    fake = FakeSet()
    monkeypatch.setitem(DATA_SETS._entries, "fake", fake)
    first = open_data_set("fake", cache=tmp_path, **COUNTS)
    assert open_data_set("fake", cache=tmp_path, **COUNTS) == first
    assert fake.builds == 1
    open_data_set("fake", cache=tmp_path, **COUNTS | {"timestamps": 3})
    assert fake.builds == 2
    # an altered cache is said, not silently used
    first.identities[0].timestamps[0].train[0].path.unlink()
    with pytest.raises(UserError, match=r"p0/t00/train/0\.png\); delete that folder"):
        open_data_set("fake", cache=tmp_path, **COUNTS)


def test_an_interrupted_build_leaves_nothing_that_looks_finished(tmp_path, monkeypatch):
    monkeypatch.setitem(DATA_SETS._entries, "fake", FakeSet(fails=True))
    with pytest.raises(KeyboardInterrupt):
        open_data_set("fake", cache=tmp_path, **COUNTS)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(DATA_SETS._entries, "fake", FakeSet())
    assert len(open_data_set("fake", cache=tmp_path, **COUNTS).identities) == 2


def test_two_processes_may_build_at_once(tmp_path, monkeypatch):
    class Raced(FakeSet):
        def build(self, root, settings, cache):
            super().build(root, settings, cache)
            monkeypatch.setitem(DATA_SETS._entries, "fake", FakeSet())
            open_data_set("fake", cache=tmp_path, **COUNTS)

    monkeypatch.setitem(DATA_SETS._entries, "fake", Raced())
    assert len(open_data_set("fake", cache=tmp_path, **COUNTS).digests()) == 12
    assert len(list(tmp_path.iterdir())) == 1


def test_open_a_folder(tmp_path):
    root = save_folder(tmp_path / "photos", people=3, timestamps=3)
    counts = COUNTS | {"cache": tmp_path / "cache"}
    data = open_data_set(root, **counts)
    assert (data.name, len(data.identities), len(data.identities[0].timestamps)) == ("photos", 3, 2)
    assert len(open_data_set(str(root), identities=2, **counts).identities) == 2
    assert len(open_data_set(root, **counts | {"timestamps": 9}).identities[0].timestamps) == 3
    with pytest.raises(UserError, match="4 identities were requested from data set 'photos', which has 3"):
        open_data_set(root, identities=4, **counts)
    with pytest.raises(UserError, match="identities = 0"):
        open_data_set(root, identities=0, **counts)
    assert not (tmp_path / "cache").exists()


def test_people_need_equally_many_timestamps(tmp_path):
    root = save_folder(tmp_path / "photos", people=3, timestamps=3)
    shutil.rmtree(root / "p1" / "t02")
    counts = COUNTS | {"cache": tmp_path / "cache"}
    with pytest.raises(UserError, match=r"2: p1; 3: p0, p2.*at most 2 timestamps"):
        open_data_set(root, **counts | {"timestamps": 5})
    # fine when the surplus is not used, or the person is not in the study
    assert len(open_data_set(root, **counts).identities) == 3
    assert len(open_data_set(root, names=["p2", "p0"], **counts | {"timestamps": 5}).identities) == 2
    with pytest.raises(UserError):
        require_equal_timestamps(load_folder(root))


@pytest.mark.parametrize(("given", "hint"), [("synthetik", "Did you mean 'synthetic'"), ("/no/such/folder", "Known:")])
def test_unknown_data_set(tmp_path, given, hint):
    with pytest.raises(UserError, match=rf"unknown data set '{given}'.*{hint}.*path of a folder with"):
        open_data_set(given, cache=tmp_path, **COUNTS)


def test_registered_data_sets_describe_themselves():
    assert {"synthetic", "orl"} <= set(DATA_SETS)
    for _, entry in DATA_SETS.items():
        assert 20 < len(entry.description) < 110
        assert "\n" not in entry.description


def test_reading_a_data_set_needs_no_torch(folder):
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from clstudy.identities.catalogue import open_data_set; "
        f"open_data_set({str(folder)!r}, timestamps=2, train=1, test=1, data_seed=0, cache=Path('.')); "
        "assert not {'torch', 'onnxruntime', 'ray'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_inspection_survives_odd_files(folder):
    (folder / "p0" / "t00" / "train" / "dangling.png").symlink_to(folder / "nowhere.png")
    inspection = inspect_folder(folder, image_size=64)
    assert len(inspection.problems) == 1
    assert "dangling.png: unreadable file" in inspection.problems[0]


def test_looking_at_synthetic_people_makes_none_and_counts_them_as_they_will_be(tmp_path: Path):
    wanted = {"timestamps": 2, "train": 3, "test": 2, "data_seed": 0, "cache": tmp_path / "cache"}
    seen = open_data_set("synthetic", identities=99, look_only=True, **wanted)
    assert not (tmp_path / "cache").exists() and is_outline(seen)
    assert [one.name for one in seen.identities[:2]] == ["person_00", "person_01"] and len(seen.identities) == 99
    digests = [photo.digest for one in seen.identities for t in one.timestamps for photo in (*t.train, *t.test)]
    assert len(set(digests)) == 99 * 2 * 5, "no two photos are one, or stages would seem shared"
    few = open_data_set("synthetic", names=["person_01"], look_only=True, **wanted)
    made = open_data_set("synthetic", names=["person_01"], **wanted)
    assert not is_outline(made)

    def shape(data):
        return [(one.name, [(t.index, len(t.train), len(t.test)) for t in one.timestamps]) for one in data.identities]

    assert shape(few) == shape(made)
