"""A study's runs from its Parquet rows (no torch, no Ray), for MLflow or another tool.

For MLflow it uses the same writer as a running study, fed from the study's folder: rows (``results/``), settings
(``study.yaml``), losses and pictures (``stages/``). Repeating it adds neither runs nor metric rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clstudy.analysis.partial_scores import running_metrics
from clstudy.errors import UserError
from clstudy.identities.dataset import Photo
from clstudy.images import decode_png, enlarged, photo_row
from clstudy.records.failures import read_failures
from clstudy.records.results import REMEDY, contradicts_stages, read_result, result_path
from clstudy.records.stage_record import StageRecord
from clstudy.records.study_record import read_complete_record
from clstudy.settings.metric_facts import known_metrics
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.checksums import State
from clstudy.storage.content_addressed_store import (
    FACES,
    LOSSES,
    REPLAYS,
    STAGE_RECORD,
    StudyStore,
    picture_files,
    read_losses,
)
from clstudy.storage.places import require_writable
from clstudy.strategies.lookup import strategy_class
from clstudy.study.stored_study import stage_keys, stored_metrics, stored_photos, stored_trials, stored_version
from clstudy.tracking.addresses import artifact_folder
from clstudy.tracking.local_database import local_database
from clstudy.tracking.run_contents import LOSS_METRIC, run_names, trial_params, trial_tags
from clstudy.tracking.run_writers import RUN_WRITERS, RunWriter
from clstudy.tracking.writer import MlflowWriter

_PATIENCE_S = 60.0


@dataclass(kw_only=True)
class Rebuilt:
    """What was written, and what was left out."""

    finished: int = 0
    failed: int = 0
    unfinished: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    """What was left out -> how often."""

    def leave_out(self, what: str) -> None:
        """Count something that is missing."""
        self.notes[what] = self.notes.get(what, 0) + 1


class StudyReplay:
    """Replays to a writer of runs what the workers of a finished study reported."""

    def __init__(self, study: Path, writer: RunWriter, data: str | None = None, *, images: bool = True):
        self._study = study
        self._writer = writer
        self._data = data
        self._images = images
        self._record = read_complete_record(study)
        self._metrics = known_metrics(stored_metrics(self._record))
        self._stages = StudyStore(study).stages
        self._photos: Mapping[str, Photo] | None = None
        self._rebuilt = Rebuilt()

    def run(self, only: Collection[str] | None = None) -> Rebuilt:
        """Replay all trials (or those named), in the plan's order.

        Raises:
            UserError: a result file cannot be read or does not belong to its stages.
        """
        trials = stored_trials(self._record)
        names = run_names(trials)
        failures = read_failures(self._study)
        for spec in trials:
            if only is not None and spec.trial_id not in only:
                continue
            keys = stage_keys(self._study, spec.trial_id)
            if keys is not None:
                self._finished(spec, names[spec.trial_id], keys)
            elif spec.trial_id in failures:
                # its rows are in the stages it reached, but without its photos their keys are not known
                self._start(spec, names[spec.trial_id])
                self._writer.fail_trial(spec.trial_id, failures[spec.trial_id])
                self._rebuilt.failed += 1
            else:
                self._rebuilt.unfinished.append(spec.trial_id)
        return self._rebuilt

    def _finished(self, spec: TrialSpec, name: str, keys: Sequence[str]) -> None:
        rows = self._rows(spec)
        stages = {t: rows.filter(pc.equal(rows["train_timestamp"], t)) for t in self._timestamps(rows)}
        if len(stages) != len(keys):
            raise UserError(
                f"the rows of trial {spec.trial_id} are of {len(stages)} stages, but its file lists {len(keys)}; "
                f"delete {result_path(self._study, spec.trial_id)} and run the study again"
            )
        records = [self._stage_record(key) for key in keys]
        self._start(spec, name)
        seen: list[pa.Table] = []
        for (t, table), key, record in zip(stages.items(), keys, records, strict=True):
            seen.append(table)
            loss = {} if record is None else {LOSS_METRIC: record.loss}
            self._writer.log_stage(
                spec.trial_id,
                t,
                {**running_metrics(seen, t, self._metrics), **loss},
                self._pictures(key, record),
                self._losses(key),
            )
        self._writer.finish_trial(spec.trial_id)
        self._rebuilt.finished += 1

    def _rows(self, spec: TrialSpec) -> pa.Table:
        result = read_result(result_path(self._study, spec.trial_id))
        if result.rows is None:
            raise UserError(f"{result.place} cannot be read ({result.trouble or result.state.value}); {REMEDY}")
        if result.state is State.UNCHECKED and contradicts_stages(result, spec.columns(), self._stages):
            raise UserError(f"{result.place} is damaged: its rows are not those of its stages; {REMEDY}")
        return result.rows

    @staticmethod
    def _timestamps(rows: pa.Table) -> list[int]:
        return sorted(set(rows["train_timestamp"].to_pylist()))

    def _stage_record(self, key: str) -> StageRecord | None:
        content = self._stages.file(key, STAGE_RECORD)
        if content is None:
            self._rebuilt.leave_out("the training loss and pictures of a stage that is not stored any more")
            return None
        return StageRecord.decode(content)

    def _losses(self, key: str) -> np.ndarray | None:
        content = self._stages.file(key, LOSSES)
        return None if content is None else read_losses(content)  # stages of earlier versions have none

    def _start(self, spec: TrialSpec, name: str) -> None:
        version, joint = None, False
        try:
            joint = strategy_class(spec.strategy).joint
            version = stored_version(self._record, spec)
        except UserError as error:  # a strategy of the user's own that is not here
            self._rebuilt.leave_out(f"the version of a trial: {error}")
        params = trial_params(
            spec,
            profile=self._record.named_profile,
            timestamps=spec.timestamps or self._record.timestamps_of(spec.identity),
            joint=joint,
        )
        self._writer.start_trial(spec.trial_id, name, params, trial_tags(spec, version))

    def _pictures(self, key: str, record: StageRecord | None) -> dict[str, np.ndarray]:
        if not self._images:
            return {}
        pictures = {}
        if (faces := self._stages.file(key, FACES)) is not None:
            pictures["faces"] = enlarged(decode_png(faces))
        for name, file in picture_files(self._stages.names(key) or ()).items():
            if (content := self._stages.file(key, file)) is not None:
                pictures[name] = enlarged(decode_png(content))
        if record is not None and (replay := record.asked.replay):
            known, size = self._known_photos(), record.asked.image_size
            if all(digest in known for _, digest in replay):
                pictures["buffer"] = enlarged(photo_row([known[digest].read(size) for _, digest in replay]))
            else:
                self._rebuilt.leave_out("the picture of a buffer whose photos are not here (say where: --data FOLDER)")
        elif (replays := self._stages.file(key, REPLAYS)) is not None:
            pictures["buffer"] = enlarged(decode_png(replays))
        return pictures

    def _known_photos(self) -> Mapping[str, Photo]:
        """Training photos by digest; empty if the study's photos are not available."""
        if self._photos is None:
            try:
                people = stored_photos(self._study, self._record, self._data).identities
            except (UserError, ImportError):
                if self._data is not None:
                    raise
                people = ()
            self._photos = {photo.digest: photo for one in people for t in one.timestamps for photo in t.train}
        return self._photos


