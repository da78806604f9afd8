"""Figures and pictures of a pretrained generator on faces that it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from clstudy.faces.embedding import IdentityEmbedder
from clstudy.generators.pretraining.losses import eyes
from clstudy.generators.pretraining.networks import Networks
from clstudy.generators.pretraining.training_faces import Faces
from clstudy.images import photo_row, to_uint8, to_unit_range
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.profiles import embedded
from clstudy.training.inversion import invert

Figures = dict[str, float]


def reconstructing_latents(networks: Networks, faces: Faces) -> dict[str, Tensor]:
    """w ``[n, w_dim]`` by two ways: ``encoder`` alone, and ``inversion`` with the embedded profile's settings."""
    lpips, target = LPIPS(), to_unit_range(faces.images)
    module = networks.generator.synthesis.requires_grad_(False)
    start = networks.encode(faces.images)
    with torch.no_grad():
        features = lpips.features(target)
    found = invert(module, target, features, start, settings=embedded().inversion, lpips=lpips)
    return {"encoder": start, "inversion": found}


def evaluate(networks: Networks, held_out: Faces) -> dict[str, Figures]:
    """Held-out reconstruction figures by both ways of ``reconstructing_latents``."""
    latents = reconstructing_latents(networks, held_out)
    return {way: reconstruction_figures(networks.generator.synthesis, w, held_out) for way, w in latents.items()}


def encoder_figures(networks: Networks, held_out: Faces) -> Figures:
    """Figures of the encoder's reconstructions."""
    return reconstruction_figures(networks.generator.synthesis, networks.encode(held_out.images), held_out)


@torch.no_grad()
def reconstruction_figures(module: nn.Module, w: Tensor, held_out: Faces) -> Figures:
    """LPIPS, MSE, PSNR and identity cosines of the images of ``w`` against the faces.

    ``eyes_lpips``, ``eyes_mse``: of the stretch around both eyes, enlarged (``losses.eyes``). ``own_above_other``: the
    share of (reconstruction, photo of somebody else) pairs in which the reconstruction's identity cosine to its own
    photo is above that to the other one.
    """
    embedder, lpips, target = IdentityEmbedder(), LPIPS(), to_unit_range(held_out.images)
    points = torch.from_numpy(held_out.points)
    image = torch.cat([module(part) for part in torch.split(w, 50)]).clamp(-1, 1)
    mse = (image - target).square().mean(dim=(1, 2, 3))
    variance = float((target - target.mean(dim=0)).square().mean())
    cosine = embedder(image) @ embedder(target).t()
    own = cosine.diagonal()
    people = torch.from_numpy(held_out.people)
    strangers = people[:, None] != people
    near, near_target = eyes(image, points), eyes(target, points)
    return {
        "faces": len(target),
        "people": len(np.unique(held_out.people)),
        "lpips_alex": _mean_distance(lpips, image, target),
        "mse": float(mse.mean()),
        "pixel_variance": variance,
        "mse_share_of_variance": float(mse.mean()) / variance,
        "psnr_db": float((10 * torch.log10(4 / mse)).mean()),
        "eyes_lpips": _mean_distance(lpips, near, near_target),
        "eyes_mse": float((near - near_target).square().mean()),
        "identity_cosine_own": float(own.mean()),
        "identity_cosine_others": float(cosine[strangers].mean()),
        "own_above_other": float((own[:, None] > cosine)[strangers].float().mean()),
    }


def _mean_distance(lpips: LPIPS, image: Tensor, target: Tensor) -> float:
    pairs = zip(torch.split(image, 50), torch.split(target, 50), strict=True)
    return float(torch.cat([lpips(a, b) for a, b in pairs]).mean())


@torch.no_grad()
def write_grid(networks: Networks, held_out: list[np.ndarray], path: Path, seed: int) -> None:
    """Rows: photos of each of ``held_out``, 12 of them, and reconstructions; then samples at truncation 0.7 and 1.0."""
    rows = []
    for photos in held_out:
        rows += [photos, to_uint8(networks.reconstruct(to_unit_range(photos)))]
    z = torch.randn(24, networks.generator.settings.z_dim, generator=torch.Generator().manual_seed(seed))
    for psi in (0.7, 1.0):
        samples = to_uint8(networks.generator(z, truncation_psi=psi))
        rows += [samples[:12], samples[12:]]
    grid = np.concatenate([photo_row(list(row)) for row in rows])
    Image.fromarray(grid).save(path, optimize=True)
