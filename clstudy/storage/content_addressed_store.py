"""The content-addressed store of finished values: stages, their weights, strategy memories, anchors.

A value is a folder of files named by its key; the marker ``COMPLETE`` (sizes and sha256 of every file) is the last file
written. On a disk a value is written to a draft folder and renamed when complete. Object stores cannot rename: there
the marker, written last, makes it a value. A value with a file that is missing, too short or unlike its checksum
counts as absent: it is moved aside, reported, and computed again. If the storage does not answer for a moment, or is
full, the store waits (``clstudy.storage.patience.patiently``) and never takes this for a damaged value.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from clstudy.storage.documents import MOST_JSON_BYTES, is_number, json_object
from clstudy.storage.patience import patiently
from clstudy.storage.places import NoPlainFileError, Place, RemotePath, read_plain, write_atomically, write_durably
from clstudy.storage.trees import list_files, remove_tree, together

MARKER = "COMPLETE"
STAGE_RECORD, ROWS, FACES, REPLAYS = "stage.json", "rows.parquet", "faces.png", "replays.png"
"""Files of a stage's value: its record, rows, face grid, and what a strategy generated, if it did."""
_PICTURE = re.compile(r"picture_([a-z][a-z0-9_]*)\.png")
WEIGHTS, MEMORY, LEARNED, ANCHORS = "weights.safetensors", "memory.json", "learned.safetensors", "anchors.safetensors"
"""The file of every other kind of value."""
STAGE_FILES = (ROWS, STAGE_RECORD, FACES)
"""Files of every stage (optional ones: its person, generated replays, weights in studies of earlier versions)."""
_LOG = logging.getLogger(__name__)


def digest_of(document: Mapping[str, Any]) -> str:
    """sha256 of a JSON-able document in canonical form: the key of the value it describes."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def picture_file(name: str) -> str:
    """The file of a picture that a workload made of a stage (``ScoredStage.pictures``)."""
    return f"picture_{name}.png"


def picture_files(names: Iterable[str]) -> dict[str, str]:
    """Among the names of a stage's files, those of such pictures by the pictures' names."""
    found = ((_PICTURE.fullmatch(name), name) for name in names)
    return {match[1]: name for match, name in found if match is not None}


def is_key(text: object) -> bool:
    """Whether something is a key: keys also come from files, and a path among them would lead elsewhere."""
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{64}", text) is not None


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A marker's entry for one file."""

    size: int
    sha256: str

    @classmethod
    def read(cls, name: str, entry: object) -> _Entry:
        """Check one entry of a marker.

        Raises:
            ValueError: it does not consist of a plain file name, a size and a sha256.
        """
        if not isinstance(entry, dict) or PurePosixPath(name).name != name:
            raise ValueError(f"{name!r} is not a file of a value")
        size, sha256 = entry.get("bytes"), entry.get("sha256")
        if not isinstance(size, int) or not is_key(sha256):
            raise ValueError(f"{name}: expected its bytes and sha256")
        return cls(size=size, sha256=str(sha256))


