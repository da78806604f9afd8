"""One whole run of the space ``smoke`` for all tests of a session: real command, Ray, MLflow on SQLite, Parquet.

Made once, whichever test asks first and however many processes share the tests; nobody writes to it. A test that
writes takes ``copy_smoke_study``. It is run as somebody who just installed clstudy has it (a new home, no setting of
any library), with every address watched that its processes send to.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from clstudy.cluster.ray_folder import PREFIX
from tests.support.network_watch import Contact, run_watched

_RECORD = "record.json"


@dataclass(frozen=True)
class SmokeStudy:
    """A finished study; ``folder`` holds ``runs`` with ``study``, ``data`` and ``mlflow.db``."""

    folder: Path
    home: Path
    """What the user's home folder was, now with what the run left there."""
    stdout: str
    contacts: tuple[Contact, ...]
    """All that its processes sent to or connected to."""
    left_by_ray: tuple[str, ...]
    """Folders of Ray's sessions that were there when the command had ended."""

    @property
    def study(self) -> Path:
        return self.folder / "runs" / "study"


def smoke_command(folder: Path, *options: str, space: str = "smoke") -> list[str]:
    """The main job, with its study at ``folder/runs/study``."""
    return [sys.executable, "-m", "clstudy.run", *smoke_arguments(folder, *options, space=space)]


def smoke_arguments(folder: Path, *options: str, space: str = "smoke") -> list[str]:
    """The same for ``clstudy.cli.run.main``, in the test's own process."""
    return ["--space", space, "--out", str(folder / "runs" / "study"), *options]


def share_smoke_study(root: Path) -> SmokeStudy:
    """The study in ``root``, a folder that all processes of a test session have in common; made by the first.

    Raises:
        AssertionError: its run failed, here or in another process.
    """
    record = root / "smoke" / _RECORD
    with FileLock(root / "smoke.lock"):
        if not record.exists():
            record.parent.mkdir(exist_ok=True)
            record.write_text(json.dumps({"trouble": "it was begun and never ended"}))
            record.write_text(json.dumps(_make(record.parent)))
    kept = json.loads(record.read_text())
    assert "trouble" not in kept, f"the smoke study of this session failed: {kept['trouble']}"
    return SmokeStudy(
        folder=record.parent,
        home=record.parent / "home",
        stdout=kept["stdout"],
        contacts=tuple(Contact(**contact) for contact in kept["contacts"]),
        left_by_ray=tuple(kept["left_by_ray"]),
    )


def _make(folder: Path) -> dict[str, object]:
    (folder / "home").mkdir()
    # a temporary folder that tests beside this one do not use; with a short name, for the sake of Ray's sockets
    temporary = Path(tempfile.mkdtemp(prefix="ct-"))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "COLUMNS": "120",
        "TMPDIR": str(temporary),
    }
    done = run_watched(smoke_command(folder), env=environment, cwd=folder, timeout=900)
    if done.returncode != 0:
        return {"trouble": done.stdout + done.stderr}
    left = _ray_folders(temporary)
    shutil.rmtree(temporary)
    return {"stdout": done.stdout, "contacts": [asdict(contact) for contact in done.contacts], "left_by_ray": left}


def _ray_folders(temporary: Path) -> list[str]:
    """Folders for Ray's sessions, and clstudy's records in Ray's usual place."""
    places = {temporary: f"{PREFIX}*", temporary / "ray": "session_2*/artifacts/*/clstudy-*"}
    return [str(path) for place, names in places.items() for path in place.glob(names)]


def copy_smoke_study(given: SmokeStudy, folder: Path) -> Path:
    """A copy to write to, in ``folder``: MLflow's runs point to the copy's own pictures. Returns ``folder``."""
    shutil.copytree(given.folder / "runs", folder / "runs", ignore=shutil.ignore_patterns("mlflow.db*"))
    file = folder / "runs" / "mlflow.db"
    with (
        closing(sqlite3.connect(given.folder / "runs" / "mlflow.db")) as source,
        closing(sqlite3.connect(file)) as copy,
    ):
        source.backup(copy)
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            copy.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(given.folder / "runs"), str(file.parent))
            )
        copy.commit()
    file.chmod(0o600)
    return folder


def copy_smoke_photos(given: SmokeStudy, folder: Path) -> Path:
    """Only the data set's photos, so that a run in ``folder`` need not draw them again. Returns ``folder``."""
    shutil.copytree(given.folder / "runs" / "data", folder / "runs" / "data")
    return folder


def written_files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and moment of writing of every file but MLflow's database, which readers of SQLite touch, too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("mlflow.db"):
            state = path.stat()
            found[str(path)] = (state.st_size, state.st_mtime_ns)
    return found
