"""``grid.timestamps``: what a study of ten timestamps says of five is what a study of five says."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from clstudy.analysis.horizons import horizon_paired, horizon_scores
from clstudy.analysis.report import build_report
from clstudy.analysis.summary import Summary, summarise
from clstudy.errors import UserError
from clstudy.settings.expansion import expand
from clstudy.settings.space import SearchSpace
from clstudy.study.preparation import prepare
from clstudy.study.run_options import RunOptions
from tests.support.small_study import make_photos, run_in_process

GRID = {"identity": 2, "strategy": ["lower", "er_rand", "upper"], "buffer_size": [2], "learning_rate": [0.003]}
SHORT = {"trainer": {"epochs": 1}, "inversion": {"steps": 1}, "evaluation": {"synthesis_images": 0}}


def write_space(folder: Path, **grid: object) -> Path:
    path = folder / "space.yaml"
    profile = {"base": "smoke", **SHORT}
    path.write_text(yaml.safe_dump({"name": "horizons", "profile": profile, "grid": {**GRID, **grid}, "seeds": [0]}))
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    make_photos(root, ("anna", "berta"))
    return root


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Mapping[str, Summary]:
    """A study of three timestamps that also reports two, and a study of two."""
    folder = tmp_path_factory.mktemp("studies")
    common = {"data": str(photos), "without": ("id", "psnr")}
    long = run_in_process(write_space(folder, timestamps=[2, 3]), out=str(folder / "long"), **common)
    short = run_in_process(write_space(folder), out=str(folder / "short"), timestamps=2, alone=True, **common)
    return {"long": summarise(long), "short": summarise(short)}


def rows_without(table: pa.Table, *columns: str) -> list[dict[str, object]]:
    return table.drop_columns(list(columns)).to_pylist()


def test_the_shorter_horizon_is_the_shorter_study_to_the_last_digit(studies: Mapping[str, Summary]) -> None:
    long, short = studies["long"], studies["short"]
    for table, own in ((horizon_scores(long), short.scores), (horizon_paired(long), short.paired)):
        cut = table.filter(pa.compute.equal(table["timestamps"], 2))
        left_out = ["photo_bias"] if "photo_bias" in own.column_names else []
        assert rows_without(cut, "timestamps", *left_out) == rows_without(own, *left_out)
        assert {"upper", "er_rand"} <= set(cut["strategy"].to_pylist())


def test_the_longest_horizon_is_the_study_itself(studies: Mapping[str, Summary]) -> None:
    long = studies["long"]
    table = horizon_scores(long)
    full = table.filter(pa.compute.equal(table["timestamps"], 3))
    assert rows_without(full, "timestamps", "photo_bias") == rows_without(long.scores, "photo_bias")
    assert long.complete and len(long.study.shorter) == 2 and len(long.study.trials) == 6


def test_the_report_has_figure_section_and_tables(studies: Mapping[str, Summary]) -> None:
    folder = studies["long"].study.folder
    report = build_report(folder)
    assert not report.broken
    page = (folder / "report" / "index.html").read_text()
    assert "Over the number of timestamps" in page and "T = 2" in page
    assert (folder / "report" / "timestamps.svg").stat().st_size > 1000
    with (folder / "report" / "horizons.csv").open() as handle:
        assert {row["timestamps"] for row in csv.DictReader(handle)} == {"2", "3"}
    assert not (studies["short"].study.folder / "report" / "horizons.csv").exists()


def test_only_joint_training_has_trials_of_its_own() -> None:
    space = SearchSpace.model_validate(
        {"name": "x", "profile": "smoke", "grid": {**GRID, "timestamps": [3, 2, 5]}, "seeds": [0, 1]}
    )
    found = expand(space, ["a", "b"], lambda name: name == "er_rand", joint=lambda name: name == "upper")
    shorter = [trial for trial in found.trials if trial.timestamps is not None]
    assert {(trial.strategy, trial.timestamps) for trial in shorter} == {("upper", 2), ("upper", 3)}
    assert len(shorter) == 2 * 2 * 2 and len({trial.trial_id for trial in found.trials}) == len(found.trials)
    assert "Results after 2, 3 timestamps are the beginnings of trials of 5; upper has 8 trials more" in found.sentence


@pytest.mark.parametrize("counts", [[], [1], [2, 2], ["three"], [2.5], [True]])
def test_wrong_numbers_of_timestamps_are_refused_by_name(tmp_path: Path, photos: Path, counts: object) -> None:
    with pytest.raises(UserError, match=r"grid\.timestamps"):
        prepare_space(write_space(tmp_path, timestamps=counts), photos, tmp_path)


def test_more_timestamps_than_a_person_has_are_refused(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(UserError, match=r"grid\.timestamps asks for 5, and anna has 3"):
        prepare_space(write_space(tmp_path, timestamps=[2, 5]), photos, tmp_path)
    with pytest.raises(UserError, match=r"--timestamps 2, and the space has grid\.timestamps \(2, 3\)"):
        prepare_space(write_space(tmp_path, timestamps=[2, 3]), photos, tmp_path, timestamps=2)


def prepare_space(space: Path, photos: Path, folder: Path, **options: object) -> None:
    from contextlib import nullcontext

    prepare(
        RunOptions(space=str(space), data=str(photos), out=str(folder / "out"), dry_run=True, **options),  # type: ignore[arg-type]
        lambda text: nullcontext(),
    )