class ValueStore:
    """Values under ``root/<first two letters>/<key>/``.

    Safe with many writers: values are deterministic, so the first writer wins. If files of two writers differ all the
    same (on a GPU they may), they do not match one marker and are computed again.

    Args:
        root: folder, local or of an object store.
        say: called with a message when a read or a write has to wait for the storage.
        needs: files that every value must have; a marker that does not list them is damaged.
    """

    def __init__(self, root: Place, say: Callable[[str], None] = _LOG.warning, needs: Collection[str] = ()):
        self.root = root
        self._say = say
        self._needs = frozenset(needs)

    def folder(self, key: str) -> Place:
        """The folder in which a key's value is, or would be.

        Raises:
            ValueError: it is not a key.
        """
        if not is_key(key):
            raise ValueError(f"{key!r} is not a key; expected the 64 hexadecimal digits of a sha256")
        return self.root / key[:2] / key

    def looks_complete(self, key: str) -> bool:
        """Whether the marker exists and every file has the right size (cheap: no file is read).

        In an object store the marker is enough: its objects cannot be half written.
        """
        if isinstance(self.root, RemotePath):
            marker = self.folder(key) / MARKER
            return patiently(marker.is_file, self._say)
        record = self._record(key)
        if record is None or not self._needs <= record.keys():
            return False
        folder = self.folder(key)
        assert isinstance(folder, Path)
        for name, entry in record.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != entry.size:
                return False
        return True

    def complete(self, keys: Iterable[str]) -> set[str]:
        """The keys with values that look complete (with one listing instead of a request per key)."""
        if isinstance(self.root, RemotePath):
            return set(keys) & set(self.sizes())
        return {key for key in keys if self.looks_complete(key)}

    def visible(self, keys: Iterable[str]) -> set[str]:
        """As ``complete``, for another study's values: empty if they cannot be read."""
        try:
            return self.complete(keys)
        except OSError:
            return set()

    def peek(self, key: str) -> dict[str, bytes] | None:
        """All files of another study's value, checked; None if it is absent, damaged or cannot be read.

        Nothing is moved aside and nothing waits: the value belongs to somebody else, and can be computed.
        """
        try:
            record = self._record(key)
            if record is None or not self._needs <= record.keys():
                return None
            found = {name: self._content(key, name, entry) for name, entry in record.items()}
        except OSError:
            return None
        files = {name: content for name, content in found.items() if content is not None}
        return files if len(files) == len(found) else None

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
        if record is None:
            marked = (self.folder(key) / MARKER).is_file()
            # in an object store, which has no drafts, another writer may just be writing a value without a marker
            if marked or (isinstance(self.root, Path) and self.folder(key).exists()):
                self._set_aside(key, "its marker is missing or unreadable")
            return None
        if not self._needs <= record.keys():
            self._set_aside(key, f"{', '.join(sorted(self._needs - record.keys()))} is not in it")
            return None
        files: dict[str, bytes] = {}
        for name, entry in record.items():
            content = self._content(key, name, entry)
            if content is None:
                self._set_aside(key, f"{name} is missing or does not match its checksum")
                return None
            files[name] = content
        return files

    def file(self, key: str, name: str) -> bytes | None:
        """As ``read_file``, for optional uses: None also if it cannot be read."""
        try:
            return self.read_file(key, name)
        except OSError:
            return None

    def read_file(self, key: str, name: str) -> bytes | None:
        """One file of a value, checked against its sha256, without reading the others; None if absent or damaged.

        Nothing is moved aside: a report reads files this way, and must not change a study.

        Raises:
            OSError: the storage does not answer.
        """

        def read() -> bytes | None:
            record = self._record(key)
            return None if record is None or name not in record else self._content(key, name, record[name])

        return patiently(read, self._say)

    def _content(self, key: str, name: str, entry: _Entry) -> bytes | None:
        try:
            content = read_plain(self.folder(key) / name, entry.size)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, NoPlainFileError):
            return None
        return content if hashlib.sha256(content).hexdigest() == entry.sha256 else None

    def names(self, key: str) -> tuple[str, ...] | None:
        """Names of a value's files from its marker; None if there is no marker."""
        record = patiently(lambda: self._record(key), self._say)
        return None if record is None else tuple(record)

    def size(self, key: str) -> int | None:
        """Bytes of a value's files from its marker; None if there is no marker."""
        record = patiently(lambda: self._record(key), self._say)
        return None if record is None else sum(entry.size for entry in record.values())

    def put(self, key: str, files: Mapping[str, bytes]) -> None:
        """Write a value; if somebody else has written it meanwhile, that one is kept."""
        if self.looks_complete(key) and self.names(key) is not None:
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
        """Remove a value, its marker first, so that it never looks complete with a file missing."""
        folder = self.folder(key)
        (folder / MARKER).unlink(missing_ok=True)
        remove_tree(folder)

    def drop_drafts(self) -> None:
        """Remove what interrupted writers left behind (only allowed while nobody else writes)."""
        if isinstance(self.root, Path):
            remove_tree(self.root / "drafts")

    def _record(self, key: str) -> dict[str, _Entry] | None:
        """The marker's content: file -> size and sha256; None if it is missing or damaged."""
        marker = self.folder(key) / MARKER
        try:
            record = json_object(read_plain(marker, MOST_JSON_BYTES))
            entries = {name: _Entry.read(name, entry) for name, entry in record.items()}
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, NoPlainFileError, ValueError):
            return None
        return entries or None

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
    """Return the training loss of every step, float32 ``[steps]``; None if the bytes hold something else."""
    try:
        losses = load_arrays(content)["loss"]
    except (SafetensorError, KeyError, ValueError):
        return None
    return losses if losses.ndim == 1 and losses.dtype == np.float32 else None


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long a stage took (core-seconds of its worker) for how much work (``clstudy.trial.work``).

    ``kind`` is the ``cost_kind`` it was measured under; None in records of older versions.
    """

    seconds: float
    work: float | None
    kind: str | None


class StudyStore:
    """The kinds of values a study keeps, under one folder.

    ``weights`` has the tuned weights of stages under the stages' keys. They are large, no number is read from them, and
    they may be dropped (the search space's ``weights: last``) and computed again.
    """

    def __init__(self, root: Place, say: Callable[[str], None] = _LOG.warning):
        self.root = root
        self._say = say
        self.stages = self._values("stages", STAGE_FILES)
        self.weights = self._values("weights", (WEIGHTS,))
        self.memories = self._values("memories", (MEMORY,))
        self.learned = self._values("learned", (LEARNED,))
        self.anchors = self._values("anchors", (ANCHORS,))

    def _values(self, kind: str, needs: Collection[str]) -> ValueStore:
        return ValueStore(self.root / kind, self._say, needs)

    @property
    def kinds(self) -> tuple[ValueStore, ...]:
        """All kinds of values."""
        return (self.stages, self.weights, self.memories, self.learned, self.anchors)

    def elsewhere(self, keys: Iterable[str]) -> dict[str, str]:
        """Stage -> name of another study that it can be taken over from; this store knows no other study."""
        return {}

    def weights_elsewhere(self, key: str) -> bool:
        """Whether another study seems to have the weights of a stage; this store knows no other study."""
        return False

    def take_along(self, key: str, learned: str | None) -> None:
        """If a stage came from another study, take over what belongs to it; this store knows no other study."""

    def stage_has_weights(self, key: str) -> bool:
        """Whether a stage's own value contains its weights, as in studies of earlier versions."""
        return WEIGHTS in (self.stages.names(key) or ())

    @property
    def timings(self) -> Place:
        """Folder with one small JSON file per computed stage, which holds seconds; it is never part of a value."""
        return self.root / "timings"

    def record_seconds(self, key: str, timing: Timing) -> None:
        """Record how long a stage took, for later estimates and the report's costs."""
        document = {"seconds": round(timing.seconds, 3), "work": timing.work, "kind": timing.kind}
        document["sha256"] = digest_of(document)  # a number that changed by itself must not pass for a measurement
        patiently(
            lambda: write_atomically(self.timings / f"{key}.json", json.dumps(document).encode()),
            self._say,
        )

    def timing(self, key: str) -> Timing | None:
        """How long a stage took; None if that was not recorded, or the record is damaged."""
        return self._timing(f"{key}.json")

    def _timing(self, name: str) -> Timing | None:
        try:
            entry = json_object(read_plain(self.timings / name, MOST_JSON_BYTES))
            written = entry.pop("sha256", None)  # earlier versions wrote none
            if written is not None and written != digest_of(entry):
                return None
        except (OSError, ValueError):
            return None
        seconds, work, kind = entry.get("seconds"), entry.get("work"), entry.get("kind")
        if not is_number(seconds) or not (work is None or is_number(work)) or not isinstance(kind, str | None):
            return None
        return Timing(seconds=float(seconds), work=work, kind=kind)

    def stage_timings(self) -> list[Timing]:
        """Timings of every stage computed so far."""
        names = sorted(name for name in list_files(self.timings) if name.endswith(".json"))
        return [timing for timing in together(self._timing, names, self.timings) if timing is not None]

    def seconds_per_stage(self) -> list[float]:
        """Seconds of every stage computed so far."""
        return [timing.seconds for timing in self.stage_timings()]

    def drop_drafts(self) -> None:
        """Clean up after interrupted writers."""
        for store in self.kinds:
            store.drop_drafts()
