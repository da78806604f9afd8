"""A network read as plain data, against the official package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from clstudy.assets import asset_path
from clstudy.assets.readers.onnx_graph import read_network


@pytest.mark.parametrize("name", ["face_embedder.onnx", "face_landmarks.onnx", "face_detector.onnx"])
def test_operations_and_weights_are_those_of_the_official_package(name: str) -> None:
    graph, found = onnx.load(str(asset_path(name))).graph, read_network(asset_path(name))
    assert [one.kind for one in found.operations] == [node.op_type for node in graph.node]
    assert [(one.inputs, one.outputs) for one in found.operations] == [
        (tuple(node.input), tuple(node.output)) for node in graph.node
    ]
    for one, node in zip(found.operations, graph.node, strict=True):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.INTS:
                assert one.integers[attribute.name] == tuple(attribute.ints)
            elif attribute.type == onnx.AttributeProto.INT:
                # a zero is left out of the file
                assert one.integers[attribute.name] in ((attribute.i,), () if attribute.i == 0 else (attribute.i,))
    kept = {one.name: one for one in graph.initializer if one.data_type == TensorProto.FLOAT and one.raw_data}
    assert found.weights.keys() == kept.keys() and len(kept) > 10
    for name_, tensor in kept.items():
        assert np.array_equal(found.weights[name_], numpy_helper.to_array(tensor))
    assert found.first_input == next(one.name for one in graph.input if one.name not in kept)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    content = asset_path("face_landmarks.onnx").read_bytes()
    for number, harmed in enumerate((b"", b"no model", content[:1000], content[: len(content) // 2])):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(harmed)
        with pytest.raises(ValueError):
            read_network(path)


def test_weights_of_another_length_are_refused(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.zeros((2, 3), np.float32), "w")
    weight.raw_data = weight.raw_data[:-4]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])
    node = helper.make_node("Add", ["x", "w"], ["y"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])
    model = helper.make_model(helper.make_graph([node], "g", [value], [out], [weight]))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"weight w has 20 bytes, expected float32 \(2, 3\)"):
        read_network(tmp_path / "m.onnx")
