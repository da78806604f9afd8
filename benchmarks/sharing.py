"""How many stages the packaged search spaces save by sharing, counted in their plans."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from clstudy.settings.space_file import known_spaces

_STAGES = re.compile(r"^stages +(?:at most )?(\d+) of (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Sharing:
    """A space's stages, without and with sharing; ``problem`` says why it could not be planned here."""

    space: str
    without: int = 0
    shared: int = 0
    problem: str = ""


def sharing_of_packaged_spaces() -> list[Sharing]:
    """Plans every packaged space in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        return [_sharing(name, folder) for name in known_spaces()]


def _sharing(name: str, folder: str) -> Sharing:
    command = [sys.executable, "-m", "clstudy.run", "--space", name, "--dry-run"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = _STAGES.search(done.stdout)
    if found is None:
        said = (done.stderr or done.stdout).strip().splitlines()
        return Sharing(name, problem=(said or ["no plan"])[0][:90])
    return Sharing(name, without=int(found[2]), shared=int(found[1]))
