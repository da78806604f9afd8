"""Writers of a study's runs for other tools than MLflow: TensorBoard and Weights & Biases, through their own packages.

Both write files and send nothing: what becomes of them is for the user to say (``wandb sync``).
"""

from __future__ import annotations

import hashlib
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from clstudy.errors import UserError
from clstudy.registry import Registry
from clstudy.tracking.run_contents import curve_metric, stage_values, step_time_ms

_EVENTS = "events.out.tfevents.*"
_PLAIN = re.compile(r"[^\w=.,+-]+")


class RunWriter(Protocol):
    """What takes a study's runs, one trial after the other: first its parameters, then its stages, then its end."""

    def start_trial(self, trial_id: str, run_name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Begin a trial's run, in the place of one that was written before."""

    def log_stage(
        self,
        trial_id: str,
        timestamp: int,
        metrics: Mapping[str, float],
        images: Mapping[str, np.ndarray] | None = None,
        losses: np.ndarray | None = None,
    ) -> None:
        """Write a timestamp's metrics and images (uint8 ``[h, w, 3]``), and the losses of its steps ``[steps]``."""

    def finish_trial(self, trial_id: str) -> None:
        """Close it."""

    def fail_trial(self, trial_id: str, message: str) -> None:
        """Close it as failed."""


class FileWriter(ABC):
    """A ``RunWriter`` of files: what a stage's values are is the same for every tool, how they are written is not."""

    def log_stage(
        self,
        trial_id: str,
        timestamp: int,
        metrics: Mapping[str, float],
        images: Mapping[str, np.ndarray] | None = None,
        losses: np.ndarray | None = None,
    ) -> None:
        """As of ``RunWriter``."""
        self.write_stage(timestamp, *stage_values(metrics, losses), images or {})

    @abstractmethod
    def write_stage(
        self, timestamp: int, metrics: dict[str, float], losses: dict[int, float], images: Mapping[str, np.ndarray]
    ) -> None:
        """Write finite metrics, losses by optimiser step, and images by name."""


RUN_WRITERS: Registry[Callable[[Path, str], RunWriter]] = Registry("tool")
"""Name of a tool -> makes its writer from a folder and a study's name."""


def imported(module: str, extra: str) -> Any:
    """A module of a tool that does not come with clstudy.

    Raises:
        UserError: it is not installed; names the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f"{extra} is not installed here ({error}); pip install 'clstudy[{extra}]'") from error


@RUN_WRITERS.register("tensorboard")
class TensorBoardWriter(FileWriter):
    """Event files, one folder for each run, for ``tensorboard --logdir FOLDER``."""

    def __init__(self, folder: Path, study: str):
        imported("tensorboard", "tensorboard")
        self._make = imported("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._folder = folder
        self._open: Any = None

    def start_trial(self, trial_id: str, run_name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Begin a run's folder; the events of an earlier export go."""
        place = self._folder / _folder_name(run_name, trial_id)
        for old in place.glob(_EVENTS):
            old.unlink()
        self._open = self._make(str(place))
        told = {**{name: value for name, value in params.items() if value is not None}, **tags}
        table = "\n".join(f"| {name} | {value} |" for name, value in told.items())
        self._open.add_text("parameters", f"| parameter | value |\n|---|---|\n{table}", 0, walltime=_time_of(0))

    def write_stage(
        self, timestamp: int, metrics: dict[str, float], losses: dict[int, float], images: Mapping[str, np.ndarray]
    ) -> None:
        """Scalars and images by timestamp, losses by step."""
        now = _time_of(timestamp)
        for name, value in metrics.items():
            self._open.add_scalar(name, value, timestamp, walltime=now)
        for step, loss in losses.items():
            self._open.add_scalar(curve_metric(timestamp), loss, step, walltime=now)
        for name, pixels in images.items():
            self._open.add_image(name, pixels, timestamp, walltime=now, dataformats="HWC")

    def finish_trial(self, trial_id: str) -> None:
        """Close its file."""
        self._open.close()

    def fail_trial(self, trial_id: str, message: str) -> None:
        """Write why as a text."""
        self._open.add_text("error", message, 0, walltime=_time_of(0))
        self._open.close()


@RUN_WRITERS.register("wandb")
class WandbWriter(FileWriter):
    """Offline runs under ``FOLDER/wandb``, which ``wandb sync`` sends where the user wants them."""

    def __init__(self, folder: Path, study: str):
        self._wandb = imported("wandb", "wandb")
        self._folder, self._study = folder, study
        self._open: Any = None
        folder.mkdir(parents=True, exist_ok=True)

    def start_trial(self, trial_id: str, run_name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Begin an offline run; an earlier export of the same trial goes."""
        name = hashlib.sha256(f"{self._study}\n{trial_id}".encode()).hexdigest()[:16]
        for old in (self._folder / "wandb").glob(f"offline-run-*-{name}"):
            shutil.rmtree(old)
        self._open = self._wandb.init(
            project=self._study,
            name=run_name,
            id=name,
            group=tags.get("strategy"),
            config={key: value for key, value in {**params, **tags}.items() if value is not None},
            dir=str(self._folder),
            mode="offline",
            reinit="create_new",
            # nothing of this machine: no host, no source, no load of its processor
            settings=self._wandb.Settings(
                host="clstudy", console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True,
                x_disable_meta=True, x_disable_machine_info=True, x_save_requirements=False,
            ),
        )  # fmt: skip
        self._open.define_metric("*", step_metric="timestamp")
        self._open.define_metric("loss_by_step/*", step_metric="optimiser_step")

    def write_stage(
        self, timestamp: int, metrics: dict[str, float], losses: dict[int, float], images: Mapping[str, np.ndarray]
    ) -> None:
        """Metrics and images over ``timestamp``, losses over ``optimiser_step``."""
        for step, loss in losses.items():
            self._open.log({"optimiser_step": step, curve_metric(timestamp): loss})
        pictures = {name: self._wandb.Image(pixels) for name, pixels in images.items()}
        self._open.log({"timestamp": timestamp, **metrics, **pictures})

    def finish_trial(self, trial_id: str) -> None:
        """Close it."""
        self._open.finish(exit_code=0)

    def fail_trial(self, trial_id: str, message: str) -> None:
        """Close it as failed; why is in its summary."""
        self._open.summary["error"] = message
        self._open.finish(exit_code=1)


def _time_of(timestamp: int) -> float:
    return step_time_ms(timestamp) / 1000


def _folder_name(run_name: str, trial_id: str) -> str:
    """A run's name as a folder; where that needs other characters, part of a digest keeps it apart from others."""
    plain = _PLAIN.sub("_", run_name.replace(" ", "_"))
    if plain == run_name.replace(" ", "_"):
        return plain
    return f"{plain[:80]}_{hashlib.sha256(trial_id.encode()).hexdigest()[:6]}"
