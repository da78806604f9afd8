"""Pretrain the embedded generator: StyleGAN2 and W encoder as an autoencoder, then the mapping network.

    python -m clstudy.generators.pretraining faces --out build/pretrain
    python -m clstudy.generators.pretraining train --faces build/pretrain/faces.npz --out build/pretrain

writes ``embedded_generator.safetensors`` (float16), ``model_card.json`` and ``model_card_grid.png``. Regressing
on paired (z, face) gives the mean face; encoder and synthesis trained together learn faces and give the W encoder
that anchors need. Eyes and mouth weigh more than other pixels and are compared from near as well; from
``identity_from`` on, an identity loss (as in pSp: Richardson et al., 2008.00951) keeps what tells people apart, which
pixels and LPIPS hardly weigh. The mapping network is then fitted so that mapped w are distributed like encoded w
(sliced Wasserstein distance: Bonneel et al. 2015), which makes random samples look like the training faces.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.generators.eg3d import EG3D
from clstudy.generators.pretraining.figures import encoder_figures, evaluate, write_grid
from clstudy.generators.pretraining.losses import IdentityLoss, attention, eyes, mirrored, mouth, recoloured
from clstudy.generators.pretraining.networks import Networks
from clstudy.generators.pretraining.training_faces import Faces
from clstudy.generators.stylegan2 import MappingNetwork, StyleGAN2, StyleGAN2Settings
from clstudy.images import to_unit_range
from clstudy.metrics.lpips import LPIPS
from clstudy.seeding import derive_rng, derive_seed

AUTOENCODER = "autoencoder.safetensors"
"""Encoder and synthesis before the mapping network is fitted: a snapshot while training, then the result."""


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """One annealing of the learning rates, with a fresh optimiser (warm restarts: Loshchilov and Hutter, 1608.03983).

    It begins with the averaged weights of the cycle before. ``identity_faces`` of each batch are compared for identity,
    from step ``identity_from`` on, when images show faces.
    """

    steps: int
    learning_rate: float
    encoder_learning_rate: float
    identity_faces: int
    identity_from: int = 0


FIRST = Cycle(steps=11_000, learning_rate=1e-2, encoder_learning_rate=1e-3, identity_faces=4, identity_from=2_000)
SECOND = Cycle(steps=6_000, learning_rate=4e-3, encoder_learning_rate=5e-4, identity_faces=8)


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """The loss is ``mse_weight * MSE + lpips_weight * LPIPS + parts_weight * P + identity_weight * ID
    + w_weight * mean(w^2)``.

    w gets Gaussian noise. MSE weighs eyes and mouth up to ``1 + attention`` times as much as the rest. P is the LPIPS
    of eyes and of the mouth, enlarged, of the first ``parts_faces`` of each batch. ID is 1 - cosine of the centred
    identity embeddings (see :class:`IdentityLoss`) of the last few of each batch. ``affine_scale`` shrinks the initial
    style weights of all layers but the first, so that training starts from a nearly linear map of w. Photos are
    mirrored half of the time and recoloured (``losses.recoloured``), so that the encoder also knows light and cameras
    that no training photo has.
    """

    seed: int = 0
    cycles: tuple[Cycle, ...] = (FIRST, SECOND)
    batch: int = 16
    betas: tuple[float, float] = (0.9, 0.99)
    affine_scale: float = 0.1
    mse_weight: float = 4.0
    attention: float = 3.0
    lpips_weight: float = 0.6
    parts_weight: float = 0.15
    parts_faces: int = 6
    identity_weight: float = 0.5
    w_weight: float = 1e-3
    w_noise: float = 0.05
    grey_share: float = 0.06
    recolouring: float = 0.12
    ema_decay: float = 0.999
    held_out: int = 500
    mapping_steps: int = 2_000
    mapping_batch: int = 512
    threads: int = 2


@dataclass(frozen=True)
class Losses:
    """The parts of the loss of one step; ``total`` is their weighted sum."""

    total: Tensor
    mse: float
    lpips: float
    parts: float
    identity: float

    def words(self) -> str:
        """The parts as they are printed."""
        return f"mse {self.mse:.4f} lpips {self.lpips:.4f} parts {self.parts:.4f} identity {self.identity:.3f}"


class Objective:
    """What an image is worth as a reconstruction."""

    def __init__(self, settings: PretrainSettings, faces: Faces):
        self._settings, self._lpips = settings, LPIPS()
        self._identity = IdentityLoss(to_unit_range(faces.images[:1000]))

    def __call__(self, image: Tensor, target: Tensor, points: Tensor, w: Tensor, identity_faces: int) -> Losses:
        """Losses of images ``[n, 3, s, s]`` of w ``[n, w_dim]`` against targets with their points ``[n, 5, 2]``.

        The last ``identity_faces`` of them are compared for identity.
        """
        settings = self._settings
        weights = attention(points, target.shape[3], settings.attention)
        mse = ((image - target).square() * weights).mean()
        lpips = self._lpips(image, target).mean()
        few = slice(settings.parts_faces)
        pictures = (image[few], target[few])
        ours, theirs = (torch.cat([part(each, points[few]) for part in (eyes, mouth)]) for each in pictures)
        parts = self._lpips(ours, theirs).mean()
        total = settings.mse_weight * mse + settings.lpips_weight * lpips + settings.parts_weight * parts
        total = total + settings.w_weight * w.square().mean()
        identity = 0.0
        if identity_faces:
            last = slice(-identity_faces, None)
            who = self._identity(image[last], target[last]).mean()
            total, identity = total + settings.identity_weight * who, float(who.detach())
        return Losses(total, float(mse.detach()), float(lpips.detach()), float(parts.detach()), identity)


def warm_cosine(step: int, steps: int) -> float:
    """Learning rate factor: linear warm-up over 100 steps, cosine annealing to 1%."""
    return min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


@torch.no_grad()
def calm_styles(generator: StyleGAN2, scale: float) -> None:
    """Shrink the initial style weights of every layer but the first."""
    for name, parameter in generator.synthesis.named_parameters():
        if name.endswith("affine.weight") and not name.startswith("b4.conv1."):
            parameter.mul_(scale)


def drawn_batch(faces: Faces, settings: PretrainSettings, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Photos ``[batch, 3, s, s]``, mirrored and recoloured at random, and their points ``[batch, 5, 2]``."""
    chosen = rng.integers(0, len(faces), settings.batch)
    images, points = to_unit_range(faces.images[chosen]), torch.from_numpy(faces.points[chosen])
    images, points = mirrored(images, points, torch.from_numpy(rng.random(settings.batch) < 0.5))
    uniform = torch.from_numpy(rng.random((settings.batch, 5)).astype(np.float32))
    return recoloured(images, uniform, settings.grey_share, settings.recolouring), points


