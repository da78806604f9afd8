"""A study against its repetition on another kind of processor."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clstudy.analysis.matrix import result_matrices, trial_scores
from clstudy.analysis.noise_floor import noise_of_difference
from clstudy.analysis.study_plan import read_study
from clstudy.cli.commands import main as clstudy
from clstudy.records.noise_floor import NOISE, read_noise_floor
from clstudy.records.results import write_result
from clstudy.records.stage_record import StageRecord
from clstudy.records.study_record import read_study_record, write_study_record
from clstudy.storage.content_addressed_store import STAGE_RECORD, StudyStore
from clstudy.storage.places import write_atomically


def repeated(study: Path, folder: Path, *, by: str = "Intel AVX2", change: float = 1e-4) -> Path:
    """A copy as if another kind of processor had computed it: other values, and records that say so."""
    copy = folder / study.name
    shutil.copytree(study, copy)
    rng = np.random.default_rng(0)
    for path in sorted((copy / "results").glob("*.parquet")):
        table = pq.read_table(path)
        values = table["value"].to_numpy() + change * rng.standard_normal(table.num_rows)
        write_result(path, table.set_column(table.schema.get_field_index("value"), "value", pa.array(values)))
    relabelled(copy, by)
    return copy


def relabelled(study: Path, kind: str) -> None:
    stages = StudyStore(study).stages
    for key in stages.sizes():
        files = stages.get(key)
        assert files is not None
        record = replace(StageRecord.decode(files[STAGE_RECORD]), computed_on=kind)
        stages.remove(key)
        stages.put(key, {**files, STAGE_RECORD: record.encode()})


def scores_of(study: Path) -> dict[tuple[str, str], float]:
    """(trial, score) -> value, from the rows alone."""
    rows = pa.concat_tables(pq.read_table(path) for path in sorted((study / "results").glob("*.parquet")))
    matrices = result_matrices(rows, read_study(study).timestamps, joint=["upper"])
    return {(one.trial.trial, name): value for one in matrices for name, value in trial_scores(one).items()}


@pytest.fixture
def study(small_study: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "here" / small_study.name
    shutil.copytree(small_study, copy)
    return copy


def test_the_floor_is_what_changes_in_each_trials_scores(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], few_figures: None
) -> None:
    relabelled(study, "Intel AVX512")
    other = repeated(study, tmp_path / "there")
    assert clstudy(["noise", str(study), str(other)]) == 0
    assert "Intel AVX2 instead of Intel AVX512" in capsys.readouterr().out
    floor = read_noise_floor(study)
    assert floor is not None and floor.here == "Intel AVX512"
    one, two = scores_of(study), scores_of(other)
    for name, trials in (("aip", 2), ("forgetting", 2), ("final", 3)):
        changes = [two[key] - one[key] for key in one if key[1] == name]
        found = floor.of("reconstruction", "lpips", name)
        assert found is not None and found.trials == len(changes) == trials
        assert found.rms == pytest.approx(math.sqrt(sum(c * c for c in changes) / trials), rel=1e-9)
        assert found.largest == pytest.approx(max(map(abs, changes)), rel=1e-9)
    page = (study / "report" / "index.html").read_text()
    assert "The noise floor of the arithmetic" in page and "The same trials computed by Intel AVX2" in page
    content = (study / NOISE).read_bytes()
    write_atomically(study / NOISE, content[:-20])
    assert read_noise_floor(study) is None, "a damaged record counts as none"


def test_another_precision_on_the_same_processor_is_measured_too(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], few_figures: None
) -> None:
    other = repeated(study, tmp_path / "there")
    for folder in (study, other):
        relabelled(folder, "Intel AVX512")
    record = read_study_record(other)
    assert isinstance(record.profile, dict)
    compute = {**record.profile["compute"], "precision": "bf16"}
    write_study_record(other, replace(record, profile={**record.profile, "compute": compute}))
    assert clstudy(["noise", str(study), str(other)]) == 0
    said = capsys.readouterr().out
    assert "Intel AVX512, precision bf16 instead of Intel AVX512, precision float32" in said, said


def test_pairs_round_independently_and_people_average() -> None:
    """A simulation: the mean over people of the difference of two independently changed scores."""
    from clstudy.records.noise_floor import ScoreNoise

    noise = ScoreNoise(protocol="reconstruction", metric="lpips", score="aip", trials=9, rms=0.3, largest=1.0)
    changes = 0.3 * np.random.default_rng(0).standard_normal((40_000, 5, 2))
    means = (changes[..., 0] - changes[..., 1]).mean(axis=1)
    assert noise_of_difference(noise, 5) == pytest.approx(np.sqrt(np.square(means).mean()), rel=0.02)


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (
            lambda study, other: relabelled(other, "Intel AVX512"),
            "computed by the same kind of processor (Intel AVX512)",
        ),
        (lambda study, other: relabelled(other, ""), "no stage says which"),
        (
            lambda study, other: write_study_record(
                other, replace(read_study_record(other), generator="f" * 64, data_digests={"anna": "0" * 64})
            ),
            "differs from the study in the pretrained generator, photos of anna",
        ),
        (lambda study, other: change_setting(other), "differs from the study in inversion.steps;"),
        (lambda study, other: shutil.rmtree(other), "no such study folder"),
    ],
)
def test_what_says_nothing_of_processors_is_refused(
    prepare, said: str, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relabelled(study, "Intel AVX512")
    other = repeated(study, tmp_path / "there")
    prepare(study, other)
    assert clstudy(["noise", str(study), str(other)]) == 2
    assert said in capsys.readouterr().err and read_noise_floor(study) is None


def change_setting(study: Path) -> None:
    record = read_study_record(study)
    assert not isinstance(record.profile, str) and record.profile is not None
    profile = dict(record.profile) | {
        "inversion": {**record.profile["inversion"], "steps": 9},
        "compute": {**record.profile["compute"], "instruction_set": "avx2"},
    }
    write_study_record(study, replace(record, profile=profile))
