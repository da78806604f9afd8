"""Scans: every face of every sampled frame, measured once and stored, so that a stopped run can continue."""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clstudy.assets import manifest as asset_manifest
from clstudy.assets import sha256_file
from clstudy.errors import UserError
from clstudy.faces.alignments import TRANSFORMS
from clstudy.faces.detectors import detector_key, open_detector, parse_detector
from clstudy.faces.embedding import IdentityEmbedder
from clstudy.faces.face_finder import Face, FaceDetector
from clstudy.identities.preparation.filters import LOOK_SIZE, Measures, look, measure, portrait
from clstudy.identities.preparation.settings import PREPARE_VERSION, PrepareSettings
from clstudy.identities.preparation.video import Found, Occasion
from clstudy.images import to_unit_range
from clstudy.storage.places import write_atomically

_SAY_EVERY_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Everything known about an occasion's n sampled frames and the m faces in them."""

    labels: np.ndarray
    """Frame names, str ``[n]``."""
    numbers: np.ndarray
    """Frame numbers, int ``[n]``, ascending."""
    seconds: np.ndarray
    """``Frame.seconds``, float64 ``[n]``."""
    thumbnails: np.ndarray
    """Whole frames, uint8 ``[n, 64, 64, 3]``."""
    frame: np.ndarray
    """Position of a face's frame, int ``[m]``, ascending."""
    landmarks: np.ndarray
    """float64 ``[m, 68, 2]`` in source pixels."""
    scores: np.ndarray
    """Detector scores, float64 ``[m]``."""
    measures: np.ndarray
    """``Measures.values()``, float64 ``[m, 8]``."""
    embeddings: np.ndarray
    """Unit identity embeddings, float32 ``[m, 512]``."""
    unreadable: np.ndarray
    """Messages about files that could not be read, str ``[k]``."""
    looks: np.ndarray
    """``filters.look``, uint8 ``[m, 64, 64, 3]``."""

    def face(self, row: int) -> Measures:
        """The measures of one face."""
        names = [field.name for field in fields(Measures)]
        return Measures(**dict(zip(names, self.measures[row].tolist(), strict=True)))


class Tools:
    """The networks, opened on first use."""

    def __init__(self, detector: str):
        self._name = detector
        parse_detector(detector)  # raises for an unknown name, before any work

    @cached_property
    def detector(self) -> FaceDetector:
        return open_detector(self._name)

    @cached_property
    def embedder(self) -> IdentityEmbedder:
        return IdentityEmbedder()

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        """Unit identity embedding float32 ``[512]`` of one face."""
        return self.embedder(to_unit_range(portrait(image, face)[None]))[0].numpy()


def scan(
    occasion: Occasion, settings: PrepareSettings, tools: Tools, say: Callable[[str], None] = lambda line: None
) -> Scan:
    """Find and measure every face of every sampled frame.

    Raises:
        UserError: a file is unreadable and ``allow_fewer`` is False.
    """
    unreadable: list[str] = []

    def leave(error: UserError) -> None:
        unreadable.append(str(error))
        say(f"left out: {error}")

    said = time.monotonic()
    frames: list[tuple[str, int, float, np.ndarray]] = []
    faces: list[tuple[Any, ...]] = []
    for position, frame in enumerate(occasion.frames(settings.sampling, leave if settings.allow_fewer else None)):
        if time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            say(f"{occasion.label}: {position} frames so far, {len(faces)} faces, at {frame.label}")
        frames.append((frame.label, frame.index, frame.seconds, _thumbnail(frame.image)))
        for face in tools.detector.faces(frame.image):
            if not _plausible(face):
                continue
            transform = TRANSFORMS[settings.aligned](face.landmarks, settings.size)
            measures = measure(frame.image, face, transform, settings.size, tools.detector)
            embedding = tools.embed(frame.image, face)
            picture = look(frame.image, face)
            faces.append((position, face.landmarks, face.score, measures.values(), embedding, picture))
    labels, numbers, seconds, thumbnails = zip(*frames, strict=True) if frames else ((),) * 4
    columns = list(zip(*faces, strict=True)) or [()] * 6
    return Scan(
        labels=np.array(labels, str),
        numbers=np.array(numbers, int),
        seconds=np.array(seconds, float),
        thumbnails=np.array(thumbnails, np.uint8).reshape(-1, LOOK_SIZE, LOOK_SIZE, 3),
        unreadable=np.array(unreadable, str),
        frame=np.array(columns[0], int),
        landmarks=np.array(columns[1], float).reshape(-1, 68, 2),
        scores=np.array(columns[2], float),
        measures=np.array(columns[3], float).reshape(-1, len(fields(Measures))),
        embeddings=np.array(columns[4], np.float32).reshape(-1, 512),
        looks=np.array(columns[5], np.uint8).reshape(-1, LOOK_SIZE, LOOK_SIZE, 3),
    )


