"""IR-SE-50, the identity network of pixel2style2pixel's ID loss, which the published scripts measure ID with.

Sources: as ``clstudy.generators.ir_se_encoder``, whose backbone it shares; E. Richardson et al., "Encoding in Style"
(2008.00951, equation 3) for its use. The file is ``model_ir_se50.pth`` of InsightFace_Pytorch; parameters are named as
in it.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clstudy.assets.model_files import ROLES
from clstudy.assets.readers.errors import CheckpointError
from clstudy.assets.readers.tensor_files import read_torch_state
from clstudy.errors import UserError
from clstudy.faces.ir_se_50 import FEATURES, ir_se_50

INPUT_SIZE = 112
"""Side of the images it takes, in pixels."""
WIDTH = 512
"""Length of an embedding."""

_LAST_SIDE = INPUT_SIZE // 16
_DROPOUT = 0.6


class IRSE50(nn.Module):
    """Unit embeddings ``[n, 512]`` of RGB images ``[n, 3, 112, 112]`` in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer, self.body = ir_se_50()
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(FEATURES),
            nn.Dropout(_DROPOUT),  # does nothing in evaluation; it keeps the numbering of the layers after it
            nn.Flatten(),
            nn.Linear(FEATURES * _LAST_SIDE**2, WIDTH),
            nn.BatchNorm1d(WIDTH),
        )

    def forward(self, images: Tensor) -> Tensor:
        """``[n, 3, 112, 112] -> [n, 512]``, each of length 1."""
        return F.normalize(self.output_layer(self.body(self.input_layer(images))), dim=1)


def load_ir_se_50(path: Path) -> IRSE50:
    """Read the network for evaluation; nothing in the file is executed.

    Raises:
        UserError: the file does not hold this network, or lacks parameters.
    """
    try:
        return _filled(read_torch_state(path))
    except (CheckpointError, OSError, RuntimeError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} does not hold the weights of IR-SE-50: {said}. Expected the state dict of the network with "
            f"{INPUT_SIZE}x{INPUT_SIZE} input; {ROLES['ir_se_50'].remedy}"
        ) from error


def _filled(tensors: dict[str, Tensor]) -> IRSE50:
    """The network with these parameters, which must be complete, of the right shapes and without extra ones."""
    with torch.device("meta"):
        network = IRSE50()
    expected = network.state_dict()
    for name in expected:
        if name.endswith("num_batches_tracked"):  # files of old torch versions lack it, and it is not used here
            tensors.setdefault(name, torch.zeros((), dtype=torch.long))
    strange = sorted(expected.keys() ^ tensors.keys())
    if strange:
        raise ValueError(f"{len(strange)} parameters are missing or unknown (e.g. {', '.join(strange[:4])})")
    for name, wanted in expected.items():
        if tensors[name].shape != wanted.shape:
            raise ValueError(f"{name} has shape {list(tensors[name].shape)}, expected {list(wanted.shape)}")
    network.load_state_dict({name: value.to(expected[name].dtype) for name, value in tensors.items()}, assign=True)
    return network.requires_grad_(False).eval()
