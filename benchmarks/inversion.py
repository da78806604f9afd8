"""Would fewer steps, another start, a stopping rule or another optimiser find the same latents?

    python -m benchmarks.inversion [--people 3] [--folder runs] [--data virtual] [--ways "15 steps" …]

On people that no study reports: personalises the packaged generator for people of the profile ``tuning``, timestamp
after timestamp, with five memories (none, three random photos drawn twice, ten, everything), and inverts all test
photos so far under the model of every timestamp. For every way it prints, for each memory, final LPIPS, AIP and
Forgetting, how far they are from the packaged schedule's (to be set against a tenth of a study's interval half-widths),
Kendall's tau of the memories' order, and seconds of processor time. About half an hour.

The ways: the packaged schedule, shorter and longer ones; a stopping rule at a constant rate (``inversion.stop_below``),
also with the settings of profile ``mystyle`` at 64 px; as start the latent that was found for the photo under the
timestamp before, or the packaged encoder's correction under the current weights (w + E(photo) - E(G(w)), as in ReStyle:
Alaluf et al., 2104.02699); L-BFGS that begins with the inverse Gauss-Newton matrix of LPIPS + MSE by w, averaged over
latents of the pretrained generator, and the prior's; Adam in the eigenvectors of that matrix.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.func import jvp, vmap

from clstudy.analysis.scores import average_incremental_performance, final_performance, forgetting
from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.identities.catalogue import open_data_set
from clstudy.identities.dataset import Photo
from clstudy.images import to_unit_range
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.kernels import KERNELS
from clstudy.settings.profiles import ComputeSettings, InversionSettings, Profile, mystyle, tuning
from clstudy.training.inversion import invert
from clstudy.training.numerics import loss_lpips
from clstudy.training.personalise import TrainingPhotos, personalise

RATE, DRAWS = 0.003, 4
MEMORIES: Mapping[str, tuple[int, int]] = {"none": (0, 0), "3": (3, 1), "3'": (3, 2), "10": (10, 3), "all": (10**6, 4)}
"""Name -> stored photos and seed."""

Way = Callable[[nn.Module, TrainingPhotos, Tensor], Tensor]
"""Latents found for photos, which hold their encoder's latents, from a start."""


@dataclass(frozen=True)
class Found:
    """How a way ended: final LPIPS, AIP and Forgetting by memory, mean loss, processor seconds."""

    final: Mapping[str, float]
    aip: Mapping[str, float]
    forgotten: Mapping[str, float]
    loss: float
    seconds: float


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

    def packaged(self, **changes: object) -> Way:
        """The packaged inversion with some settings changed; its start is the encoder's latent."""
        how = replace(self.profile.inversion, **changes)  # type: ignore[arg-type]
        return lambda module, photos, start: invert(
            module, photos.images, photos.features, photos.latents, settings=how, lpips=self.lpips
        )

    def adam(self, steps: int, rate: float, axes: Tensor | None = None) -> Way:
        """Adam from any start, annealed as the packaged one; with ``axes`` in coordinates along their columns."""
        fraction = self.profile.inversion.final_lr_fraction

        def way(module: nn.Module, photos: TrainingPhotos, start: Tensor) -> Tensor:
            turned = torch.eye(start.shape[1]) if axes is None else axes
            moved = torch.zeros_like(start, requires_grad=True)
            optimizer = torch.optim.Adam([moved], lr=rate)
            for step in range(steps):
                share = fraction + (1 - fraction) * 0.5 * (1 + math.cos(math.pi * step / steps))
                optimizer.param_groups[0]["lr"] = rate * share
                optimizer.zero_grad(set_to_none=True)
                self.losses(module, photos, start + moved @ turned.t())[0].sum().backward()
                optimizer.step()
            return (start + moved @ turned.t()).detach()

        return way

    def corrected(self, times: int, then: Way) -> Way:
        """Begin where the encoder's view of the current generator's images leads."""

        def way(module: nn.Module, photos: TrainingPhotos, start: Tensor) -> Tensor:
            with torch.no_grad():
                for _ in range(times):
                    start = start + photos.latents - self.generator.anchors(module(start).clamp(-1, 1))
            return then(module, photos, start)

        return way

    def quasi_newton(self, evaluations: int, inverse: Tensor) -> Way:
        return lambda module, photos, start: lbfgs(
            lambda w: self.losses(module, photos, w)[0], start, inverse, evaluations
        )


