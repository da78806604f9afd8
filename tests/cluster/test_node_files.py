"""What a worker on another machine is given: photos, weights of metrics, the user's own strategies."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clstudy.cluster.node_files import Inputs, photos_of
from clstudy.errors import UserError
from clstudy.identities.dataset import DataSet, load_folder
from clstudy.storage.trees import list_files
from clstudy.strategies.lookup import strategy_sources
from tests.cli.test_custom_strategy import NAME
from tests.support.documentation import documented_block


@pytest.fixture
def photos(tmp_path: Path) -> DataSet:
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 2)):
        folder = tmp_path / "photos" / "anna" / "t0" / split
        folder.mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / f"{number}.png")
    return load_folder(tmp_path / "photos")


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inputs:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    (tmp_path / "node").mkdir()
    return Inputs(tmp_path / "study", "token")


def weights_file(tmp_path: Path) -> tuple[dict[str, Path], dict[str, str]]:
    path = tmp_path / "weights" / "arcface.onnx"
    path.parent.mkdir()
    path.write_bytes(b"a network")
    return {"arcface": path}, {"arcface": hashlib.sha256(b"a network").hexdigest()}


def test_a_node_without_the_files_fetches_each_once(photos: DataSet, inputs: Inputs, tmp_path: Path) -> None:
    files, digests = weights_file(tmp_path)
    before = [photo.read(64) for photo in photos_of(photos.identities)]
    assert inputs.provide(photos, files, digests) == 6 and inputs.provide(photos, files, digests) == 0
    shutil.rmtree(tmp_path / "photos")
    shutil.rmtree(tmp_path / "weights")
    with ThreadPoolExecutor(8) as pool:  # the workers of one node begin together
        people = list(pool.map(lambda _: inputs.local_identity(photos.identities[0]), range(8)))
    assert all(one == people[0] for one in people)
    for photo, pixels in zip(photos_of((people[0],)), before, strict=True):
        assert np.array_equal(photo.read(64), pixels)
    assert inputs.local_files(files, digests)["arcface"].read_bytes() == b"a network"
    assert len([name for name in list_files(inputs.cache) if not name.startswith(".")]) == 6
    assert stat.S_IMODE(inputs.cache.stat().st_mode) == 0o700, "other users of the machine do not see people's photos"
    shutil.rmtree(inputs.folder)
    assert inputs.local_identity(photos.identities[0]) == people[0], "from the node's own copy"


def test_a_node_that_has_the_files_copies_nothing(photos: DataSet, inputs: Inputs, tmp_path: Path) -> None:
    files, digests = weights_file(tmp_path)
    inputs.provide(photos, files, digests)
    assert inputs.local_identity(photos.identities[0]) == photos.identities[0]
    assert inputs.local_files(files, digests) == files and not inputs.cache.exists()


def test_another_file_in_the_same_place_is_not_taken_for_the_drivers(
    photos: DataSet, inputs: Inputs, tmp_path: Path
) -> None:
    files, digests = weights_file(tmp_path)
    inputs.provide(photos, files, digests)
    files["arcface"].write_bytes(b"another network")
    assert inputs.local_files(files, digests)["arcface"].read_bytes() == b"a network"


def test_what_is_nowhere_or_damaged_is_said(photos: DataSet, inputs: Inputs, tmp_path: Path) -> None:
    photo = photos.identities[0].timestamps[0].train[0]
    shutil.rmtree(tmp_path / "photos")
    with pytest.raises(UserError, match="is neither on this node nor in"):
        inputs.local(photo.path, photo.digest)
    inputs.folder.mkdir(parents=True)
    (inputs.folder / f"{photo.digest}.png").write_bytes(b"half")
    with pytest.raises(UserError, match="damaged"):
        inputs.local(photo.path, photo.digest)


def test_a_users_own_strategy_goes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "my_strategies.py").write_text(documented_block("strategy"))
    monkeypatch.syspath_prepend(tmp_path / "home")
    sources = strategy_sources([NAME, "er_rand", "ewc(weight=1.0)"])
    assert list(sources) == ["my_strategies"]
    code = (
        "import json, sys; from pathlib import Path; from clstudy.strategies.lookup import *; "
        "from clstudy.storage.foreign_modules import provide_sources; "
        "provide_sources(json.loads(sys.argv[1]), Path(sys.argv[2])); "
        f"print(strategy_class({NAME!r}).description, strategy_document({NAME!r})['source'])"
    )
    there = subprocess.run(
        [sys.executable, "-c", code, json.dumps(sources), str(tmp_path / "modules")],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    digest = hashlib.sha256(documented_block("strategy").encode()).hexdigest()
    assert there.stdout.strip().endswith(digest), there.stderr
