"""Trains the age estimator (``clstudy.faces.ages``) on virtual people.

    python -m clstudy.generators.pretraining ages --out build/ages
    python -m clstudy.generators.pretraining train-ages --ages build/ages/ages.npz --out build/ages

writes ``age_estimator.safetensors`` and ``age_estimator.json`` with its errors on people held out. It begins as a ridge
regression on the packaged identity embedding; then the whole embedder is trained on.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from clstudy.faces.ages import AgeEstimator, AgeNetwork, save_estimator
from clstudy.faces.embedding import IdentityEmbedder
from clstudy.generators.pretraining.aged_faces import AgedFaces
from clstudy.generators.pretraining.losses import recoloured
from clstudy.images import to_unit_range
from clstudy.seeding import derive_rng, derive_seed

_BATCH = 64
_BANDS = (18, 35, 52, 69, 86)
"""Limits of the ages of which errors are told apart, in years."""


@dataclass(frozen=True, kw_only=True)
class AgeSettings:
    """Training: AdamW on smooth L1 (``beta`` in units of 20 years), one cycle of the learning rate.

    ``penalty``: of the ridge regression that the last layer begins with. Photos are mirrored half of the time and
    recoloured (``losses.recoloured``); ``dropout`` of the embedding's numbers.
    """

    seed: int = 0
    steps: int = 800
    batch: int = 24
    learning_rate: float = 3e-4
    weight_decay: float = 0.02
    beta: float = 0.2
    dropout: float = 0.3
    penalty: float = 0.03
    grey_share: float = 0.06
    recolouring: float = 0.12
    threads: int = 1


def embedded(images: np.ndarray) -> np.ndarray:
    """Embeddings float64 ``[n, 512]`` of uint8 images ``[n, s, s, 3]``."""
    embedder = IdentityEmbedder()
    parts = [embedder(to_unit_range(images[at : at + _BATCH])) for at in range(0, len(images), _BATCH)]
    return torch.cat(parts).numpy().astype(np.float64)


def ridge(embeddings: np.ndarray, ages: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """Slopes ``[d]`` and constant that minimise squared errors + ``penalty`` |slopes|² (A. Hoerl and R. Kennard, 1970).

    Args:
        embeddings: ``[n, d]``.
        ages: ``[n]``.
        penalty: > 0; the constant is not penalised.
    """
    middle, mean = embeddings.mean(axis=0), ages.mean()
    centred = embeddings - middle
    gram = centred.T @ centred + penalty * np.eye(embeddings.shape[1])
    slopes = np.linalg.solve(gram, centred.T @ (ages - mean))
    return slopes, float(mean - middle @ slopes)


def trained(images: np.ndarray, ages: np.ndarray, settings: AgeSettings) -> AgeNetwork:
    """A network trained on uint8 images ``[n, s, s, 3]`` at ages ``[n]``."""
    torch.manual_seed(derive_seed("age estimator dropout", settings.seed))
    network = AgeNetwork(settings.dropout).train()
    slopes, constant = ridge(embedded(images), ages.astype(np.float64), settings.penalty)
    network.begin_with(torch.from_numpy(slopes).float(), constant)
    rate = settings.learning_rate
    adam = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=settings.weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, rate, total_steps=settings.steps, pct_start=0.1)
    rng = derive_rng("age estimator batches", settings.seed)
    started = time.monotonic()
    for step in range(settings.steps):
        chosen = rng.integers(0, len(images), settings.batch)
        photos = to_unit_range(images[chosen])
        mirrored = torch.from_numpy(rng.random(settings.batch) < 0.5)[:, None, None, None]
        photos = torch.where(mirrored, photos.flip(3), photos)
        uniform = torch.from_numpy(rng.random((settings.batch, 5)).astype(np.float32))
        photos = recoloured(photos, uniform, settings.grey_share, settings.recolouring)
        years = torch.from_numpy(ages[chosen].astype(np.float32))
        loss = F.smooth_l1_loss(network(photos) / 20, years / 20, beta=settings.beta)
        adam.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        adam.step()
        cycle.step()
        if step % 100 == 0:
            print(f"step {step} loss {float(loss.detach()):.4f} {time.monotonic() - started:.0f} s", flush=True)
    return network.eval()


def errors_of(estimator: AgeEstimator, faces: AgedFaces) -> dict[str, float]:
    """Mean error in years of all faces, and of those in each of ``_BANDS``; ``guessing``: that of their mean age."""
    images, ages, _ = faces.flat()
    years = torch.cat([estimator(to_unit_range(images[at : at + _BATCH])) for at in range(0, len(images), _BATCH)])
    errors = np.abs(years.numpy() - ages)
    found = {"mean": errors.mean(), "median": np.median(errors), "guessing": np.abs(ages - ages.mean()).mean()}
    for low, high in zip(_BANDS, _BANDS[1:], strict=False):
        inside = (ages >= low) & (ages < high)
        if inside.any():
            found[f"from {low} to {high}"] = errors[inside].mean()
    return {name: round(float(value), 2) for name, value in found.items()}


def train_ages(training: AgedFaces, held_out: AgedFaces, out: Path, settings: AgeSettings) -> None:
    """Train, write ``out/age_estimator.safetensors`` and ``out/age_estimator.json``, and print errors.

    Args:
        training: people to train on.
        held_out: people of whom errors are.
        out: a folder, made if need be.
        settings: everything else that the weights depend on.
    """
    torch.set_num_threads(settings.threads)
    out.mkdir(parents=True, exist_ok=True)
    images, ages, _ = training.flat()
    path = out / "age_estimator.safetensors"
    started = time.monotonic()
    save_estimator(trained(images, ages, settings), path)
    card = {
        "settings": asdict(settings),
        "training_people": len(training),
        "seconds": round(time.monotonic() - started),
        "held_out_people": len(held_out),
        "held_out": errors_of(AgeEstimator(path), held_out),
    }
    (out / "age_estimator.json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))
