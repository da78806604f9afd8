"""Face detectors by name, as ``--detector NAME`` or ``NAME=FOLDER`` chooses them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clstudy.assets import sha256_file
from clstudy.errors import UserError
from clstudy.faces.face_finder import FaceDetector, FaceFinder
from clstudy.faces.insightface_packs import InsightFaceFinder, PackFinder, pack_networks
from clstudy.registry import Registry

DETECTORS: Registry[Callable[..., FaceDetector]] = Registry("face detector")
"""name -> class; one with ``reads_packs`` takes the folder of an insightface pack."""

DETECTORS.register("packaged")(FaceFinder)
DETECTORS.register("insightface")(InsightFaceFinder)
DETECTORS.register("pack")(PackFinder)


def parse_detector(choice: str) -> tuple[str, Path | None]:
    """Name and pack folder of a choice such as ``packaged`` or ``pack=FOLDER``; opens no network.

    Raises:
        UserError: an unknown name, a missing folder, or a folder for a detector that takes none.
    """
    name, equals, folder = choice.partition("=")
    kind = DETECTORS[name]
    if not equals:
        return name, None
    if not getattr(kind, "reads_packs", False):
        takers = ", ".join(f"{other}=FOLDER" for other, one in DETECTORS.items() if getattr(one, "reads_packs", False))
        raise UserError(f"--detector {choice}: {name!r} takes no folder; leave it out, or use one of {takers}")
    if not Path(folder).is_dir():
        raise UserError(
            f"--detector {choice}: no folder {folder!r}; name the folder of an insightface pack (buffalo_l)"
        )
    return name, Path(folder)


def open_detector(choice: str) -> FaceDetector:
    """The detector of a choice, ready to use.

    Raises:
        UserError: as ``parse_detector``, or the detector's package or weights are missing.
    """
    name, pack = parse_detector(choice)
    return DETECTORS[name]() if pack is None else DETECTORS[name](pack)


def detector_title(choice: str) -> str:
    """A choice without the path to its folder, for reports."""
    name, _, folder = choice.partition("=")
    return f"{name} ({Path(folder).name})" if folder else name


def detector_key(choice: str) -> str:
    """A choice as it enters the key of a scan: a pack is identified by its networks' content, wherever it lies."""
    name, pack = parse_detector(choice)
    return name if pack is None else " ".join([name, *map(sha256_file, pack_networks(pack))])
