"""The output folder: checks what may be written there, locks it, and replaces a person in one step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clstudy.errors import UserError
from clstudy.identities.conditions import FOR_ALL, has_sidecars
from clstudy.identities.preparation.photo_files import kind_of_photos
from clstudy.identities.preparation.settings import PrepareSettings
from clstudy.storage.documents import read_json
from clstudy.storage.file_lock import file_lock, holder
from clstudy.storage.places import write_atomically


def require_place(source: Path, out: Path, report: Path, settings: PrepareSettings) -> None:
    """Check where the photos and the report will be written, before any work.

    Raises:
        UserError: they would lie in the source or around it, replace a folder that prepare did not create or conditions
            that somebody put there, or lie beside people's photos of another size or alignment.
    """
    inside = source.resolve() if source.is_dir() else source.resolve().parent
    for folder in (out.resolve(), report.resolve()):
        if folder == inside or (source.is_dir() and (inside in folder.parents or folder in inside.parents)):
            raise UserError(
                f"output folder {str(out)!r} and source {str(source)!r} lie inside each other; the source is never "
                "written to. Give an output folder elsewhere"
            )
    target = out / settings.identity
    if target.exists() and not (target / "prepared.json").is_file():
        raise UserError(
            f"{str(target)!r} exists and was not made by prepare; it is left alone. Choose another --identity or "
            "output folder"
        )
    if has_sidecars(target):
        raise UserError(
            f"{str(target)!r} has conditions of photos ({FOR_ALL} or JSON files beside photos), which new photos would "
            "replace; move them away first, or choose another --identity or output folder"
        )
    _require_one_kind(out, settings)


def _require_one_kind(out: Path, settings: PrepareSettings) -> None:
    """Check that all people of a folder have one size and alignment."""
    target = out / settings.identity
    try:
        there = read_json(out / "prepared.json")
    except (OSError, ValueError):
        return
    if not isinstance(there, dict):
        return
    differing = {
        name: (there.get(name), wanted)
        for name, wanted in (("alignment", settings.aligned), ("size", settings.size))
        if there.get(name) != wanted
    }
    others = [entry.name for entry in out.iterdir() if (entry / "prepared.json").is_file() and entry != target]
    if differing and others:
        differences = ", ".join(f"{name} {have}, wanted {wanted}" for name, (have, wanted) in differing.items())
        raise UserError(
            f"output folder {str(out)!r} holds photos prepared differently ({differences}: "
            f"{', '.join(sorted(others))}); a data set has one size and alignment. Give another output folder"
        )


@contextmanager
def only_one(out: Path, identity: str) -> Iterator[None]:
    """Lock a person's folder while the block runs: a second run for the same person is refused."""
    scans = out / ".prepare"

    def busy(card: Mapping[str, Any]) -> UserError:
        return UserError(
            f"another process prepares {identity!r} in {str(out)!r} ({holder(card)}); wait until it ends, stop it, or "
            "give another --identity or output folder"
        )

    try:
        with file_lock(scans / f"{identity}.lock", busy, remove=True):
            _mend(out, identity)
            yield
    finally:
        with suppress(OSError):  # it still has scans, or another process is using it
            scans.rmdir()


def _mend(out: Path, identity: str) -> None:
    """Restore the photos that a killed run was about to replace."""
    if _replaced(out, identity).exists() and not (out / identity).exists():
        _replaced(out, identity).rename(out / identity)


def put_in_place(building: Path, out: Path, settings: PrepareSettings) -> None:
    """Swap the finished photos in; :func:`_mend` repairs an interruption between the two renames."""
    target, replaced = out / settings.identity, _replaced(out, settings.identity)
    _require_one_kind(out, settings)  # another person may have been prepared in the meantime
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        target.rename(replaced)
    building.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
    write_atomically(out / "prepared.json", (json.dumps(kind_of_photos(settings), indent=1) + "\n").encode())


def _replaced(out: Path, identity: str) -> Path:
    return out / ".prepare" / f"replaced-{identity}"
