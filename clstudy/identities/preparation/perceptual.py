"""Pictures as vectors whose squared distance is LPIPS, so that n pictures cost n passes instead of n² / 2."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.distance import cdist

from clstudy.images import to_unit_range
from clstudy.metrics.lpips import LPIPS


@torch.inference_mode()
def perceptual_vectors(pictures: np.ndarray, *, batch: int = 16) -> np.ndarray:
    """Vectors float32 ``[n, d]`` of uint8 pictures ``[n, s, s, 3]``; the square of their distance is LPIPS."""
    network = LPIPS()
    rows = []
    for part in torch.split(to_unit_range(pictures), batch):
        levels = []
        for number, level in enumerate(network.features(part)):
            # distances sum (a - b)^2 * head / (h * w) over channels and pixels; the heads are not negative
            weight = getattr(network, f"head{number}").clamp(min=0) / (level.shape[2] * level.shape[3])
            levels.append((level * weight.sqrt()[:, None, None]).flatten(1))
        rows.append(torch.cat(levels, dim=1))
    return torch.cat(rows).numpy()


def perceptual_distances(pictures: np.ndarray) -> np.ndarray:
    """LPIPS of every pair of n pictures, float64 ``[n, n]``."""
    vectors = perceptual_vectors(pictures)
    return np.asarray(cdist(vectors, vectors, "sqeuclidean"))
