"""A space with variants through the main command: a study for each, one comparison, and everything goes on."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from clstudy.analysis.matrix import load_rows
from clstudy.analysis.summary import summarise
from clstudy.cli.commands import main
from tests.support.main_command import run_command

SPACE = """name: two_ways
profile: smoke
grid: {identity: 2, strategy: [lower], learning_rate: [0.003]}
variants: {plain: {}, longer: {trainer: {epochs: 12}}}
"""


def test_a_plan_shows_every_variant_and_a_typed_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two_ways.yaml").write_text(SPACE)
    assert main(["run", "--space", "two_ways.yaml", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("plan  ") == 2 and "plain" in said and "trainer.epochs=12" in said
    assert main(["run", "--space", "two_ways.yaml", "--dry-run", "--variant", "longer"]) == 0
    assert capsys.readouterr().out.count("plan  ") == 1
    assert main(["run", "--space", "two_ways.yaml", "--dry-run", "--variant", "shorter"]) == 2
    assert "no variant 'shorter'; it has: plain, longer" in capsys.readouterr().err
    assert main(["run", "--space", "smoke", "--dry-run", "--variant", "plain"]) == 2


@pytest.mark.slow
@pytest.mark.ci_slow
def test_variants_are_studies_that_are_compared_and_go_on(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    done = run_command(tmp_path)
    assert done.returncode == 0, done.stderr
    studies = {name: tmp_path / "runs" / f"two_ways_{name}" for name in ("plain", "longer")}
    values = {
        name: {row["strategy"]: row["mean"] for row in summarise(folder).scores.to_pylist() if _is_aip(row)}
        for name, folder in studies.items()
    }
    assert "Not the same: name" not in done.stdout and "profile.trainer.passes" in done.stdout
    with (tmp_path / "runs" / "comparison.csv").open(newline="") as file:
        (row,) = (row for row in csv.DictReader(file) if _is_aip(row))
    assert float(row["difference"]) == pytest.approx(values["longer"]["lower"] - values["plain"]["lower"], rel=1e-9)
    assert float(row["difference"]) != 0
    before = {name: load_rows(folder) for name, folder in studies.items()}
    again = run_command(tmp_path)
    assert again.returncode == 0 and again.stdout.count("2 finished before") == 2, again.stdout
    assert all(load_rows(folder).equals(before[name]) for name, folder in studies.items())


def _is_aip(row: dict[str, object]) -> bool:
    return (row["protocol"], row["metric"], row["score"]) == ("reconstruction", "lpips", "aip")