@dataclass(frozen=True)
class Person:
    """Test photos by timestamp, and models by memory, one for each timestamp."""

    tests: list[TrainingPhotos]
    models: Mapping[str, list[dict[str, Tensor]]]

    def seen(self, t: int) -> TrainingPhotos:
        """All test photos up to a timestamp."""
        photos = TrainingPhotos.joined(self.tests[: t + 1])
        assert photos is not None
        return photos


def people(setup: Setup, count: int, folder: Path) -> list[Person]:
    """People with their models."""
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
        models = {name: personalised(setup, training, *memory) for name, memory in MEMORIES.items()}
        made.append(Person([setup.photos(one.test) for one in identity.timestamps], models))
    return made


def personalised(setup: Setup, training: list[TrainingPhotos], stored: int, seed: int) -> list[dict[str, Tensor]]:
    """Weights after every timestamp; at each, so many random photos of all earlier ones are in memory."""
    module, states, rng = setup.generator.fresh(), [], np.random.default_rng(seed)
    for t, new in enumerate(training):
        past = TrainingPhotos.joined(training[:t])
        memory = None
        if past is not None and stored:
            kept = np.sort(rng.permutation(len(past))[:stored])
            memory = past.rows(torch.from_numpy(kept))
        personalise(
            module,
            new,
            memory,
            settings=setup.profile.trainer,
            learning_rate=RATE,
            lpips=setup.lpips,
            new_rng=np.random.default_rng(t),
            replay_rng=np.random.default_rng(100 + t),
            fused_adam=KERNELS[setup.profile.compute.kernels].fused,
        )
        states.append(setup.generator.tunable_state(module))
    return states


def scores(setup: Setup, everyone: list[Person], way: Way, *, carried: bool) -> Found:
    """Means over people. ``carried``: a photo's search begins at the latent found under the timestamp before."""
    began, losses = time.process_time(), []
    found: dict[str, list[np.ndarray]] = {}
    for memory in MEMORIES:
        for person in everyone:
            matrix, loss = _matrix(setup, person, person.models[memory], way, carried=carried)
            found.setdefault(memory, []).append(matrix)
            losses.append(loss)
    stacks = {memory: np.stack(matrices) for memory, matrices in found.items()}
    return Found(
        final={memory: float(final_performance(r).mean()) for memory, r in stacks.items()},
        aip={memory: float(average_incremental_performance(r, False).mean()) for memory, r in stacks.items()},
        forgotten={memory: float(forgetting(r, False).mean()) for memory, r in stacks.items()},
        loss=float(np.mean(losses)),
        seconds=time.process_time() - began,
    )


def _matrix(
    setup: Setup, person: Person, models: list[dict[str, Tensor]], way: Way, *, carried: bool
) -> tuple[np.ndarray, float]:
    """R in LPIPS ``[T, T]`` of one person's models, and the mean loss."""
    count = len(person.tests)
    r, losses = np.full((count, count), np.nan), []
    start = torch.zeros(0, person.tests[0].latents.shape[1])
    for t in range(count):
        photos = person.seen(t)
        start = torch.cat([start, photos.latents[len(start) :]]) if carried else photos.latents
        module = setup.generator.fresh(models[t]).requires_grad_(False)
        start = torch.cat([way(module, photos.rows(rows), start[rows]) for rows in torch.arange(len(photos)).split(24)])
        with torch.no_grad():
            loss, lpips = setup.losses(module, photos, start)
        r[t, : t + 1] = [float(part.mean()) for part in lpips.split([len(one) for one in person.tests[: t + 1]])]
        losses.append(float(loss.mean()))
    return r, float(np.mean(losses))


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


