"""Fits the age estimator (``clstudy.faces.ages``) to virtual people.

    python -m clstudy.generators.pretraining ages --out build/ages
    python -m clstudy.generators.pretraining train-ages --ages build/ages/ages.npz --out build/ages

writes ``age_estimator.safetensors`` and prints its mean error. The penalty is chosen on a fifth of the training people.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from clstudy.faces.ages import ridge, save_estimator
from clstudy.faces.embedding import IdentityEmbedder
from clstudy.generators.pretraining.aged_faces import AgedFaces
from clstudy.images import to_unit_range

PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_BATCH = 64


def embedded(images: np.ndarray) -> np.ndarray:
    """Embeddings float64 ``[n, 512]`` of uint8 images ``[n, s, s, 3]``."""
    embedder = IdentityEmbedder()
    parts = [embedder(to_unit_range(images[at : at + _BATCH])) for at in range(0, len(images), _BATCH)]
    return torch.cat(parts).numpy().astype(np.float64)


def fitted(embeddings: np.ndarray, ages: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Slopes, constant and penalty: that of ``PENALTIES`` with the smallest mean error on every fifth person."""
    apart = people % 5 == 0

    def error(penalty: float) -> float:
        slopes, constant = ridge(embeddings[~apart], ages[~apart], penalty)
        return float(np.abs(embeddings[apart] @ slopes + constant - ages[apart]).mean())

    penalty = min(PENALTIES, key=error)
    return *ridge(embeddings, ages, penalty), penalty


def fit_ages(training: AgedFaces, held_out: AgedFaces, out: Path) -> None:
    """Fit, write ``out/age_estimator.safetensors``, and print the mean error on people held out."""
    images, ages, people = training.flat()
    slopes, constant, penalty = fitted(embedded(images), ages.astype(np.float64), people)
    out.mkdir(parents=True, exist_ok=True)
    save_estimator(slopes, constant, out / "age_estimator.safetensors")
    images, ages, _ = held_out.flat()
    errors = np.abs(embedded(images) @ slopes + constant - ages)
    print(
        f"{len(training)} people, penalty {penalty:g}; on {len(held_out)} people held out: mean error "
        f"{errors.mean():.2f} years, median {np.median(errors):.2f} (always their mean age: "
        f"{np.abs(ages - ages.mean()).mean():.2f})"
    )
