"""Content-addressed store of finished values: stages, strategy memories, anchors.

A value is a folder of files named by its key. It is written beside its place and renamed when whole; the marker
``COMPLETE`` (sizes and sha256 of every file) is the last file written. A value that is missing a file, is too
short or does not match its checksum counts as not there: it is moved aside, said, and computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MARKER = "COMPLETE"
_LOG = logging.getLogger(__name__)

KEY_EXCLUSIONS = ("log level", "device index", "node", "number of workers", "order of trials", "stage_seconds")
"""What a key leaves out, because it cannot change a number. Everything else a stage depends on is in its key."""


def digest_of(document: Mapping[str, Any]) -> str:
    """sha256 of a JSON-able document in canonical form: the key of the value it describes."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class ValueStore:
    """Values under ``root/<first two letters>/<key>/``.

    Safe with many writers on one file system: values are deterministic, so whoever renames first wins.
    """

    def __init__(self, root: Path):
        self.root = root

    def folder(self, key: str) -> Path:
        """Where the value of a key is or would be."""
        return self.root / key[:2] / key

    def looks_complete(self, key: str) -> bool:
        """Marker present and every file there with the right size (cheap: no file is read)."""
        record = self._record(key)
        if record is None:
            return False
        folder = self.folder(key)
        for name, entry in record.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != entry["bytes"]:
                return False
        return True

    def get(self, key: str) -> dict[str, bytes] | None:
        """Return all files of a value after checking sizes and sha256, or None if it is absent or damaged."""
        folder = self.folder(key)
        if not folder.exists():
            return None
        record = self._record(key)
        files: dict[str, bytes] = {}
        for name, entry in (record or {}).items():
            path = folder / name
            content = path.read_bytes() if path.is_file() else b""
            if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                self._set_aside(key, f"{name} is missing or does not match its checksum")
                return None
            files[name] = content
        if not files:
            self._set_aside(key, "its marker is missing or unreadable")
            return None
        return files

    def put(self, key: str, files: Mapping[str, bytes]) -> None:
        """Write a value; an equal value written meanwhile by somebody else is kept."""
        target = self.folder(key)
        if self.looks_complete(key):
            return
        draft = self.root / "drafts" / f"{key[:16]}-{uuid.uuid4().hex}"
        draft.mkdir(parents=True)
        record = {}
        for name, content in files.items():
            _write_durably(draft / name, content)
            record[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        _write_durably(draft / MARKER, json.dumps(record, indent=1).encode())
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.rename(target)
        except OSError:
            if self.looks_complete(key):
                shutil.rmtree(draft, ignore_errors=True)
                return
            self._set_aside(key, "it is incomplete")
            draft.rename(target)

    def drop_drafts(self) -> None:
        """Remove what interrupted writers left behind (only while nobody else writes)."""
        shutil.rmtree(self.root / "drafts", ignore_errors=True)

    def _record(self, key: str) -> dict[str, dict[str, Any]] | None:
        try:
            return json.loads((self.folder(key) / MARKER).read_text())
        except (OSError, ValueError):
            return None

    def _set_aside(self, key: str, reason: str) -> None:
        _LOG.warning("%s %s… is damaged (%s); it is computed again", self.root.name, key[:12], reason)
        aside = self.root / "damaged" / f"{key}-{uuid.uuid4().hex[:8]}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.folder(key).rename(aside)
        except FileNotFoundError:
            return
        shutil.rmtree(aside, ignore_errors=True)


class StudyStore:
    """The kinds of values a study keeps, under one folder."""

    def __init__(self, root: Path):
        self.root = root
        self.stages = ValueStore(root / "stages")
        self.memories = ValueStore(root / "memories")
        self.learned = ValueStore(root / "learned")
        self.anchors = ValueStore(root / "anchors")

    @property
    def timings(self) -> Path:
        """Folder with one small JSON per computed stage: seconds, never part of a value."""
        return self.root / "timings"

    def record_seconds(self, key: str, seconds: float, photos: int) -> None:
        """Note how long a stage took (core-seconds of its worker) for later estimates."""
        self.timings.mkdir(parents=True, exist_ok=True)
        _write_durably(
            self.timings / f"{key}.json", json.dumps({"seconds": round(seconds, 3), "photos": photos}).encode()
        )

    def seconds_per_stage(self) -> list[float]:
        """Seconds of every stage computed so far."""
        found = []
        for path in sorted(self.timings.glob("*.json")) if self.timings.exists() else []:
            try:
                found.append(float(json.loads(path.read_text())["seconds"]))
            except (OSError, ValueError, KeyError):
                continue
        return found

    def drop_drafts(self) -> None:
        """Clean up after interrupted writers."""
        for store in (self.stages, self.memories, self.learned, self.anchors):
            store.drop_drafts()


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one step, so that a kill leaves the old or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    _write_durably(draft, content)
    draft.replace(path)