def ways(setup: Setup) -> dict[str, tuple[Way, bool]]:
    """Name -> the way, and whether its starts are carried from timestamp to timestamp."""
    own = setup.profile.inversion
    listed: dict[str, tuple[Way, bool]] = {"packaged": (setup.packaged(), False)}
    for steps in (10, 15, 40, 100):
        listed[f"{steps} steps"] = (setup.packaged(steps=steps), False)
    for share in (0.01, 0.03):
        how = {"steps": 100, "learning_rate": 0.03, "final_lr_fraction": 1.0, "stop_after": 5}
        listed[f"stop below {share:g}, at most 100 steps"] = (setup.packaged(**how, stop_below=share), False)
    for steps in (5, 10, 20):
        listed[f"last timestamp's w, {steps} steps"] = (setup.adam(steps, own.learning_rate), True)
    for steps in (8, 12):
        way = setup.corrected(1, setup.adam(steps, own.learning_rate))
        listed[f"encoder's correction, {steps} steps"] = (way, False)
    matrix = gauss_newton(own)
    values, vectors = torch.linalg.eigh(matrix)
    for evaluations in (8, 10):
        listed[f"L-BFGS, {evaluations} evaluations"] = (
            setup.quasi_newton(evaluations, torch.linalg.inv(matrix)),
            False,
        )
    scaled = vectors * (values.mean() / values).sqrt()
    for steps in (10, 15):
        listed[f"Adam along its eigenvectors, {steps} steps"] = (setup.adam(steps, own.learning_rate, scaled), False)
    return listed


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inversion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--data", default="virtual", help="a packaged data set")
    parser.add_argument("--ways", nargs="*", help="only those whose names begin so, beside the packaged one")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="its data/ takes the photos")
    args = parser.parse_args()
    profile = tuning()
    profile = replace(profile, data=replace(profile.data, name=args.data))
    setup = Setup(profile, EmbeddedGenerator(compute=profile.compute), loss_lpips(profile.compute, torch.device("cpu")))
    everyone = people(setup, args.people, args.folder)
    listed = ways(setup)
    if args.ways is not None:
        chosen = ("packaged", *args.ways)
        compare(setup, everyone, {name: way for name, way in listed.items() if name.startswith(chosen)})
        return
    compare(setup, everyone, listed)
    published = mystyle().inversion
    how = {"prior_weight": 0.0, "final_lr_fraction": 1.0, "latent_space": "w", "learning_rate": published.learning_rate}
    plain = {"steps": published.steps, **how}
    print(f"\nprofile mystyle's search ({published.steps} steps at {published.learning_rate:g}) at 64 px, in W")
    stopping = {f"stop below {share:g}": {**plain, "stop_below": share} for share in (0.003, 0.01, 0.03)}
    compare(
        setup,
        everyone[:1],
        {name: (setup.packaged(**changes), False) for name, changes in {"all steps": plain, **stopping}.items()},
    )


def compare(setup: Setup, everyone: list[Person], listed: Mapping[str, tuple[Way, bool]]) -> None:
    """Print how each way ends, beside the first."""
    reference = None
    for name, (way, carried) in listed.items():
        found = scores(setup, everyone, way, carried=carried)
        reference = reference or found
        said = [f"{name:<38} loss {found.loss:.4f}"]
        for title, ours, theirs in (
            ("final", found.final, reference.final),
            ("AIP", found.aip, reference.aip),
            ("forgotten", found.forgotten, reference.forgotten),
        ):
            tau = kendalltau(list(ours.values()), list(theirs.values())).statistic
            numbers = [f"{key} {value:.4f} ({value - theirs[key]:+.4f})" for key, value in ours.items()]
            said.append(f"{title}: {', '.join(numbers)}; tau {tau:.2f}")
        print(" | ".join(said) + f" | {found.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
