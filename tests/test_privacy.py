"""Who can read what is written, and what Ray leaves behind."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from clstudy.cli import report as cli_report
from clstudy.cli.entry_point import invoke
from clstudy.cli.run_view import PrintedRun
from clstudy.cluster import ray_folder
from clstudy.cluster.ray_folder import PREFIX, keep_logs, private_folder, remove_abandoned
from clstudy.errors import UserError
from clstudy.identities.catalogue import open_data_set
from clstudy.storage.file_modes import current_mask, mask_of, new_files, open_to_others
from clstudy.study.privacy.names import names_somebody
from clstudy.study.privacy.ray_sessions import experiment_name, forget_in_sessions
from clstudy.study.run_options import RunOptions
from tests.analysis.test_report import Study


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Of a shell: others may read."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def readable_by_others(folder: Path) -> list[str]:
    return [f"{path} {path.lstat().st_mode:o}" for path in [folder, *folder.rglob("*")] if path.lstat().st_mode & 0o077]


def test_commands_write_for_their_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set made on first use (a whole study: ``test_run``); the umask of the process is as before."""
    monkeypatch.delenv("CLSTUDY_FILES", raising=False)
    wanted = {"identities": 1, "timestamps": 1, "train": 2, "test": 1, "data_seed": 0}
    make = click.Command("make", callback=lambda: open_data_set("synthetic", cache=tmp_path / "data", **wanted))
    assert invoke(make, [], "make") == 0
    assert len(list((tmp_path / "data").rglob("*.png"))) == 3
    assert not readable_by_others(tmp_path / "data")
    assert current_mask() == 0o022


@pytest.mark.parametrize(("named", "mode"), [(None, 0o600), ("private", 0o600), ("group", 0o640), ("shared", 0o644)])
def test_a_report_is_readable_as_the_setting_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str | None, mode: int
) -> None:
    study = Study(tmp_path / "study", identities=("ann",), seeds=(0,))
    monkeypatch.setattr(cli_report, "place_report", lambda place: (place / "made").write_text("x") and 1 / 0)
    monkeypatch.delenv("CLSTUDY_FILES", raising=False)
    if named:
        monkeypatch.setenv("CLSTUDY_FILES", named)
    with pytest.raises(ZeroDivisionError):
        cli_report.main([str(study.folder)])
    assert stat.S_IMODE((study.folder / "made").stat().st_mode) == mode
    assert current_mask() == 0o022, "as before, also after an error"


def test_a_setting_that_does_not_exist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CLSTUDY_FILES", "privat")
    assert cli_report.main(["anything"]) == 2
    assert "CLSTUDY_FILES is 'privat'; expected one of private, group, shared. Did you mean 'private'?" in (
        capsys.readouterr().err
    )


def test_the_option_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLSTUDY_FILES", "group")
    with new_files():
        assert (current_mask(), mask_of(), mask_of("shared"), mask_of("private")) == (0o027, 0o027, 0o022, 0o077)
    with pytest.raises(UserError, match="--files is 'all'"):
        mask_of("all")
    assert invoke(click.Command("look", callback=current_mask), [], "look") == 0o027


def test_an_open_folder_of_an_earlier_version_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from clstudy.cli.clean_output import CleanConsole

    study = tmp_path / "study"
    study.mkdir()
    assert open_to_others(study) == "755" and open_to_others(tmp_path / "none") == ""
    with new_files():
        PrintedRun(CleanConsole(width=300), RunOptions(space="any")).open_folder(study)
    said = capsys.readouterr().out
    assert "is open to other users (mode 755)" in said and f"chmod -R go-rwx {study}" in said
    study.chmod(0o700)
    PrintedRun(CleanConsole(width=300), RunOptions(space="any")).open_folder(study)
    assert capsys.readouterr().out == ""


# --- Ray's folders --------------------------------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder with a short path, as Ray's sockets need it."""
    folder = tmp_path_factory.mktemp("t")
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.setattr(ray_folder, "_LONGEST", 200)
    monkeypatch.setattr(ray_folder.tempfile, "gettempdir", lambda: str(folder))
    return folder


