"""The documented generator and workload, as a user would have them: files of their own, checked and then studied."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from clstudy.cli.generators import main as generators
from clstudy.cli.report import main as report
from clstudy.cli.run import main as run
from clstudy.cli.workloads import main as workloads
from clstudy.errors import UserError
from clstudy.generators.base import GENERATORS
from clstudy.records.study_record import read_complete_record
from clstudy.settings.profiles import PROFILES
from clstudy.study.preparation import prepare
from clstudy.study.run_options import RunOptions
from clstudy.study.stored_study import stored_profile
from clstudy.workloads import WORKLOADS
from tests.support.documentation import documented_block, users_folder
from tests.support.small_study import make_photos, run_in_process


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    make_photos(tmp_path / "photos", ("anna",))
    sources = {f"my_{name}.py": documented_block(name) for name in ("generator", "workload")}
    yield from users_folder(tmp_path, monkeypatch, sources)


def write_space(folder: Path, profile: object) -> Path:
    grid = {"identity": 1, "strategy": ["lower", "er_hull", "upper"], "buffer_size": [2], "learning_rate": [0.003]}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "profile": profile, "data": "photos", "grid": grid}))
    return path


def test_the_readmes_generator_is_checked_planned_and_studied(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generators(["check", "my_generator:MosaicKind", "--profile", "my_generator:mosaic"]) == 0, (
        capsys.readouterr().out
    )
    quick = {"base": "my_generator:mosaic", "trainer": {"epochs": 2}, "inversion": {"steps": 2}}
    space = write_space(folder, quick)
    assert run(["--space", str(space), "--dry-run"]) == 0
    study = run_in_process(space)
    rows = pq.read_table(study / "results")
    assert set(rows["strategy"].to_pylist()) == {"lower", "er_hull", "upper"}
    assert set(rows["metric"].to_pylist()) == {"lpips", "id", "psnr"}
    source = folder / "my_generator.py"
    planned = RunOptions(space=str(space), dry_run=True)
    assert prepare(planned, lambda text: nullcontext()).basis.generator_digest == read_complete_record(study).generator
    source.write_text(source.read_text() + "# changed\n")
    changed = prepare(planned, lambda text: nullcontext()).basis.generator_digest
    assert changed != read_complete_record(study).generator, "its source is not part of the keys"


def test_the_readmes_workload_is_checked_planned_and_studied(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert workloads(["check", "my_workload:CodesKind", "--profile", "my_workload:codes"]) == 0, capsys.readouterr().out
    space = write_space(folder, {"base": "my_workload:codes", "code": {"steps": 10}})
    assert run(["--space", str(space), "--dry-run"]) == 0
    assert "code.steps=10" in capsys.readouterr().out
    study = run_in_process(space)
    rows = pq.read_table(study / "results")
    assert set(rows["metric"].to_pylist()) == {"mse"} and rows.num_rows == 2 * 2 * (1 + 2 + 3) + 2 * 3
    record = read_complete_record(study)
    assert stored_profile(record).code.steps == 10 and record.objective == "reconstruction_mse"  # type: ignore[attr-defined]
    assert report([str(study)]) == 0
    assert "Reconstruction MSE" in (study / "report" / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("profile", "rows"),
    [
        ({"base": "my_generator:mosaic", "trainer": {"epochs": 2}, "inversion": {"steps": 2}}, 3),
        ({"base": "my_workload:codes", "code": {"steps": 5}}, 1),
    ],
    ids=["generator", "workload"],
)
def test_the_readmes_generator_and_workload_are_studied_by_the_command(
    folder: Path, profile: dict[str, object], rows: int
) -> None:
    """In a cluster of this machine: workers find the file, and MLflow takes what the workload measures."""
    write_space(folder, profile)
    command = [sys.executable, "-m", "clstudy.run", "--space", "mine.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    table = pq.read_table(folder / "runs" / "mine" / "results")
    assert len(set(table["metric"].to_pylist())) == rows and len(set(table["trial"].to_pylist())) == 3


def test_a_workloads_settings_and_source_are_in_its_keys(folder: Path) -> None:
    def keys(*, steps: int, out: str) -> set[str]:
        study = run_in_process(write_space(folder, {"base": "my_workload:codes", "code": {"steps": steps}}), out=out)
        return {path.name for kind in ("stages", "anchors", "memories") for path in (study / kind).glob("*/*")}

    first = keys(steps=2, out="first")
    assert keys(steps=2, out="second") == first
    assert not keys(steps=3, out="third") & first
    source = folder / "my_workload.py"
    source.write_text(source.read_text() + "# changed\n")
    assert not keys(steps=2, out="fourth") & first


@pytest.mark.parametrize(
    ("registry", "name", "message"),
    [
        (GENERATORS, "my_generator:Mosaic", "is not a GeneratorKind"),
        (GENERATORS, "my_generator:MosaikKind", "Did you mean 'MosaicKind'"),
        (GENERATORS, "clstudy.generators.base:GeneratorKind", "does not define build, read"),
        (WORKLOADS, "my_workload:Codes", "is not a WorkloadKind"),
        (WORKLOADS, "no_such_module_at_all:Kind", "there is no module"),
        (PROFILES, "my_workload:State", "profile"),
    ],
)
def test_what_is_not_of_its_kind_is_one_clear_message(folder: Path, registry: object, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        registry[name]  # type: ignore[index]


def test_a_strategy_that_learns_is_refused_where_the_workload_has_nothing_to_learn_from(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = write_space(folder, "my_workload:codes")
    space.write_text(space.read_text().replace("- lower", "- ewc"))
    assert run(["--space", str(space), "--dry-run"]) == 2
    assert "strategy ewc learns from the loss of single photos" in capsys.readouterr().err


def test_photos_without_what_a_workload_needs_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder / "my_workload.py"
    lines = source.read_text().replace("(WorkloadKind):\n", '(WorkloadKind):\n    conditions = {"age": 1}\n')
    source.write_text(lines)
    space = write_space(folder, {"base": "my_workload:codes", "code": {"steps": 2}})
    assert run(["--space", str(space), "--dry-run"]) == 2
    assert "needs the condition 'age' (1 number) of every photo, and anna/t0/train/0.png has none" in (
        capsys.readouterr().err
    )
    for stamp in (folder / "photos" / "anna").iterdir():
        (stamp / "conditions.json").write_text('{"age": 30}')
    assert pq.read_table(run_in_process(space) / "results").num_rows
