"""Studies of different people pooled into one: the same numbers as one study of all, and refusals in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from clstudy.analysis.claims import primary_answer
from clstudy.analysis.summary import summarise
from clstudy.cli.commands import main
from clstudy.errors import UserError
from clstudy.records.study_record import read_complete_record
from clstudy.study.pooling import pool_studies
from tests.analysis.test_report import Study

EVERYBODY = ("ann", "bob", "cat", "dan", "eve")
CLAIM = {
    "primary": {"metric": "lpips", "score": "forgetting", "between": ["er_hull", "er_rand"], "buffer_size": 3},
    "effects": None,
    "finished_trials": 0,
    "measured_stages": 0,
}
COMPLETE: dict[str, Any] = {
    "profile": {"name": "embedded", "trainer": {"passes": 4}, "stage_seconds": 1.0},
    "generator": "1" * 64,
    "fingerprint": {"numerics": 2, "torch": "2.13"},
    "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
    "data_set": "faces",
    "claims": [CLAIM],
}


def change(folder: Path, **fields: Any) -> None:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | fields))


def without_others(folder: Path, people: tuple[str, ...]) -> Path:
    """The whole study, as if only these people had been studied."""
    study = Study(folder, identities=EVERYBODY)
    for trial in study.trials:
        if trial["identity"] not in people:
            study.results(trial["trial"]).unlink()
    (folder / "stages" / people[0]).mkdir(parents=True)
    (folder / "stages" / people[0] / "rows.parquet").write_text(people[0])
    (folder / "weights").mkdir()
    (folder / "weights" / "large").write_text("large")
    change(
        folder,
        **COMPLETE,
        timestamps=dict.fromkeys(people, study.size),
        data_digests={name: name * 10 for name in people},
        trials=[trial for trial in study.trials if trial["identity"] in people],
    )
    return folder


@pytest.fixture
def pieces(tmp_path: Path) -> list[Path]:
    return [without_others(tmp_path / "first", EVERYBODY[:2]), without_others(tmp_path / "second", EVERYBODY[2:])]


def test_pooled_studies_give_the_numbers_of_one_study(tmp_path: Path, pieces: list[Path]) -> None:
    whole = Study(tmp_path / "whole", identities=EVERYBODY)
    change(whole.folder, claims=[CLAIM])
    pool_studies(pieces, tmp_path / "pooled")
    expected, found = summarise(whole.folder), summarise(tmp_path / "pooled")
    assert found.complete
    assert found.scores.equals(expected.scores) and found.paired.equals(expected.paired)
    ours, theirs = primary_answer(found), primary_answer(expected)
    assert ours is not None and theirs is not None and ours.p_t == theirs.p_t and not ours.late
    record = read_complete_record(tmp_path / "pooled")
    assert tuple(record.timestamps) == EVERYBODY and len(record.trials) == len(whole.trials)
    copied = {path.relative_to(tmp_path / "pooled").as_posix() for path in (tmp_path / "pooled").rglob("*.parquet")}
    assert {"stages/ann/rows.parquet", "stages/cat/rows.parquet"} <= copied
    assert not (tmp_path / "pooled" / "weights").exists()
    assert (pieces[0] / "weights" / "large").exists(), "the studies themselves stay as they are"


def test_pooling_again_adds_what_has_come(tmp_path: Path, pieces: list[Path]) -> None:
    missing = next((pieces[0] / "results").iterdir())
    content = missing.read_bytes()
    missing.unlink()
    pool_studies(pieces, tmp_path / "pooled")
    assert not summarise(tmp_path / "pooled").complete
    missing.write_bytes(content)
    pool_studies(pieces, tmp_path / "pooled")
    assert summarise(tmp_path / "pooled").complete


def test_versions_that_differ_are_all_kept_and_late_claims_stay_late(tmp_path: Path, pieces: list[Path]) -> None:
    change(pieces[0], versions={"torch": "2.13.0", "numpy": "2.4.5"})
    change(pieces[1], claims=[CLAIM | {"finished_trials": 3, "measured_stages": 9}], data_set="others")
    record = pool_studies(pieces, tmp_path / "pooled")
    assert record.versions == {"torch": "2.13.0", "numpy": "2.4.5, 2.4.6"} and record.data_set == "faces, others"
    answer = primary_answer(summarise(tmp_path / "pooled"))
    assert answer is not None and "3 trials" in answer.late


def _settings(second: Path) -> None:
    change(second, profile=COMPLETE["profile"] | {"trainer": {"passes": 5}})


def _grid(second: Path) -> None:
    trials = yaml.safe_load((second / "study.yaml").read_text())["trials"]
    change(second, trials=[trial for trial in trials if trial["strategy"] != "er_hull"])


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_settings, r"differ in settings: trainer.passes is 4 and 5; only studies"),
        (lambda second: change(second, generator="2" * 64), r"differ in pretrained generator: 1+ and 2+"),
        (lambda second: change(second, fingerprint={"numerics": 3}), r"differ in arithmetic: numerics is 2 and 3"),
        (_grid, r"have other trials: \('er_hull', \d.* run what is missing first"),
        (lambda second: change(second, claims=None), r"claim different things"),
        (lambda second: change(second, timestamps={"ann": 3}), r"ann is in .*first and in .*second; expected every"),
        (lambda second: change(second, data_digests={"eve": "ann" * 10}), r"ann and eve have the same photos"),
        (lambda second: change(second, generator=None), r"says nothing about generator"),
    ],
)
def test_what_is_not_one_study_is_refused(
    tmp_path: Path, pieces: list[Path], spoil: Callable[[Path], None], expected: str
) -> None:
    spoil(pieces[1])
    with pytest.raises(UserError) as caught:
        pool_studies(pieces, tmp_path / "pooled")
    assert re.search(expected, str(caught.value)), caught.value
    assert not (tmp_path / "pooled").exists(), "nothing is written"


def test_another_study_is_not_overwritten_and_one_is_not_pooled(tmp_path: Path, pieces: list[Path]) -> None:
    with pytest.raises(UserError, match="holds another study"):
        pool_studies(pieces, pieces[0])
    with pytest.raises(UserError, match="1 study to pool"):
        pool_studies(pieces[:1], tmp_path / "pooled")


@pytest.mark.usefixtures("few_figures")
def test_the_command_pools_and_reports(tmp_path: Path, pieces: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pool", *map(str, pieces), "--out", str(tmp_path / "pooled")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("5 people of 2 studies, 60 trials") and "er_hull" in said
    assert (tmp_path / "pooled" / "report" / "index.html").is_file()
    assert main(["pool", str(pieces[0]), str(tmp_path / "nowhere"), "--out", str(tmp_path / "other")]) == 2
    assert "no such study folder" in capsys.readouterr().err
