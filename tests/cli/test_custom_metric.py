"""The documented custom metric, as a user would have it: a file of their own, checked and then studied."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from clstudy.analysis.summary import summarise
from clstudy.cli.metrics import main as metrics
from clstudy.cli.report import main as report
from clstudy.cli.run import main as run
from clstudy.records.study_record import read_complete_record
from clstudy.study.preflight import equip
from clstudy.study.stored_study import stored_trials, stored_version
from tests.support.documentation import documented_block, users_folder
from tests.support.small_study import PROFILE, make_study
from tests.support.smoke_study import SmokeStudy, copy_smoke_photos

NAME = "my_metrics:Sharpness"
TITLE = "Reconstruction sharpness error (log ratio)"
SPACE = f"""\
name: mine
profile: smoke
grid:
  identity: 1
  strategy: [lower, er_rand]
  buffer_size: [2]
  learning_rate: [0.003]
settings:
  evaluation: {{metrics: [lpips, "{NAME}"]}}
primary: {{metric: "{NAME}", score: forgetting, between: [er_rand, lower]}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    source = documented_block("metric")
    assert len(source.splitlines()) <= 20
    yield from users_folder(tmp_path, monkeypatch, {"my_metrics.py": source, "space.yaml": SPACE})


def test_the_readmes_metric_is_checked_planned_studied_and_reported_in_this_process(
    folder: Path, smoke_study: SmokeStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert metrics(["check", NAME]) == 0, capsys.readouterr().out
    copy_smoke_photos(smoke_study, folder)
    assert run(["--space", "space.yaml", "--timestamps", "3", "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert re.search(r"\b2 trials\b", planned) and NAME in planned
    assert "forgetting (reconstruction sharpness), er_rand minus lower" in planned
    assert run(["--space", "space.yaml", "--timestamps", "3", "--dry-run", "--without", "sharpness"]) == 2
    assert "not computed here" in capsys.readouterr().err, "the primary comparison has lost its metric"

    study = make_study(folder, ("lower", "er_rand"), metrics=("lpips", NAME))
    rows = [pq.read_table(file) for file in sorted((study / "results").glob("*.parquet"))]
    assert {name for table in rows for name in table["metric"].to_pylist()} == {"lpips", "sharpness"}
    record = read_complete_record(study)
    assert record.profile["evaluation"]["metrics"] == ["lpips", NAME]
    assert [one.place for one in record.metrics] == [NAME]

    # from here on the file may be gone: what a study says of its metrics is in study.yaml
    spec = stored_trials(record)[0]
    before = stored_version(record, spec)
    (folder / "my_metrics.py").unlink()
    sys.modules.pop("my_metrics", None)
    assert stored_version(record, spec) == before
    assert report([str(study)]) == 0
    assert TITLE in capsys.readouterr().out
    page = (study / "report" / "index.html").read_text()
    assert TITLE in page and TITLE in (study / "report" / "tables.md").read_text()
    summary = summarise(study)
    assert summary.complete and summary.scores["metric"][0].as_py() == "lpips", "it does not become the main metric"
    assert set(summary.paired["metric"].to_pylist()) == {"lpips", "sharpness"}
    signs = {row["metric"]: row["better_when"] for row in summary.paired.to_pylist() if row["score"] == "aip"}
    assert signs == {"lpips": "negative", "sharpness": "negative"}


def test_the_command_line_names_a_metric_as_a_space_does_and_leaves_it_out_by_either_name(folder: Path) -> None:
    profile = replace(PROFILE, evaluation=replace(PROFILE.evaluation, metrics=("psnr", NAME)))
    for name in (NAME, "sharpness"):
        assert equip(profile, without=[name]).profile.evaluation.metrics == ("psnr",)
    assert equip(profile).profile.evaluation.metrics == ("psnr", NAME)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("my_metrics:Sharpness", "my_metrics:Sharpnes"), "Did you mean 'Sharpness'"),
        (("my_metrics:Sharpness", "my_metric:Sharpness"), "no module 'my_metric'"),
        (("my_metrics:Sharpness", "my_metrics:sharpness"), "is not a Metric"),
        (("my_metrics:Sharpness", "my-metrics:Sharpness"), "not module:Name"),
        (('unit = "sharpness"', 'unit = "lpips"'), "like a packaged metric"),
        (('unit = "sharpness"', 'unit = "My Sharpness"'), "expected up to 40"),
        (("name, title, unit =", "name, other, unit ="), "title is missing"),
        (("def pairs", "def other"), None),
    ],
)
def test_a_metric_that_cannot_be_had_is_one_clear_message(
    folder: Path, change: tuple[str, str], message: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in ("my_metrics.py", "space.yaml"):
        (folder / file).write_text((folder / file).read_text().replace(*change))
    if message is None:
        assert metrics(["check", NAME]) == 1
        assert re.search(r"FAILED +runs +NotImplementedError", capsys.readouterr().out)
        return
    assert run(["--space", "space.yaml", "--dry-run"]) == 2
    assert message in capsys.readouterr().err


def test_two_metrics_of_one_name_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "other_metrics.py").write_text("from my_metrics import Sharpness\n")
    both = f"evaluation.metrics=lpips,{NAME},other_metrics:Sharpness"
    assert run(["--space", "space.yaml", "--set", both, "--dry-run"]) == 2
    assert "both called 'sharpness'" in capsys.readouterr().err
    sys.modules.pop("other_metrics", None)


def test_a_space_without_metrics_of_ones_own_says_nothing_of_them(smoke_study: SmokeStudy) -> None:
    assert "metrics" not in yaml.safe_load((smoke_study.study / "study.yaml").read_text())
