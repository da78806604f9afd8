"""The packaged identity embedder as a torch module, so that an identity loss has gradients.

Only training needs this; evaluation uses :class:`clstudy.faces.embedding.IdentityEmbedder` (onnxruntime).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clstudy.assets import asset_path
from clstudy.assets.readers.onnx_graph import read_network
from clstudy.faces.embedding import identity_crops


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

    Runs the graph of ``face_embedder.onnx`` (Conv, PRelu, Add and a final Reshape) operation by operation, on the crop
    that the images' ``alignment`` fixes (``clstudy.faces.embedding``). With ``trained`` its weights are parameters, to
    be trained on; otherwise they are buffers.
    """

    def __init__(self, alignment: str = "embedded", *, trained: bool = False) -> None:
        super().__init__()
        self._alignment = alignment
        network = read_network(asset_path("face_embedder.onnx"))
        for name, array in network.weights.items():
            value = torch.from_numpy(array)
            if trained and value.is_floating_point():
                self.register_parameter(_weight_name(name), nn.Parameter(value.clone()))
            else:
                self.register_buffer(_weight_name(name), value)
        self._nodes: list[_Node] = []
        for one in network.operations:
            if one.kind not in ("Conv", "PRelu", "Add", "Reshape"):
                raise ValueError(f"face_embedder.onnx has an operation {one.kind}; expected Conv, PRelu, Add, Reshape")
            geometry = {}
            if one.kind == "Conv":
                names = {"stride": "strides", "padding": "pads", "groups": "group"}
                geometry = {name: one.integers[theirs][0] for name, theirs in names.items()}
            self._nodes.append(_Node(one.kind, one.inputs, one.outputs[0], **geometry))
        self._input = network.first_input

    def forward(self, images: Tensor) -> Tensor:
        """Return unit embeddings ``[n, 512]``."""
        values = {self._input: identity_crops(images, alignment=self._alignment)}
        for node in self._nodes:
            values[node.output] = self._run(node, values)
        return F.normalize(values[self._nodes[-1].output].flatten(1), dim=1)

    def _run(self, node: _Node, values: dict[str, Tensor]) -> Tensor:
        x = values[node.inputs[0]]
        if node.operation == "Conv":
            weight, bias = map(self._weight, node.inputs[1:])
            return F.conv2d(x, weight, bias, stride=node.stride, padding=node.padding, groups=node.groups)
        if node.operation == "PRelu":
            return F.prelu(x, self._weight(node.inputs[1]).flatten())
        if node.operation == "Add":
            return x + values[node.inputs[1]]
        return x.flatten(1)

    def _weight(self, name: str) -> Tensor:
        value: Tensor = getattr(self, _weight_name(name))
        return value


def _weight_name(name: str) -> str:
    return "w" + name.replace(".", "_")
