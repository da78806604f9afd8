"""Pretrain the embedded generator: StyleGAN2 and W encoder as an autoencoder, then the mapping network.

    python -m clstudy.generators.pretraining faces --out build/pretrain
    python -m clstudy.generators.pretraining train --faces build/pretrain/faces.npy --out build/pretrain

writes ``embedded_generator.safetensors`` (float16), ``model_card.json`` and ``model_card_grid.png``. Regressing
on paired (z, face) gives the mean face; encoder and synthesis trained together learn faces and give the W encoder
that anchors need; from ``identity_from`` on, an identity loss (as in pSp: Richardson et al., 2008.00951) keeps what
tells people apart, which pixels and LPIPS hardly weigh. The mapping network is then fitted so that mapped w are
distributed like encoded w (sliced Wasserstein distance: Bonneel et al. 2015), which makes random samples look like
the training faces. Needs the ``dev`` extra (``onnx``).
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clstudy.errors import UserError
from clstudy.faces.embedding import IdentityEmbedder
from clstudy.faces.torch_embedder import TorchIdentityEmbedder
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings
from clstudy.generators.w_encoder import WEncoder
from clstudy.images import to_uint8, to_unit_range
from clstudy.metrics.lpips import LPIPS
from clstudy.seeding import derive_rng, derive_seed
from clstudy.settings.profiles import embedded
from clstudy.training.inversion import invert

AUTOENCODER = "autoencoder.safetensors"
"""Encoder and synthesis before the mapping network is fitted: a snapshot while training, then the result."""


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """Loss: ``mse_weight * MSE + lpips_weight * LPIPS + identity_weight * ID + w_weight * mean(w^2)``.

    w gets Gaussian noise. ID is 1 - cosine of the centred identity embeddings (see :class:`IdentityLoss`), on the
    last ``identity_faces`` of each batch and from step ``identity_from`` on, when images show faces.
    LPIPS is computed on the first ``lpips_faces`` of each batch. Its weight is small: with a large one the network
    paints the same facial texture over every face, which LPIPS rewards and identity does not. ``affine_scale`` shrinks
    the initial style weights of all layers but the first, so that training starts from a nearly linear map of w.
    """

    seed: int = 0
    steps: int = 11_000
    batch: int = 16
    learning_rate: float = 1e-2
    encoder_learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    affine_scale: float = 0.1
    mse_weight: float = 4.0
    lpips_weight: float = 0.25
    lpips_faces: int = 8
    identity_weight: float = 0.5
    identity_faces: int = 8
    identity_from: int = 3_000
    w_weight: float = 1e-3
    w_noise: float = 0.05
    ema_decay: float = 0.999
    held_out: int = 500
    mapping_steps: int = 2_000
    mapping_batch: int = 512
    threads: int = 2


@dataclass
class Networks:
    """The generator and the encoder that are trained together."""

    generator: StyleGAN2
    encoder: WEncoder

    @torch.no_grad()
    def follow(self, other: Networks, decay: float) -> None:
        """Move these weights towards ``other`` (exponential moving average)."""
        for mine, theirs in ((self.generator, other.generator), (self.encoder, other.encoder)):
            for average, current in zip(mine.parameters(), theirs.parameters(), strict=True):
                average.lerp_(current, 1 - decay)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images ``[n, 3, 64, 64]`` -> reconstructions of the same shape."""
        reconstructions: Tensor = self.generator.synthesis(self.encoder(images))
        return reconstructions


