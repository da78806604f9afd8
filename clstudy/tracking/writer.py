"""The writer of MLflow's runs: one flat run per trial, written by one process, which never holds up a trial.

The Parquet rows are authoritative; MLflow is a view of them that can be written again at any time. So everything here
can be repeated: a trial's run is found by its tag, a metric's time is a function of its timestamp (the same row logged
twice stays one row), and an image replaces the one of the same name. Nothing here fails a trial: while the tracking
server does not answer, calls wait in order, and are delivered once it answers.

Ray is not imported; the study puts one :class:`MlflowWriter` into one actor. ``python -m clstudy.tracking rebuild``
(:mod:`clstudy.study.tracking_rebuild`) feeds the same writer from a study's folder.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clstudy.images import encode_png
from clstudy.safe_text import printable, redacted, shown_address
from clstudy.tracking.local_database import close_connections, database_file, images_beside, quiet_client
from clstudy.tracking.run_contents import (
    ERROR_TAG,
    FINAL_STATES,
    LOSS_METRIC,
    REPORT_TAG,
    TRIAL_TAG,
    VERSION_TAG,
    curve_metric,
    stage_values,
    step_time_ms,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)
_REPORT_START_MS = 1_000_000_000_000  # 2001: before any run of a trial
_BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_TRIES_WHILE_SERVER_ANSWERS = 5
_REFUSALS = {"INVALID_PARAMETER_VALUE", "INVALID_STATE", "BAD_REQUEST", "MALFORMED_REQUEST"}
_MAX_ERROR_TEXT = 4000


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A call to MLflow about a trial; ``send`` can safely be repeated."""

    trial_id: str
    what: str
    send: Callable[[], None]
    failures: int = 0


