"""Content-addressed store of finished values: stages, their weights, strategy memories, anchors.

A value is a folder of files named by its key; the marker ``COMPLETE`` (sizes and sha256 of every file) is the last file
written. On a disk it is written beside its place and renamed when whole; an object store knows no renaming, there the
marker written last is what makes it a value. One that is missing a file, is too short or does not match its checksum
counts as not there: it is moved aside, said, and computed again. A storage that does not answer for a moment, or is
full, is waited for (``clstudy.storage.patiently``) and never taken for a damaged value.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from clstudy.storage import (
    Place,
    RemotePath,
    list_files,
    patiently,
    remove_tree,
    together,
    write_atomically,
    write_durably,
)

MARKER = "COMPLETE"
_LOG = logging.getLogger(__name__)

KEY_EXCLUSIONS = ("log level", "device index", "node", "number of workers", "order of trials", "stage_seconds")
"""What a key leaves out, because it cannot change a number. Everything else a stage depends on is in its key."""


def digest_of(document: Mapping[str, Any]) -> str:
    """sha256 of a JSON-able document in canonical form: the key of the value it describes."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def is_key(text: object) -> bool:
    """Whether something is a key: keys come from files as well, and one that were a path would lead elsewhere."""
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{64}", text) is not None


class ValueStore:
    """Values under ``root/<first two letters>/<key>/``.

    Safe with many writers: values are deterministic, so whoever is first wins, and files of two writers that should
    differ all the same (a GPU may) do not match one marker and are computed again.

    Args:
        root: folder, local or of an object store.
        say: hears, in words, when the storage keeps a read or a write waiting.
    """

    def __init__(self, root: Place, say: Callable[[str], None] = _LOG.warning):
        self.root = root
        self._say = say

    def folder(self, key: str) -> Place:
        """Where the value of a key is or would be.

        Raises:
            ValueError: it is no key.
        """
        if not is_key(key):
            raise ValueError(f"{key!r} is no key; expected the 64 hexadecimal digits of a sha256")
        return self.root / key[:2] / key

    def looks_complete(self, key: str) -> bool:
        """Marker present and every file there with the right size (cheap: no file is read).

        In an object store the marker alone says it: its objects cannot be half written.
        """
        if isinstance(self.root, RemotePath):
            marker = self.folder(key) / MARKER
            return patiently(marker.is_file, self._say)
        record = self._record(key)
        if record is None:
            return False
        folder = self.folder(key)
        assert isinstance(folder, Path)
        for name, entry in record.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != entry["bytes"]:
                return False
        return True

    def complete(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys whose values look complete (one listing, where every look would be a request)."""
        if isinstance(self.root, RemotePath):
            return set(keys) & set(self.sizes())
        return {key for key in keys if self.looks_complete(key)}

    def sizes(self) -> dict[str, int]:
        """Key -> bytes of every value that has its marker."""
        bytes_of: dict[str, int] = {}
        marked = set()
        for name, size in patiently(lambda: list_files(self.root), self._say).items():
            parts = PurePosixPath(name).parts
            if len(parts) == 3 and parts[0] == parts[1][:2]:
                bytes_of[parts[1]] = bytes_of.get(parts[1], 0) + size
                if parts[2] == MARKER:
                    marked.add(parts[1])
        return {key: size for key, size in bytes_of.items() if key in marked}

    def get(self, key: str) -> dict[str, bytes] | None:
        """Return all files of a value after checking sizes and sha256, or None if it is absent or damaged."""
        return patiently(lambda: self._get(key), self._say)

    def _get(self, key: str) -> dict[str, bytes] | None:
        record = self._record(key)
        if record is None and not self.folder(key).exists():
            return None
        files: dict[str, bytes] = {}
        for name, entry in (record or {}).items():
            try:
                content = (self.folder(key) / name).read_bytes()
            except FileNotFoundError:
                content = b""
            if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                self._set_aside(key, f"{name} is missing or does not match its checksum")
                return None
            files[name] = content
        if not files and isinstance(self.root, Path):  # elsewhere somebody may be writing it now
            self._set_aside(key, "its marker is missing or unreadable")
        return files or None

    def names(self, key: str) -> tuple[str, ...] | None:
        """Files of a value as its marker says, None where there is none."""
        record = patiently(lambda: self._record(key), self._say)
        return None if record is None else tuple(record)

    def put(self, key: str, files: Mapping[str, bytes]) -> None:
        """Write a value; an equal value written meanwhile by somebody else is kept."""
        if self.looks_complete(key):
            return
        write = self._put_objects if isinstance(self.root, RemotePath) else self._put_folder
        patiently(lambda: write(key, files), self._say)

    def _put_objects(self, key: str, files: Mapping[str, bytes]) -> None:
        folder = self.folder(key)
        together(lambda name: write_atomically(folder / name, files[name]), list(files), folder)
        write_atomically(folder / MARKER, _marker(files))

    def _put_folder(self, key: str, files: Mapping[str, bytes]) -> None:
        assert isinstance(self.root, Path)
        target = self.folder(key)
        assert isinstance(target, Path)
        draft = self.root / "drafts" / f"{key[:16]}-{uuid.uuid4().hex}"
        draft.mkdir(parents=True)
        try:
            for name, content in files.items():
                write_durably(draft / name, content)
            write_durably(draft / MARKER, _marker(files))
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                draft.rename(target)
            except OSError:
                if self.looks_complete(key):
                    return
                self._set_aside(key, "it is incomplete")
                draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)  # a full disk must not stay full of drafts

    def remove(self, key: str) -> None:
        """Remove a value, its marker first, so that it never looks whole with a file missing."""
        folder = self.folder(key)
        (folder / MARKER).unlink(missing_ok=True)
        remove_tree(folder)

    def drop_drafts(self) -> None:
        """Remove what interrupted writers left behind (only while nobody else writes)."""
        if isinstance(self.root, Path):
            remove_tree(self.root / "drafts")

    def _record(self, key: str) -> dict[str, dict[str, Any]] | None:
        marker = self.folder(key) / MARKER
        try:
            return json.loads(marker.read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def _set_aside(self, key: str, reason: str) -> None:
        _LOG.warning("%s %s… is damaged (%s); it is computed again", self.root.name, key[:12], reason)
        folder = self.folder(key)
        if isinstance(self.root, RemotePath) or isinstance(folder, RemotePath):
            self.remove(key)
            return
        aside = self.root / "damaged" / f"{key}-{uuid.uuid4().hex[:8]}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.rename(aside)
        except FileNotFoundError:
            return
        remove_tree(aside)


def _marker(files: Mapping[str, bytes]) -> bytes:
    record = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    }
    return json.dumps(record, indent=1).encode()


LOSSES = "losses.safetensors"
"""File of a stage's value: the training loss of every step. Stages of earlier versions have none."""


def losses_bytes(losses: np.ndarray) -> bytes:
    """Encode the training loss of every step ``[steps]``, as float32."""
    return save_arrays({"loss": np.ascontiguousarray(losses, dtype=np.float32)})


def read_losses(content: bytes) -> np.ndarray | None:
    """Return the training loss of every step, float32 ``[steps]``; None where the bytes hold something else."""
    try:
        losses = load_arrays(content)["loss"]
    except (SafetensorError, KeyError, ValueError):
        return None
    return losses if losses.ndim == 1 and losses.dtype == np.float32 else None


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long a stage took (core-seconds of its worker) for how much work (``clstudy.cost.Work``).

    ``kind`` is the ``cost_kind`` it was measured under; None in records of older versions.
    """

    seconds: float
    work: float | None
    kind: str | None


class StudyStore:
    """The kinds of values a study keeps, under one folder.

    ``weights`` has the tuned weights of stages under the stages' keys: they are large, not read for a number, and may
    be dropped (the search space's ``weights: last``) and computed again.
    """

    def __init__(self, root: Place, say: Callable[[str], None] = _LOG.warning):
        self.root = root
        self.stages = ValueStore(root / "stages", say)
        self.weights = ValueStore(root / "weights", say)
        self.memories = ValueStore(root / "memories", say)
        self.learned = ValueStore(root / "learned", say)
        self.anchors = ValueStore(root / "anchors", say)
        self._say = say

    @property
    def kinds(self) -> tuple[ValueStore, ...]:
        """All of them."""
        return (self.stages, self.weights, self.memories, self.learned, self.anchors)

    def stage_has_weights(self, key: str) -> bool:
        """Whether a stage's weights lie in its own value, as in studies of earlier versions."""
        return "weights.safetensors" in (self.stages.names(key) or ())

    @property
    def timings(self) -> Place:
        """Folder with one small JSON per computed stage: seconds, never part of a value."""
        return self.root / "timings"

    def record_seconds(self, key: str, timing: Timing) -> None:
        """Note how long a stage took, for later estimates."""
        document = {"seconds": round(timing.seconds, 3), "work": timing.work, "kind": timing.kind}
        patiently(
            lambda: write_atomically(self.timings / f"{key}.json", json.dumps(document).encode()),
            self._say,
        )

    def stage_timings(self) -> list[Timing]:
        """Timings of every stage computed so far."""
        names = sorted(name for name in list_files(self.timings) if name.endswith(".json"))

        def read(name: str) -> Timing | None:
            try:
                entry = json.loads((self.timings / name).read_text())
                return Timing(seconds=float(entry["seconds"]), work=entry.get("work"), kind=entry.get("kind"))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                return None

        return [timing for timing in together(read, names, self.timings) if timing is not None]

    def seconds_per_stage(self) -> list[float]:
        """Seconds of every stage computed so far."""
        return [timing.seconds for timing in self.stage_timings()]

    def drop_drafts(self) -> None:
        """Clean up after interrupted writers."""
        for store in self.kinds:
            store.drop_drafts()
