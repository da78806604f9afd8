"""Inception features for FID and KID, as clean-fid computes them: resizing, normalisation, network.

Sources: G. Parmar, R. Zhang, J.-Y. Zhu, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation" (2104.11222)
for resizing; C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (1512.00567) for the
network. Its weights are those of the TensorFlow graph ``inception-2015-12-05`` that FID was defined with (M. Heusel et
al., 1706.08500), as converted by pytorch-fid. That graph differs from the published architecture: average pooling
leaves padding out of the mean, and the last block pools by maximum.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from clstudy.assets import sha256_file
from clstudy.assets.model_files import ROLES
from clstudy.assets.readers.errors import CheckpointError
from clstudy.assets.readers.tensor_files import read_state_dict
from clstudy.errors import UserError
from clstudy.images import to_uint8

INPUT_SIZE = 299
FEATURES = 2048
WEIGHTS_SHA256_PREFIX = "6726825d"
"""Beginning of the sha256 of pytorch-fid's file ``pt_inception-2015-12-05-6726825d.pth``, whose name contains it."""

_BATCH = 16


def resize_for_inception(images: np.ndarray) -> np.ndarray:
    """Resize uint8 RGB ``[n, h, w, 3]`` to float32 ``[n, 3, 299, 299]`` in [0, 255].

    As in clean-fid, each channel goes through PIL's bicubic filter as floating point. The filter widens with the
    reduction and so does not alias; overshoots are cut off; nothing is rounded.

    Raises:
        ValueError: the images have another type or shape.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"expected uint8 images [n, h, w, 3], got {images.dtype} {list(images.shape)}")
    resized = np.empty((len(images), 3, INPUT_SIZE, INPUT_SIZE), np.float32)
    for index, image in enumerate(images.astype(np.float32)):
        for channel in range(3):
            plane = Image.fromarray(image[:, :, channel])
            resized[index, channel] = np.asarray(plane.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC))
    return resized.clip(0, 255)


class _Convolution(nn.Module):
    """Convolution, batch normalisation by the stored statistics, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1):
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        # every convolution keeps its size ("same") unless it is one of the 3x3 ones marked as unpadded below
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, (height // 2, width // 2), bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def unpadded(self) -> _Convolution:
        self.conv.padding = (0, 0)
        return self

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def _mean_pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


class _Block35(nn.Module):
    """35x35 pixels: 1x1, 5x5, two 3x3, pooling (figure 5 of the paper)."""

    def __init__(self, inputs: int, pooled: int):
        super().__init__()
        self.branch1x1 = _Convolution(inputs, 64, 1)
        self.branch5x5_1 = _Convolution(inputs, 48, 1)
        self.branch5x5_2 = _Convolution(48, 64, 5)
        self.branch3x3dbl_1 = _Convolution(inputs, 64, 1)
        self.branch3x3dbl_2 = _Convolution(64, 96, 3)
        self.branch3x3dbl_3 = _Convolution(96, 96, 3)
        self.branch_pool = _Convolution(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        parts = (self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(_mean_pool(x)))
        return torch.cat(parts, 1)


class _Reduction17(nn.Module):
    """35x35 to 17x17 pixels."""

    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3 = _Convolution(inputs, 384, 3, stride=2).unpadded()
        self.branch3x3dbl_1 = _Convolution(inputs, 64, 1)
        self.branch3x3dbl_2 = _Convolution(64, 96, 3)
        self.branch3x3dbl_3 = _Convolution(96, 96, 3, stride=2).unpadded()

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat((self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)), 1)


class _Block17(nn.Module):
    """17x17 pixels: 7x7 convolutions factored into 1x7 and 7x1 (figure 6)."""

    def __init__(self, inner: int):
        super().__init__()
        self.branch1x1 = _Convolution(768, 192, 1)
        self.branch7x7_1 = _Convolution(768, inner, 1)
        self.branch7x7_2 = _Convolution(inner, inner, (1, 7))
        self.branch7x7_3 = _Convolution(inner, 192, (7, 1))
        self.branch7x7dbl_1 = _Convolution(768, inner, 1)
        self.branch7x7dbl_2 = _Convolution(inner, inner, (7, 1))
        self.branch7x7dbl_3 = _Convolution(inner, inner, (1, 7))
        self.branch7x7dbl_4 = _Convolution(inner, inner, (7, 1))
        self.branch7x7dbl_5 = _Convolution(inner, 192, (1, 7))
        self.branch_pool = _Convolution(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat((self.branch1x1(x), single, double, self.branch_pool(_mean_pool(x))), 1)


class _Reduction8(nn.Module):
    """17x17 to 8x8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = _Convolution(768, 192, 1)
        self.branch3x3_2 = _Convolution(192, 320, 3, stride=2).unpadded()
        self.branch7x7x3_1 = _Convolution(768, 192, 1)
        self.branch7x7x3_2 = _Convolution(192, 192, (1, 7))
        self.branch7x7x3_3 = _Convolution(192, 192, (7, 1))
        self.branch7x7x3_4 = _Convolution(192, 192, 3, stride=2).unpadded()

    def forward(self, x: Tensor) -> Tensor:
        long = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        short = self.branch3x3_2(self.branch3x3_1(x))
        return torch.cat((short, self.branch7x7x3_4(long), F.max_pool2d(x, 3, stride=2)), 1)


class _Block8(nn.Module):
    """8x8 pixels: wide branches that fork into 1x3 and 3x1 (figure 7)."""

    def __init__(self, inputs: int, *, pool_by_maximum: bool):
        super().__init__()
        self._pool = _max_pool if pool_by_maximum else _mean_pool
        self.branch1x1 = _Convolution(inputs, 320, 1)
        self.branch3x3_1 = _Convolution(inputs, 384, 1)
        self.branch3x3_2a = _Convolution(384, 384, (1, 3))
        self.branch3x3_2b = _Convolution(384, 384, (3, 1))
        self.branch3x3dbl_1 = _Convolution(inputs, 448, 1)
        self.branch3x3dbl_2 = _Convolution(448, 384, 3)
        self.branch3x3dbl_3a = _Convolution(384, 384, (1, 3))
        self.branch3x3dbl_3b = _Convolution(384, 384, (3, 1))
        self.branch_pool = _Convolution(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = (
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(self._pool(x)),
        )
        return torch.cat(parts, 1)


class InceptionFeatures(nn.Module):
    """The 2048 numbers before Inception's classifier; parameters have torchvision's names.

    Raises:
        ValueError: ``state`` lacks a tensor or has one of another shape. The classifier ``fc`` is optional.
    """

    def __init__(self, state: Mapping[str, Tensor]):
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, stride=2).unpadded()
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3).unpadded()
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3).unpadded()
        self.Mixed_5b = _Block35(192, 32)
        self.Mixed_5c = _Block35(256, 64)
        self.Mixed_5d = _Block35(288, 64)
        self.Mixed_6a = _Reduction17(288)
        self.Mixed_6b = _Block17(128)
        self.Mixed_6c = _Block17(160)
        self.Mixed_6d = _Block17(160)
        self.Mixed_6e = _Block17(192)
        self.Mixed_7a = _Reduction8()
        self.Mixed_7b = _Block8(1280, pool_by_maximum=False)
        self.Mixed_7c = _Block8(2048, pool_by_maximum=True)
        own = self.state_dict()
        taken = {name: state[name] for name in own if name in state}
        wrong = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
        wrong += [name for name, tensor in taken.items() if tensor.shape != own[name].shape]
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise ValueError(f"missing or of another shape: {', '.join(wrong[:3])}{more}")
        self.load_state_dict(taken, strict=False)
        self.requires_grad_(False).eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return features ``[n, 2048]`` of resized images ``[n, 3, 299, 299]`` in [0, 255]."""
        x = (pixels - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, stride=2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        features: Tensor = x.mean(dim=(2, 3))
        return features


@torch.no_grad()
def inception_features(network: InceptionFeatures, images: Tensor) -> np.ndarray:
    """Features float64 ``[n, 2048]`` of images ``[n, 3, h, w]`` in [-1, 1].

    Images are rounded to 8 bits first, like the picture files that clean-fid reads.
    """
    device = network.Conv2d_1a_3x3.conv.weight.device
    pixels = torch.from_numpy(resize_for_inception(to_uint8(images)))
    parts = [network(part.to(device)).cpu() for part in torch.split(pixels, _BATCH)]
    return torch.cat(parts).double().numpy() if parts else np.zeros((0, FEATURES))


@lru_cache(maxsize=1)  # a worker's FID and KID share the network, which is never changed
def load_inception(path: Path, device: torch.device) -> InceptionFeatures:
    """Read the network from a weights file, on ``device``.

    Raises:
        UserError: the file is TorchScript, which would run code, or does not hold these weights.
    """
    if _is_torchscript(path):
        raise UserError(
            f"{path} is TorchScript, like clean-fid's own inception-2015-12-05.pt: loading it would run code from the "
            f"file. Expected a state dict of the same weights: {ROLES['inception'].remedy}"
        )
    try:
        return InceptionFeatures(read_state_dict(path)).to(device)
    except (CheckpointError, OSError, RuntimeError, TypeError, ValueError, SafetensorError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} does not hold the Inception weights of FID: {said}. Expected {ROLES['inception'].remedy}"
        ) from error


def weights_note(path: Path) -> str | None:
    """A note if the weights file is not pytorch-fid's own, because values are then comparable within one study only."""
    found = sha256_file(path)
    if found.startswith(WEIGHTS_SHA256_PREFIX):
        return None
    return (
        f"FID and KID: {path.name} (sha256 {found[:8]}…) is not pytorch-fid's file ({WEIGHTS_SHA256_PREFIX}…); the "
        "numbers compare with each other but with nothing published"
    )


def _is_torchscript(path: Path) -> bool:
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name or name.endswith("constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, ValueError):
        return False  # damaged; reading it reports that
