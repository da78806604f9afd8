"""An ageing study through the main command: kills, tables, strips of ages, MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.main_command import killed_and_whole, plain_photos, rows_of, run_command, tracked_trials

SPACE = """\
name: ages
profile: embedded_ageing
settings:
  data: {timestamps: 3, train: 3, test: 8}
  trainer: {epochs: 1}
  ageing: {neck: 4, shared: 8, age_width: 4, hidden: 8, beyond_batch_size: 1}
grid:
  identity: 1
  strategy: [lower, er_rand, er_hull, kmeans, herding, mergan_jtr, ewc, upper]
  buffer_size: [2]
  learning_rate: [0.002]
"""


def test_photos_without_ages_are_refused(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE.replace("  data: {timestamps: 3, train: 3, test: 8}\n", ""))
    plain_photos(tmp_path / "photos")
    found = run_command(tmp_path, "--data", "photos", "--dry-run")
    assert found.returncode == 2 and found.stderr.count("\n") == 1, found.stdout
    assert "needs the condition 'age' (1 number) of every photo" in found.stderr
    assert "write it into a sidecar file" in found.stderr


@pytest.mark.slow
@pytest.mark.ci_slow
def test_ages_are_learned_and_a_killed_study_gives_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    killed_and_whole(tmp_path)
    rows = rows_of(tmp_path / "runs" / "whole")
    assert len(set(rows["strategy"].to_pylist())) == 8
    assert rows_of(tmp_path / "runs" / "killed").equals(rows)
    report = tmp_path / "runs" / "whole" / "report"
    page = (report / "index.html").read_text()
    for words in (
        "at 20 to 80 years",
        "identity at that age",
        "arXiv 2411.14521",
        "what a photo of another age becomes",
    ):
        assert words in page
    assert list(report.glob("ages_person_00.*")), "the strips of ages are files, too"
    trials = tracked_trials(tmp_path, "ages")
    assert len(trials) == 8
    for trial in trials:
        names = set(trial.data.metrics)
        assert names & {"aip/aged_learned_aged_id", "ap/aged_learned_aged_id"}, sorted(names)
