"""What a run says to somebody who has gone away."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clstudy.cli.commands import main
from clstudy.cli.notification import notify, notify_words
from clstudy.errors import UserError

WRITES = "import os, sys; open(sys.argv[1], 'w').write('|'.join([*sys.argv[2:], *(os.environ[n] for n in names)]))"


def test_the_command_gets_the_sentence_as_one_word_and_no_shell_sees_it(tmp_path: Path) -> None:
    said = tmp_path / "said"
    program = f"names = ('CLSTUDY_STUDY', 'CLSTUDY_EXIT_CODE'); {WRITES}"
    study = "runs/$(touch x); a study"
    assert notify([sys.executable, "-c", program, str(said)], study, 1) is None
    assert said.read_text() == f"clstudy: {study}: some trials failed or are missing|{study}|1"


def test_a_command_that_fails_is_one_sentence_and_nothing_else() -> None:
    assert notify(None, "x", 0) is None
    assert "ended with 3" in str(notify([sys.executable, "-c", "raise SystemExit(3)"], "x", 0))
    assert "did not work" in str(notify(["/no/such/program"], "x", 0))


def test_a_command_that_is_none_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(notify_words("a 'b c'")) == ["a", "b c"]
    for wrong in ("'", "  "):
        with pytest.raises(UserError, match="--notify-command is"):
            notify_words(wrong)
    assert main(["run", "--space", "smoke", "--notify-command", "'"]) == 2
    assert "--notify-command" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_plan_notifies_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = tmp_path / "said"
    assert main(["run", "--space", "smoke", "--dry-run", "--notify-command", f"touch {said}"]) == 0
    assert not said.exists()
