"""The contents of MLflow's runs: names, parameters and tags of trials, and the points of their charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from clstudy.settings.trial_spec import TrialSpec

TRIAL_TAG = "clstudy.trial"
ERROR_TAG = "clstudy.error"
VERSION_TAG = "clstudy.version"
"""Digest of what determines a trial's numbers beyond its parameters (``clstudy.trial.requests.run_version``). It is a
tag, because as a parameter it would differ between runs, which is noise in a comparison. Runs of earlier versions have
it as the parameter ``version``."""
LOSS_METRIC = "train/loss"
REPORT_TAG = "clstudy.report"
"""Marks the run that holds the report; the same tag of the experiment names that run.

That run has no parameters and metrics, but MLflow's charts list every run in their legends, by start, latest first: it
starts before all others, so that it comes last.
"""
CHARTS_HINT = "Charts, group by strategy"
MOST_CURVE_POINTS = 60
"""Points of a stage's loss curve in MLflow: enough to see its course, few enough for one batch."""
FINAL_STATES = ("FINISHED", "FAILED", "KILLED")
_STEP_TIME_ORIGIN_MS = 1_767_225_600_000  # 2026-01-01 UTC; any fixed time would do


def step_time_ms(timestamp: int) -> int:
    """Return the time in ms under which metrics of a timestamp are logged: one second per timestamp, no clock.

    MLflow keeps one row per (metric, step, time, value), so a stage logged again after a kill leaves no duplicate.
    """
    return _STEP_TIME_ORIGIN_MS + 1000 * timestamp


def loss_curve(losses: np.ndarray, most: int = MOST_CURVE_POINTS) -> dict[int, float]:
    """Thin a stage's losses for a chart: optimiser step (from 1) -> mean loss of the steps since the previous point.

    Args:
        losses: loss of every step ``[steps]``.
        most: largest number of points.
    """
    if not len(losses):
        return {}
    return {
        int(part[-1]) + 1: float(np.mean(losses[part], dtype=np.float64))
        for part in np.array_split(np.arange(len(losses)), min(most, len(losses)))
    }


def stage_values(metrics: Mapping[str, float], losses: np.ndarray | None) -> tuple[dict[str, float], dict[int, float]]:
    """A timestamp's metrics and its thinned losses (``loss_curve``) without what is not finite.

    "Not there" is not a number in a chart.
    """
    curve = {} if losses is None else loss_curve(losses)
    finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
    return finite, {step: loss for step, loss in curve.items() if math.isfinite(loss)}


def curve_metric(timestamp: int) -> str:
    """Name of the metric with the loss by optimiser step of one timestamp; its chart overlays the strategies."""
    return f"loss_by_step/t{timestamp:02d}"


def run_names(trials: Sequence[TrialSpec]) -> dict[str, str]:
    """Readable, distinct run names by trial id: they contain only what varies in the study."""
    rates = len({spec.learning_rate for spec in trials}) > 1
    seeds = len({spec.seed for spec in trials}) > 1
    names = {}
    for spec in trials:
        parts = [spec.identity, spec.strategy]
        parts += [f"K={spec.buffer_size}"] if spec.buffer_size is not None else []
        parts += [f"T={spec.timestamps}"] if spec.timestamps is not None else []
        parts += [f"lr={spec.learning_rate:g}"] if rates else []
        parts += [f"seed={spec.seed}"] if seeds else []
        names[spec.trial_id] = " ".join(parts)
    return names


def trial_params(spec: TrialSpec, *, profile: str, timestamps: int, joint: bool) -> dict[str, Any]:
    """Parameters of a trial's run.

    MLflow's comparison page draws the first three parameters that vary, by name: buffer_size, identity and strategy
    come first on purpose.

    Args:
        spec: the trial.
        profile: its name.
        timestamps: how many the trial has.
        joint: whether it trains on everything at once; its buffer size is then left out, because it would stretch the
            axis of every chart over buffer sizes.
    """
    return {
        "buffer_size": None if joint else spec.buffer_size or 0,
        "identity": spec.identity,
        "strategy": spec.strategy,
        "learning_rate": spec.learning_rate,
        "seed": spec.seed,
        "profile": profile,
        "timestamps": timestamps,
    }


def trial_tags(spec: TrialSpec, version: str | None) -> dict[str, str]:
    """Tags of a trial's run.

    Args:
        spec: the trial.
        version: value of ``VERSION_TAG``; if it changes, a new run begins. None: not known.
    """
    known = {} if version is None else {VERSION_TAG: version}
    return {"identity": spec.identity, "strategy": spec.strategy, **known}
