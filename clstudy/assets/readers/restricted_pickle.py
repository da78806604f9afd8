"""Read the pickles and torch files of published generators; nothing that a file names is imported or called.

A pickle is a program: its GLOBAL instructions name Python objects and REDUCE calls them. Three guards, each of which is
enough for the files seen in practice:

1. A scan reads the instructions without executing them and lists every global; one that is not known refuses the
   file before anything has been rebuilt. It looks into torch files inside the pickle too.
2. The unpickler turns a global into a :class:`Global`, a name and nothing else, and refuses unknown ones again (a
   pickle can hide names from a scan). REDUCE and NEWOBJ look the name up in ``REBUILD``, a table of small functions
   of our own; BUILD fills only the two kinds of object that NumPy needs and the description of a module, so it sets no
   attribute on anything.
3. Tensors stay a description (:class:`TensorRef`) of bytes already in memory; sizes are checked before any are used.

What reading may cost is bounded as well (:mod:`clstudy.assets.readers.pickle_limits`), in time, depth and memory.

Formats: the pickle protocol (PEP 307, 3154) and ``torch.save``, both as a zip and as written before torch 1.6
(https://docs.pytorch.org/docs/stable/notes/serialization.html); NVIDIA's persistent objects as found in the files.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from clstudy.assets.readers.errors import CheckpointError, UnknownGlobals
from clstudy.assets.readers.pickle_limits import MOST_DIMENSIONS, BeyondLimits, Limits, check_keys
from clstudy.assets.readers.pickle_objects import (
    KNOWN_GLOBALS,
    NESTED_STORAGE,
    REBUILD,
    STORAGE_DTYPES,
    Global,
    PickledArray,
    PickledDtype,
    PlainModule,
    Storage,
)
from clstudy.assets.readers.pickle_scan import INSTRUCTIONS, NESTED_TWICE, Scan, is_legacy_torch_file

_StorageLoader = Callable[[str, str, int], Storage]
"""(dtype, key, count) -> storage."""


class _InertUnpickler(pickle._Unpickler):
    """An unpickler that calls the functions in ``REBUILD`` and nothing else.

    Based on the standard library's unpickler in Python: the one in C does not let REDUCE and BUILD be replaced.
    """

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = {
        ord(opcode.code): pickle._Unpickler.dispatch[ord(opcode.code)]
        for opcode in pickletools.opcodes
        if opcode.name in INSTRUCTIONS
    }

    def __init__(self, stream: io.BytesIO, storages: _StorageLoader | None, limits: Limits):
        super().__init__(stream, encoding="latin1")
        self._storages = storages
        self._limits = limits

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in KNOWN_GLOBALS:
            raise UnknownGlobals((full,))
        return Global(full)

    def persistent_load(self, pid: Any) -> Any:
        if self._storages is None:
            raise CheckpointError("its tensors are in another file (persistent ids outside a torch file); get it again")
        if type(pid) is not tuple or not 5 <= len(pid) <= 6:
            raise pickle.UnpicklingError("a persistent id that is not a storage")
        label, dtype, key, _, count, *view = pid
        if label != "storage" or not isinstance(dtype, Global) or dtype.name not in STORAGE_DTYPES or any(view):
            raise pickle.UnpicklingError("a persistent id that is not a storage")
        if type(count) is not int or count < 0 or not isinstance(key, str):
            raise pickle.UnpicklingError("a storage with an impossible size")
        return self._storages(dtype.name, key, count)

    def _call(self) -> None:
        stack = self.stack
        arguments = stack.pop()
        function = stack.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("a call of something that cannot be called")
        self._limits.charge((arguments, *arguments[:MOST_DIMENSIONS]))
        if function.name == NESTED_STORAGE:
            (raw,) = arguments
            stack.append(self._nested_storage(raw))
        elif function.name in REBUILD:
            stack.append(REBUILD[function.name](*arguments))
        else:
            raise pickle.UnpicklingError("a call of something that cannot be called")

    def _nested_storage(self, raw: Any) -> Storage:
        _scan_legacy(raw, self._limits)
        if self._storages is not None:
            raise BeyondLimits(NESTED_TWICE)
        storage = _read_legacy(raw, self._limits)
        if not isinstance(storage, Storage):
            raise pickle.UnpicklingError("a nested torch file that is not a storage")
        return storage

    def _build(self) -> None:
        stack = self.stack
        state = stack.pop()
        self._limits.charge((state,))
        if isinstance(stack[-1], PickledDtype | PickledArray | PlainModule):
            stack[-1].restore(state)
        elif type(stack[-1]) is not dict:  # attributes of an OrderedDict (a state dict's versions) are not needed
            raise pickle.UnpicklingError("an object that cannot be filled")

    # Every instruction that hashes checks its keys first. The items after a mark are a stack of their own.

    def _set_item(self) -> None:
        check_keys(self.stack[-2:-1])
        super().load_setitem()  # type: ignore[misc]

    def _set_items(self) -> None:
        check_keys(self.stack[::2])
        super().load_setitems()  # type: ignore[misc]

    def _dict(self) -> None:
        check_keys(self.stack[::2])
        super().load_dict()  # type: ignore[misc]

    def _add_items(self) -> None:
        check_keys(self.stack)
        super().load_additems()  # type: ignore[misc]

    def _frozenset(self) -> None:
        check_keys(self.stack)
        super().load_frozenset()  # type: ignore[misc]

    dispatch[pickle.REDUCE[0]] = _call
    dispatch[pickle.NEWOBJ[0]] = _call
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.DICT[0]] = _dict
    dispatch[pickle.ADDITEMS[0]] = _add_items
    dispatch[pickle.FROZENSET[0]] = _frozenset


def _load(stream: io.BytesIO, limits: Limits, storages: _StorageLoader | None = None) -> Any:
    return _InertUnpickler(stream, storages, limits).load()


def _read_legacy(data: bytes, limits: Limits) -> Any:
    """Rebuild a torch file from before 1.6: magic number, version, system, object, keys; then the storages."""
    stream = io.BytesIO(data)
    found: dict[str, Storage] = {}

    def storages(dtype: str, key: str, count: int) -> Storage:
        storage = found.setdefault(key, Storage(dtype, count))
        if (storage.dtype, storage.count) != (dtype, count) or storage.size > len(data):
            raise pickle.UnpicklingError("a storage larger than the file")
        return storage

    _load(stream, limits, storages), _load(stream, limits, storages)
    if not _load(stream, limits, storages)["little_endian"]:
        raise CheckpointError("it was written on a big-endian machine; save it again on an ordinary one")
    result = _load(stream, limits, storages)
    view = memoryview(data)
    keys = _load(stream, limits, storages)
    check_keys(keys)
    for key in keys:
        start = stream.tell() + 8
        count = int.from_bytes(stream.read(8), "little")
        end = start + found[key].size
        if count != found[key].count or end > len(data):
            raise EOFError("numbers of a tensor are missing")
        found[key].raw = view[start:end]
        stream.seek(end)
    return result


def _read_zip(data: bytes, limits: Limits) -> Any:
    """Rebuild a torch file: ``NAME/data.pkl`` and storages ``NAME/data/KEY`` in a zip that is not compressed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickles = [
            name for name in archive.namelist() if name.count("/") <= 1 and name.rpartition("/")[2] == "data.pkl"
        ]
        if len(pickles) != 1:
            raise CheckpointError(
                "it is a zip file without a torch checkpoint (data.pkl) in it; unpack it and give the checkpoint inside"
            )
        root = pickles[0].removesuffix("data.pkl")
        if root + "constants.pkl" in archive.namelist():
            raise CheckpointError("it is a TorchScript program; expected a checkpoint written by torch.save")
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > len(data) for entry in entries):
            raise CheckpointError("it is a compressed zip file, which torch.save does not write; unpack it first")
        if sum(entry.file_size for entry in entries) > len(data):
            raise BeyondLimits("the files in its zip archive overlap")
        if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
            raise CheckpointError("it was written on a big-endian machine; save it again on an ordinary one")
        found: dict[str, Storage] = {}

        def storages(dtype: str, key: str, count: int) -> Storage:
            if key not in found:
                found[key] = Storage(dtype, count, archive.read(f"{root}data/{key}"))
            storage = found[key]
            if storage.dtype != dtype or storage.count != count or len(storage.raw) != storage.size:
                raise pickle.UnpicklingError("a storage that does not have its size")
            return storage

        program = archive.read(pickles[0])
        scan = Scan(limits=limits)
        scan.read(io.BytesIO(program), depth=1)
        scan.check()
        return _load(io.BytesIO(program), limits, storages)


