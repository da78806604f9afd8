"""The packaged identity embedder as a torch module, so that an identity loss has gradients.

Only pretraining needs this; evaluation uses :class:`clstudy.faces.embedding.IdentityEmbedder` (onnxruntime).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clstudy.assets import asset_path
from clstudy.faces.embedding import crop_grid


@dataclass(frozen=True)
class _Node:
    """One operation of the graph; names of its inputs and its output, and a convolution's geometry."""

    operation: str
    inputs: tuple[str, ...]
    output: str
    stride: int = 1
    padding: int = 0
    groups: int = 1


class TorchIdentityEmbedder(nn.Module):
    """Unit embeddings ``[n, 512]`` of aligned images ``[n, 3, s, s]`` in [-1, 1], differentiable.

    Runs the graph of ``face_embedder.onnx`` (Conv, PRelu, Add and a final Reshape) operation by operation. Reading
    it needs the ``onnx`` package of the ``dev`` extra.
    """

    def __init__(self) -> None:
        super().__init__()
        import onnx
        from onnx import helper, numpy_helper

        graph = onnx.load(str(asset_path("face_embedder.onnx"))).graph
        for tensor in graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                self.register_buffer(_buffer_name(tensor.name), torch.tensor(numpy_helper.to_array(tensor)))
        self._nodes: list[_Node] = []
        for node in graph.node:
            geometry = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            if node.op_type == "Conv":
                self._nodes.append(
                    _Node(
                        node.op_type,
                        tuple(node.input),
                        node.output[0],
                        geometry["strides"][0],
                        geometry["pads"][0],
                        geometry["group"],
                    )
                )
            elif node.op_type in ("PRelu", "Add", "Reshape"):
                self._nodes.append(_Node(node.op_type, tuple(node.input), node.output[0]))
            else:
                raise ValueError(
                    f"face_embedder.onnx has an operation {node.op_type}; expected Conv, PRelu, Add, Reshape"
                )
        self._input = graph.input[0].name

    def forward(self, images: Tensor) -> Tensor:
        """Return unit embeddings ``[n, 512]``."""
        grid = crop_grid(images.shape[2], images.shape[3]).expand(len(images), -1, -1, -1)
        values = {self._input: F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)}
        for node in self._nodes:
            values[node.output] = self._run(node, values)
        return F.normalize(values[self._nodes[-1].output].flatten(1), dim=1)

    def _run(self, node: _Node, values: dict[str, Tensor]) -> Tensor:
        x = values[node.inputs[0]]
        if node.operation == "Conv":
            weight, bias = (self.get_buffer(_buffer_name(name)) for name in node.inputs[1:])
            return F.conv2d(x, weight, bias, stride=node.stride, padding=node.padding, groups=node.groups)
        if node.operation == "PRelu":
            return F.prelu(x, self.get_buffer(_buffer_name(node.inputs[1])).flatten())
        if node.operation == "Add":
            return x + values[node.inputs[1]]
        return x.flatten(1)


def _buffer_name(name: str) -> str:
    return "w" + name.replace(".", "_")
