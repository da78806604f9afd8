"""Identity embeddings by insightface's own class: the extra ``clstudy[insightface]``, imported when one is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clstudy.assets.extras import import_arcface
from clstudy.faces.embedding import IdentityEmbedder


class InsightFaceEmbedder(IdentityEmbedder):
    """``IdentityEmbedder`` with insightface's ``ArcFaceONNX`` between the crop and the embedding.

    Crops are ours (a fixed transform, no detection), and so is the session: its threads and device are those in the
    stage keys. insightface decides how the network's input is normalised. Its crops are fed as floating point, not
    rounded to 8 bits, so that the values equal those of ``IdentityEmbedder``.

    Raises:
        UserError: insightface is not installed; or as ``IdentityEmbedder``.
    """

    def __init__(
        self,
        threads: int = 1,
        *,
        model: Path | None = None,
        device: torch.device = torch.device("cpu"),  # noqa: B008  # immutable
        alignment: str = "embedded",
    ):
        arcface = import_arcface()
        super().__init__(threads, model=model, device=device, alignment=alignment)
        self._official = arcface.ArcFaceONNX(model_file=str(self.path), session=self._session)
        self.backend_note = f"identity embeddings are computed by insightface ({self.path.name})"

    def _output(self, crop: Tensor) -> np.ndarray:
        pixels = ((crop + 1) * 127.5).cpu().flip(0).permute(1, 2, 0).contiguous().numpy()  # blue first
        embedding: np.ndarray = self._official.get_feat(pixels)
        return embedding
