"""Writes chosen frames as aligned photos, and records facts about them (prepared.json)."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clstudy.errors import UserError
from clstudy.faces.alignments import TRANSFORMS, aligned_photo
from clstudy.identities.preparation.reference import Reference
from clstudy.identities.preparation.scans import Scan
from clstudy.identities.preparation.settings import PREPARE_VERSION, PrepareSettings
from clstudy.identities.preparation.timestamps import TEST, TRAIN, Stamp
from clstudy.identities.preparation.video import Found, Frame, Occasion
from clstudy.storage.places import write_atomically


def write_photos(
    folder: Path,
    found: Found,
    scans: Sequence[Scan],
    stamps: Sequence[Stamp],
    reference: Reference | None,
    settings: PrepareSettings,
) -> dict[str, Path]:
    """Align the chosen frames into ``folder`` and describe them in its ``prepared.json``; ``t00/3`` -> photo file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths, described = {}, {}
    for number, occasion in enumerate(found.occasions):
        chosen = {
            int(scans[number].numbers[verdict.position]): (stamp, verdict)
            for stamp in stamps
            for verdict in stamp.decided(TRAIN, TEST)
            if verdict.occasion == number and not stamp.left_out
        }
        for frame in _frames(occasion, chosen.keys(), settings):
            stamp, verdict = chosen.pop(frame.index)
            path = folder / stamp.name / verdict.decision / f"{frame.index:06d}.png"
            png = _png(frame.image, scans[number].landmarks[verdict.row], settings)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png)
            paths[f"{stamp.name}/{verdict.position}"] = path
            described[path.relative_to(folder).as_posix()] = {
                "sha256": hashlib.sha256(png).hexdigest(),
                "source": f"{occasion.label}, {frame.label}"
                if occasion.is_video()
                else f"{occasion.label}/{frame.label}",
                "identity_cosine": round(verdict.cosine, 4),
            }
        if chosen:
            raise UserError(f"{occasion.label} changed while it was being prepared; run prepare again")
    record = kind_of_photos(settings) | {
        "identity": settings.identity,
        "reference": reference.said if reference else None,
        "settings": asdict(replace(settings, alignment=settings.aligned)),
        "timestamps": {stamp.name: stamp.source for stamp in stamps if not stamp.left_out},
        "photos": dict(sorted(described.items())),
    }
    write_atomically(folder / "prepared.json", (json.dumps(record, indent=1) + "\n").encode())
    return paths


def _frames(occasion: Occasion, wanted: Any, settings: PrepareSettings) -> list[Frame] | Any:
    """The frames of an occasion; unreadable files were reported by the scan, and none of them was chosen."""
    leave = (lambda error: None) if settings.allow_fewer else None
    frames = occasion.frames(settings.sampling, leave)
    return (frame for frame in frames if frame.index in wanted) if wanted else ()


def _png(image: np.ndarray, landmarks: np.ndarray, settings: PrepareSettings) -> bytes:
    transform = TRANSFORMS[settings.aligned](landmarks, settings.size)
    buffer = io.BytesIO()
    Image.fromarray(aligned_photo(image, transform, settings.size)).save(buffer, "PNG")
    return buffer.getvalue()


def kind_of_photos(settings: PrepareSettings) -> dict[str, Any]:
    """What all photos of an output folder have in common, as in ``prepared.json``."""
    return {"prepare_version": PREPARE_VERSION, "alignment": settings.aligned, "size": settings.size}
