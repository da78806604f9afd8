"""The node's own folder: what another user of the machine prepared there is refused, not used."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clstudy.cluster.node_files import Inputs
from clstudy.errors import UserError
from clstudy.storage.foreign_modules import provide_sources
from clstudy.storage.private_folder import lock_file, made_private, node_folder, private_node_folder
from clstudy.study.privacy.removal import _drop_local_copies

STRANGER = 65534
PHOTO = b"a photo"
DIGEST = hashlib.sha256(PHOTO).hexdigest()


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A temporary folder as a machine has it: everybody may write, nobody may touch what is another's.

    (Not below ``tmp_path``, which nobody else can enter; that one is asked for so that it is made before the switch.)
    """
    folder = Path(tempfile.mkdtemp(prefix="shared-"))
    folder.chmod(0o1777)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def stranger() -> Callable[[str, Path], None]:
    """Runs Python code as another user, with a folder in ``here``."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; the traps that need none are tested without")

    def run(code: str, here: Path) -> None:
        child = os.fork()  # no new program: the interpreter's folder may be closed to others
        if child:
            assert os.waitpid(child, 0)[1] == 0, "the trap could not be set"
            return
        try:
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            os.umask(0)
            exec(code, {"here": here})
            os._exit(0)
        finally:
            os._exit(1)

    return run


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """A study that has one photo, which this node must fetch."""
    (tmp_path / "study" / "inputs").mkdir(parents=True)
    (tmp_path / "study" / "inputs" / f"{DIGEST}.png").write_bytes(PHOTO)
    return Inputs(tmp_path / "study", "token")


def fetch(inputs: Inputs) -> Path:
    return inputs.local(Path("/nowhere/photo.png"), DIGEST)


def test_every_level_is_for_this_user_alone(temporary: Path, inputs: Inputs) -> None:
    before = os.umask(0)
    try:
        assert fetch(inputs).read_bytes() == PHOTO and fetch(inputs) == inputs.cache / f"{DIGEST}.png"
        provide_sources({"nobodys_module": "X = 1"}, inputs.private_cache("modules"))
    finally:
        os.umask(before)
        sys.path[:] = [entry for entry in sys.path if not entry.startswith(str(temporary))]
    for level in (node_folder(), inputs.cache, inputs.cache / "modules"):
        assert stat.S_IMODE(level.stat().st_mode) == 0o700
    assert (inputs.cache / "modules" / "nobodys_module.py").read_text() == "X = 1"
    inputs.remove_cache()
    assert node_folder().is_dir() and not inputs.cache.exists()


def test_a_folder_that_a_stranger_made_is_refused(
    temporary: Path, inputs: Inputs, stranger: Callable[[str, Path], None]
) -> None:
    stranger(
        "here.mkdir(0o777); (here / 'token').mkdir(0o777); (here / 'token' / 'modules').mkdir(0o777)", node_folder()
    )
    expected = rf"clstudy-0 is a folder of \S+ \(uid {STRANGER}\) with mode 777; expected .*with mode 700.*TMPDIR"
    with pytest.raises(UserError, match=expected):
        fetch(inputs)
    with pytest.raises(UserError, match=expected):
        inputs.private_cache("modules")
    assert list(inputs.cache.iterdir()) == [inputs.cache / "modules"], "nothing of ours went there"


def test_what_a_stranger_put_there_is_not_taken_for_the_photo(
    temporary: Path, inputs: Inputs, stranger: Callable[[str, Path], None]
) -> None:
    code = (
        f"(here / 'token').mkdir(0o755, parents=True); (here / 'token' / '{DIGEST}.png').write_bytes(b'another photo')"
    )
    stranger(code, node_folder())
    with pytest.raises(UserError, match=rf"uid {STRANGER}"):
        fetch(inputs)


def test_nothing_is_removed_through_a_strangers_link(
    temporary: Path, inputs: Inputs, tmp_path: Path, stranger: Callable[[str, Path], None]
) -> None:
    ours = tmp_path / "ours"
    (ours / "token").mkdir(parents=True)
    (ours / "token" / f"{DIGEST}.png").write_bytes(b"kept")
    stranger(f"here.symlink_to({str(ours)!r})", node_folder())
    with pytest.raises(UserError, match=rf"clstudy-0 is a link of .*uid {STRANGER}"):
        fetch(inputs)
    inputs.remove_cache()
    _drop_local_copies([DIGEST])
    assert (ours / "token" / f"{DIGEST}.png").read_bytes() == b"kept"


@pytest.mark.parametrize("level", ["", "token", "token/modules"])
def test_a_link_is_refused_on_every_level(temporary: Path, inputs: Inputs, tmp_path: Path, level: str) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    trap = node_folder() / level
    trap.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    trap.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"is a link of .*expected a folder of .*remove it"):
        inputs.private_cache("modules")
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o720])
def test_a_folder_in_which_others_may_write_is_refused(temporary: Path, mode: int) -> None:
    modules = private_node_folder("token", "modules")
    modules.chmod(mode)
    (modules / "planted.py").write_text("raise SystemExit('planted')")
    with pytest.raises(UserError, match=rf"modules is a folder of .* with mode {mode:o}; expected"):
        provide_sources({"some_module_of_mine": ""}, modules)
    assert str(modules) not in sys.path
    node_folder().chmod(mode)
    with pytest.raises(UserError, match=rf"clstudy-{os.getuid()} is a folder of .* with mode {mode:o}"):
        private_node_folder("token")


def test_a_folder_of_ours_that_others_may_read_is_closed_to_them(temporary: Path) -> None:
    """As versions before this check left it."""
    node_folder().mkdir()
    node_folder().chmod(0o755)
    assert stat.S_IMODE(private_node_folder().stat().st_mode) == 0o700


def test_a_file_in_its_place_and_a_temporary_folder_that_is_none(temporary: Path, monkeypatch) -> None:
    node_folder().write_text("")
    with pytest.raises(UserError, match="is no folder of"):
        private_node_folder()
    monkeypatch.setattr("tempfile.tempdir", str(temporary / "missing"))
    with pytest.raises(UserError, match=r"cannot be (made|used).*TMPDIR"):
        private_node_folder()


def test_a_temporary_folder_where_everybody_may_rename_is_refused(temporary: Path) -> None:
    temporary.chmod(0o777)
    with pytest.raises(UserError, match=r"mode 777: everybody may replace what is in it; expected 1777"):
        private_node_folder()


def test_a_lock_is_not_opened_through_a_link_and_not_emptied(tmp_path: Path, temporary: Path, inputs: Inputs) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (inputs.private_cache() / ".lock").symlink_to(precious)
    with pytest.raises(UserError, match=r"the lock .*\.lock cannot be opened .*remove what is there"):
        fetch(inputs)
    assert precious.read_text() == "precious"
    with lock_file(precious):
        assert precious.read_text() == "precious"
    with lock_file(tmp_path / "new"):
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    assert made_private(tmp_path / "made").is_dir()
