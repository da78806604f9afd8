"""Identity embeddings of aligned photos through one fixed crop: no detection, no photo is ever dropped."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clstudy.identities.faces import EMBEDDING_CROP, embedding_crop_map, onnx_session


def crop_grid(height: int, width: int) -> Tensor:
    """Sampling grid ``[1, 112, 112, 2]`` of the identity crop inside an aligned photo of the given size."""
    scale, offset = embedding_crop_map(width)
    steps = torch.arange(EMBEDDING_CROP, dtype=torch.float32)
    x = ((steps * scale + float(offset[0])) + 0.5) / width * 2 - 1
    y = ((steps * scale + float(offset[1])) + 0.5) / height * 2 - 1
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]


class IdentityEmbedder:
    """Maps aligned photos to unit vectors; the cosine of two of them is the ID similarity.

    The network is the packaged MobileFaceNet-type embedder: 112x112 RGB, ``(x - 127.5) / 127.5``, 512 numbers.
    Crops are sampled bilinearly from the aligned photo with the data set's fixed transform (protocol,
    "ID similarity"), for photos and generated images alike.
    """

    def __init__(self, *, threads: int = 1):
        self._session = onnx_session("face_embedder.onnx", threads)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return unit embeddings float32 ``[n, 512]`` for images ``[n, 3, s, s]`` in [-1, 1]."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(f"expected aligned images [n, 3, s, s], got shape {tuple(images.shape)}")
        images = images.detach().float().cpu()
        grid = crop_grid(images.shape[2], images.shape[3]).expand(len(images), -1, -1, -1)
        crops = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        # One image at a time: the answer for a photo must not depend on what else is in the batch.
        rows = [self._session.run(None, {"input": crop[None].numpy()})[0] for crop in crops]
        vectors = torch.from_numpy(np.concatenate(rows)) if rows else torch.zeros(0, 512)
        return F.normalize(vectors, dim=1)


def to_unit_range(photos: np.ndarray) -> Tensor:
    """uint8 RGB ``[n, h, w, 3]`` -> float32 ``[n, 3, h, w]`` in [-1, 1]."""
    return torch.tensor(photos).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_uint8(images: Tensor) -> np.ndarray:
    """float ``[n, 3, h, w]`` in [-1, 1] -> uint8 RGB ``[n, h, w, 3]``."""
    scaled = images.detach().float().add(1).mul(127.5).round().clamp(0, 255)
    return scaled.byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
