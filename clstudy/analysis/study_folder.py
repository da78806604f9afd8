"""What a study left behind besides its rows: settings, stage requests, anchors, face pictures, timings (read only).

Nothing here is needed for a number. A folder that lacks some of it (a copy without ``stages/``, for instance) gives
empty answers, never an error, and nothing is moved or repaired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays

from clstudy.images import decode_png
from clstudy.records.results import result_keys, result_path
from clstudy.records.study_document import read_document
from clstudy.storage.content_addressed_store import StudyStore, ValueStore, digest_of
from clstudy.storage.documents import json_object


@dataclass(frozen=True, kw_only=True)
class StageNote:
    """What one stage of a trial was asked to do, as its ``stage.json`` tells.

    Attributes:
        stages: the store that it lies in; ``key``: its key there.
        t: its timestamp.
        stored: (timestamp, photo digest) of every stored photo, or anchor, that it trained with.
        anchored: per timestamp seen, the digests of its training photos in the order of their anchors.
        tested: per timestamp seen, the digests of its test photos in the order of their starting latents.
        generator: digest of the pretrained generator.
        fingerprint: what else the anchors depend on.
    """

    stages: ValueStore
    key: str
    t: int
    stored: tuple[tuple[int, str], ...]
    anchored: tuple[tuple[str, ...], ...]
    tested: tuple[tuple[str, ...], ...]
    generator: str
    fingerprint: Mapping[str, Any]


def trial_stages(study_dir: Path, trial: str) -> tuple[StageNote, ...]:
    """Stages of a finished trial in order, or nothing where the folder does not hold all of them."""
    stages = StudyStore(study_dir).stages
    try:
        return tuple(_note(stages, key) for key in result_keys(result_path(study_dir, trial)))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return ()


def _note(stages: ValueStore, key: str) -> StageNote:
    content = stages.file(key, "stage.json")
    if content is None:
        raise KeyError(key)
    request = json_object(content)["request"]
    # Strategies that generate replays hold their stored anchors in "support"; the others their photos in "replay".
    stored = request["replay"] or request.get("support", {}).get("items", [])
    return StageNote(
        stages=stages,
        key=key,
        t=int(request["stream"][2]),
        stored=tuple((int(timestamp), str(digest)) for timestamp, digest in stored),
        anchored=tuple(tuple(digests) for digests in request["anchored"]),
        tested=tuple(tuple(digests) for digests in request["tested"]),
        generator=str(request["generator"]),
        fingerprint=request["fingerprint"],
    )


def anchors_key(note: StageNote, k: int) -> str:
    """Key of timestamp k's anchors, from a stage's own record (equal to ``clstudy.trial.requests.anchors_key``;
    tested).
    """
    return digest_of(
        {
            "what": "anchors",
            "generator": note.generator,
            "fingerprint": dict(note.fingerprint),
            "train": list(note.anchored[k]),
            "test": list(note.tested[k]),
        }
    )


def anchor_latents(study_dir: Path, note: StageNote, k: int) -> np.ndarray | None:
    """Anchors of timestamp k's training photos, float ``[n, w_dim]`` in their order, or None."""
    content = StudyStore(study_dir).anchors.file(anchors_key(note, k), "anchors.safetensors")
    try:
        if content is None:
            return None
        latents = load_arrays(content)["train"]
    except (KeyError, ValueError, SafetensorError):
        return None
    latents = latents.reshape(len(latents), -1).astype(np.float64)
    return latents if len(latents) == len(note.anchored[k]) and np.isfinite(latents).all() else None


def stage_faces(note: StageNote) -> tuple[np.ndarray, np.ndarray] | None:
    """First test photo of every timestamp k <= t and its reconstruction: two uint8 ``[t + 1, s, s, 3]``, if stored."""
    content = note.stages.file(note.key, "faces.png")
    try:
        if content is None:
            return None
        pixels = decode_png(content)
    except (OSError, ValueError):
        return None
    side = pixels.shape[0] // 2
    if side == 0 or pixels.shape != (2 * side, side * (note.t + 1), 3):
        return None
    cells = pixels.reshape(2, side, note.t + 1, side, 3).transpose(0, 2, 1, 3, 4)
    return cells[0], cells[1]


def stage_seconds(study_dir: Path) -> list[float]:
    """Seconds of every stage that was computed for this study."""
    return StudyStore(study_dir).seconds_per_stage()


def settings(study_dir: Path) -> dict[str, Any]:
    """``study.yaml`` as plain values.

    Raises:
        UserError: as ``read_document``.
    """
    return read_document(study_dir)
