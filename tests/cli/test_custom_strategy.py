"""The documented custom strategy, as a user would have it: a file of their own, checked and then studied."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from clstudy.cli.run import main as run
from clstudy.cli.strategies import main as check
from clstudy.errors import UserError
from clstudy.strategies.lookup import make_strategy, strategy_class, strategy_document
from tests.support.documentation import documented_block, users_folder
from tests.support.small_study import make_study
from tests.support.smoke_study import SmokeStudy, copy_smoke_photos

NAME = "my_strategies:MostTypical"
SPACE = f"""\
name: mine
profile: smoke
grid:
  identity: 1
  strategy: ["{NAME}"]
  buffer_size: [2]
  learning_rate: [0.003]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    source = documented_block("strategy")
    assert len(source.splitlines()) <= 16
    yield from users_folder(tmp_path, monkeypatch, {"my_strategies.py": source, "space.yaml": SPACE})


def test_the_readmes_strategy_is_checked_planned_and_studied_in_this_process(
    folder: Path, smoke_study: SmokeStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(["check", NAME]) == 0, capsys.readouterr().out
    copy_smoke_photos(smoke_study, folder)
    assert run(["--space", "space.yaml", "--timestamps", "3", "--dry-run"]) == 0
    assert re.search(r"\b1 trial\b", capsys.readouterr().out)
    (file,) = (make_study(folder, (NAME,)) / "results").glob("*.parquet")
    rows = pq.read_table(file)
    assert set(rows["strategy"].to_pylist()) == {NAME} and set(rows["train_timestamp"].to_pylist()) == {0, 1, 2}


@pytest.mark.slow
@pytest.mark.ci_slow
def test_the_readmes_strategy_is_checked_and_studied(folder: Path) -> None:
    """By the commands themselves, in a cluster whose workers find the file, too."""

    def command(*arguments: str) -> None:
        whole = [sys.executable, "-m", *arguments]
        done = subprocess.run(whole, cwd=folder, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr

    command("clstudy.strategies", "check", NAME)
    command("clstudy.run", "--space", "space.yaml", "--timestamps", "2")
    (file,) = (folder / "runs" / "mine" / "results").glob("*.parquet")
    rows = pq.read_table(file)
    assert set(rows["strategy"].to_pylist()) == {NAME} and set(rows["train_timestamp"].to_pylist()) == {0, 1}


def test_a_changed_source_changes_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "changing_strategies.py"
    file.write_text(documented_block("strategy"))
    before = strategy_document("changing_strategies:MostTypical")
    file.write_text(documented_block("strategy") + "# changed\n")
    assert strategy_document("changing_strategies:MostTypical") != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("er_hul", "er_hull"),
        ("er_rand(weight=1)", "it has no settings"),
        ("ewc(wieght=1.0)", "weight"),
        ("ewc(weight=-1.0)", "expected a finite weight >= 0"),
        ("ewc(1.0)", "key=value"),
        ("ewc(weight=open('x'))", "key=value"),
        ("ewc(weight", "cannot be read"),
        ("no_such_module_anywhere:Class", "no module 'no_such_module_anywhere'"),
        ("clstudy.strategies.er_hull:ErHul", "Did you mean"),
        ("clstudy.strategies.base:Item", "not a Strategy"),
        ("clstudy.strategies.base:PhotoStrategy", "does not define choose"),
    ],
)
def test_a_strategy_that_cannot_be_had_is_one_clear_message(text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        make_strategy(text)


def test_settings_reach_the_strategy() -> None:
    assert vars(make_strategy("ewc(weight=5.0, decay=0.5)")) == {"weight": 5.0, "decay": 0.5}
    assert strategy_class("ewc(weight=5.0)") is strategy_class("ewc")
    assert strategy_document("ewc(weight=5.0)") == strategy_document(" ewc( weight = 5.0 )")
