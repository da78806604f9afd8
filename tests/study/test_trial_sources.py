"""A source of trials that decides as it goes: what it stops leaves no rows, what it makes is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from benchmarks.orchestration import TIMESTAMPS, make_stored_study, run_stored
from clstudy.settings.profiles import Resources
from clstudy.settings.trial_spec import TrialSpec
from clstudy.study.trial_sources import ListedTrials
from clstudy.tracking.local_database import sqlite_uri
from clstudy.tracking.run_contents import TRIAL_TAG


class Choosy(ListedTrials):
    """Stops one trial after its second timestamp, and makes one more trial when the first is finished."""

    def __init__(self, trials: list[TrialSpec], victim: str, late: TrialSpec):
        super().__init__(trials)
        self.victim, self.late = victim, late
        self.reported: dict[str, dict[int, float]] = {}
        self.finished: dict[str, float | None] = {}
        self._made = False

    def next(self) -> TrialSpec | None:
        spec = super().next()
        if spec is None and self.finished and not self._made:
            self._made = True
            return self.late
        return spec

    def exhausted(self) -> bool:
        return self._made and super().exhausted()

    def report(self, trial_id: str, t: int, objective: float) -> bool:
        self.reported.setdefault(trial_id, {})[t] = objective
        return not (trial_id == self.victim and t == 1)

    def finish(self, trial_id: str, objective: float | None) -> None:
        self.finished[trial_id] = objective


@pytest.mark.slow
@pytest.mark.ci_slow
def test_a_source_may_stop_trials_and_make_new_ones_from_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    study = make_stored_study(tmp_path / "runs" / "stored", 4, Resources(cpus=1.0))
    *first, late = study.plan.trials
    victim = first[1].trial_id
    source = Choosy(list(first), victim, late)
    outcome = run_stored(study, sqlite_uri(tmp_path / "mlflow.db"), source=source)
    whole = {spec.trial_id for spec in study.plan.trials} - {victim}
    assert {path.stem for path in (tmp_path / "runs" / "stored" / "results").glob("*.parquet")} == whole
    assert not outcome.failures and outcome.stopped == ""
    assert list(source.reported[victim]) == [0, 1]
    for trial in whole:
        # every timestamp is reported but the last, whose value the end brings
        assert list(source.reported[trial]) == list(range(TIMESTAMPS - 1))
        assert source.finished[trial] is not None
    client = MlflowClient(sqlite_uri(tmp_path / "mlflow.db"))
    experiment = client.get_experiment_by_name("stored")
    assert experiment is not None
    states = {run.data.tags[TRIAL_TAG]: run.info.status for run in client.search_runs([experiment.experiment_id])}
    assert states == {**dict.fromkeys(whole, "FINISHED"), victim: "KILLED"}