class IdentityLoss:
    """1 - cosine of identity embeddings centred on the mean embedding of ``photos [n, 3, s, s]``.

    Without centring, the embedding that all faces share makes up part of every cosine, and a network lowers the loss
    fastest by painting that common face more clearly.
    """

    def __init__(self, photos: Tensor):
        self._embedder = TorchIdentityEmbedder()
        with torch.no_grad():
            self._mean = torch.cat([self._embedder(part) for part in torch.split(photos, 50)]).mean(dim=0)

    def _centred(self, images: Tensor) -> Tensor:
        return F.normalize(self._embedder(images) - self._mean, dim=1)

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return losses ``[n]`` in [0, 2]; gradients flow into ``images`` only."""
        with torch.no_grad():
            wanted = self._centred(targets)
        return 1 - (self._centred(images) * wanted).sum(dim=1)


def warm_cosine(step: int, steps: int) -> float:
    """Learning rate factor: linear warm-up over 100 steps, cosine annealing to 1%."""
    return min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


@torch.no_grad()
def calm_styles(generator: StyleGAN2, scale: float) -> None:
    """Shrink the initial style weights of every layer but the first."""
    for name, parameter in generator.synthesis.named_parameters():
        if name.endswith("affine.weight") and not name.startswith("b4.conv1."):
            parameter.mul_(scale)


def train_autoencoder(faces: np.ndarray, settings: PretrainSettings, snapshot: Callable[[Networks], None]) -> Networks:
    """Train on uint8 faces ``[n, 64, 64, 3]`` (mirrored at random) and return the averaged networks.

    ``snapshot`` is called with the averaged networks after every 1,000 steps.
    """
    torch.manual_seed(derive_seed("pretraining weights", settings.seed))
    live = Networks(StyleGAN2(StyleGAN2Settings()), WEncoder())
    average = copy.deepcopy(live)
    lpips = LPIPS()
    identity = IdentityLoss(to_unit_range(faces[:1000]))
    calm_styles(live.generator, settings.affine_scale)
    groups = [
        {"params": list(live.generator.synthesis.parameters()), "lr": settings.learning_rate},
        {"params": list(live.encoder.parameters()), "lr": settings.encoder_learning_rate},
    ]
    optimizer = torch.optim.Adam(groups, betas=settings.betas)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, settings.steps))
    rng = derive_rng("pretraining batches", settings.seed)
    started = time.monotonic()
    for step in range(settings.steps):
        photos = faces[rng.integers(0, len(faces), settings.batch)]
        mirrored = rng.random(settings.batch) < 0.5
        photos = np.where(mirrored[:, None, None, None], photos[:, :, ::-1], photos)
        target = to_unit_range(photos)
        w = live.encoder(target)
        noise = torch.from_numpy(rng.standard_normal(w.shape).astype(np.float32))
        image = live.generator.synthesis(w + settings.w_noise * noise, noise=False)
        mse = (image - target).square().mean()
        perceptual = lpips(image[: settings.lpips_faces], target[: settings.lpips_faces]).mean()
        loss = settings.mse_weight * mse + settings.lpips_weight * perceptual + settings.w_weight * w.square().mean()
        if step >= settings.identity_from:
            compared = slice(-settings.identity_faces, None)
            loss = loss + settings.identity_weight * identity(image[compared], target[compared]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        average.follow(live, min(settings.ema_decay, (1 + step) / (10 + step)))
        if step % 100 == 0:
            seconds = time.monotonic() - started
            print(
                f"step {step} loss {loss.item():.4f} mse {mse.item():.4f} lpips {perceptual.item():.4f} "
                f"w std {w.std().item():.3f} {seconds:.0f} s",
                flush=True,
            )
        if step % 1000 == 999:
            snapshot(average)
    return average


def load(path: Path) -> Networks:
    """Read what ``save`` wrote."""
    networks = Networks(StyleGAN2(StyleGAN2Settings()), WEncoder())
    state = {name: value.float() for name, value in load_file(path).items()}
    for prefix, module in (("generator.", networks.generator), ("encoder.", networks.encoder)):
        module.load_state_dict({name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)})
    return networks


def save(networks: Networks, path: Path) -> None:
    """Write generator and encoder as float16 safetensors (prefixes ``generator.`` and ``encoder.``)."""
    state = {f"generator.{name}": value for name, value in networks.generator.state_dict().items()}
    state |= {f"encoder.{name}": value for name, value in networks.encoder.state_dict().items()}
    metadata = {name: str(value) for name, value in networks.generator.settings.to_dict().items()}
    save_file({name: value.detach().half().contiguous() for name, value in state.items()}, path, metadata=metadata)


@torch.no_grad()
def encode_all(networks: Networks, faces: np.ndarray) -> Tensor:
    """w ``[n, w_dim]`` of all faces."""
    return torch.cat([networks.encoder(to_unit_range(faces[i : i + 100])) for i in range(0, len(faces), 100)])


def train_mapping(networks: Networks, w: Tensor, settings: PretrainSettings) -> None:
    """Fit the mapping network so that mapped z are distributed like ``w [n, w_dim]``; sets ``w_avg``.

    The sliced distance is taken along the principal axes of w as well as along random directions: those mix all axes,
    so that the few wide ones, which decide what a face looks like, hardly show, and all samples come out alike.
    """
    mapping = networks.generator.mapping
    z_dim, w_dim = networks.generator.settings.z_dim, networks.generator.settings.w_dim
    generator = torch.Generator().manual_seed(derive_seed("mapping", settings.seed))
    axes = torch.linalg.eigh(torch.cov(w.t())).eigenvectors
    # weights are stored 100 times larger than they act (lr_multiplier 0.01), hence the high learning rate
    optimizer = torch.optim.Adam(mapping.parameters(), lr=0.3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.mapping_steps)
    size = settings.mapping_batch
    for step in range(settings.mapping_steps):
        ours = mapping(torch.randn(size, z_dim, generator=generator))[:, 0]
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


def evaluate(networks: Networks, held_out: np.ndarray) -> dict[str, dict[str, float]]:
    """Held-out reconstruction figures: of the encoder alone, and after the embedded profile's inversion."""
    lpips, target = LPIPS(), to_unit_range(held_out)
    module = networks.generator.synthesis.requires_grad_(False)
    with torch.no_grad():
        start = torch.cat([networks.encoder(part) for part in torch.split(target, 50)])
        features = lpips.features(target)
    found = invert(module, target, features, start, settings=embedded().inversion, lpips=lpips)
    return {
        "encoder": reconstruction_figures(module, start, target, lpips),
        "inversion": reconstruction_figures(module, found, target, lpips),
    }


