"""Read the pickles and torch files of published generators; nothing that a file names is imported or called.

A pickle is a program: its GLOBAL instructions name Python objects and REDUCE calls them. Three guards, each of which is
enough for the files seen in practice:

1. A scan reads the instructions without following them and lists every global; one that is not known refuses the
   file before anything has been rebuilt. It looks into torch files inside the pickle too.
2. The unpickler turns a global into a :class:`Global`, a name and nothing else, and refuses unknown ones again (a
   pickle can hide names from a scan). REDUCE and NEWOBJ look the name up in ``_REBUILD``, a table of small functions
   of our own; BUILD fills only the two kinds of object that NumPy needs, so it sets no attribute on anything.
3. Tensors stay a description (:class:`TensorRef`) of bytes already in memory; sizes are checked before any are used.

What reading may cost is bounded as well (:mod:`clstudy.assets.pickle_limits`), in time, depth and memory.

Formats: the pickle protocol (PEP 307, 3154) and ``torch.save``, both as a zip and as written before torch 1.6
(https://docs.pytorch.org/docs/stable/notes/serialization.html); NVIDIA's persistent objects as found in the files.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from clstudy.assets.pickle_limits import MOST_DIMENSIONS, BeyondLimits, Limits, check_keys
from clstudy.errors import UserError


class CheckpointError(UserError):
    """A file that cannot be used as a generator. ``kind`` says what it is where that is known, else ''."""

    def __init__(self, message: str, *, kind: str = ""):
        super().__init__(message)
        self.kind = kind


class UnknownGlobals(CheckpointError):
    """The file names Python objects that no published generator needs.

    ``names`` are all of them; ``words`` are the identifiers among the file's strings (class names, for example).
    """

    def __init__(self, names: tuple[str, ...], words: frozenset[str]):
        shown = ", ".join(map(_printable, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        super().__init__(
            f"it asks to import {shown}, which no StyleGAN2 checkpoint needs, and a pickle can run any code that way; "
            "nothing was executed. Expected an official checkpoint (list of formats: "
            "python -m clstudy.generators inspect --help); get the file from its publisher again"
        )
        self.names = names
        self.words = words


def _printable(name: str) -> str:
    """A name from a file as one short piece of text."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:80]) + ("…" if len(name) > 80 else "")


# --- what a file is rebuilt into -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a Python object, e.g. ``torch.FloatStorage``; never the object."""

    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class PersistentObject:
    """A network or a part of one as NVIDIA's pickles keep it.

    Attributes:
        class_name: e.g. "Generator"; the module it came from is not recorded in the file.
        state: the object's ``__dict__``: ``_parameters``, ``_buffers``, ``_modules`` and plain attributes.
    """

    class_name: str
    state: Mapping[str, Any]


