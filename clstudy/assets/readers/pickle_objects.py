"""What a pickle is rebuilt into, and the only functions that rebuild it.

``REBUILD`` maps the names that a file may call to functions of our own; no code of NumPy, torch
or NVIDIA is run.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clstudy.assets.readers.errors import CheckpointError
from clstudy.assets.readers.pickle_limits import MOST_DIMENSIONS, check_keys


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a Python object, e.g. ``torch.FloatStorage``; never the object."""

    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class PersistentObject:
    """A network or a part of one as NVIDIA's pickles store it.

    Attributes:
        class_name: e.g. "Generator"; the module it came from is not recorded in the file.
        state: the object's ``__dict__``: ``_parameters``, ``_buffers``, ``_modules`` and plain attributes.
    """

    class_name: str
    state: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class PlainModule(PersistentObject):
    """An ordinary torch module before and after BUILD, as EG3D's files store their renderer and decoder."""

    def restore(self, state: Any) -> None:
        if type(state) is not dict or self.state:
            raise pickle.UnpicklingError("a module without its dictionary, or with two")
        object.__setattr__(self, "state", state)


@dataclass(eq=False, slots=True)
class Storage:
    """``count`` numbers of a dtype in ``raw``; a torch file from before 1.6 supplies ``raw`` after its pickle."""

    dtype: str
    count: int
    raw: bytes | memoryview = b""

    @property
    def size(self) -> int:
        """Bytes these numbers need."""
        return self.count * np.dtype(STORAGE_DTYPES[self.dtype]).itemsize


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
        flat = np.frombuffer(self.storage.raw, STORAGE_DTYPES[self.storage.dtype])[self.offset :]
        strides = tuple(step * flat.itemsize for step in self.stride)
        values = np.array(np.lib.stride_tricks.as_strided(flat, self.size, strides, writeable=False), order="C")
        if self.storage.dtype == "torch.BFloat16Storage":
            # bfloat16 is the upper half of a float32
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values


STORAGE_DTYPES = {
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


class PickledDtype:
    """``numpy.dtype`` before and after BUILD: numbers or text, never objects."""

    def __init__(self, spec: Any, *_: Any):
        # longer strings describe fields, and as many as the string is long
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
    """``numpy.ndarray`` before and after BUILD; ``np.asarray`` gives the array. No generator keeps weights in one."""

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
    # meta["module_src"], the source that the official loader executes, is ignored
    return PersistentObject(class_name=meta["class_name"], state=meta["state"])


def _plain_module(class_name: str) -> Callable[..., PlainModule]:
    def made(*arguments: Any) -> PlainModule:
        if arguments:
            raise pickle.UnpicklingError("a module made with arguments")
        return PlainModule(class_name=class_name, state={})

    return made


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
    encoded: bytes = text.encode("latin1")
    return encoded


_PLAIN_MODULES = (
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.activation.Softplus",
    "training.triplane.OSGDecoder",
    "training.volumetric_rendering.ray_marcher.MipRayMarcher2",
    "training.volumetric_rendering.ray_sampler.RaySampler",
    "training.volumetric_rendering.renderer.ImportanceRenderer",
)
"""Parts of EG3D's networks that its files name instead of holding their source."""

REBUILD: dict[str, Callable[..., Any]] = {
    **{name: _plain_module(name.rpartition(".")[2]) for name in _PLAIN_MODULES},
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "numpy.dtype": PickledDtype,
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

NESTED_STORAGE = "torch.storage._load_from_bytes"
"""May be called too, in a file that is not a torch file itself: it holds a storage as a torch file of its own."""

KNOWN_GLOBALS = frozenset(REBUILD) | frozenset(STORAGE_DTYPES) | {"numpy.ndarray", NESTED_STORAGE}
"""Every global that a file may name."""