@torch.no_grad()
def encoder_figures(networks: Networks, held_out: np.ndarray) -> dict[str, float]:
    """Figures of the encoder's reconstructions of uint8 photos ``[n, 64, 64, 3]``."""
    target = to_unit_range(held_out)
    w = encode_all(networks, held_out)
    return reconstruction_figures(networks.generator.synthesis, w, target, LPIPS())


@torch.no_grad()
def reconstruction_figures(module: nn.Module, w: Tensor, target: Tensor, lpips: LPIPS) -> dict[str, float]:
    """LPIPS, MSE, PSNR and identity cosines of the images of ``w`` against ``target [n, 3, s, s]``.

    ``own_above_other``: the share of (reconstruction, other photo) pairs in which the reconstruction's identity
    cosine to its own photo is above that to the photo of another person.
    """
    embedder = IdentityEmbedder()
    image = torch.cat([module(part) for part in torch.split(w, 50)]).clamp(-1, 1)
    mse = (image - target).square().mean(dim=(1, 2, 3))
    variance = float((target - target.mean(dim=0)).square().mean())
    cosine = embedder(image) @ embedder(target).t()
    own = cosine.diagonal()
    others = cosine[~torch.eye(len(cosine), dtype=torch.bool)].view(len(cosine), -1)
    distances = [lpips(a, b) for a, b in zip(torch.split(image, 50), torch.split(target, 50), strict=True)]
    return {
        "faces": len(target),
        "lpips_alex": float(torch.cat(distances).mean()),
        "mse": float(mse.mean()),
        "pixel_variance": variance,
        "mse_share_of_variance": float(mse.mean()) / variance,
        "psnr_db": float((10 * torch.log10(4 / mse)).mean()),
        "identity_cosine_own": float(own.mean()),
        "identity_cosine_others": float(others.mean()),
        "own_above_other": float((own[:, None] > others).float().mean()),
    }


@torch.no_grad()
def write_grid(networks: Networks, held_out: np.ndarray, path: Path, seed: int) -> None:
    """Rows: photos, reconstructions, twice; then samples at truncation 0.7 and 1.0."""
    photos = held_out[:24]
    rebuilt = to_uint8(networks.reconstruct(to_unit_range(photos)))
    z = torch.randn(24, networks.generator.settings.z_dim, generator=torch.Generator().manual_seed(seed))
    rows = [photos[:12], rebuilt[:12], photos[12:], rebuilt[12:]]
    for psi in (0.7, 1.0):
        samples = to_uint8(networks.generator(z, truncation_psi=psi))
        rows += [samples[:12], samples[12:]]
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    Image.fromarray(grid).save(path, optimize=True)


def read_faces(path: Path) -> np.ndarray:
    """The faces that ``pretraining faces`` wrote: uint8 (n, height, width, 3).

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    expected = "expected the faces.npy that `python -m clstudy.generators.pretraining faces` writes"
    try:
        faces = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}); {expected}") from error
    if not isinstance(faces, np.ndarray) or faces.dtype != np.uint8 or faces.ndim != 4:
        raise UserError(f"{path} does not hold faces as uint8 (n, height, width, 3); {expected}")
    return faces


def pretrain(faces: np.ndarray, out: Path, settings: PretrainSettings, autoencoder: Path | None = None) -> None:
    """Train (from an earlier run's ``autoencoder``, where given) and write networks, figures and grid to ``out``."""
    torch.set_num_threads(settings.threads)
    out.mkdir(parents=True, exist_ok=True)
    held_out, training = faces[: settings.held_out], faces[settings.held_out :]
    started = time.monotonic()

    def snapshot(networks: Networks) -> None:
        save(networks, out / AUTOENCODER)
        print(json.dumps(encoder_figures(networks, held_out[:200])), flush=True)

    if autoencoder is None:
        save(train_autoencoder(training, settings, snapshot), out / AUTOENCODER)
    # read back as float16, so that the mapping is the same in a single run and from --autoencoder
    networks = load(autoencoder or out / AUTOENCODER)
    train_mapping(networks, encode_all(networks, training), settings)
    save(networks, out / "embedded_generator.safetensors")
    write_grid(networks, held_out, out / "model_card_grid.png", settings.seed)
    card = {
        "settings": asdict(settings),
        "training_faces": len(training),
        "seconds": round(time.monotonic() - started),
        "parameters": {
            "synthesis": sum(p.numel() for p in networks.generator.synthesis.parameters()),
            "mapping": sum(p.numel() for p in networks.generator.mapping.parameters()),
            "encoder": sum(p.numel() for p in networks.encoder.parameters()),
        },
        "held_out": evaluate(networks, held_out),
    }
    (out / "model_card.json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))
