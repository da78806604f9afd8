"""Identity embeddings of aligned photos through one fixed crop, without detection, so that no photo is ever dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor

from clstudy.assets import asset_path
from clstudy.assets.readers.onnx_network import (
    EMBEDDING_CROP,
    not_an_embedder,
    open_network,
    recognition_network,
    takes_raw_pixels,
)
from clstudy.errors import UserError
from clstudy.faces.geometry import embedding_crop_map
from clstudy.registry import Registry

CropMap = Callable[[int], tuple[float, np.ndarray]]
"""Photo size in pixels -> (scale, offset [2]) with photo_xy = crop_xy * scale + offset."""

ALIGNMENTS: Registry[CropMap] = Registry("alignment")
"""Where the identity crop lies in an aligned photo, by the alignment that the photos were made with."""

ALIGNMENTS.register("embedded")(embedding_crop_map)


@ALIGNMENTS.register("ffhq")
def _ffhq_crop_map(size: int) -> tuple[float, np.ndarray]:
    from clstudy.faces.alignments import ffhq_embedding_crop_map

    return ffhq_embedding_crop_map(size)


@ALIGNMENTS.register("eg3d")
def _eg3d_crop_map(size: int) -> tuple[float, np.ndarray]:
    from clstudy.faces.alignments import eg3d_embedding_crop_map

    return eg3d_embedding_crop_map(size)


def crop_grid(height: int, width: int, *, alignment: str = "embedded") -> Tensor:
    """Sampling grid ``[1, 112, 112, 2]`` of the identity crop inside an aligned photo of the given size."""
    scale, offset = ALIGNMENTS[alignment](width)
    steps = torch.arange(EMBEDDING_CROP, dtype=torch.float32)
    x = ((steps * scale + float(offset[0])) + 0.5) / width * 2 - 1
    y = ((steps * scale + float(offset[1])) + 0.5) / height * 2 - 1
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]


def resampling_weights(size: int, scale: float, offset: float, *, count: int = EMBEDDING_CROP) -> Tensor:
    """Weights ``[count, size]``: crop pixel c is the mean of the photo's pixels near c * scale + offset.

    A triangle of half-width ``scale``, at least 1 (bilinear, with antialiasing where the crop is a reduction, as in
    PIL's ``resize``); pixels beyond the border repeat the last one.
    """
    width = max(scale, 1.0)
    reach = int(np.ceil(width)) + 1
    centres = np.arange(count) * scale + offset
    nearest = np.round(centres).astype(int)
    weights = np.zeros((count, size))
    for step in range(-reach, reach + 1):
        pixels = nearest + step
        share = np.clip(1 - np.abs(pixels - centres) / width, 0, None)
        weights[np.arange(count), np.clip(pixels, 0, size - 1)] += share
    return torch.from_numpy((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


def identity_crops(images: Tensor, *, alignment: str = "embedded") -> Tensor:
    """Cut the fixed identity crop ``[n, 3, 112, 112]`` out of aligned images ``[n, 3, s, s]``, on their device.

    Enlarged crops are sampled bilinearly. Where the crop is a reduction (s > 128 for the embedded alignment), a
    bilinear look-up would alias, and the sampling is antialiased.
    """
    size = images.shape[2]
    scale, offset = ALIGNMENTS[alignment](size)
    if scale <= 1:
        grid = crop_grid(size, size, alignment=alignment).to(images.device).expand(len(images), -1, -1, -1)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    columns, rows = (resampling_weights(size, scale, float(shift)).to(images.device) for shift in offset)
    # One image at a time: the crop of a photo must not depend on what else is in the batch.
    crops = [rows @ image @ columns.t() for image in images]
    return torch.stack(crops) if crops else images.new_zeros(0, 3, EMBEDDING_CROP, EMBEDDING_CROP)


class IdentityEmbedder:
    """Maps aligned photos to unit vectors; the cosine of two of them is the ID similarity.

    ``model`` None: the packaged MobileFaceNet-type embedder (112x112 RGB, ``(x - 127.5) / 127.5``, 512 numbers).
    A path: any ONNX network with one image input ``[n or 1, 3, 112, 112]`` (RGB) and one embedding output, for
    instance insightface's ArcFace models, or the folder of an insightface pack, whose recognition network is used. Its
    input is normalised as insightface does (``takes_raw_pixels``).

    Crops are sampled from the aligned photo with the data set's fixed transform (``alignment``; protocol,
    "ID similarity"), for photos and generated images alike, on the images' own device.

    With a CUDA ``device`` the network runs there if onnxruntime supports it; otherwise ``device_note`` gives the
    reason.

    Raises:
        UserError: no such file, not an ONNX network of that shape, weights stored in other files, or a folder with no
            recognition network or several.
    """

    def __init__(
        self,
        threads: int = 1,
        *,
        model: Path | None = None,
        device: torch.device = torch.device("cpu"),  # noqa: B008  # immutable
        alignment: str = "embedded",
    ):
        ALIGNMENTS[alignment]  # raises here if it is unknown
        self._alignment = alignment
        path = asset_path("face_embedder.onnx") if model is None else recognition_network(model)
        self._session = open_network(path, threads, device)
        if model is not None and (problem := not_an_embedder(self._session)):
            raise UserError(
                f"{path} is not an identity embedder: {problem}; expected one image input "
                f"[n or 1, 3, {EMBEDDING_CROP}, {EMBEDDING_CROP}] and one embedding output [n or 1, numbers], as "
                "insightface's recognition models have"
            )
        self._input = self._session.get_inputs()[0].name
        self._raw = model is not None and takes_raw_pixels(path)
        self.path = path
        """The network's file."""
        self.backend_note: str | None = None
        """A note about another library that computes the embeddings; None if there is none."""
        self.device_note = _device_note(self._session, device)
        """Why the network runs on the CPU although a CUDA device was requested; None if it runs where requested."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return unit embeddings float32 ``[n, d]``, on the CPU, for images ``[n, 3, s, s]`` in [-1, 1].

        Raises:
            ValueError: images of another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(f"expected aligned images [n, 3, s, s], got shape {tuple(images.shape)}")
        with torch.inference_mode():
            return self.embed(identity_crops(images.detach().float(), alignment=self._alignment))

    @torch.inference_mode()
    def embed(self, crops: Tensor) -> Tensor:
        """Return unit embeddings float32 ``[n, d]``, on the CPU, for crops ``[n, 3, 112, 112]`` in [-1, 1]."""
        # One image at a time: the result for a photo must not depend on what else is in the batch.
        rows = [self._output(crop).reshape(1, -1) for crop in crops]
        vectors = torch.from_numpy(np.concatenate(rows)) if rows else torch.zeros(0, self._width())
        return F.normalize(vectors, dim=1)

    def _output(self, crop: Tensor) -> np.ndarray:
        """The network's output for one crop ``[3, 112, 112]`` in [-1, 1]: the embedding, of any norm and shape."""
        value = ((crop + 1) * 127.5 if self._raw else crop).cpu().numpy()
        embedding: np.ndarray = self._session.run(None, {self._input: value[None]})[0]
        return embedding

    def _width(self) -> int:
        blank = np.zeros((1, 3, EMBEDDING_CROP, EMBEDDING_CROP), np.float32)
        width: int = self._session.run(None, {self._input: blank})[0].size
        return width


def _device_note(session: onnxruntime.InferenceSession, device: torch.device) -> str | None:
    if device.type != "cuda" or session.get_providers()[0] == "CUDAExecutionProvider":
        return None
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        reason = "onnxruntime could not start its CUDA provider (CUDA or cuDNN libraries of another version?)"
    else:
        reason = (
            "the installed onnxruntime has no CUDA provider (`pip uninstall onnxruntime onnxruntime-gpu`, "
            "then `pip install onnxruntime-gpu`)"
        )
    return f"identity embeddings are computed on the CPU, not on {device}: {reason}"
