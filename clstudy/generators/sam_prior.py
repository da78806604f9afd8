"""The published age prior: SAM's encoder of faces and ages, from its checkpoint file.

Sources: Y. Alaluf et al., "Only a Matter of Style" (SAM, 2102.02754); E. Richardson et al., "Encoding in Style" (pSp,
2008.00951, section 3: a pyramid of features, and a small network of each style). Written from the papers under the
parameter names of the published file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clstudy.errors import UserError
from clstudy.faces.ir_se_50 import FEATURES, ir_se_50
from clstudy.generators.ageing import Prior
from clstudy.generators.checkpoints.psp_files import PSPFile, with_counters
from clstudy.generators.ir_se_encoder import ScaledLinear, encoder_input

_COARSE, _MIDDLE = 3, 7
"""Styles below the first come from the map of 16 x 16, those below the second from 32 x 32, the others from 64 x 64."""

_TAPS = {6: 128, 20: 256, 23: FEATURES}
"""Unit of the backbone after which a map is taken -> its channels."""

_REMEDY = "expected SAM's checkpoint, sam_ffhq_aging.pt (a dict with 'state_dict' and 'latent_avg')"


class StyleNetwork(nn.Module):
    """A map ``[n, 512, side, side]`` -> one style ``[n, 512]``: halved until one pixel is left."""

    def __init__(self, side: int):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(side.bit_length() - 1):
            layers += [nn.Conv2d(FEATURES, FEATURES, 3, stride=2, padding=1), nn.LeakyReLU()]
        self.convs = nn.Sequential(*layers)
        self.linear = ScaledLinear(FEATURES, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        style: Tensor = self.linear(self.convs(x).flatten(1))
        return style


class StylePyramid(nn.Module):
    """pSp's encoder: images ``[n, inputs, 256, 256]`` -> one w for each layer ``[n, styles, 512]``."""

    def __init__(self, styles: int, inputs: int):
        super().__init__()
        self.input_layer, self.body = ir_se_50(inputs)
        sides = [16] * _COARSE + [32] * (_MIDDLE - _COARSE) + [64] * styles
        self.styles = nn.ModuleList(StyleNetwork(side) for side in sides[:styles])
        self.latlayer1 = nn.Conv2d(_TAPS[20], FEATURES, 1)
        self.latlayer2 = nn.Conv2d(_TAPS[6], FEATURES, 1)

    def forward(self, images: Tensor) -> Tensor:
        x, maps = self.input_layer(images), []
        for number, unit in enumerate(self.body):
            x = unit(x)
            if number in _TAPS:
                maps.append(x)
        fine, middle, coarse = maps
        middle = _added(coarse, self.latlayer1(middle))
        fine = _added(middle, self.latlayer2(fine))
        of_style = [coarse] * _COARSE + [middle] * (_MIDDLE - _COARSE) + [fine] * len(self.styles)
        return torch.stack([network(one) for network, one in zip(self.styles, of_style, strict=False)], dim=1)


def _added(above: Tensor, beside: Tensor) -> Tensor:
    """A coarse map, enlarged, plus a finer one."""
    return F.interpolate(above, beside.shape[2:], mode="bilinear", align_corners=True) + beside


class SAMPrior(Prior):
    """A face's image and an age -> ws; the image is what the generator makes of w.

    ``encoder`` sees the image and a plane with the age in centuries; its styles are relative to those of ``face``, an
    encoder of the image alone (None: of the mean latent), plus ``latent_avg``.
    """

    latent_avg: Tensor

    def __init__(self, synthesis: nn.Module, encoder: StylePyramid, face: StylePyramid | None, average: Tensor):
        super().__init__()
        self.num_ws, self.w_dim = len(encoder.styles), FEATURES
        self.encoder, self.face = encoder, face
        self._synthesis = (synthesis,)  # in a tuple, so that it is no submodule
        self.register_buffer("latent_avg", average)

    def forward(self, w: Tensor, ages: Tensor) -> Tensor:
        """ws ``[n, num_ws, w_dim]`` of w ``[n, w_dim]`` and ages ``[n]`` in years."""
        images = encoder_input(self._synthesis[0](w))
        plane = (ages.to(images) / 100)[:, None, None, None].expand(-1, 1, *images.shape[2:])
        ws: Tensor = self.encoder(torch.cat([images, plane], dim=1)) + self.latent_avg
        return ws if self.face is None else ws + self.face(images)


def read_sam_prior(path: Path, synthesis: nn.Module) -> SAMPrior:
    """Read the published checkpoint without executing anything in it; the prior is frozen.

    Args:
        path: of the file.
        synthesis: w -> images, of the generator that it was trained for.

    Raises:
        UserError: another kind of file.
    """
    file = PSPFile.read(path, "age_prior", _REMEDY)
    average = file.mean_latent()
    if average is None:
        raise UserError(f"{file.what}: no 'latent_avg' in it; {_REMEDY}")
    encoder = _pyramid(file, "encoder.", 4)
    if encoder is None:
        raise UserError(f"{file.what}: no encoder in it; {_REMEDY}")
    mean = torch.from_numpy(average.astype(np.float32))
    if mean.shape[-1] != FEATURES or mean.shape[:-1] not in ((), (len(encoder.styles),)):
        raise UserError(
            f"{file.what}: latent_avg has shape {list(mean.shape)}, expected [{len(encoder.styles)}, "
            f"{FEATURES}]; {_REMEDY}"
        )
    prior = SAMPrior(synthesis, encoder, _pyramid(file, "pretrained_encoder.", 3), mean)
    return prior.eval().requires_grad_(False)


def _pyramid(file: PSPFile, prefix: str, inputs: int) -> StylePyramid | None:
    """The encoder whose parameters begin with ``prefix``; None if there is none."""
    found = file.under(prefix)
    if not found:
        return None
    styles = len({name.split(".")[1] for name in found if name.startswith("styles.")})
    with torch.device("meta"):
        encoder = StylePyramid(styles, inputs)
    expected = encoder.state_dict()
    found = with_counters(found, expected)
    wrong = sorted(expected.keys() ^ found.keys())
    wrong += [name for name in expected.keys() & found.keys() if expected[name].shape != found[name].shape]
    if wrong:
        raise UserError(f"{file.what}: {len(wrong)} parameters do not fit (e.g. {prefix}{wrong[0]}); {file.remedy}")
    encoder.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in found.items()}, assign=True)
    return encoder
