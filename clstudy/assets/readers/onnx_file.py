"""Facts of an ONNX file, read without onnxruntime or the onnx package: just enough of its container is parsed.

A network's weights may lie in files beside it ("external data"). The sha256 that identifies a network in stage keys,
and by which nodes fetch it, would not cover them, so such a network is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clstudy.errors import UserError

# Field numbers in onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto): kind of message -> field -> kind
_PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_GRAPH_OF_MODEL, _NODE_OF_GRAPH, _NAME_OF_NODE = 7, 1, 3
_EXTERNAL_DATA_OF_TENSOR, _DATA_LOCATION_OF_TENSOR, _EXTERNAL = 13, 14, 1
_KEY_OF_ENTRY, _VALUE_OF_ENTRY = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers


def first_node_names(model: bytes, count: int) -> list[str]:
    """Names of the first nodes of a serialised ONNX model; a node without a name has an empty one.

    Raises:
        ValueError: the container is damaged.
    """
    names: list[str] = []
    for graph in _messages(memoryview(model), _GRAPH_OF_MODEL):
        for node in _messages(graph, _NODE_OF_GRAPH):
            names.append(next((bytes(name).decode(errors="replace") for name in _messages(node, _NAME_OF_NODE)), ""))
            if len(names) == count:
                return names
    return names


def external_files(model: bytes) -> list[str]:
    """Files beside a serialised model that hold some of its weights, sorted; "?" where the model does not say which.

    Looks at every tensor: initialisers, attributes of nodes, graphs inside them, functions.

    Raises:
        ValueError: these bytes are not an ONNX model.
    """
    found = set()
    todo: list[tuple[str, memoryview]] = [("model", memoryview(model))]  # no recursion: nesting has no bound
    try:
        while todo:
            kind, message = todo.pop()
            for number, value in fields_of(message):
                inner = _PARTS[kind].get(number)
                if inner is not None and isinstance(value, memoryview):
                    todo.append((inner, value))
                elif kind == "tensor" and number == _EXTERNAL_DATA_OF_TENSOR and isinstance(value, memoryview):
                    entry = dict(fields_of(value))
                    if bytes(entry.get(_KEY_OF_ENTRY, b"")) == b"location":  # type: ignore[arg-type]
                        found.add(bytes(entry.get(_VALUE_OF_ENTRY, b"?")).decode(errors="replace"))  # type: ignore[arg-type]
                elif kind == "tensor" and number == _DATA_LOCATION_OF_TENSOR and value == _EXTERNAL:
                    found.add("?")
    except (ValueError, TypeError) as error:
        raise ValueError(f"not an ONNX model ({error})") from error
    return sorted(found - {"?"}) or sorted(found)


def require_whole(path: Path) -> Path:
    """Return the path of an ONNX file that holds all of its weights; other kinds of file are left to their readers.

    Raises:
        UserError: some weights are in other files.
    """
    try:
        others = external_files(path.read_bytes())
    except (OSError, ValueError):
        return path
    if others:
        raise UserError(
            f"{path.name} keeps weights in other files ({', '.join(others[:3])}{', …' if len(others) > 3 else ''}); "
            "expected one file that holds everything, since its sha256 stands for the network in stage keys. Make one: "
            f"`python -c \"import onnx; onnx.save(onnx.load('{path}'), 'whole.onnx')\"` (up to 2 GB)"
        )
    return path


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    """The length-delimited fields with number ``wanted`` of a serialised message."""
    for number, value in fields_of(data):
        if number == wanted and isinstance(value, memoryview):
            yield value


def fields_of(data: memoryview) -> Iterator[tuple[int, int | memoryview | None]]:
    """Number and value of a message's fields; None for fixed-width numbers, which nothing here needs."""
    position = 0
    while position < len(data):
        tag, position = read_varint(data, position)
        kind = tag & 7
        value: int | memoryview | None = None
        if kind == _BYTES:
            length, position = read_varint(data, position)
            value = data[position : position + length]
            position += length
        elif kind == _VARINT:
            value, position = read_varint(data, position)
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")
        yield tag >> 3, value


def read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """Read a base-128 integer; returns it and the position after it.

    Raises:
        ValueError: it has no end, or more than 64 bits.
    """
    value = shift = 0
    while True:
        if shift > 63 or position >= len(data):
            raise ValueError("a number that does not end")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