@dataclass(eq=False, slots=True)
class Storage:
    """``count`` numbers of a dtype in ``raw``; a torch file from before 1.6 supplies ``raw`` after its pickle."""

    dtype: str
    count: int
    raw: bytes | memoryview = b""

    @property
    def size(self) -> int:
        """Bytes these numbers need."""
        return self.count * np.dtype(_DTYPES[self.dtype]).itemsize


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorRef:
    """A view of a storage; strides and offset count numbers, not bytes."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self) -> np.ndarray:
        """Return a contiguous copy with shape ``size``; bfloat16 becomes float32, other dtypes stay."""
        if len(self.storage.raw) != self.storage.size:
            raise CheckpointError("it is cut off: numbers of a tensor are missing; download it again")
        flat = np.frombuffer(self.storage.raw, _DTYPES[self.storage.dtype])[self.offset :]
        strides = tuple(step * flat.itemsize for step in self.stride)
        values = np.array(np.lib.stride_tricks.as_strided(flat, self.size, strides, writeable=False), order="C")
        if self.storage.dtype == "torch.BFloat16Storage":
            # bfloat16 is the upper half of a float32
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values


_DTYPES = {
    "torch.FloatStorage": "<f4",
    "torch.DoubleStorage": "<f8",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "<u2",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "<i1",
    "torch.ByteStorage": "<u1",
    "torch.BoolStorage": "?",
}


_NOT_PLAIN = (
    "it holds NumPy values that are neither numbers nor text (dtype object or with fields), which no published "
    "checkpoint does; nothing was executed. Get the file from its publisher again"
)


class _Dtype:
    """``numpy.dtype`` before and after BUILD: numbers or text, never objects."""

    def __init__(self, spec: Any, *_: Any):
        # longer texts describe fields, and as many of them as they are long
        self.dtype = np.dtype(spec) if isinstance(spec, str) and len(spec) <= 16 else None
        self._check()

    def restore(self, state: Any) -> None:
        version, order, subdtype, names, fields, *_ = state
        if (version, subdtype, names, fields) != (3, None, None, None) or self.dtype is None:
            raise CheckpointError(_NOT_PLAIN)
        self.dtype = self.dtype.newbyteorder(order)
        self._check()

    def _check(self) -> None:
        if self.dtype is None or self.dtype.kind not in "biufUS":
            raise CheckpointError(_NOT_PLAIN)


class PickledArray:
    """``numpy.ndarray`` before and after BUILD; ``np.asarray`` gives the array. Generators keep no weights so."""

    def __init__(self, *_: Any):
        self.value = np.zeros(0)

    def restore(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        values = np.frombuffer(raw, dtype.dtype)
        self.value = values.reshape(shape, order="F" if fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.value, dtype=dtype, copy=copy)


def _persistent(meta: Any) -> PersistentObject:
    if meta["type"] != "class" or not isinstance(meta["class_name"], str) or not isinstance(meta["state"], dict):
        raise pickle.UnpicklingError("a persistent object without class name or state")
    # meta["module_src"], the source that the official loader executes, is left where it is
    return PersistentObject(class_name=meta["class_name"], state=meta["state"])


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRef:
    if not isinstance(storage, Storage) or max(len(size), len(stride)) > MOST_DIMENSIONS:
        raise pickle.UnpicklingError("a tensor without a storage, or with too many axes")
    numbers = (offset, *size, *stride)
    if any(type(number) is not int or not 0 <= number < 2**48 for number in numbers) or len(size) != len(stride):
        raise pickle.UnpicklingError("a tensor with impossible sizes")
    reach = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) + 1
    # the first condition also keeps a tensor that repeats its numbers (stride 0) from growing without bound
    if math.prod(size) > storage.count or (math.prod(size) and reach > storage.count):
        raise pickle.UnpicklingError("a tensor larger than its storage")
    return TensorRef(storage=storage, offset=offset, size=tuple(size), stride=tuple(stride))


def _parameter(data: Any, *_: Any) -> TensorRef:
    if not isinstance(data, TensorRef):
        raise pickle.UnpicklingError("a parameter that is not a tensor")
    return data


def _numpy_scalar(dtype: Any, raw: Any) -> Any:
    return np.frombuffer(raw, dtype.dtype)[0]


def _dictionary(*given: Any) -> dict[Any, Any]:
    """A dict from nothing, a dict, or a list of pairs, as OrderedDict is reduced."""
    content = given[0] if given else ()
    if not isinstance(content, dict):
        check_keys(key for key, _ in content)
    return dict(content)


def _set(*given: Any) -> set[Any]:
    members = given[0] if given else ()
    check_keys(members)
    return set(members)


def _latin1_bytes(text: Any, encoding: Any) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError("bytes in an encoding other than latin1")
    return text.encode("latin1")


_REBUILD: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "numpy.dtype": _Dtype,
    **{
        f"numpy.{core}.multiarray.{name}": rebuild
        for core in ("core", "_core")
        for name, rebuild in (("scalar", _numpy_scalar), ("_reconstruct", PickledArray))
    },
    "torch.Size": tuple,
    "collections.OrderedDict": _dictionary,
    "dnnlib.util.EasyDict": _dictionary,
    "argparse.Namespace": _dictionary,  # command line kept in rosinality's checkpoints; its content is dropped
    # Protocol 2 (torch files) has no instructions for these three types.
    "builtins.set": _set,
    "__builtin__.set": _set,
    "_codecs.encode": _latin1_bytes,
}
"""What REDUCE and NEWOBJ may call, by the name in the file."""

_NESTED = "torch.storage._load_from_bytes"
"""May be called too, in a file that is no torch file itself: it holds a storage as a torch file of its own."""

KNOWN_GLOBALS = frozenset(_REBUILD) | frozenset(_DTYPES) | {"numpy.ndarray", _NESTED}
"""Every global that a file may name."""


# --- scanning ------------------------------------------------------------------------------------------------------

_INSTRUCTIONS = frozenset(opcode.name for opcode in pickletools.opcodes if opcode.proto <= 4) - {
    "INST",
    "OBJ",
    "NEWOBJ_EX",
    "PERSID",
    "EXT1",
    "EXT2",
    "EXT4",
}
"""Instructions that may occur: those of protocol 4 without the other ways to build instances, extension codes and
persistent ids as text. Later protocols may be declared as long as they use no more."""

_LEGACY_HEADER = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The magic number of torch files before 1.6, pickled, without the two bytes of its protocol."""