def fresh_networks(settings: PretrainSettings) -> Networks:
    """What training begins with."""
    torch.manual_seed(derive_seed("pretraining weights", settings.seed))
    networks = Networks.fresh(StyleGAN2Settings())
    calm_styles(networks.generator, settings.affine_scale)
    return networks


def train_cycle(
    live: Networks, faces: Faces, settings: PretrainSettings, number: int, snapshot: Callable[[Networks], None]
) -> Networks:
    """Train networks in place for one cycle, and return their average.

    Args:
        live: where to begin.
        faces: to train on.
        settings: of all cycles.
        number: which cycle, from 0; each has its own random numbers.
        snapshot: called with the averaged networks after every 1,000 steps.
    """
    cycle = settings.cycles[number]
    objective = Objective(settings, faces)
    rng = derive_rng("pretraining batches", settings.seed, *([number] if number else []))

    def losses_at(step: int) -> tuple[Tensor, Callable[[], str]]:
        target, points = drawn_batch(faces, settings, rng)
        w = live.encoder(target)
        noise = torch.from_numpy(rng.standard_normal(w.shape).astype(np.float32))
        image = live.generator.synthesis(w + settings.w_noise * noise, noise=False)
        losses = objective(image, target, points, w, cycle.identity_faces if step >= cycle.identity_from else 0)
        return losses.total, lambda: f"{losses.words()} w std {w.std().item():.3f}"

    return anneal(live, settings, number, losses_at, snapshot, every=1000)


