"""Pretrain the embedded 3D generator: EG3D and W encoder as an autoencoder of several views, then the mapping network.

    python -m clstudy.generators.pretraining views --out build/pretrain_3d
    python -m clstudy.generators.pretraining train-3d --views build/pretrain_3d/views.npz --out build/pretrain_3d

writes ``embedded_3d.safetensors`` (float16), ``model_card_3d.json`` and ``model_card_3d_grid.png``. The encoder sees a
moment through one camera; what EG3D makes of its w is compared with the photo of that camera and of another one, so
that it must be a head and not a picture. The true depth is known, and compared, too. The rest is as for the 2D
generator (``train``): eyes and mouth weigh more, identity is compared, the mapping network is fitted to the encoded w.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clstudy.errors import UserError
from clstudy.generators import embedded_3d
from clstudy.generators.eg3d import EG3D
from clstudy.generators.pretraining.directions import semantic_directions
from clstudy.generators.pretraining.figures_3d import evaluate, side_figures, write_grid
from clstudy.generators.pretraining.losses import mirrored as mirrored_photos
from clstudy.generators.pretraining.losses import recoloured
from clstudy.generators.pretraining.networks_3d import Networks3D
from clstudy.generators.pretraining.train import Cycle, Losses, Objective, PretrainSettings, anneal, train_mapping
from clstudy.generators.pretraining.training_faces import Faces
from clstudy.generators.pretraining.training_views import Views
from clstudy.generators.volume_rendering import Uniform
from clstudy.identities.cameras import mirrored as mirrored_cameras
from clstudy.images import to_unit_range
from clstudy.seeding import derive_rng, derive_seed

SNAPSHOT = "autoencoder_3d.safetensors"
"""Encoder and EG3D as they were at the last snapshot; ``cycle_<number>.safetensors`` are those of finished cycles."""

SNAPSHOT_STEPS = 500

_SEEN = 2
"""Cameras through which a moment is compared in one step; the encoder sees through the first."""


@dataclass(frozen=True, kw_only=True)
class Cycle3D(Cycle):
    """As ``Cycle``; ``depth_weight`` times the mean difference in depth inside the head is part of its loss."""

    depth_weight: float = 4.0


@dataclass(frozen=True, kw_only=True)
class Pretrain3DSettings(PretrainSettings):
    """As ``PretrainSettings``, where ``batch`` counts moments.

    The loss has three terms more: ``raw_weight`` times the MSE of the image before super-resolution, that of depth (by
    cycle), and ``behind_weight`` times how much nearer than ``behind`` anything lies where only the backdrop is seen.
    """

    cycles: tuple[Cycle3D, ...] = (
        Cycle3D(steps=6_000, learning_rate=5e-3, encoder_learning_rate=1e-3, identity_faces=4, identity_from=2_000),
        Cycle3D(steps=1_500, learning_rate=2e-3, encoder_learning_rate=5e-4, identity_faces=8, depth_weight=12.0),
        Cycle3D(steps=5_000, learning_rate=4e-3, encoder_learning_rate=8e-4, identity_faces=8, depth_weight=20.0),
    )
    batch: int = 8
    raw_weight: float = 2.0
    behind_weight: float = 1.0
    behind: float = 2.9
    held_out: int = 96


@dataclass(frozen=True)
class ViewBatch:
    """Moments and how two cameras see each.

    Attributes:
        photos: what the encoder sees ``[m, 3, 64, 64]``.
        targets: ``[2 m, 3, 64, 64]``; two neighbours show one moment, the first of them what the encoder sees.
        depths: ``[2 m, 1, 32, 32]``, NaN where the backdrop is seen.
        points: ``[2 m, 5, 2]``.
        cameras: ``[2 m, 25]``.
    """

    photos: Tensor
    targets: Tensor
    depths: Tensor
    points: Tensor
    cameras: Tensor


def drawn_batch(views: Views, settings: Pretrain3DSettings, rng: np.random.Generator) -> ViewBatch:
    """Moments, mirrored and recoloured at random, each through two different cameras."""
    count, size = settings.batch, views.images.shape[-2]
    moments = rng.integers(0, len(views), count).repeat(_SEEN)
    cameras = np.stack([rng.permutation(views.images.shape[1])[:_SEEN] for _ in range(count)]).ravel()
    chosen = torch.from_numpy((rng.random(count) < 0.5).repeat(_SEEN))
    images, points = mirrored_photos(
        to_unit_range(views.images[moments, cameras]), torch.from_numpy(views.points[moments, cameras]), chosen
    )
    depths = torch.from_numpy(views.depths[moments, cameras].astype(np.float32))[:, None]
    seen = views.cameras[moments, cameras]
    seen = np.where(chosen.numpy()[:, None], mirrored_cameras(seen), seen)
    uniform = torch.from_numpy(rng.random((count, 5)).astype(np.float32)).repeat_interleave(_SEEN, 0)
    images = recoloured(images, uniform, settings.grey_share, settings.recolouring)
    return ViewBatch(
        photos=images.view(count, _SEEN, 3, size, size)[:, 0],
        targets=images,
        depths=torch.where(chosen[:, None, None, None], depths.flip(3), depths),
        points=points,
        cameras=torch.from_numpy(seen).float(),
    )


def depth_losses(depth: Tensor, target: Tensor, behind: float) -> tuple[Tensor, Tensor]:
    """Mean difference inside the head, and how much nearer than ``behind`` depth is where only the backdrop is seen.

    Args:
        depth: ``[n, 1, r, r]``.
        target: the same, NaN where any part of a pixel shows the backdrop.
        behind: a distance behind every face.
    """
    head = ~target.isnan()
    inside = (depth - target.nan_to_num())[head].abs().mean()
    # a pixel at the rim is partly head
    backdrop = F.max_pool2d(head.float(), 3, stride=1, padding=1) == 0
    outside = F.relu(behind - depth)[backdrop]
    return inside, outside.mean() if len(outside) else depth.new_zeros(())


def fresh_networks(settings: Pretrain3DSettings) -> Networks3D:
    """What training begins with; style weights of all layers but the first are small, as in 2D."""
    torch.manual_seed(derive_seed("pretraining 3D weights", settings.seed))
    network = EG3D(embedded_3d.SETTINGS)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("affine.weight") and not name.startswith("backbone.synthesis.b4.conv1."):
                parameter.mul_(settings.affine_scale)
    return Networks3D(network, embedded_3d.encoder())


def losses_of(
    networks: Networks3D,
    batch: ViewBatch,
    settings: Pretrain3DSettings,
    objective: Objective,
    cycle: Cycle3D,
    identity_faces: int,
    noise: Tensor,
    jitter: Uniform,
) -> tuple[Losses, Tensor, float]:
    """Losses of one step as the objective has them, the sum with raw image and depth, and the difference in depth."""
    w = networks.encoder(batch.photos)
    network = networks.generator
    layers = (w + settings.w_noise * noise)[:, None].expand(-1, network.settings.backbone.num_ws, -1)
    planes = network.planes(layers, noise=False).repeat_interleave(_SEEN, 0)
    features, depth = network.render(planes, batch.cameras, jitter=jitter)
    image = network.superresolution(features, layers.repeat_interleave(_SEEN, 0))
    losses = objective(image, batch.targets, batch.points, w, identity_faces)
    raw = F.mse_loss(features[:, :3], F.avg_pool2d(batch.targets, image.shape[-1] // features.shape[-1]))
    inside, outside = depth_losses(depth, batch.depths, settings.behind)
    total = losses.total + settings.raw_weight * raw + cycle.depth_weight * inside + settings.behind_weight * outside
    return losses, total, float(inside.detach())


def train_cycle(
    live: Networks3D,
    views: Views,
    settings: Pretrain3DSettings,
    number: int,
    snapshot: Callable[[Networks3D], None],
    progress: Path | None = None,
) -> Networks3D:
    """Train networks in place for one cycle, and return their average; arguments as of ``train.anneal``."""
    cycle = settings.cycles[number]
    objective = Objective(settings, faces_of(views[:1000]))

    def losses_at(step: int) -> tuple[Tensor, Callable[[], str]]:
        rng = derive_rng("pretraining 3D batch", settings.seed, number, step)
        jitter = Uniform(
            torch.Generator().manual_seed(derive_seed("pretraining 3D jitter", settings.seed, number, step))
        )
        batch = drawn_batch(views, settings, rng)
        noise = torch.from_numpy(rng.standard_normal((settings.batch, *live.latent_shape)).astype(np.float32))
        identity_faces = cycle.identity_faces if step >= cycle.identity_from else 0
        losses, total, depth = losses_of(live, batch, settings, objective, cycle, identity_faces, noise, jitter)
        return total, lambda: f"{losses.words()} depth {depth:.4f}"

    return anneal(live, settings, number, losses_at, snapshot, every=SNAPSHOT_STEPS, progress=progress)


def faces_of(views: Views) -> Faces:
    """The photos of the moments' own cameras."""
    return Faces(views.images[:, 0], views.points[:, 0], views.people)