@dataclass(kw_only=True)
class _Scan:
    """What pickles name: globals and instructions that are not known, and identifiers among their strings."""

    limits: Limits
    unknown: dict[str, None] = field(default_factory=dict)
    instructions: dict[str, None] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)

    nested: bool = False

    def read(self, stream: io.BytesIO, depth: int = 0) -> None:
        """Read one pickle up to its STOP; the names of STACK_GLOBAL are followed through the memo where possible.

        Args:
            stream: stands at the pickle's beginning.
            depth: how many torch files the pickle is inside of.

        Raises:
            ValueError: it is not a pickle, or it is cut off.
        """
        pushed: list[str | None] = []
        memo: dict[int, str | None] = {}
        for opcode, argument, _ in self.limits.instructions(stream):
            name = opcode.name
            if name not in _INSTRUCTIONS:
                self.instructions[name] = None
            if name in ("GLOBAL", "INST"):
                self._note(str(argument).replace(" ", "."))
            elif name == "STACK_GLOBAL" and None not in pushed[-2:] and len(pushed) > 1:
                self._note(".".join(map(str, pushed[-2:])))
            if name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
                memo[len(memo) if argument is None else argument] = pushed[-1] if pushed else None
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                pushed.append(memo.get(int(str(argument))))
            elif isinstance(argument, str) and name not in ("GLOBAL", "INST"):
                pushed.append(argument)
                if len(argument) < 64 and argument.isidentifier():
                    self.words.add(argument)
            elif name not in ("PROTO", "FRAME"):
                pushed.append(None)
            if isinstance(argument, bytes) and _is_legacy(argument):
                self.nested |= depth > 0
                if depth < 2:
                    self.read_all(argument, depth + 1)
            del pushed[:-2]

    def read_all(self, data: bytes, depth: int = 1) -> None:
        """Read the five pickles at the start of a torch file from before 1.6."""
        stream = io.BytesIO(data)
        for _ in range(5):
            self.read(stream, depth)

    def _note(self, name: str) -> None:
        if name not in KNOWN_GLOBALS:
            self.unknown[name] = None

    def check(self) -> None:
        """Raise UnknownGlobals or CheckpointError for what has been found."""
        if self.unknown:
            raise UnknownGlobals(tuple(self.unknown), frozenset(self.words))
        if self.instructions:
            raise CheckpointError(
                f"it uses the pickle instructions {', '.join(self.instructions)}, which no published checkpoint uses; "
                "nothing was executed. Expected an official checkpoint; get the file from its publisher again"
            )
        if self.nested:
            raise BeyondLimits(_NESTED_TWICE)


_NESTED_TWICE = "it has torch files nested in torch files"


def _is_legacy(data: bytes) -> bool:
    return data[:1] == b"\x80" and data[2 : 2 + len(_LEGACY_HEADER)] == _LEGACY_HEADER


# --- loading -------------------------------------------------------------------------------------------------------

_StorageLoader = Callable[[str, str, int], Storage]
"""(dtype, key, count) -> storage."""


class _InertUnpickler(pickle._Unpickler):
    """A pickle machine that calls ``_REBUILD`` and nothing else.

    Based on the standard library's machine in Python, because the one in C does not let REDUCE and BUILD be replaced.
    """

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = {
        ord(opcode.code): pickle._Unpickler.dispatch[ord(opcode.code)]
        for opcode in pickletools.opcodes
        if opcode.name in _INSTRUCTIONS
    }

    def __init__(self, stream: io.BytesIO, storages: _StorageLoader | None, limits: Limits):
        super().__init__(stream, encoding="latin1")
        self._storages = storages
        self._limits = limits

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in KNOWN_GLOBALS:
            raise UnknownGlobals((full,), frozenset())
        return Global(full)

    def persistent_load(self, pid: Any) -> Any:
        if self._storages is None:
            raise CheckpointError("its tensors are in another file (persistent ids outside a torch file); get it again")
        if type(pid) is not tuple or not 5 <= len(pid) <= 6:
            raise pickle.UnpicklingError("a persistent id that is not a storage")
        label, dtype, key, _, count, *view = pid
        if label != "storage" or not isinstance(dtype, Global) or dtype.name not in _DTYPES or any(view):
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
        if function.name == _NESTED:
            (raw,) = arguments
            stack.append(self._nested_storage(raw))
        elif function.name in _REBUILD:
            stack.append(_REBUILD[function.name](*arguments))
        else:
            raise pickle.UnpicklingError("a call of something that cannot be called")

    def _nested_storage(self, raw: Any) -> Storage:
        _scan_legacy(raw, self._limits)
        if self._storages is not None:
            raise BeyondLimits(_NESTED_TWICE)
        storage = _read_legacy(raw, self._limits)
        if not isinstance(storage, Storage):
            raise pickle.UnpicklingError("a nested torch file that is not a storage")
        return storage

    def _build(self) -> None:
        stack = self.stack
        state = stack.pop()
        self._limits.charge((state,))
        if isinstance(stack[-1], _Dtype | PickledArray):
            stack[-1].restore(state)
        elif type(stack[-1]) is not dict:  # attributes of an OrderedDict (a state dict's versions) are not needed
            raise pickle.UnpicklingError("an object that cannot be filled")

    # Everything that hashes: the keys are looked at first. The items after a mark are a stack of their own.

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
        scan = _Scan(limits=limits)
        scan.read(io.BytesIO(program), depth=1)
        scan.check()
        return _load(io.BytesIO(program), limits, storages)