class Trained(Protocol):
    """A generator and its encoder, as ``anneal`` trains them."""

    @property
    def generator(self) -> StyleGAN2 | EG3D:
        """Whose ``tuned_parts`` are trained."""

    @property
    def encoder(self) -> nn.Module:
        """Photos to w."""

    def follow(self, other: Self, decay: float) -> None:
        """Move these weights towards others."""


T = TypeVar("T", bound=Trained)


def anneal(
    live: T,
    settings: PretrainSettings,
    number: int,
    losses_at: Callable[[int], tuple[Tensor, Callable[[], str]]],
    snapshot: Callable[[T], None],
    *,
    every: int,
    progress: Path | None = None,
) -> T:
    """Train networks in place for one cycle, all but the mapping network, and return their average.

    Args:
        live: where to begin.
        settings: of all cycles.
        number: which cycle, from 0.
        losses_at: step -> what is to be lowered, and what to print of it.
        snapshot: called with the averaged networks.
        every: steps between two snapshots.
        progress: file with everything that the next step depends on, written with every snapshot; if it is there, the
            cycle goes on from it and ends in the same bits. Needs a ``losses_at`` that depends on the step alone.
    """
    cycle, average = settings.cycles[number], copy.deepcopy(live)
    tuned = [value for part in live.generator.tuned_parts() for value in part.parameters()]
    groups = [
        {"params": tuned, "lr": cycle.learning_rate},
        {"params": list(live.encoder.parameters()), "lr": cycle.encoder_learning_rate},
    ]
    optimizer = torch.optim.Adam(groups, betas=settings.betas)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, cycle.steps))
    started = time.monotonic()
    parts: dict[str, Any] = {"optimizer": optimizer, "schedule": schedule}
    parts |= {"live generator": live.generator, "live encoder": live.encoder}
    parts |= {"average generator": average.generator, "average encoder": average.encoder}
    first = 0 if progress is None else _resumed(progress, number, parts)
    for step in range(first, cycle.steps):
        total, words = losses_at(step)
        optimizer.zero_grad()
        torch.autograd.backward(total)
        optimizer.step()
        schedule.step()
        average.follow(live, min(settings.ema_decay, (1 + step) / (10 + step)))
        if step % 100 == 0:
            said = f"cycle {number} step {step} loss {total.item():.4f} {words()}"
            print(f"{said} {time.monotonic() - started:.0f} s", flush=True)
        if step % every == every - 1:
            if progress is not None:
                _keep_progress(progress, number, step + 1, parts)
            snapshot(average)
    return average


def _keep_progress(path: Path, cycle: int, step: int, parts: Mapping[str, Any]) -> None:
    beside = path.with_suffix(".part")
    torch.save({"cycle": cycle, "step": step, **{name: part.state_dict() for name, part in parts.items()}}, beside)
    beside.replace(path)


def _resumed(path: Path, cycle: int, parts: Mapping[str, Any]) -> int:
    """Put the parts where they were; the next step. 0, and nothing changed, if there is no file of this cycle."""
    if not path.is_file():
        return 0
    kept = torch.load(path, weights_only=True)
    if kept["cycle"] != cycle:
        return 0
    for name, part in parts.items():
        part.load_state_dict(kept[name])
    print(f"cycle {cycle} goes on at step {kept['step']}", flush=True)
    return int(kept["step"])


