"""`import clstudy`: the documented example, and what it says of studies that are not there or not whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import clstudy
from clstudy.analysis.summary import summarise
from tests.support.documentation import marked
from tests.support.smoke_study import SmokeStudy, copy_smoke_study


def test_the_documented_example_runs(
    smoke_study: SmokeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a study that is finished: ``run_study`` finds nothing to compute, and goes on from there."""
    copy_smoke_study(smoke_study, tmp_path)
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "runs" / "study" / "results").glob("*.parquet")}
    example = marked("python", "api")
    exec(compile(example.text, str(example.page), "exec"), {})
    said = capsys.readouterr().out
    assert "AIP" in said and said.rstrip().endswith("report/index.html")
    assert {path: path.read_bytes() for path in before} == before


def test_results_are_those_of_the_files(smoke_study: SmokeStudy) -> None:
    study = clstudy.open_study(smoke_study.study)
    assert study.name == "smoke" and study.complete and not study.missing
    files = sorted((smoke_study.study / "results").glob("*.parquet"))
    assert study.rows.num_rows == sum(pq.read_metadata(path).num_rows for path in files) > 0
    summary = summarise(smoke_study.study)
    assert study.scores.equals(summary.scores) and study.compare().equals(summary.paired)
    assert set(study.compare("lower")["baseline"].to_pylist()) == {"lower"}
    for trial, stages in study.stages.items():
        of_trial = study.rows.filter(pc.equal(study.rows["trial"], trial))
        assert [stage.t for stage in stages] == sorted(set(of_trial["train_timestamp"].to_pylist()))
        assert all(stage.identity == of_trial["identity"][0].as_py() for stage in stages)


def test_what_is_missing_is_said(smoke_study: SmokeStudy, tmp_path: Path) -> None:
    copy = copy_smoke_study(smoke_study, tmp_path) / "runs" / "study"
    lost = sorted((copy / "results").glob("*.parquet"))[0]
    lost.unlink()
    study = clstudy.open_study(str(copy))
    assert not study.complete and list(study.missing) == [lost.stem] and study.missing[lost.stem]
    assert lost.stem not in study.rows["trial"].to_pylist()
    with pytest.raises(clstudy.UserError, match="nothing is compared with 'uper'.*baselines: lower"):
        study.compare("uper")


def test_mistakes_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(clstudy.UserError, match=r"is not a study: it has no study\.yaml"):
        clstudy.open_study(tmp_path)
    with pytest.raises(clstudy.UserError, match="unknown search space 'smok'"):
        clstudy.run_study("smok", out=str(tmp_path / "study"))
    with pytest.raises(clstudy.UserError, match="--timestamps is 0; expected at least 1"):
        clstudy.run_study("smoke", timestamps=0)
    with pytest.raises(TypeError, match="identites"):
        clstudy.run_study("smoke", identites="1")
    with pytest.raises(AttributeError, match="has no attribute 'run_studdy'"):
        clstudy.run_studdy  # noqa: B018


def test_importing_it_loads_nothing_heavy_and_names_are_whole() -> None:
    code = (
        "import sys, clstudy; heavy = {'torch', 'ray', 'mlflow', 'pyarrow', 'numpy', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy; assert dir(clstudy) == sorted(clstudy.__all__); "
        "[getattr(clstudy, name) for name in clstudy.__all__]; assert 'ray' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
