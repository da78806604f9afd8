"""The W encoder that MyStyle's checkpoints come with: an ArcFace backbone (IR-SE-50) and one linear layer.

Sources: E. Richardson et al., "Encoding in Style" (2008.00951: backbone, encoding relative to the mean latent);
J. Deng et al., "ArcFace" (1801.07698: improved residual units); J. Hu et al., "Squeeze-and-Excitation" (1709.01507).
Written from the papers under the parameter names of the published files.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clstudy.errors import UserError
from clstudy.faces.ir_se_50 import FEATURES, ir_se_50
from clstudy.generators.checkpoints.psp_files import PSPFile, with_counters

INPUT_SIZE = 256
"""Side of the photos the backbone was trained on, in pixels."""


_STARTS_FROM_MEAN = "start_from_latent_avg"


_REMEDY = (
    "expected a checkpoint of pixel2style2pixel's W encoder (a dict with 'state_dict' and 'latent_avg', as MyStyle's "
    "faces_w_encoder.pt); leave the encoder out to find anchors by optimisation"
)


class ScaledLinear(nn.Module):
    """Linear layer whose weights are stored at unit variance (equalised learning rate)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, inputs] -> [n, outputs]``."""
        return F.linear(x, self.weight / math.sqrt(x.shape[1]), self.bias)


class IRSEEncoder(nn.Module):
    """Photo -> w, relative to the mean latent or not (``adds_mean``: 1 or 0), as it was trained."""

    latent_avg: Tensor
    adds_mean: Tensor

    def __init__(self, w_dim: int = 512):
        super().__init__()
        self.input_layer, self.body = ir_se_50()
        self.linear = ScaledLinear(FEATURES, w_dim)
        self.register_buffer("latent_avg", torch.zeros(w_dim))
        self.register_buffer("adds_mean", torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        """Return w ``[n, w_dim]`` for images ``[n, 3, s, s]`` in [-1, 1] of any size."""
        x = self.body(self.input_layer(encoder_input(images)))
        w: Tensor = self.linear(x.mean(dim=(2, 3))) + self.adds_mean * self.latent_avg
        return w


def encoder_input(images: Tensor) -> Tensor:
    """Resize images ``[n, 3, s, s]`` in [-1, 1] as for the published encoder: ``[n, 3, 256, 256]`` in [-1, 1].

    Bicubic interpolation without antialiasing, clamped, as the reference scripts do. At 1024 px that samples about
    every fourth pixel and is a poor reduction (an area mean moves w by 0.5%), but reference anchors were made with it.
    """
    if images.shape[2:] == (INPUT_SIZE, INPUT_SIZE):
        return images
    return F.interpolate(images, (INPUT_SIZE, INPUT_SIZE), mode="bicubic", align_corners=False).clamp(-1, 1)


def starts_from_mean(opts: object, file: str) -> bool:
    """Whether the encoder's output is relative to the mean latent, by the options in its file (by default it is).

    Raises:
        UserError: the option is neither true nor false.
    """
    said = opts.get(_STARTS_FROM_MEAN, True) if isinstance(opts, dict) else True
    if not isinstance(said, bool):
        raise UserError(
            f"encoder {file}: its option {_STARTS_FROM_MEAN} is {said!r}, expected true or false; {_REMEDY}"
        )
    return said


def read_encoder(path: Path, w_dim: int) -> dict[str, np.ndarray]:
    """Read the state dict of an ``IRSEEncoder`` from a published checkpoint, without executing anything in it.

    Raises:
        UserError: the file is not such a checkpoint, or its latents have another width than the generator's.
    """
    file = PSPFile.read(path, "encoder", _REMEDY)
    tensors, average = file.under("encoder."), file.mean_latent()
    if average is not None:
        tensors["latent_avg"] = average[0] if average.ndim == 2 and len(average) else average
    tensors["adds_mean"] = np.array(starts_from_mean(file.content.get("opts"), path.name), np.float32)
    with torch.device("meta"):
        expected = IRSEEncoder(w_dim).state_dict()
    tensors = with_counters(tensors, expected)
    problems = [name for name in expected.keys() | tensors.keys() if (name in expected) != (name in tensors)]
    if problems:
        shown = ", ".join(sorted(problems)[:4])
        raise UserError(f"encoder {path.name}: {len(problems)} parameters do not fit (e.g. {shown}); {_REMEDY}")
    for name, value in tensors.items():
        if value.shape != expected[name].shape:
            raise UserError(
                f"encoder {path.name}: {name} has shape {list(value.shape)}, expected {list(expected[name].shape)} "
                f"for a generator with {w_dim} numbers per latent"
            )
    return tensors
