"""The recorder of a running study: the Ray actor that holds the only MLflow writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ray

from clstudy.storage.file_modes import apply
from clstudy.tracking.writer import MlflowWriter


class Recorder:
    """Feeds MLflow from one process; workers send finished rows and never wait for it."""

    def __init__(
        self,
        tracking_uri: str,
        experiment: str,
        artifacts: Path | None,
        tags: dict[str, str],
        images: bool = True,
        umask: int | None = None,
    ):
        if umask is not None:  # an actor's process is its own; in tests it is not
            apply(umask)
        self._writer = MlflowWriter(tracking_uri, experiment, tags, artifact_location=artifacts)
        self._images = images

    def start_trial(self, trial: str, name: str, params: dict[str, Any], tags: dict[str, str]) -> None:
        """Find or create the trial's run."""
        self._writer.start_trial(trial, name, params, tags)

    def log_stage(
        self,
        trial: str,
        t: int,
        metrics: dict[str, float],
        images: dict[str, np.ndarray],
        losses: np.ndarray | None,
    ) -> None:
        """Log the metrics of timestamp t in one batch, with the loss of every step, and the images of t."""
        self._writer.log_stage(trial, t, metrics, images if self._images else None, losses)

    def finish_trial(self, trial: str) -> None:
        """Mark the run finished."""
        self._writer.finish_trial(trial, "FINISHED")

    def fail_trial(self, trial: str, message: str) -> None:
        """Mark the run failed, with the reason."""
        self._writer.fail_trial(trial, message)

    def leave_trial(self, trial: str) -> None:
        """Mark the run as stopped early by a learning-rate search."""
        self._writer.finish_trial(trial, "KILLED")

    def close(self, patience_s: float = 30.0) -> int:
        """Send what is pending, for at most ``patience_s``; return how many calls could not be delivered."""
        return self._writer.flush(patience_s) + self._writer.dropped()


RecorderActor = ray.remote(num_cpus=0, max_restarts=3)(Recorder)