def _require_same(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a training, or refuse those of another one."""
    written = json.dumps(settings, indent=2) + "\n"
    if path.is_file() and path.read_text() != written:
        raise UserError(
            f"{path} is of a training with other settings; give another --out, or remove {path.parent} to begin again"
        )
    path.write_text(written)


def pretrain_3d(
    training: Views,
    held_out: Views,
    out: Path,
    settings: Pretrain3DSettings,
    *,
    begin: int = 0,
    autoencoder: Path | None = None,
) -> None:
    """Train and write networks, figures and grid to ``out``; arguments as of ``train.pretrain``.

    Killed and called again, it goes on where it was (at most ``SNAPSHOT_STEPS`` back), and ends in the same bits.

    Raises:
        UserError: ``out`` holds a training with other settings.
    """
    torch.set_num_threads(settings.threads)
    out.mkdir(parents=True, exist_ok=True)
    _require_same(out / "settings.json", {**asdict(settings), "moments": len(training), "begin": begin})
    unseen = held_out.spread(settings.held_out)
    started = time.monotonic()

    def snapshot(networks: Networks3D) -> None:
        networks.save(out / SNAPSHOT)
        print(json.dumps(side_figures(networks, unseen)), flush=True)

    networks = fresh_networks(settings) if autoencoder is None else Networks3D.read(autoencoder)
    for number in range(begin, len(settings.cycles)):
        finished = out / f"cycle_{number}.safetensors"
        if not finished.is_file():
            trained = train_cycle(networks, training, settings, number, snapshot, out / "progress.pt")
            trained.save(finished)
        networks = Networks3D.read(finished)
    cameras = torch.from_numpy(training.cameras[:, 0])
    w = networks.encode(training.images[:, 0])
    train_mapping(networks.generator.backbone.mapping, w, settings, cameras)
    found = semantic_directions(w.numpy(), training)
    networks.directions = {name: torch.from_numpy(direction) for name, direction in found.items()}
    networks.save(out / "embedded_3d.safetensors")
    write_grid(networks, unseen, out / "model_card_3d_grid.png")
    card = {
        "settings": asdict(settings),
        "sizes": networks.generator.settings.to_dict(),
        "training_moments": len(training),
        "training_people": len(np.unique(training.people)),
        "seconds": round(time.monotonic() - started),
        "parameters": {
            "generator": sum(value.numel() for value in networks.generator.parameters()),
            "encoder": sum(value.numel() for value in networks.encoder.parameters()),
        },
        "held_out": evaluate(networks, unseen),
        "training": side_figures(networks, training.spread(settings.held_out)),
    }
    (out / "model_card_3d.json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))
