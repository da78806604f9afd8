"""Identity embeddings by insightface's own class: the extra ``clstudy[insightface]``, imported when one is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clstudy.identities.embedding import IdentityEmbedder
from clstudy.metrics.backends import import_arcface


class InsightFaceEmbedder(IdentityEmbedder):
    """``IdentityEmbedder`` with insightface's ``ArcFaceONNX`` between the crop and the embedding.

    Crops are ours (a fixed transform, no detection), and so is the session: its threads and device are those that
    stage keys know of. insightface decides how the network's input is normalised. Its crops are fed as floating
    point, not rounded to 8 bits, so that the values equal those of ``IdentityEmbedder``.

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

    @torch.inference_mode()
    def embed(self, crops: Tensor) -> Tensor:
        """Return unit embeddings float32 ``[n, d]``, on the CPU, for crops ``[n, 3, 112, 112]`` in [-1, 1]."""
        pixels = ((crops + 1) * 127.5).cpu().flip(1).permute(0, 2, 3, 1).contiguous().numpy()  # blue first
        rows = [self._official.get_feat(image).reshape(1, -1) for image in pixels]
        vectors = torch.from_numpy(np.concatenate(rows)) if rows else torch.zeros(0, self._width())
        return F.normalize(vectors, dim=1)
