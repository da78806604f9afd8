"""``clstudy COMMAND``: help, version, exit codes and one prefix for errors, of every command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import clstudy
from clstudy.cli.command_line import repeated
from clstudy.cli.commands import ENTRIES, clstudy_command, main
from clstudy.cli.entry_point import INTERRUPTED, invoke
from clstudy.cli.identities import main as identities
from clstudy.cli.run import main as run
from clstudy.errors import UserError
from clstudy.tracking.local_database import sqlite_uri

SUBCOMMANDS = [
    *(("identities", name) for name in ("prepare", "check", "cameras", "orders", "forget")),
    *(("strategies", name) for name in ("list", "check")),
    *(("profiles", name) for name in ("list", "check")),
    *(("metrics", name) for name in ("list", "check", "fetch")),
    *(("generators", name) for name in ("list", "check", "inspect", "convert", "export")),
    *(("workloads", name) for name in ("list", "check")),
    *(("bench", name) for name in ("run", "verify", "board", "entry")),
    ("storage", "copy"),
    ("tracking", "rebuild"),
    *(("pretraining", name) for name in ("faces", "train", "views", "train-3d", "ages", "train-ages", "classifier")),
    ("pretraining", "train-age-prior"),
]
HEAVY = ("torch", "ray", "matplotlib", "mlflow", "scipy", "pandas")


@pytest.mark.parametrize("words", [(), *((name,) for name in ENTRIES), *SUBCOMMANDS], ids=" ".join)
def test_every_command_has_help_and_a_version_and_refuses_what_it_does_not_know(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--help", "-h"):
        assert main([*words, option]) == 0
        assert capsys.readouterr().out.startswith(" ".join(["Usage: clstudy", *words]))
    assert main([*words, "--version"]) == 0
    assert capsys.readouterr().out == f"clstudy {clstudy.__version__}\n"
    assert main([*words, "--nonsense"]) == 2
    said = capsys.readouterr()
    *_, last = said.err.splitlines()
    assert last.startswith("error: ") and "--nonsense" in last and said.err.count("rror: ") == 1 and said.out == ""


def test_the_list_of_commands_is_that_of_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    context = click.Context(clstudy_command)
    for name, entry in ENTRIES.items():
        found = clstudy_command.get_command(context, name)
        assert found is not None and found.name == name
        assert (f"\n  {name} " in listed and entry.line in listed) is bool(entry.line)
    assert {(name, sub) for name, sub in SUBCOMMANDS} == {
        (name, sub)
        for name in ENTRIES
        if isinstance(found := clstudy_command.get_command(context, name), click.Group)
        for sub in found.commands
    }


def test_the_group_imports_no_command() -> None:
    look = f"import sys, clstudy.cli.commands; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["identities"], "Missing command"),
        (["identities", "check"], "Missing argument 'PATH'"),
        (["report"], "Missing argument"),
        (["compare", "runs/one"], "two studies or more"),
        (["run", "--device", "tpu"], "'tpu' is not one of"),
        (["run"], "no search space given"),
        (["assets"], "nothing to do"),
        (
            ["identities", "prepare", "a", "b", "--identity", "anna", "--every", "2", "--frames", "9"],
            "exclude each other",
        ),
        (["status", "/nowhere"], "no such study folder"),
        (["status", "s3://key:secret@bucket/x"], "was given with credentials"),
        (["ui", "/nowhere"], "there is no folder"),
    ],
)
def test_wrong_input_is_one_message_with_one_prefix_and_exit_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    *_, last = printed.err.splitlines()
    assert last.startswith("error: ") and said in printed.err and "secret@" not in printed.err and printed.out == ""


def test_errors_in_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> int:
        def callback() -> None:
            raise error

        return invoke(click.Command("x", callback=callback), [], "x")

    assert fail(UserError("a\x1b[31m wrong thing")) == 2
    assert capsys.readouterr().err == "error: a\\x1b[31m wrong thing\n"
    assert fail(KeyboardInterrupt()) == INTERRUPTED == 130
    assert capsys.readouterr().err == "error: interrupted\n"
    with pytest.raises(EOFError):  # a bug of ours is not taken for the end of what is typed
        fail(EOFError())


def test_the_modules_are_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for command in (run, lambda words: main(["run", *words])):
        assert command(["--list"]) == 0
        said.append(capsys.readouterr())
    assert said[0] == said[1] and "hull_sizes" in said[0].out
    assert identities(["check", "/nowhere"]) == main(["identities", "check", "/nowhere"]) == 2
    one, two = capsys.readouterr().err.splitlines()
    assert one == two


def test_an_option_with_several_values() -> None:
    names = {"--trials"}
    assert repeated(["S", "--trials", "a", "b", "--points", "3", "x"], names) == (
        ["S", "--trials", "a", "--trials", "b", "--points", "3", "x"]
    )
    assert repeated(["--trials=a", "b", "--trials"], names) == ["--trials=a", "b", "--trials"]
    assert repeated(["--trials", "a", "--", "b", "c"], names) == ["--trials", "a", "--", "b", "c"]


@pytest.fixture
def completed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator:
    def complete(*words: str) -> list[str]:
        monkeypatch.setenv("_CLSTUDY_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(["clstudy", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        assert main() == 0
        return capsys.readouterr().out.split()

    return complete


def test_completion(completed) -> None:
    assert completed("st") == ["plain,status", "plain,strategies", "plain,storage"]
    assert "plain,hull_sizes" in completed("run", "--space", "hull")
    assert completed("run", "--profile", "few") == ["plain,few_photos"]
    assert completed("strategies", "check", "gd") == ["plain,gdumb"]
    assert completed("status", "runs/h") == ["dir,runs/h"]
    assert completed("run", "--dry") == ["plain,--dry-run"]


def test_ui_becomes_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    study = tmp_path / "runs" / "small"
    study.mkdir(parents=True)
    assert main(["ui", str(study)]) == 2 and "no database" in capsys.readouterr().err
    (tmp_path / "runs" / "mlflow.db").write_bytes(b"x")
    for place in (study, study.parent):
        assert main(["ui", str(place), "--port", "5001"]) == 0
    uri = sqlite_uri(tmp_path / "runs" / "mlflow.db")
    words = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", "5001"]
    assert started == [words, words]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@server:5000")
    assert main(["ui", str(study)]) == 0
    assert capsys.readouterr().out.endswith("the runs are at http://server:5000\n") and len(started) == 2
    (study / "tracked.json").write_text('{"experiment_id": "7", "server": null}')
    assert main(["ui", str(study)]) == 0
    assert capsys.readouterr().out == "the runs are at http://server:5000/#/experiments/7/runs\n"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert main(["ui", str(study), "--port", "5002"]) == 0
    assert "the runs are at http://127.0.0.1:5002/#/experiments/7/runs (Charts" in capsys.readouterr().out
    (study / "tracked.json").write_text("broken")
    assert main(["ui", str(study)]) == 0 and "the runs are at http://127.0.0.1:5000 (" in capsys.readouterr().out
