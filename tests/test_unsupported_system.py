"""Windows is refused in one sentence, before anything needs ``fcntl``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import clstudy

PACKAGE = Path(clstudy.__file__).parent
DOORS = ["clstudy", "clstudy.run", "clstudy.report", "clstudy.loss_path"]
DOORS += [f"clstudy.{path.parent.name}" for path in sorted(PACKAGE.glob("*/__main__.py"))]
SENTENCE = "clstudy runs on Linux and macOS: its locks need fcntl"
WINDOWS = "import sys; sys.modules['fcntl'] = None; sys.platform = 'win32'; "


def on_windows(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a Python that takes itself for one on Windows."""
    return subprocess.run([sys.executable, "-c", WINDOWS + program], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "program",
    [
        *(f"import runpy; runpy.run_module({door!r}, run_name='__main__', alter_sys=True)" for door in DOORS),
        "from clstudy.cli.commands import main; sys.exit(main(['--version']))",
    ],
)
def test_every_command_ends_with_the_sentence(program: str) -> None:
    done = on_windows(program)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {SENTENCE}") and "WSL 2" in done.stderr and done.stderr.count("\n") == 1


def test_public_names_are_refused_and_the_refusal_can_be_caught() -> None:
    names = [name for name in clstudy.__all__ if name not in ("__version__", "UserError")]
    program = f"""
import clstudy
print(clstudy.__version__)
for name in {names!r}:
    try:
        getattr(clstudy, name)
    except clstudy.UserError as error:
        print(error)
"""
    done = on_windows(program)
    version, *sentences = done.stdout.splitlines()
    assert (done.returncode, done.stderr, version) == (0, "", clstudy.__version__)
    assert len(sentences) == len(names) and all(line.startswith(SENTENCE) for line in sentences)
