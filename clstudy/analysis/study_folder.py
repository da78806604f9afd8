"""Reads a study's stored data other than its rows: settings, stage requests, anchors, face pictures, timings.

Scores do not depend on any of it. If a folder lacks some of it (for instance a copy without ``stages/``), results are
empty and no error is raised; nothing is moved or repaired.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays

from clstudy.images import decode_png
from clstudy.records.results import result_keys, result_path
from clstudy.records.stage_record import StageInputs, StageRecord
from clstudy.settings.profile_sections import (
    AGE_STRIP,
    CATEGORY_SAMPLES,
    EDITED_FACES,
    STRIP_AGES,
    TURNTABLE,
    TURNTABLE_YAWS,
)
from clstudy.storage.content_addressed_store import ANCHORS, FACES, STAGE_RECORD, StudyStore, ValueStore, picture_file


@dataclass(frozen=True, kw_only=True)
class StoredStage:
    """One finished stage of a trial: its store, its key there, and its request."""

    stages: ValueStore
    key: str
    asked: StageInputs


def trial_stages(study_dir: Path, trial: str) -> tuple[StoredStage, ...]:
    """Stages of a finished trial in order; empty if the folder does not have all of them."""
    stages = StudyStore(study_dir).stages
    try:
        return tuple(_stored_stage(stages, key) for key in result_keys(result_path(study_dir, trial)))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return ()


def kinds_of_processor(study_dir: Path, trials: Iterable[str]) -> Counter[str]:
    """Kind of processor -> how many stages of these trials it computed; stages that do not say are left out."""
    store = StudyStore(study_dir).stages
    keys: set[str] = set()
    for trial in trials:
        with suppress(OSError, ValueError, KeyError):
            keys.update(result_keys(result_path(study_dir, trial)))
    found: Counter[str] = Counter()
    for key in keys:
        with suppress(OSError, ValueError):
            if (content := store.read_file(key, STAGE_RECORD)) and (kind := StageRecord.decode(content).computed_on):
                found[kind] += 1
    return found


def _stored_stage(stages: ValueStore, key: str) -> StoredStage:
    content = stages.file(key, STAGE_RECORD)
    if content is None:
        raise KeyError(key)
    return StoredStage(stages=stages, key=key, asked=StageRecord.decode(content).asked)


def anchor_latents(study_dir: Path, stage: StoredStage, k: int) -> np.ndarray | None:
    """Anchors of timestamp k's training photos, flattened to float ``[n, d]`` in their order, or None."""
    content = StudyStore(study_dir).anchors.file(stage.asked.anchors_key(k), ANCHORS)
    try:
        if content is None:
            return None
        latents = load_arrays(content)["train"]
    except (KeyError, ValueError, SafetensorError):
        return None
    latents = latents.reshape(len(latents), -1).astype(np.float64)
    return latents if len(latents) == len(stage.asked.anchored[k]) and np.isfinite(latents).all() else None


def stage_faces(stage: StoredStage) -> np.ndarray | None:
    """First test photo of every timestamp k <= t, and its reconstruction: uint8 ``[2, t + 1, s, s, 3]``, if stored."""
    return _squares(stage, FACES, 2, stage.asked.t + 1)


def stage_turntable(stage: StoredStage) -> np.ndarray | None:
    """A 3D generator's latent from the sides of ``TURNTABLE_YAWS``, and its depth: uint8 ``[2, 5, s, s, 3]``."""
    return _squares(stage, picture_file(TURNTABLE), 2, len(TURNTABLE_YAWS))


def stage_edits(stage: StoredStage) -> np.ndarray | None:
    """First reconstruction of every timestamp k <= t, and the edited one: uint8 ``[2, t + 1, s, s, 3]``, if stored."""
    return _squares(stage, picture_file(EDITED_FACES), 2, stage.asked.t + 1)


def stage_samples(stage: StoredStage) -> np.ndarray | None:
    """Images that were generated of every category so far, uint8 ``[t + 1, n, s, s, 3]``, if stored."""
    return _squares(stage, picture_file(CATEGORY_SAMPLES), stage.asked.t + 1)


def stage_age_strip(stage: StoredStage) -> np.ndarray | None:
    """A test photo at ``STRIP_AGES``, true, by the prior and by the stage: uint8 ``[3, 7, s, s, 3]``, if stored."""
    return _squares(stage, picture_file(AGE_STRIP), 3, len(STRIP_AGES))


def _squares(stage: StoredStage, name: str, rows: int, columns: int | None = None) -> np.ndarray | None:
    """A stage's picture cut into its squares, uint8 ``[rows, columns, s, s, 3]``, if stored; None: as many as fit."""
    content = stage.stages.file(stage.key, name)
    try:
        if content is None:
            return None
        pixels = decode_png(content)
    except (OSError, ValueError):
        return None
    side = pixels.shape[0] // rows
    columns = columns or pixels.shape[1] // max(side, 1)
    if side == 0 or pixels.shape != (rows * side, columns * side, 3):
        return None
    return np.asarray(pixels.reshape(rows, side, columns, side, 3).swapaxes(1, 2))


def stage_seconds(study_dir: Path) -> list[float]:
    """Seconds of every stage that was computed for this study."""
    return StudyStore(study_dir).seconds_per_stage()
