"""Would fewer steps, another rate or another optimiser find the same latents? On people that no study reports.

    python -m benchmarks.inversion [--people 3] [--folder runs] [--quasi-newton]

personalises the packaged generator for people of the profile ``tuning``, timestamp after timestamp, without memory and
with one stored photo of each of three timestamps, and inverts all test photos so far under the models of the middle and
of the last timestamp: with the packaged schedule, with shorter and longer ones, and with L-BFGS. For every way it
prints the mean loss, the final LPIPS and the Forgetting between the two models, and how far each is from the packaged
schedule's; to be set against a tenth of a study's interval half-widths. About six minutes.

L-BFGS begins with the inverse Gauss-Newton matrix of LPIPS + MSE by w, averaged over latents of the pretrained
generator, and the prior's.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.identities.catalogue import open_data_set
from clstudy.identities.dataset import Photo
from clstudy.images import to_unit_range
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.kernels import KERNELS
from clstudy.settings.profiles import ComputeSettings, InversionSettings, Profile, tuning
from clstudy.training.inversion import invert
from clstudy.training.numerics import loss_lpips
from clstudy.training.personalise import TrainingPhotos, personalise

RATE, STORED, DRAWS = 0.003, 3, 4
WITHOUT, WITH = "no memory", "memory"

Way = Callable[[nn.Module, TrainingPhotos], Tensor]
"""Latents found for photos, which hold their starting points."""


@dataclass(frozen=True)
class Setup:
    """Generator, its loss and the settings they come from."""

    profile: Profile
    generator: EmbeddedGenerator
    lpips: LPIPS

    def photos(self, files: tuple[Photo, ...]) -> TrainingPhotos:
        size = self.profile.data.image_size
        images = to_unit_range(np.stack([photo.read(size) for photo in files]))
        return TrainingPhotos.prepare(self.generator.anchors(images), images, self.lpips)

    def losses(self, module: nn.Module, photos: TrainingPhotos, w: Tensor) -> tuple[Tensor, Tensor]:
        """What inversion minimises, and LPIPS, of each photo."""
        settings = self.profile.inversion
        images = module(w)
        lpips = self.lpips.distance(self.lpips.features(images), photos.features)
        error = settings.mse_weight * (images - photos.images).square().mean(dim=(1, 2, 3))
        return lpips + error + settings.prior_weight * (w - photos.latents).square().mean(dim=1), lpips

    def adam(self, steps: int, rate: float) -> Way:
        how = replace(self.profile.inversion, steps=steps, learning_rate=rate)
        return lambda module, photos: invert(
            module, photos.images, photos.features, photos.latents, settings=how, lpips=self.lpips
        )

    def quasi_newton(self, evaluations: int, inverse: Tensor) -> Way:
        return lambda module, photos: lbfgs(
            lambda w: self.losses(module, photos, w)[0], photos.latents, inverse, evaluations
        )


@dataclass(frozen=True)
class Person:
    """Test photos by timestamp, and models by memory and timestamp."""

    tests: list[TrainingPhotos]
    models: Mapping[tuple[str, int], Mapping[str, Tensor]]


def people(setup: Setup, count: int, folder: Path) -> list[Person]:
    """People with models of their middle and last timestamp."""
    data = setup.profile.data
    found = open_data_set(
        data.name,
        identities=count,
        names=None,
        timestamps=data.timestamps,
        train=data.train,
        test=data.test,
        data_seed=data.data_seed,
        cache=folder / "data",
        image_size=data.image_size,
    )
    made = []
    for identity in found.identities:
        training = [setup.photos(one.train) for one in identity.timestamps]
        models = {
            (memory, t): state
            for memory in (WITHOUT, WITH)
            for t, state in enumerate(personalised(setup, training, memory))
            if t in (len(training) // 2, len(training) - 1)
        }
        made.append(Person([setup.photos(one.test) for one in identity.timestamps], models))
    return made


def personalised(setup: Setup, training: list[TrainingPhotos], memory: str) -> list[dict[str, Tensor]]:
    """Weights after every timestamp."""
    module, states = setup.generator.fresh(), []
    for t, new in enumerate(training):
        stored = [old.rows(torch.tensor([0])) for old in training[:t][:STORED]] if memory == WITH else []
        personalise(
            module,
            new,
            TrainingPhotos.joined(stored),
            settings=setup.profile.trainer,
            learning_rate=RATE,
            lpips=setup.lpips,
            new_rng=np.random.default_rng(t),
            replay_rng=np.random.default_rng(100 + t),
            fused_adam=KERNELS[setup.profile.compute.kernels].fused,
        )
        states.append(setup.generator.tunable_state(module))
    return states


def scores(setup: Setup, everyone: list[Person], way: Way) -> dict[str, float]:
    """Means over people: loss, and of both memories the final LPIPS and what was forgotten since the middle."""
    losses, found = [], {}
    for who, person in enumerate(everyone):
        for (memory, t), state in person.models.items():
            module = setup.generator.fresh(state).requires_grad_(False)
            photos = TrainingPhotos.joined(person.tests[: t + 1])
            assert photos is not None
            w = torch.cat([way(module, photos.rows(rows)) for rows in torch.arange(len(photos)).split(24)])
            with torch.no_grad():
                loss, lpips = setup.losses(module, photos, w)
            losses.append(float(loss.mean()))
            sizes = [len(test) for test in person.tests[: t + 1]]
            found[memory, t, who] = np.array([float(part.mean()) for part in lpips.split(sizes)])
    middle, last = sorted({t for _, t, _ in found})
    said = {"loss": float(np.mean(losses))}
    for memory in (WITHOUT, WITH):
        pairs = [(found[memory, middle, who], found[memory, last, who]) for who in range(len(everyone))]
        said[f"final, {memory}"] = float(np.mean([end.mean() for _, end in pairs]))
        said[f"forgotten, {memory}"] = float(np.mean([(end[: middle + 1] - then).mean() for then, end in pairs]))
    return said


def lbfgs(loss: Callable[[Tensor], Tensor], start: Tensor, inverse: Tensor, evaluations: int) -> Tensor:
    """Minimise the losses ``[n]`` of photos that do not influence each other, each with a history of its own.

    A step that makes a photo's loss larger is taken back and tried again at 0.4 of its length.
    """
    best = torch.full((len(start),), math.inf)
    at, slope, length = start.clone(), torch.zeros_like(start), torch.ones(len(start), 1)
    w, history = start, []
    for _ in range(evaluations):
        tried = w.detach().requires_grad_(True)
        value = loss(tried)
        (gradient,) = torch.autograd.grad(value.sum(), tried)
        better = value.detach() < best
        if best.isfinite().any():
            history.append((tried.detach() - at, gradient - slope))
        best = torch.where(better, value.detach(), best)
        at = torch.where(better[:, None], tried.detach(), at)
        slope = torch.where(better[:, None], gradient, slope)
        length = torch.where(better[:, None], torch.ones_like(length), 0.4 * length)
        w = at - length * _direction(slope, history, inverse)
    return at


def _direction(slope: Tensor, history: list[tuple[Tensor, Tensor]], inverse: Tensor) -> Tensor:
    """The two-loop recursion (Nocedal and Wright, Numerical Optimization, algorithm 7.4), for every row."""
    q, kept = slope, []
    for step, change in reversed(history):
        curvature = (step * change).sum(1, keepdim=True)
        usable = curvature > 1e-10 * (step.norm(dim=1) * change.norm(dim=1))[:, None]
        rho = torch.where(usable, 1 / curvature.clamp(min=1e-30), torch.zeros_like(curvature))
        alpha = rho * (step * q).sum(1, keepdim=True)
        q = q - alpha * change
        kept.append((alpha, rho))
    q = q @ inverse
    for (step, change), (alpha, rho) in zip(history, reversed(kept), strict=True):
        q = q + (alpha - rho * (change * q).sum(1, keepdim=True)) * step
    return q


def gauss_newton(settings: InversionSettings) -> Tensor:
    """Twice the mean of JᵀJ over latents of the pretrained generator, with the prior's: ``[w_dim, w_dim]``.

    J is of the residuals whose squares sum to LPIPS + MSE. Plain kernels: fused ones have no forward derivatives.
    """
    generator, lpips = EmbeddedGenerator(compute=ComputeSettings(kernels="plain")), LPIPS()
    module = generator.fresh().requires_grad_(False)
    size = generator.latent_shape[0]

    def residuals(w: Tensor) -> Tensor:
        image = module(w[None])
        parts = [math.sqrt(settings.mse_weight / image.numel()) * image.flatten()]
        for index, level in enumerate(lpips.features(image)):
            share = getattr(lpips, f"head{index}") / (level.shape[2] * level.shape[3])
            parts.append((level * share.sqrt()[:, None, None]).flatten())
        return torch.cat(parts)

    with torch.no_grad():
        z = torch.randn(DRAWS, generator.settings.z_dim, generator=torch.Generator().manual_seed(0))
        total = settings.prior_weight * 2 / size * torch.eye(size)
        for w in generator.network.mapping(z)[:, 0]:
            push = vmap(lambda direction, w=w: jvp(residuals, (w,), (direction,))[1])
            jacobian = torch.cat([push(directions) for directions in torch.eye(size).split(32)])
            total += 2 * jacobian @ jacobian.t() / DRAWS
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inversion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="its data/ takes the photos")
    parser.add_argument("--quasi-newton", action="store_true", help="L-BFGS, too (a minute for its matrix)")
    args = parser.parse_args()
    profile = tuning()
    setup = Setup(profile, EmbeddedGenerator(compute=profile.compute), loss_lpips(profile.compute, torch.device("cpu")))
    packaged = profile.inversion
    name = f"Adam {packaged.steps} steps, rate {packaged.learning_rate:g} (packaged)"
    ways = {name: setup.adam(packaged.steps, packaged.learning_rate)}
    for steps, rate in ((8, 0.1), (10, 0.1), (12, 0.1), (15, 0.1), (10, 0.15), (15, 0.15), (40, 0.1), (100, 0.1)):
        ways[f"Adam {steps} steps, rate {rate:g}"] = setup.adam(steps, rate)
    if args.quasi_newton:
        matrix = gauss_newton(packaged)
        spectrum = torch.linalg.eigvalsh(matrix.double())
        print(f"eigenvalues of the Gauss-Newton matrix with prior: {spectrum[0]:.4f} to {spectrum[-1]:.4f}")
        inverse = torch.linalg.inv(matrix)
        for evaluations in (6, 8, 10, 20, 40):
            ways[f"L-BFGS {evaluations} evaluations"] = setup.quasi_newton(evaluations, inverse)
    everyone = people(setup, args.people, args.folder)
    reference: dict[str, float] = {}
    for name, way in ways.items():
        found = scores(setup, everyone, way)
        reference = reference or found
        said = ", ".join(f"{key} {value:.5f} ({value - reference[key]:+.5f})" for key, value in found.items())
        print(f"{name:<36} {said}", flush=True)


if __name__ == "__main__":
    main()