def _read_scanned_legacy(data: bytes, limits: Limits) -> Any:
    _scan_legacy(data, limits)
    return _read_legacy(data, limits)


def _scan_legacy(data: bytes, limits: Limits) -> None:
    scan = Scan(limits=limits)
    scan.read_all(data)
    scan.check()


def _read_pickle(data: bytes, limits: Limits) -> Any:
    scan = Scan(limits=limits)
    scan.read(io.BytesIO(data))
    scan.check()
    return _load(io.BytesIO(data), limits)


def read_objects(data: bytes) -> tuple[Any, bool]:
    """Rebuild what a pickle or a torch file holds, from its bytes.

    Returns:
        The object, made of dict, list, tuple, set, numbers, strings, :class:`PersistentObject`, :class:`TensorRef`
        and :class:`PickledArray`, and whether the file is a torch file.

    Raises:
        UnknownGlobals: it names anything outside ``KNOWN_GLOBALS``; nothing has been called.
        CheckpointError: it is damaged, cut off or not such a file.
    """
    is_zip, is_legacy = data.startswith(b"PK\x03\x04"), is_legacy_torch_file(data)
    read = _read_zip if is_zip else _read_scanned_legacy if is_legacy else _read_pickle
    try:
        return read(data, Limits(len(data))), is_zip or is_legacy
    except CheckpointError:
        raise
    except BeyondLimits as error:
        raise CheckpointError(f"{error}, which no published checkpoint does; get the file from its publisher") from None
    except Exception as error:  # damaged bytes can fail in any way; the message is what a user can act on
        raise CheckpointError(
            f"it is cut off or damaged ({type(error).__name__} in {len(data):,} bytes); compare its size with the "
            "publisher's and download it again"
        ) from error


def read_state(path: Path) -> Any:
    """Rebuild a torch file of plain values (a state dict, say): tensors are :class:`TensorRef`.

    Raises:
        CheckpointError: it is something else, is damaged, or names anything but tensors.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise CheckpointError("it is not a file")
    content, is_torch_file = read_objects(path.read_bytes())
    if not is_torch_file:
        raise CheckpointError("it is not a torch file")
    return content
