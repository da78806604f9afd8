"""A place that cannot be written is said in one message with exit code 2, before anything expensive.

Rights do not bind root, so the places here cannot be written by anybody: below a plain file, and in ``/proc``.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from clstudy.errors import UserError
from clstudy.identities.catalogue import open_data_set
from clstudy.identities.preparation import prepare as prepare_module
from clstudy.storage.driver_lock import only_driver
from clstudy.storage.places import require_writable
from clstudy.study.requirements import require_places


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A plain file, below which nothing can be made."""
    (tmp_path / "file").write_text("kept")
    return tmp_path / "file"


@pytest.fixture(scope="module")
def study(small_study: Path) -> Path:
    """A finished study whose report cannot be written: a file is in its place."""
    (small_study / "report").write_text("in the way")
    return small_study


def refused(module: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What an entry point says; asserts that it ends with 2, one message and no traceback."""
    main: Callable[[list[str]], int] = importlib.import_module(module).main
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    return said.err


@pytest.mark.parametrize("option", ["--out", "--storage"])
@pytest.mark.parametrize("below", ["runs/x", ""])
def test_run(option: str, below: str, file: Path, capsys, monkeypatch) -> None:
    def expensive(*_: object, **__: object) -> None:
        raise AssertionError("work began before the place was looked at")

    monkeypatch.setattr("clstudy.study.preparation.equip", expensive)
    monkeypatch.setattr("clstudy.study.preparation.open_data_set", expensive)
    for place in (file / below, Path("/proc/clstudy") / below):
        said = refused("clstudy.run", ["--space", "smoke", option, str(place)], capsys)
        assert "cannot be written" in said and str(place) in said and "--out" in said, said


def test_run_with_a_database_that_cannot_be_written(tmp_path: Path, file: Path, monkeypatch) -> None:
    home = tmp_path / "runs"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    require_places(home / "study", home)
    assert not home.exists(), "looking leaves nothing behind"
    (home / "mlflow.db").mkdir(parents=True)
    with pytest.raises(UserError, match=r"database .*mlflow\.db is not a file that can be read and written.*--out"):
        require_places(home / "study", home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}/mlflow.db")
    with pytest.raises(UserError, match=r"the folder of MLflow's database .* cannot be written.*MLFLOW_TRACKING_URI"):
        require_places(home / "study", home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    require_places(home / "study", home)


def test_a_packaged_data_set(file: Path) -> None:
    with pytest.raises(UserError, match=r"the folder of packaged data sets .* cannot be written"):
        open_data_set(
            "synthetic", identities=1, timestamps=2, train=2, test=1, data_seed=0, cache=file / "data", image_size=64
        )


def test_prepare_photos(tmp_path: Path, file: Path, capsys, monkeypatch) -> None:
    (tmp_path / "source" / "2024-01-01").mkdir(parents=True)
    (tmp_path / "source" / "2024-01-01" / "a.png").write_bytes(b"")
    monkeypatch.setattr(prepare_module, "Tools", lambda name: pytest.fail("networks were opened first"))
    for out in (file / "photos", Path("/proc/clstudy/photos")):
        arguments = ["prepare", str(tmp_path / "source"), str(out), "--identity", "anna"]
        assert f"the folder {out} cannot be written" in refused("clstudy.cli.identities", arguments, capsys)


@pytest.mark.parametrize(
    ("module", "arguments", "expected"),
    [
        ("clstudy.cli.metrics", ["fetch", "dists", "--to", "{file}/weights"], "cannot be written"),
        ("clstudy.cli.generators", ["convert", "{file}", "{file}/x.safetensors"], "choose another place"),
        ("clstudy.cli.generators", ["export", "{study}", "any", "--to", "{file}/x.safetensors"], "choose another"),
        ("clstudy.report", ["{study}"], "the report's folder .*/report cannot be written"),
        ("clstudy.loss_path", ["{study}", "--points", "2"], "the report's folder .*/report cannot be written"),
        ("clstudy.cli.tracking", ["rebuild", "{study}", "--to", "sqlite:///{file}/m.db"], "MLflow's database .*--to"),
        ("clstudy.cli.storage", ["copy", "{study}", "{file}/copy"], "cannot be written"),
        ("clstudy.cli.storage", ["copy", "{study}", "/proc/clstudy/copy"], "cannot be written"),
        ("clstudy.cli.pretraining", ["faces", "--out", "{file}/build"], "--out"),
        ("clstudy.cli.pretraining", ["train", "--faces", "faces.npz", "--out", "{file}/build"], "--out"),
        (
            "clstudy.cli.pretraining",
            ["train", "--faces", "{file}", "--out", "{study}"],
            "file cannot be read .*faces.npz",
        ),
        (
            "clstudy.cli.pretraining",
            ["train", "--faces", "{file}", "--out", "{study}", "--begin", "1"],
            "--begin 1 without --autoencoder; expected both",
        ),
        ("clstudy.cli.assets", ["--work", "{file}/build"], "--work"),
    ],
    ids=[
        *("fetch", "convert", "export", "report", "loss_path", "rebuild", "copy", "copy to /proc"),
        *("pretraining data", "pretrain", "pretrain without faces", "pretrain from nothing", "assets"),
    ],
)
def test_other_commands(
    module: str, arguments: list[str], expected: str, file: Path, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(module, [word.format(file=file, study=study) for word in arguments], capsys)
    assert re.search(expected, said), said
    assert file.read_text() == "kept" and (study / "report").read_text() == "in the way"


def test_forgetting_in_a_study_that_cannot_be_locked(study: Path, tmp_path: Path) -> None:
    (tmp_path / "study" / "driver.lock").mkdir(parents=True)
    with (
        pytest.raises(UserError, match=r"cannot be locked \(Is a directory: .*driver\.lock\); mend its permissions"),
        only_driver(tmp_path / "study"),
    ):
        pass


def test_looking_whether_a_place_can_be_written_leaves_nothing(tmp_path: Path, file: Path) -> None:
    require_writable(tmp_path / "a" / "b" / "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
    (tmp_path / "a").mkdir()
    require_writable(tmp_path / "a")
    assert not list((tmp_path / "a").iterdir())
    with pytest.raises(UserError, match=r"the folder .* cannot be written: .*; choose another$"):
        require_writable(file / "b", "the folder", "choose another")
    assert os.listdir(tmp_path / "a") == []