def export_runs(study: Path, tool: str, folder: Path, data: str | None = None, *, images: bool = True) -> Rebuilt:
    """Write a study's runs for a tool of ``RUN_WRITERS`` into a folder; writing them again replaces them.

    Raises:
        UserError: the folder is not a study, a result cannot be read, the tool is not known or not installed, or the
            folder cannot be written.
    """
    make = RUN_WRITERS[tool]
    record = read_complete_record(study)
    require_writable(folder, "the folder", "name another one with --out")
    return StudyReplay(study, make(folder, record.name), data, images=images).run()


def complete_runs(study: Path, writer: MlflowWriter, data: str | None = None, *, images: bool = True) -> int:
    """Write the runs of finished trials that are missing or incomplete in MLflow; returns how many there were.

    If a driver is killed, what its recorder had not delivered is lost, although the trial is finished.

    Raises:
        UserError: MLflow does not answer, or a result cannot be read.
    """
    keys = {spec.trial_id: stage_keys(study, spec.trial_id) for spec in stored_trials(read_complete_record(study))}
    stages = {trial: len(found) for trial, found in keys.items() if found is not None}
    try:
        lacking = set(stages) - writer.whole_runs(stages)
    except ConnectionError as error:
        raise UserError(
            f"MLflow does not answer ({error}); `python -m clstudy.tracking rebuild` brings it up to date later"
        ) from error
    if lacking:
        StudyReplay(study, writer, data, images=images).run(lacking)
    return len(lacking)


def rebuild(study: Path, uri: str, data: str | None = None) -> tuple[Rebuilt, int]:
    """Write a study's runs and its report; returns what was written and how many calls MLflow did not take.

    Raises:
        UserError: the folder is not a study, a result cannot be read, or ``uri`` is not a tracking URI.
    """
    if "://" not in uri:
        raise UserError(
            f"{uri!r} is not a tracking URI; expected sqlite:///FILE (e.g. sqlite:///runs/mlflow.db) or http://…"
        )
    record = read_complete_record(study)
    if (database := local_database(uri)) is not None:
        require_writable(database.parent, "the folder of MLflow's database", "name another one with --to")
    writer = MlflowWriter(
        uri,
        record.name,
        {
            "clstudy.profile": record.named_profile,
            "clstudy.version": str((record.versions or {}).get("clstudy")),
        },
        artifact_location=artifact_folder(study, uri),
    )
    rebuilt = StudyReplay(study, writer, data).run()
    report = study / "report"
    if report.is_dir():
        writer.attach_report(report)
    else:
        rebuilt.leave_out("the report, which is not there (`python -m clstudy.report STUDY` writes it)")
    return rebuilt, writer.flush(_PATIENCE_S) + writer.dropped()
