"""A study of every released version is read by this one, with the numbers that it had then."""

from __future__ import annotations

import csv
import hashlib
import re
import subprocess
from pathlib import Path

import pytest

import clstudy
from clstudy.cli.commands import main
from clstudy.records.study_record import read_study_record
from clstudy.trial.requests import NUMERICS_VERSION
from tests.support.released_study import STUDIES, TABLES, unpack
from tests.support.smoke_study import smoke_command

ARCHIVES = sorted(STUDIES.glob("*.tar.gz"))
CHANGELOG = Path(__file__).resolve().parents[2] / "CHANGELOG.md"


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def study(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return unpack(request.param, tmp_path)


def contents(study: Path) -> dict[str, str]:
    """Digests of what was measured, and of what it was measured with."""
    parts = ("results", "stages", "memories", "anchors", "timings")
    files = [path for part in parts for path in (study / part).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(study)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in [*files, study / "study.yaml"]
    }


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def test_every_released_version_left_a_study() -> None:
    released = re.findall(r"^## (\d+\.\d+\.\d+)", CHANGELOG.read_text(encoding="utf-8"), re.MULTILINE)
    there = {path.name.removesuffix(".tar.gz") for path in ARCHIVES}
    assert there and set(released) <= there, "python -m tests.support.released_study runs/smoke"


def test_its_tables_are_those_of_the_version_that_wrote_it(study: Path) -> None:
    before = contents(study)
    then = {name: table(study / "report" / name) for name in TABLES}
    assert main(["report", str(study)]) == 0
    for name, old_rows in then.items():
        new_rows = table(study / "report" / name)
        assert len(old_rows) == len(new_rows) > 0
        for old, new in zip(old_rows, new_rows, strict=True):
            for column, text in old.items():  # columns may be added, and none may go
                expected, found = value(text), value(new[column])
                same = isinstance(expected, float) and found == pytest.approx(
                    expected, rel=1e-9, abs=1e-12, nan_ok=True
                )
                assert same or found == expected, (name, column)
    assert contents(study) == before, "reading changes nothing"


def test_it_is_open_to_whatever_reads_studies(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = clstudy.open_study(study)
    assert opened.complete and len(opened.rows) > 100
    assert len(set(opened.scores["strategy"].to_pylist())) == 3
    assert main(["status", str(study)]) == 0
    assert "6 of 6" in capsys.readouterr().out
    other = unpack(ARCHIVES[-1], tmp_path / "other")
    assert main(["compare", str(study), str(other)]) == 0
    assert list(tmp_path.rglob("comparison.html"))


def test_a_run_of_it_goes_on_from_what_still_means_the_same(study: Path, tmp_path: Path) -> None:
    fingerprint = read_study_record(study).fingerprint
    assert fingerprint is not None
    if fingerprint["numerics"] != NUMERICS_VERSION:
        pytest.skip("its stages are computed again, as CHANGELOG says")
    before = contents(study)
    (tmp_path / "runs").mkdir()
    study.rename(tmp_path / "runs" / "study")
    done = subprocess.run(
        smoke_command(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0 and "nothing to compute" in done.stdout, done.stdout + done.stderr
    after = contents(tmp_path / "runs" / "study")
    assert {name: after[name] for name in before if name != "study.yaml"} == {
        name: digest for name, digest in before.items() if name != "study.yaml"
    }
