"""Figures and pictures of a pretrained 3D generator on people whom it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clstudy.faces.embedding import IdentityEmbedder
from clstudy.faces.smiles import MouthLift
from clstudy.generators.eg3d_copies import SeenEG3D, depth_picture
from clstudy.generators.pretraining.networks_3d import Networks3D
from clstudy.generators.pretraining.training_views import Views
from clstudy.images import photo_row, to_uint8, to_unit_range
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.profiles import embedded
from clstudy.training.inversion import invert

_FACE = 1.6
"""Radius of the face around the mean of its five points, in eye distances of a frontal face (15 pixels of 64)."""
_EYES = 15.0


def evaluate(networks: Networks3D, unseen: Views) -> dict[str, dict[str, float]]:
    """Figures of the encoder's w, and of w found by inversion with the embedded profile's settings."""
    photos, cameras = to_unit_range(unseen.images[:, 0]), torch.from_numpy(unseen.cameras[:, 0])
    lpips = LPIPS()
    with torch.no_grad():
        features = lpips.features(photos)
    found = invert(
        SeenEG3D(networks.generator).requires_grad_(False),
        photos,
        features,
        networks.encode(unseen.images[:, 0]),
        settings=embedded().inversion,
        lpips=lpips,
        cameras=cameras,
    )
    return {
        "encoder": side_figures(networks, unseen),
        "inversion": side_figures(networks, unseen, found),
        "smile": smile_figures(networks, unseen, found),
    }


@torch.no_grad()
def smile_figures(networks: Networks3D, unseen: Views, w: Tensor) -> dict[str, float]:
    """What moving w along the direction ``smile`` does, as the first cameras see it.

    ``lift``: how much the corners of the mouth rise (``faces.smiles``), mean; ``lifted``: share of faces in which they
    do; ``identity_kept``: cosine between the faces before and after. Empty without that direction.
    """
    if "smile" not in networks.directions:
        return {}
    before, after = (
        networks.seen(w + strength * networks.directions["smile"], unseen.cameras[:, 0]).image for strength in (0, 1)
    )
    embedder, measure = IdentityEmbedder(), MouthLift()
    lift = measure(to_uint8(after)) - measure(to_uint8(before))
    kept = (embedder(before) * embedder(after)).sum(1)
    return {
        "lift": round(float(lift.mean()), 4),
        "lifted": round(float((lift > 0).mean()), 4),
        "identity_kept": round(float(kept.mean()), 4),
    }


@torch.no_grad()
def side_figures(networks: Networks3D, unseen: Views, w: Tensor | None = None) -> dict[str, float]:
    """Figures of w (None: the encoder's) of the first camera's photo, as that and as the other cameras see them.

    ``lpips``, ``psnr_db``, ``identity_own``, ``identity_others``, ``own_above_other`` are of the first camera, and
    ``…_sides`` of the other cameras, against their photos. ``depth_correlation``: with the true depth, inside the face,
    mean over photos of all cameras; ``depth_error``: mean absolute, in units of the world (a head is about 0.3 wide).
    """
    w = networks.encode(unseen.images[:, 0]) if w is None else w
    embedder, lpips = IdentityEmbedder(), LPIPS()
    figures: dict[str, list[float]] = {}
    correlations, errors = [], []
    for number in range(unseen.images.shape[1]):
        seen = networks.seen(w, unseen.cameras[:, number])
        target = to_unit_range(unseen.images[:, number])
        suffix = "_sides" if number else ""
        cosine = embedder(seen.image) @ embedder(target).t()
        own = cosine.diagonal()
        strangers = torch.from_numpy(unseen.people[:, None] != unseen.people)
        mse = (seen.image - target).square().mean(dim=(1, 2, 3))
        for name, value in (
            ("lpips", lpips(seen.image, target).mean()),
            ("psnr_db", (10 * torch.log10(4 / mse)).mean()),
            ("identity_own", own.mean()),
            ("identity_others", cosine[strangers].mean()),
            ("own_above_other", (own[:, None] > cosine)[strangers].float().mean()),
        ):
            figures.setdefault(name + suffix, []).append(float(value))
        for depth, true, points in zip(
            seen.depth[:, 0].numpy(), unseen.depths[:, number], unseen.points[:, number], strict=True
        ):
            inside = inside_face(true.astype(float), points)
            correlations.append(float(np.corrcoef(depth[inside], true[inside].astype(float))[0, 1]))
            errors.append(float(np.abs(depth[inside] - true[inside]).mean()))
    means = {name: round(float(np.mean(values)), 4) for name, values in figures.items()}
    return {
        "moments": len(unseen),
        **means,
        "depth_correlation": round(float(np.mean(correlations)), 4),
        "depth_error": round(float(np.mean(errors)), 4),
    }


def inside_face(true: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Pixels of a depth ``[r, r]`` that show the face whose five points are ``points [5, 2]`` in the photo's pixels."""
    size = len(true)
    scale = 64 / size
    grid = (np.arange(size) + 0.5) * scale - 0.5
    x, y = points.mean(axis=0)
    near = (grid[None, :] - x) ** 2 + (grid[:, None] - y) ** 2 < (_FACE * _EYES) ** 2
    return np.asarray(near & ~np.isnan(true))


@torch.no_grad()
def write_grid(networks: Networks3D, unseen: Views, path: Path, people: int = 8) -> None:
    """A row for each person: their photos, what the encoder's w looks like from the same sides, and its depth."""
    _, first = np.unique(unseen.people, return_index=True)
    shown = unseen[first[:people]]
    w = networks.encode(shown.images[:, 0])
    rendering = networks.generator.settings.rendering
    photos, faces, depths = [], [], []
    for number in range(shown.images.shape[1]):
        seen = networks.seen(w, shown.cameras[:, number])
        photos.append(shown.images[:, number])
        faces.append(to_uint8(seen.image))
        depths.append(depth_picture(seen.depth, photos[0].shape[1], rendering))
    rows = [photo_row([column[index] for column in (*photos, *faces, *depths)]) for index in range(len(shown))]
    Image.fromarray(np.concatenate(rows)).save(path, optimize=True)
