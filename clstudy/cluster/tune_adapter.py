"""Adapts a trial source to Ray Tune: search algorithm, scheduler and callback that run a study's trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from clstudy.settings.trial_spec import TrialSpec
from clstudy.study.trial_sources import TrialSource


class Gate:
    """Whether new trials and stages may begin. Only flags, because signal handlers and threads set it."""

    def __init__(self) -> None:
        self.reason = ""
        self.paused = ""

    def stop(self, reason: str) -> None:
        """Let no further trial or stage begin; the first reason given is kept."""
        self.reason = self.reason or reason


class SourceSearcher(Searcher):
    """Hands a source's trials to Tune, one at a time whenever a worker is free."""

    def __init__(self, source: TrialSource, gate: Gate):
        super().__init__()  # without a metric, which Tune would require in every result, even that of a failed trial
        self._source = source
        self._gate = gate
        self._specs: dict[str, TrialSpec] = {}

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next trial's columns; None while there is none, ``FINISHED`` when there will be none."""
        if self._gate.reason:
            return Searcher.FINISHED
        if self._gate.paused:
            return None
        spec = self._source.next()
        if spec is None:
            return Searcher.FINISHED if self._source.exhausted() else None
        self._specs[trial_id] = spec
        return spec.config()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        spec = self._specs[trial_id]
        if result is None or "stopped" in result:
            return
        if error or ("failed" in result and not result["diverged"]):
            self._source.abandon(spec.trial_id)
        else:
            self._source.finish(spec.trial_id, None if "failed" in result else result["objective"])

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()  # Tune requires a file; a study is resumed from its own stages

    def restore(self, checkpoint_path: str) -> None:
        return


class SourceScheduler(FIFOScheduler):
    """Lets the source stop a trial that has no prospects (a learning-rate search only)."""

    def __init__(self, source: TrialSource, on_stop: Callable[[str], None]):
        super().__init__()  # type: ignore[no-untyped-call]  # of Ray
        self._source = source
        self._on_stop = on_stop

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "objective" not in result or result.get("done"):
            return TrialScheduler.CONTINUE
        name = str(trial.config["trial"])
        if self._source.report(name, int(result["t"]), float(result["objective"])):
            return TrialScheduler.CONTINUE
        self._on_stop(name)
        return TrialScheduler.STOP


class DeathNotice(tune.Callback):
    """Reports every worker that died during a trial to the coordinator, before the trial is started again."""

    def __init__(self, coordinator: Any):
        self._coordinator = coordinator

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._coordinator.died.remote(str(trial.config["trial"]))
