"""The plan's lines on headroom: from a study's own rows, from one beside it on the same photos, or not known."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

from clstudy.analysis.report import build_report
from clstudy.study.known_headroom import UNKNOWN, headroom_lines
from clstudy.study.preparation import PreparedStudy, prepare
from clstudy.study.run_options import RunOptions
from tests.support.small_study import make_photos, run_in_process

SETTINGS = {"trainer": {"epochs": 1}, "inversion": {"steps": 1}, "evaluation": {"synthesis_images": 0}}


def write_space(folder: Path, strategies: list[str], epochs: int = 1) -> Path:
    grid = {"identity": 1, "strategy": strategies, "buffer_size": [2], "learning_rate": [0.003]}
    profile = {"base": "smoke", **SETTINGS, "trainer": {"epochs": epochs}}
    path = folder / f"{len(strategies)}-{epochs}.yaml"
    path.write_text(yaml.safe_dump({"name": "x", "profile": profile, "grid": grid, "seeds": [0, 1]}))
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and a finished study ``runs/pilot`` with its report."""
    folder = tmp_path_factory.mktemp("headroom")
    make_photos(folder / "photos", ("anna",))
    space = write_space(folder, ["lower", "er_rand", "upper"])
    options = {"data": str(folder / "photos"), "without": ("id", "psnr")}
    build_report(run_in_process(space, out=str(folder / "runs" / "pilot"), **options))
    return folder


def planned(folder: Path, space: Path, out: str, data: Path | None = None) -> PreparedStudy:
    options = RunOptions(
        space=str(space),
        data=str(data or folder / "photos"),
        without=("id", "psnr"),
        out=str(folder / "runs" / out),
        dry_run=True,
    )
    return prepare(options, lambda text: nullcontext())


def test_a_study_beside_it_on_the_same_photos_tells(measured: Path) -> None:
    space = write_space(measured, ["lower", "er_rand", "er_hull", "kmeans"])
    first, second = headroom_lines(planned(measured, space, "next"))
    assert first.startswith("headroom K = 2: ") and "from study pilot, on photos of this one" in first
    assert "lower's Forgetting" in first and "the gap between lower and upper" in second


def test_other_settings_or_photos_tell_nothing(measured: Path, tmp_path: Path) -> None:
    strategies = ["lower", "er_rand", "er_hull", "kmeans"]
    assert headroom_lines(planned(measured, write_space(measured, strategies, epochs=2), "next")) == [UNKNOWN]
    make_photos(tmp_path / "others", ("bert",))
    space = write_space(measured, strategies)
    assert headroom_lines(planned(measured, space, "next", tmp_path / "others")) == [UNKNOWN]


def test_its_own_rows_tell_and_a_space_without_a_choice_is_not_asked(measured: Path) -> None:
    own = planned(measured, write_space(measured, ["lower", "er_rand", "er_hull", "kmeans"]), "pilot")
    assert "from this study" in headroom_lines(own)[0]
    assert headroom_lines(planned(measured, write_space(measured, ["lower", "er_rand", "upper"]), "pilot")) == []