def train_mapping(
    mapping: MappingNetwork, w: Tensor, settings: PretrainSettings, conditions: Tensor | None = None
) -> None:
    """Fit the mapping network so that mapped z are distributed like ``w [n, w_dim]``; sets ``w_avg``.

    Conditions ``[m, c_dim]``, where the network takes one, are drawn from those given.

    The sliced distance is taken along the principal axes of w as well as along random directions: those mix all axes,
    so that the few wide ones, which decide what a face looks like, hardly show, and all samples come out alike.
    """
    z_dim, w_dim = mapping.settings.z_dim, mapping.settings.w_dim
    generator = torch.Generator().manual_seed(derive_seed("mapping", settings.seed))
    axes = torch.linalg.eigh(torch.cov(w.t())).eigenvectors
    # weights are stored 100 times larger than they act (lr_multiplier 0.01), hence the high learning rate
    optimizer = torch.optim.Adam(mapping.parameters(), lr=0.3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.mapping_steps)
    size = settings.mapping_batch
    for step in range(settings.mapping_steps):
        z = torch.randn(size, z_dim, generator=generator)
        given = (
            None if conditions is None else conditions[torch.randint(0, len(conditions), (size,), generator=generator)]
        )
        ours = mapping(z, given)[:, 0]
        theirs = w[torch.randint(0, len(w), (size,), generator=generator)]
        directions = torch.randn(w_dim, 128, generator=generator)
        directions = directions / directions.norm(dim=0)
        along = torch.cat([directions, axes], dim=1)
        distance = ((ours @ along).sort(dim=0).values - (theirs @ along).sort(dim=0).values).square().mean()
        optimizer.zero_grad()
        distance.backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            print(f"mapping step {step} sliced distance {distance.item():.5f}", flush=True)
    mapping.w_avg.copy_(w.mean(dim=0))


def pretrain(
    training: Faces,
    held_out: Mapping[str, Faces],
    out: Path,
    settings: PretrainSettings,
    *,
    begin: int = 0,
    autoencoder: Path | None = None,
) -> None:
    """Train and write networks, figures and grid to ``out``.

    Args:
        training: faces to train on.
        held_out: name -> faces of nobody in ``training``; figures are of the first ``settings.held_out``.
        out: a folder, made if need be.
        settings: everything else that the weights depend on.
        begin: the first cycle to train; those before are in ``autoencoder``.
        autoencoder: what an earlier run left under this name; None: from random weights.
    """
    torch.set_num_threads(settings.threads)
    out.mkdir(parents=True, exist_ok=True)
    unseen = {name: faces[: settings.held_out] for name, faces in held_out.items()}
    started = time.monotonic()

    def snapshot(networks: Networks) -> None:
        networks.save(out / AUTOENCODER)
        print(json.dumps({name: encoder_figures(networks, faces) for name, faces in unseen.items()}), flush=True)

    networks = fresh_networks(settings) if autoencoder is None else Networks.read(autoencoder)
    for number in range(begin, len(settings.cycles)):
        train_cycle(networks, training, settings, number, snapshot).save(out / AUTOENCODER)
        # read back as float16, so that what follows is the same in a single run and from --autoencoder
        networks = Networks.read(out / AUTOENCODER)
    train_mapping(networks.generator.mapping, networks.encode(training.images), settings)
    networks.save(out / "embedded_generator.safetensors")
    shown = [faces.spread(12).images for faces in unseen.values()]
    write_grid(networks, shown, out / "model_card_grid.png", settings.seed)
    card = {
        "settings": asdict(settings),
        "sizes": networks.generator.settings.to_dict(),
        "training_faces": len(training),
        "training_people": len(np.unique(training.people)),
        "seconds": round(time.monotonic() - started),
        "parameters": {
            "synthesis": sum(p.numel() for p in networks.generator.synthesis.parameters()),
            "mapping": sum(p.numel() for p in networks.generator.mapping.parameters()),
            "encoder": sum(p.numel() for p in networks.encoder.parameters()),
        },
        "held_out": {name: evaluate(networks, faces) for name, faces in unseen.items()},
        "training": encoder_figures(networks, training.spread(settings.held_out)),
    }
    (out / "model_card.json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))