def _read_scanned_legacy(data: bytes, limits: Limits) -> Any:
    _scan_legacy(data, limits)
    return _read_legacy(data, limits)


def _scan_legacy(data: bytes, limits: Limits) -> None:
    scan = _Scan(limits=limits)
    scan.read_all(data)
    scan.check()


def _read_pickle(data: bytes, limits: Limits) -> Any:
    scan = _Scan(limits=limits)
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
    is_zip, is_legacy = data.startswith(b"PK\x03\x04"), _is_legacy(data)
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


# --- walking -------------------------------------------------------------------------------------------------------

_MAX_MODULES = 20_000
_MAX_PARTS = 500_000
"""Entries of all networks' dictionaries that are looked at; the same one may be in many."""

_CONTAINED = "its networks contain themselves; no published checkpoint does; get the file again"


def modules(network: PersistentObject) -> Iterator[tuple[str, PersistentObject]]:
    """Yield every part of a network in the file's order with its dotted name, the network itself as ''.

    Raises:
        CheckpointError: parts contain each other, or there are more than any generator has.
    """
    pending = [("", network)]
    count = parts = 0
    while pending:
        name, module = pending.pop()
        children = module.state.get("_modules") or {}
        count += 1
        parts += len(children) if isinstance(children, dict) else 0
        if count > _MAX_MODULES or parts > _MAX_PARTS or name.count(".") > 20 or len(name) > 1000:
            raise CheckpointError(_CONTAINED)
        yield name, module
        for key, child in reversed(children.items()) if isinstance(children, dict) else ():
            if isinstance(child, PersistentObject):
                pending.append((f"{name}.{key}" if name else str(key), child))


def tensor_refs(network: PersistentObject) -> dict[str, TensorRef]:
    """Return parameters and buffers of a network by dotted name, as its ``state_dict`` would."""
    found = {}
    parts = 0
    for name, module in modules(network):
        for group in ("_parameters", "_buffers"):
            members = module.state.get(group) or {}
            parts += len(members) if isinstance(members, dict) else 0
            if parts > _MAX_PARTS:
                raise CheckpointError(_CONTAINED)
            for key, value in members.items() if isinstance(members, dict) else ():
                if isinstance(value, TensorRef):
                    found[f"{name}.{key}" if name else str(key)] = value
    return found


_MOST_ALIASED = 16_000_000
"""Bytes that tensors on shared storages may take beyond the storages' own."""


def arrays(refs: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """Copy the tensors among the values into arrays, under their names.

    Raises:
        CheckpointError: so many tensors lie on the same numbers that the copies would outgrow the file.
    """
    tensors = {str(name): ref for name, ref in refs.items() if isinstance(ref, TensorRef)}
    storages = {id(ref.storage): len(ref.storage.raw) for ref in tensors.values()}
    wanted = sum(math.prod(ref.size) * np.dtype(_DTYPES[ref.storage.dtype]).itemsize for ref in tensors.values())
    if wanted > sum(storages.values()) + _MOST_ALIASED:
        raise CheckpointError(
            f"its {len(tensors):,} tensors share numbers and would take {wanted:,} bytes, from "
            f"{sum(storages.values()):,} in the file; no published checkpoint does that; get it from its publisher"
        )
    return {name: ref.array() for name, ref in tensors.items()}


def read_state(path: Path) -> Any:
    """Rebuild a torch file of plain values (a state dict, say): tensors are :class:`TensorRef`.

    Raises:
        CheckpointError: it is something else, damaged, or asks for anything but tensors.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise CheckpointError("it is no file")
    content, is_torch_file = read_objects(path.read_bytes())
    if not is_torch_file:
        raise CheckpointError("it is no torch file")
    return content