def test_rays_folder_is_private_and_goes_and_does_not_add_up(temporary: Path) -> None:
    for _ in range(2):
        with private_folder() as folder:
            assert folder.parent == temporary
            (folder / "session_2026" / "logs").mkdir(parents=True, mode=0o777)
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert list(temporary.glob(f"{PREFIX}*")) == [folder]
        assert not list(temporary.iterdir())
    with pytest.raises(KeyboardInterrupt), private_folder():
        raise KeyboardInterrupt
    assert not list(temporary.iterdir())


def test_folders_of_killed_drivers_go_and_no_others(temporary: Path) -> None:
    """A dead driver's lock is free; a living one's is not; what is not ours is not touched."""
    killed, living, strange = (temporary / f"{PREFIX}{name}" for name in ("killed", "living", "strange"))
    for folder in (killed, living, strange):
        (folder / "session_2026").mkdir(parents=True)
    (killed / "lock").touch()
    (temporary / f"{PREFIX}link").symlink_to(killed)
    (living / "lock").touch()
    (temporary / "ray" / "session_2026").mkdir(parents=True)
    with (living / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with private_folder():
            left = {path.name for path in temporary.iterdir()}
        assert remove_abandoned(temporary) == 0
    assert not killed.exists() and living.exists() and strange.exists(), "without a lock it may be another's"
    assert {"ray", f"{PREFIX}link", living.name, strange.name} <= left


def test_a_long_temporary_folder_is_no_place_for_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 80)
    deep.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(deep))
    with private_folder() as folder:
        assert folder.parent == Path("/tmp")
        path = folder / "session_2026-11-28_20-13-11_704535_4194304" / "sockets"
        path.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as line:
            line.bind(str(path / "plasma_store"))  # the longest path that the system takes


def test_logs_of_a_run_that_went_wrong_are_kept_in_the_study(tmp_path: Path) -> None:
    logs = tmp_path / "session_2026-11-28" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.out").write_text("out of memory")
    (logs / "empty.err").touch()
    (tmp_path / "session_latest").symlink_to(logs.parent)
    assert keep_logs(tmp_path, tmp_path / "study" / "ray" / "logs") == 1
    assert (tmp_path / "study" / "ray" / "logs" / "raylet.out").read_text() == "out of memory"


def session(root: Path, number: int, experiment: str, name: str) -> Path:
    """What Ray and Tune leave of a run."""
    folder = root / "ray" / f"session_2026-11-28_20-13-1{number}_704535_{number}"
    records = folder / "artifacts" / "2026-11-28_20-13-12" / experiment
    (records / "driver_artifacts").mkdir(parents=True)
    (records / "working_dirs" / f"{name}-lower-lr0.003-s0").mkdir(parents=True)
    (records / "driver_artifacts" / "experiment_state-2026.json").write_text(f'{{"identity": "{name}"}}')
    (folder / "sockets").mkdir()
    (folder / "logs").mkdir()
    (folder / "logs" / "raylet.out").write_text("nothing")
    return folder


def test_forgetting_reaches_rays_sessions(temporary: Path) -> None:
    old = session(temporary, 1, "smoke", "anna")
    others = session(temporary, 2, "smoke", "berta")
    foreign = session(temporary, 3, "somebody_elses", "anna")
    logged = session(temporary, 4, experiment_name("0123"), "anna")
    (logged / "logs" / "worker.err").write_text("Traceback of anna")
    running = session(temporary, 5, "smoke", "anna")
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(str(running / "sockets" / "raylet"))
        line.listen()
        left = forget_in_sessions("smoke", lambda content: names_somebody(content, ["anna"]))
    gone = "artifacts/2026-11-28_20-13-12"
    assert not (old / gone / "smoke").exists() and not (logged / gone / experiment_name("0123")).exists()
    assert (others / gone / "smoke").exists() and (foreign / gone / "somebody_elses").exists()
    assert (running / gone / "smoke").exists()
    assert len(left) == 2
    assert str(logged) in left[0] and "logs contain the name" in left[0]
    assert str(running) in left[1] and "is still running" in left[1]