def _plausible(face: Face) -> bool:
    """Whether the landmarks span an area: a box at the frame's border can shrink to a line."""
    points = face.points
    return bool(
        np.linalg.norm(points[1] - points[0]) > 2 and np.linalg.norm(points[3:].mean(0) - points[:2].mean(0)) > 2
    )


def _thumbnail(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((LOOK_SIZE, LOOK_SIZE), Image.Resampling.BOX))


def scan_once(
    occasion: Occasion, folder: Path, settings: PrepareSettings, tools: Tools, say: Callable[[str], None]
) -> Scan:
    """Read the stored scan of the same files under the same settings, or scan them now."""
    path = folder / f"scan-{_scan_key(occasion, settings)}.npz"
    try:
        found = stored_scan(path)
        if len(found.unreadable) and not settings.allow_fewer:
            raise UserError(f"{found.unreadable[0]}; --allow-fewer leaves it out")
        say(f"{occasion.label}: {len(found.labels)} frames were scanned before")
        return found
    except (OSError, ValueError):
        pass  # not there yet, or damaged
    found = scan(occasion, settings, tools, say)
    content = io.BytesIO()
    np.savez(content, **{field.name: getattr(found, field.name) for field in fields(Scan)})
    write_atomically(path, content.getvalue())
    say(f"{occasion.label}: {len(found.labels)} frames, {len(found.frame)} faces")
    return found


def remove_scans(folder: Path, found: Found, settings: PrepareSettings) -> None:
    """Remove the scans of this run; scans of other runs, which may have been stopped, are kept."""
    for occasion in found.occasions:
        (folder / f"scan-{_scan_key(occasion, settings)}.npz").unlink(missing_ok=True)


def stored_scan(path: Path) -> Scan:
    """A scan that an earlier run stored.

    Raises:
        OSError: there is no such file.
        ValueError: the file is damaged, or not a scan.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with zipfile.ZipFile(path) as archive:
            # np.savez does not compress; a few bytes that unpack to gigabytes are not a scan
            entries = archive.infolist()
            if any(entry.compress_type for entry in entries) or sum(entry.file_size for entry in entries) > (
                path.stat().st_size
            ):
                raise ValueError("it is compressed, or its entries overlap")
        with np.load(path) as stored:
            found = Scan(**{field.name: stored[field.name] for field in fields(Scan)})
    except (KeyError, EOFError, SyntaxError, TypeError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(f"it is damaged ({type(error).__name__})") from error
    frames, faces, side = found.labels.shape, found.frame.shape, LOOK_SIZE
    shapes = {
        "numbers": frames,
        "seconds": frames,
        "thumbnails": (*frames, side, side, 3),
        "landmarks": (*faces, 68, 2),
        "scores": faces,
        "measures": (*faces, len(fields(Measures))),
        "looks": (*faces, side, side, 3),
    }
    if (
        any(getattr(found, name).shape != shape for name, shape in shapes.items())
        or found.embeddings.shape[:1] != faces
        or found.unreadable.ndim != 1
        or (len(found.frame) and not 0 <= found.frame.min() <= found.frame.max() < len(found.labels))
    ):
        raise ValueError("its arrays do not fit each other")
    return found


def _scan_key(occasion: Occasion, settings: PrepareSettings) -> str:
    """Hash of everything that a scan depends on; limits are not part of it, so changing them needs no new scan."""
    networks = {name: entry["sha256"] for name, entry in asset_manifest().items() if name.startswith("face_")}
    everything = [
        PREPARE_VERSION,
        [(path.name, sha256_file(path)) for path in occasion.files],
        asdict(settings.sampling),
        [detector_key(settings.detector), settings.aligned, settings.size],
        networks,
    ]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:20]
