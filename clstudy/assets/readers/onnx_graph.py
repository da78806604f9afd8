"""Reads a small ONNX network as plain data: its operations with their integers, and its weights. Nothing is executed.

For networks that must be rebuilt in torch, where gradients are needed; without the ``onnx`` package.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clstudy.assets.readers.onnx_file import fields_of, read_varint

# Field numbers in onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto)
_GRAPH = 7
_NODES, _WEIGHTS, _INPUTS = 1, 5, 11
_INPUT, _OUTPUT, _OPERATION, _ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _INTEGER, _INTEGERS = 1, 3, 8
_DIMENSIONS, _TYPE, _TENSOR_NAME, _RAW = 1, 2, 8, 9
_FLOAT = 1


@dataclass(frozen=True)
class Operation:
    """One node: what it does, names of its inputs and outputs, and its attributes that are integers."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    integers: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Network:
    """Operations in their order, float32 weights by name, and the name of the first input."""

    operations: tuple[Operation, ...]
    weights: dict[str, np.ndarray]
    first_input: str


def read_network(path: Path) -> Network:
    """The graph of an ONNX file whose weights are raw float32 inside it; weights of other types are left out.

    Raises:
        ValueError: the file is damaged, or no ONNX model.
    """
    try:
        graph = next(value for number, value in fields_of(memoryview(path.read_bytes())) if number == _GRAPH)
        assert isinstance(graph, memoryview)
        operations, weights, inputs = [], {}, []
        for number, value in fields_of(graph):
            if not isinstance(value, memoryview):
                continue
            if number == _NODES:
                operations.append(_operation(value))
            elif number == _WEIGHTS:
                name, array = _tensor(value)
                if array is not None:
                    weights[name] = array
            elif number == _INPUTS:
                inputs.append(_texts(value, 1)[0])
        return Network(tuple(operations), weights, next(name for name in inputs if name not in weights))
    except (AssertionError, IndexError, StopIteration, TypeError) as error:
        raise ValueError(f"{path.name} is not an ONNX model with weights inside it") from error


def _operation(node: memoryview) -> Operation:
    integers = {}
    for number, value in fields_of(node):
        if number == _ATTRIBUTE and isinstance(value, memoryview):
            integers[_texts(value, _ATTRIBUTE_NAME)[0]] = tuple(_integers(value))
    (kind,) = _texts(node, _OPERATION)
    return Operation(kind, tuple(_texts(node, _INPUT)), tuple(_texts(node, _OUTPUT)), integers)


def _tensor(tensor: memoryview) -> tuple[str, np.ndarray | None]:
    """Name, and values if they are float32 and raw."""
    known = dict(fields_of(tensor))
    (name,) = _texts(tensor, _TENSOR_NAME)
    raw, shape = known.get(_RAW), tuple(_numbers(tensor, _DIMENSIONS))
    if known.get(_TYPE) != _FLOAT or not isinstance(raw, memoryview):
        return name, None
    if len(raw) != 4 * math.prod(shape):
        raise ValueError(f"weight {name} has {len(raw)} bytes, expected float32 {shape}")
    return name, np.frombuffer(raw, "<f4").reshape(shape).astype(np.float32)


def _texts(message: memoryview, wanted: int) -> list[str]:
    return [bytes(value).decode() for number, value in fields_of(message)
            if number == wanted and isinstance(value, memoryview)]  # fmt: skip


def _integers(attribute: memoryview) -> Iterator[int]:
    yield from _numbers(attribute, _INTEGER)
    yield from _numbers(attribute, _INTEGERS)


def _numbers(message: memoryview, wanted: int) -> Iterator[int]:
    """Integers of a repeated field, one by one or packed."""
    for number, value in fields_of(message):
        if number != wanted:
            continue
        if isinstance(value, int):
            yield value
        elif isinstance(value, memoryview):
            position = 0
            while position < len(value):
                found, position = read_varint(value, position)
                yield found