class MlflowWriter:
    """Writes the trials of one study to one MLflow experiment. Use exactly one per experiment, in one process.

    Args:
        tracking_uri: ``sqlite:///…`` (``clstudy.tracking.local_database.sqlite_uri``) or the address of a server.
        experiment: name of the experiment, i.e. of the study; created if missing, restored if deleted.
        tags: tags of the experiment.
        artifact_location: folder for the images of a new experiment (local studies: inside the study's folder);
            None means a folder beside a SQLite database, and the server's own choice otherwise.
        make_client: makes the client from the URI; tests replace it.
        clock, sleep: seconds, as in :mod:`time`; tests replace them.

    Constructing does not contact the server. MLflow's own retries (minutes per call) are switched off for this
    process through its environment variables, unless those are already set.
    """

    def __init__(
        self,
        tracking_uri: str,
        experiment: str,
        tags: Mapping[str, str] | None = None,
        *,
        artifact_location: Path | None = None,
        make_client: Callable[[str], MlflowClient] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._uri = tracking_uri
        self._experiment = experiment
        self._experiment_tags = dict(tags or {})
        self._artifact_location = artifact_location or images_beside(tracking_uri)
        self._make_client = make_client or quiet_client
        self._clock, self._sleep = clock, sleep
        self._client_or_none: MlflowClient | None = None
        self._experiment_id_or_none: str | None = None
        self._run_ids_or_none: dict[str, str] | None = None
        self._queue: deque[_Call] = deque()
        self._outage = 0  # failures in a row
        self._next_try = -math.inf
        self._dropped = 0
        self._file_or_none: tuple[int, int] | None = None

    # The study calls these; none of them raises because of the server.

    def start_trial(self, trial_id: str, run_name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Open the trial's run, or continue the one it has.

        Parameters that are None are left out; those already logged with the same value stay. If one of them, or
        ``VERSION_TAG``, has another value, the old run describes another trial: it is moved to MLflow's bin, and a new
        run begins.
        """
        texts = {key: _shown(value) for key, value in params.items() if value is not None}
        shown = {key: _shown(value) for key, value in tags.items()}
        now = _now_ms()
        self._submit(trial_id, "start", lambda: self._send_start(trial_id, _shown(run_name), texts, shown, now))

    def log_stage(
        self,
        trial_id: str,
        timestamp: int,
        metrics: Mapping[str, float],
        images: Mapping[str, np.ndarray] | None = None,
        losses: np.ndarray | None = None,
    ) -> None:
        """Log one timestamp: all metrics in one batch with step = timestamp, images as ``<name>/t03.png``.

        Args:
            metrics: values that are not finite are left out ("not there" is not a number in a chart).
            images: name -> uint8 [h, w] or [h, w, 3].
            losses: loss of every optimiser step ``[steps]``; logged, thinned, in the same batch, as one metric per
                timestamp (``curve_metric``).

        Raises:
            ValueError: an image of another type or shape.
        """
        pngs = {name: encode_png(pixels) for name, pixels in (images or {}).items()}
        finite, curve = stage_values(metrics, losses)
        points = [(key, timestamp, value) for key, value in finite.items()]
        points += [(curve_metric(timestamp), step, value) for step, value in curve.items()]
        if points:
            self._submit(trial_id, f"metrics of t={timestamp}", lambda: self._send_metrics(trial_id, timestamp, points))
        for name, png in pngs.items():
            self._submit_image(trial_id, f"{name}/t{timestamp:02d}.png", png)

    def finish_trial(self, trial_id: str, status: str = "FINISHED") -> None:
        """Close the trial's run.

        Raises:
            ValueError: not one of ``FINAL_STATES``.
        """
        if status not in FINAL_STATES:
            raise ValueError(f"status is {status!r}, expected one of {', '.join(FINAL_STATES)}")
        now = _now_ms()
        self._submit(trial_id, "finish", lambda: self._send_finish(trial_id, status, now))

    def fail_trial(self, trial_id: str, message: str) -> None:
        """Close the trial's run as failed; the message becomes the tag ``clstudy.error``."""
        text = _shown(message)[:_MAX_ERROR_TEXT]
        self._submit(trial_id, "error", lambda: self._send_error(trial_id, text))
        self.finish_trial(trial_id, "FAILED")

    def attach_report(self, folder: Path) -> None:
        """Put a report's files under ``report/`` of the experiment's one run named "report", replacing older ones."""
        self._submit("report", "report", lambda: self._send_report(folder))

    def experiment_id(self) -> str | None:
        """Return the experiment's id, for its address (``runs_page``); None while the server does not answer."""
        try:
            return self._experiment_id()
        except Exception:  # of any kind: a missing address must not fail a study
            return None

    def whole_runs(self, stages: Mapping[str, int]) -> set[str]:
        """Trials whose run is finished and has as many steps as the trial has stages.

        Args:
            stages: trial id -> number of its stages.

        Raises:
            ConnectionError: the server does not answer.
        """
        try:
            client, runs = self._client(), self._run_ids()
            return {
                trial
                for trial, count in stages.items()
                if trial in runs
                and (run := client.get_run(runs[trial])).info.status == "FINISHED"
                and "strategy" in run.data.params  # a run continued in a new database has no parameters
                and len({entry.step for entry in client.get_metric_history(runs[trial], LOSS_METRIC)}) == count
            }
        except Exception as error:  # of any kind: MLflow raises its own, requests' and SQLAlchemy's
            raise ConnectionError(_first_line(error)) from error

    # Delivery.

    def pending(self) -> int:
        """Return how many calls wait for the server."""
        return len(self._queue)

    def dropped(self) -> int:
        """Return how many calls the server answered but would not take; each was logged."""
        return self._dropped

    def flush(self, timeout_s: float = 30.0) -> int:
        """Deliver waiting calls, trying for at most ``timeout_s``; return how many still wait."""
        deadline = self._clock() + timeout_s
        self._next_try = -math.inf
        self._deliver()
        while self._queue and self._clock() < deadline:
            self._sleep(max(0.0, min(self._next_try, deadline) - self._clock()))
            self._deliver()
        return len(self._queue)

    def _submit_image(self, trial_id: str, name: str, png: bytes) -> None:
        self._submit(trial_id, name, lambda: self._send_image(trial_id, name, png))

    def _submit(self, trial_id: str, what: str, send: Callable[[], None]) -> None:
        self._queue.append(_Call(trial_id=trial_id, what=what, send=send))
        self._deliver()

    def _deliver(self) -> None:
        """Send waiting calls in order until none is left or the server does not answer (then pause)."""
        while self._queue and self._clock() >= self._next_try:
            call = self._queue[0]
            try:
                self._follow_database()
                call.send()
            except Exception as error:  # whatever goes wrong with MLflow must not reach the trial
                self._run_ids_or_none = self._experiment_id_or_none = None  # the call may have been half done
                if _is_refusal(error) or self._is_hopeless(call):
                    self._drop(call, error)
                else:
                    self._queue[0] = replace(call, failures=call.failures + 1)
                    self._pause(error)
            else:
                self._queue.popleft()
                self._recover()

    def _pause(self, error: Exception) -> None:
        if not self._outage:
            _log.warning(
                "MLflow at %s does not answer; the study goes on, calls wait (%s)",
                shown_address(self._uri),
                _first_line(error),
            )
        self._next_try = self._clock() + _BACKOFF_S[min(self._outage, len(_BACKOFF_S) - 1)]
        self._outage += 1

    def _recover(self) -> None:
        if self._outage:
            _log.warning("MLflow at %s answers again; %d calls to deliver", shown_address(self._uri), len(self._queue))
        self._outage = 0

    def _is_hopeless(self, call: _Call) -> bool:
        """Whether this one call keeps failing while the server answers others: it must not hold up the rest."""
        if call.failures + 1 < _TRIES_WHILE_SERVER_ANSWERS:
            return False
        try:
            self._client().search_experiments(max_results=1)
        except Exception:
            return False
        return True

    def _drop(self, call: _Call, error: Exception) -> None:
        self._queue.popleft()
        self._dropped += 1
        _log.warning("MLflow does not take the %s of trial %s: %s", call.what, call.trial_id, _first_line(error))

    # The calls themselves; each can be repeated.

    def _send_start(
        self, trial_id: str, run_name: str, params: Mapping[str, str], tags: Mapping[str, str], now: int
    ) -> None:
        from mlflow.entities import Param, RunTag

        client = self._client()
        run_id = self._known_run_id(trial_id)
        if run_id is not None:
            data = client.get_run(run_id).data
            before = data.tags.get(VERSION_TAG, data.params.get("version"))
            renewed = before is not None and tags.get(VERSION_TAG, before) != before
            if renewed or any(data.params.get(key, value) != value for key, value in params.items()):
                client.delete_run(run_id)
                self._run_ids().pop(trial_id)
                run_id = None
            elif ERROR_TAG in data.tags:
                client.delete_tag(run_id, ERROR_TAG)
        if run_id is None:
            run_id = self._create_run(trial_id, run_name, now)
        else:
            client.update_run(run_id, status="RUNNING", name=run_name)
        client.log_batch(
            run_id,
            params=[Param(key, value) for key, value in params.items()],
            tags=[RunTag(key, str(value)) for key, value in tags.items()],
        )

    def _send_metrics(self, trial_id: str, timestamp: int, points: Sequence[tuple[str, int, float]]) -> None:
        from mlflow.entities import Metric

        when = step_time_ms(timestamp)
        self._client().log_batch(
            self._run_id(trial_id), metrics=[Metric(key, value, when, step) for key, step, value in points]
        )

    def _send_image(self, trial_id: str, name: str, png: bytes) -> None:
        run_id = self._run_id(trial_id)
        folder, _, file_name = name.rpartition("/")
        with tempfile.TemporaryDirectory(prefix="clstudy-") as temporary:
            file = Path(temporary) / file_name
            file.write_bytes(png)
            self._client().log_artifact(run_id, str(file), folder)

    def _send_error(self, trial_id: str, text: str) -> None:
        self._client().set_tag(self._run_id(trial_id), ERROR_TAG, text)

    def _send_finish(self, trial_id: str, status: str, now: int) -> None:
        self._client().set_terminated(self._run_id(trial_id), status, now)

    def _send_report(self, folder: Path) -> None:
        client, experiment = self._client(), self._experiment_id()
        found = list(client.search_runs([experiment], f"tags.`{REPORT_TAG}` = 'yes'"))
        kept = [run for run in found if run.info.start_time == _REPORT_START_MS][:1]
        for run in found:
            if run not in kept:  # written by an earlier version: it would come first in every legend
                client.delete_run(run.info.run_id)
        run = kept[0] if kept else client.create_run(experiment, _REPORT_START_MS, {REPORT_TAG: "yes"}, "report")
        run_id = run.info.run_id
        client.log_artifacts(run_id, str(folder), "report")
        client.set_terminated(run_id, "FINISHED", _now_ms())
        client.set_experiment_tag(experiment, REPORT_TAG, f"run {run_id}, report/")

    # The experiment and its runs, looked up once and cached until something goes wrong.

    def _client(self) -> MlflowClient:
        if self._client_or_none is None:
            self._client_or_none = self._make_client(self._uri)
            self._file_or_none = database_file(self._uri)
        return self._client_or_none

    def _follow_database(self) -> None:
        """Detect that a local database was deleted or replaced, and continue in the present one (or a new one).

        SQLite would keep writing to the deleted file, which nobody sees. What was in it is lost here; at a study's end
        incomplete runs are written again from the rows.
        """
        if self._client_or_none is None or database_file(self._uri) == self._file_or_none:
            return
        _log.warning("the database of %s was deleted or replaced; continuing with a new one", self._uri)
        close_connections(self._client_or_none)
        self._client_or_none = self._experiment_id_or_none = self._run_ids_or_none = None

    def _experiment_id(self) -> str:
        if self._experiment_id_or_none is None:
            client = self._client()
            found = client.get_experiment_by_name(self._experiment)
            if found is None:
                location = self._artifact_location
                uri = None if location is None else location.expanduser().resolve().as_uri()
                experiment_id = client.create_experiment(self._experiment, uri)
            else:
                experiment_id = found.experiment_id
                if found.lifecycle_stage == "deleted":
                    client.restore_experiment(experiment_id)
            for key, value in self._experiment_tags.items():
                client.set_experiment_tag(experiment_id, key, value)
            self._experiment_id_or_none = experiment_id
        return self._experiment_id_or_none

    def _run_ids(self) -> dict[str, str]:
        """Return {trial id: run id} of the experiment; of two runs with one tag the older is the trial's."""
        if self._run_ids_or_none is None:
            found: dict[str, str] = {}
            token: str | None = None
            while token is None or token:
                page = self._client().search_runs(
                    [self._experiment_id()], order_by=["attributes.start_time ASC"], page_token=token
                )
                for run in page:
                    if TRIAL_TAG in run.data.tags:
                        found.setdefault(run.data.tags[TRIAL_TAG], run.info.run_id)
                token = page.token or ""
            self._run_ids_or_none = found
        return self._run_ids_or_none

    def _known_run_id(self, trial_id: str) -> str | None:
        return self._run_ids().get(trial_id)

    def _create_run(self, trial_id: str, run_name: str, now: int) -> str:
        run = self._client().create_run(self._experiment_id(), now, {TRIAL_TAG: trial_id}, run_name)
        self._run_ids()[trial_id] = run.info.run_id
        run_id: str = run.info.run_id
        return run_id

    def _run_id(self, trial_id: str) -> str:
        """Return the trial's run; one that was never started (a writer restarted midway) gets its id as name."""
        return self._known_run_id(trial_id) or self._create_run(trial_id, trial_id, _now_ms())


def _is_refusal(error: Exception) -> bool:
    """Whether the server understood and refused the call (or the call itself is wrong): repeating it is useless."""
    if isinstance(error, OSError):  # also every exception of `requests`
        return False
    return getattr(error, "error_code", None) in _REFUSALS or isinstance(error, TypeError | ValueError | AttributeError)


def _first_line(error: Exception) -> str:
    text = redacted(str(error)).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"[:300]


def _shown(value: object) -> str:
    """A parameter, tag or name for display: without secrets and control characters."""
    return printable(redacted(str(value)))


def _now_ms() -> int:
    return int(time.time() * 1000)
