"""Packs a finished study as its version wrote it, for the test that every later version can read it.

    python -m tests.support.released_study runs/smoke

writes ``tests/data/studies/VERSION.tar.gz`` of a ``smoke`` study: everything but weights, MLflow's files and the
report's pictures and pages, with the report's tables as that version computed them.
"""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

from clstudy import __version__

STUDIES = Path(__file__).resolve().parents[1] / "data" / "studies"
TABLES = ("summary.csv", "paired.csv", "curves.csv")
"""Tables of the report that a later version must come to."""

_LEFT_OUT = {"weights", "mlflow-artifacts", "driver.lock", "tracked.json"}


def pack(study: Path, version: str, folder: Path = STUDIES) -> Path:
    """Write ``VERSION.tar.gz`` of a finished study to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    to = folder / f"{version}.tar.gz"
    with tarfile.open(to, "w:gz") as archive:
        for path in sorted(path for path in study.rglob("*") if path.is_file()):
            name = path.relative_to(study)
            wanted = name.name in TABLES if name.parts[0] == "report" else name.parts[0] not in _LEFT_OUT
            if wanted:
                archive.add(path, f"study/{name.as_posix()}", filter=_anonymous)
    return to


def unpack(archive: Path, folder: Path) -> Path:
    """The study of an archive, unpacked to a folder."""
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / "study"


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of who packed it."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o644
    return entry


if __name__ == "__main__":
    print(pack(Path(sys.argv[1]), __version__))
