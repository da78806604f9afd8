"""ID similarity: cosine of identity embeddings."""

from __future__ import annotations

from torch import Tensor

from clstudy.faces.embedding import IdentityEmbedder
from clstudy.faces.insightface_embedder import InsightFaceEmbedder
from clstudy.metrics.base import METRICS, Metric, MetricSettings
from clstudy.registry import Registry

EMBEDDERS: Registry[type[IdentityEmbedder]] = Registry("ID backend")
"""Name (``evaluation.id_backend``) -> class that computes embeddings; all take the same networks and crops."""

EMBEDDERS.register("onnxruntime")(IdentityEmbedder)
EMBEDDERS.register("insightface")(InsightFaceEmbedder)


@METRICS.register("id")
class IdentityMetric(Metric):
    """Cosine between a reconstruction and its photo, or between a generated image and its nearest test photo.

    With a file for the role ``arcface`` the embeddings are that network's, otherwise the packaged embedder's.
    """

    name = "id"
    higher_is_better = True
    title = "ID similarity"
    unit = "cosine"
    bounds = (-1.0, 1.0)
    description = "identity similarity (cosine of face embeddings), higher is better"
    in_synthesis = True
    of_identity = True

    def __init__(self, settings: MetricSettings | None = None):
        super().__init__(settings)
        self._embedder = EMBEDDERS[self.settings.evaluation.id_backend](
            self.settings.threads,
            model=self.settings.files.get("arcface"),
            device=self.settings.device,
            alignment=self.settings.alignment,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        notes = (self._embedder.backend_note, self._embedder.device_note)
        return tuple(note for note in notes if note is not None)

    def prepare(self, targets: Tensor) -> Tensor:
        return self._embedder(targets)

    def pairs(self, images: Tensor, prepared: Tensor) -> Tensor:
        return (self._embedder(images) * prepared).sum(dim=1)

    def synthesis(self, images: Tensor, prepared: Tensor) -> Tensor:
        """Largest cosine ``[m]`` to any test photo (protocol, "Synthesis")."""
        return (self._embedder(images) @ prepared.t()).max(dim=1).values
