"""Trains the age prior (``clstudy.generators.ageing.AgePrior``) on virtual people whose ages are known.

    python -m clstudy.generators.pretraining ages --out build/ages
    python -m clstudy.generators.pretraining train-age-prior --ages build/ages/ages.npz --out build/ages

writes ``age_prior.safetensors`` and figures on people held out. Every moment was photographed at several ages, so that
w of one photo, moved to the age of another, must make that other photo: MSE, LPIPS and identity to it, and its w.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.faces.ages import AgeEstimator
from clstudy.faces.embedding import IdentityEmbedder
from clstudy.generators.ageing import AgePrior, PriorSizes, read_prior, save_prior
from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.generators.pretraining.aged_faces import AgedFaces
from clstudy.generators.pretraining.losses import IdentityLoss
from clstudy.generators.pretraining.train import warm_cosine
from clstudy.images import to_unit_range
from clstudy.metrics.lpips import LPIPS
from clstudy.seeding import derive_rng, derive_seed


@dataclass(frozen=True, kw_only=True)
class PriorSettings:
    """The loss is ``mse_weight * MSE + lpips_weight * LPIPS + identity_weight * ID + w_weight * MSE in w``.

    ID as in ``train``. A pair in ``own_share`` of a batch is a photo and itself: at its own age it should stay.
    """

    seed: int = 0
    steps: int = 1_500
    batch: int = 8
    learning_rate: float = 1e-3
    mse_weight: float = 1.0
    lpips_weight: float = 1.0
    identity_weight: float = 0.5
    w_weight: float = 0.3
    own_share: float = 0.15
    threads: int = 1


@dataclass(frozen=True)
class Pairs:
    """Photos, and the same moments at other ages.

    Attributes:
        w, images: of the first ``[n, w_dim]``, of the second ``[n, 3, s, s]``.
        target_w: of the second.
        ages: of the second ``[n]``, years.
    """

    w: Tensor
    images: Tensor
    target_w: Tensor
    ages: Tensor


def drawn_pairs(faces: AgedFaces, w: Tensor, settings: PriorSettings, rng: np.random.Generator) -> Pairs:
    """Pairs of people, moments and ages drawn uniformly; ``w [n, a, m, w_dim]`` of the faces."""
    people, ages, moments = faces.images.shape[:3]
    person, moment, before, after = (rng.integers(0, high, settings.batch) for high in (people, moments, ages, ages))
    after = np.where(rng.random(settings.batch) < settings.own_share, before, after)
    return pairs_at(faces, w, person, moment, before, after)


def pairs_at(
    faces: AgedFaces, w: Tensor, person: np.ndarray, moment: np.ndarray, before: np.ndarray, after: np.ndarray
) -> Pairs:
    """The pairs of these people and moments, from one of their ages to another; indices ``[n]``."""
    return Pairs(
        w[person, before, moment],
        to_unit_range(faces.images[person, after, moment]),
        w[person, after, moment],
        torch.from_numpy(faces.ages[person, after]),
    )


def encoded_faces(generator: EmbeddedGenerator, faces: AgedFaces) -> Tensor:
    """w ``[n, a, m, w_dim]`` of all faces."""
    images, _, _ = faces.flat()
    parts = [generator.anchors(to_unit_range(images[at : at + 100])) for at in range(0, len(images), 100)]
    return torch.cat(parts).view(*faces.images.shape[:3], -1)


def train_age_prior(
    training: AgedFaces, held_out: AgedFaces, estimator: Path, out: Path, settings: PriorSettings
) -> None:
    """Train, write ``out/age_prior.safetensors`` and ``out/age_prior.json``, and print figures on people held out.

    Args:
        training: people to train on.
        held_out: people of whom figures are.
        estimator: of ages, for the figures.
        out: a folder, made if need be.
        settings: everything else that the weights depend on.
    """
    torch.set_num_threads(settings.threads)
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    generator = EmbeddedGenerator()
    synthesis = generator.fresh().eval().requires_grad_(False)
    torch.manual_seed(derive_seed("age prior weights", settings.seed))
    sizes = PriorSizes(num_ws=generator.settings.num_ws, w_dim=generator.settings.w_dim)
    prior, w = AgePrior(sizes), encoded_faces(generator, training)
    lpips, identity = LPIPS(), IdentityLoss(to_unit_range(training.flat()[0][::10][:1000]))
    adam = torch.optim.Adam(prior.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: warm_cosine(step, settings.steps))
    rng = derive_rng("age prior batches", settings.seed)
    for step in range(settings.steps):
        pairs = drawn_pairs(training, w, settings, rng)
        moved = prior(pairs.w, pairs.ages)
        images = synthesis(moved)
        parts = {
            "mse": settings.mse_weight * (images - pairs.images).square().mean(),
            "lpips": settings.lpips_weight * lpips(images, pairs.images).mean(),
            "identity": settings.identity_weight * identity(images, pairs.images).mean(),
            "w": settings.w_weight * (moved - pairs.target_w[:, None]).square().mean(),
        }
        adam.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack(list(parts.values())).sum())
        adam.step()
        schedule.step()
        if step % 100 == 0:
            said = " ".join(f"{name} {float(value.detach()):.4f}" for name, value in parts.items())
            print(f"step {step} {said} {time.monotonic() - started:.0f} s", flush=True)
    save_prior(prior, out / "age_prior.safetensors")
    card = {
        "settings": asdict(settings),
        "sizes": asdict(sizes),
        "training_people": len(training),
        "seconds": round(time.monotonic() - started),
        "held_out": prior_figures(read_prior(out / "age_prior.safetensors"), generator, held_out, estimator),
    }
    (out / "age_prior.json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))


@torch.no_grad()
def prior_figures(
    prior: AgePrior, generator: EmbeddedGenerator, unseen: AgedFaces, estimator: Path
) -> dict[str, dict[str, float]]:
    """Of every unseen person's first moment, from each age to each other: made by the prior, and left as it was.

    ``lpips``, ``identity``: to the true face at that age; ``age_error``: years by the estimator.
    """
    people, ages = unseen.images.shape[:2]
    who, before, after = (index.ravel() for index in np.indices((people, ages, ages)))
    apart = before != after
    who, before, after = who[apart], before[apart], after[apart]
    pairs = pairs_at(unseen, encoded_faces(generator, unseen), who, np.zeros_like(who), before, after)
    synthesis = generator.fresh().eval().requires_grad_(False)
    left = pairs.w[:, None].expand(-1, prior.sizes.num_ws, -1)
    return {
        "prior": _scores(prior(pairs.w, pairs.ages), pairs, synthesis, estimator),
        "left": _scores(left, pairs, synthesis, estimator),
    }


def _scores(ws: Tensor, pairs: Pairs, synthesis: nn.Module, estimator: Path) -> dict[str, float]:
    images = torch.cat([synthesis(part) for part in torch.split(ws, 50)]).clamp(-1, 1)
    embedder, years, lpips = IdentityEmbedder(), AgeEstimator(estimator), LPIPS()
    distances = [lpips(*both) for both in zip(torch.split(images, 50), torch.split(pairs.images, 50), strict=True)]
    values = {
        "lpips": torch.cat(distances),
        "identity": (embedder(images) * embedder(pairs.images)).sum(1),
        "age_error": (years(images) - pairs.ages).abs(),
    }
    return {name: round(float(value.mean()), 4) for name, value in values.items()}
