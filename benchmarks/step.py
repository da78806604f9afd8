"""What bounds a training step of the embedded profile on a CPU, and what was tried and did not pay.

    python -m benchmarks.step [--threads 1] [--rounds 8] [SECTION …]

Every section prints medians of processor milliseconds over rounds in which its variants take turns; without names all
sections run (about six minutes).

parts         forward and backward pass of generator and LPIPS, and Adam, with plain and with fused kernels
convolutions  the same step's convolutions alone, on tensors in memory: what remains if all else cost nothing
photos        inversion, per photo, by photos in a pass
trials        layers of two or four trials as one grouped convolution, against one after the other
upsampling    the upsampling layers as they were, and as one convolution (6x6 transposed, polyphase)
precision     the step under bfloat16 autocast
widths        the step and inversion with other numbers of channels (random weights)
adam          Adam over the list of weights, and over one flat buffer that they are views of
layouts       3x3 convolutions as im2col and matrix product; styles folded into weights of every photo
curves        loss curves over 50 steps: fused beside plain kernels, float32 beside float64
compiled      torch.compile: seconds to the first step in a first process and in the next one, and the step after it
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.machine import describe, matrix_product
from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.generators.stylegan2 import (
    StyleGAN2,
    StyleGAN2Settings,
    SynthesisLayer,
    blur_upsampled,
    fir_filter,
)
from clstudy.generators.synthesis_copies import apply_compute
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.kernels import KERNELS
from clstudy.settings.profiles import ComputeSettings, InversionSettings
from clstudy.training.inversion import invert
from clstudy.training.numerics import loss_lpips
from clstudy.training.personalise import TrainingPhotos

PHOTOS = 4
"""Of a step: two new and two replayed ones."""
CPU = torch.device("cpu")
_LPIPS_CONVOLUTIONS = (
    (48, 64, 17, 3, 0),
    (64, 192, 7, 5, 2),
    (192, 384, 3, 3, 1),
    (384, 256, 3, 3, 1),
    (256, 256, 3, 3, 1),
)
"""Channels in and out, side, kernel, padding, as the fused LPIPS has them at 64 px."""


def by_turns(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median processor milliseconds of each variant."""
    spent: dict[str, list[float]] = {name: [] for name in variants}
    for run in variants.values():
        run()
    for _ in range(rounds):
        for name, run in variants.items():
            started = time.process_time()
            run()
            spent[name].append(1e3 * (time.process_time() - started))
    return {name: statistics.median(values) for name, values in spent.items()}


@dataclass(frozen=True)
class Setup:
    """Generator, its loss, and photos that it drew."""

    compute: ComputeSettings
    generator: EmbeddedGenerator
    lpips: LPIPS

    @classmethod
    def of(cls, **compute: Any) -> Setup:
        settings = ComputeSettings(**compute)
        return cls(settings, EmbeddedGenerator(compute=settings), loss_lpips(settings, CPU))

    def photos(self, count: int) -> TrainingPhotos:
        latents = 0.3 * torch.randn(count, 256, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            images = EmbeddedGenerator().fresh()(1.1 * latents).clamp(-1, 1)
        return TrainingPhotos.prepare(latents, images, self.lpips)

    def loss(self, images: Tensor, photos: TrainingPhotos) -> Tensor:
        error = (images - photos.images).square().mean(dim=(1, 2, 3))
        loss: Tensor = (self.lpips.distance(self.lpips.features(images), photos.features) + error).mean()
        return loss


def parts(rounds: int) -> None:
    """Where a step's time goes."""
    for kernels in KERNELS:
        setup = Setup.of(kernels=kernels)
        photos, module = setup.photos(PHOTOS), setup.generator.fresh()
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-4, fused=KERNELS[kernels].fused or None)
        spent: dict[str, list[float]] = {}
        for _ in range(3 * rounds):
            clock = [time.process_time()]
            optimizer.zero_grad(set_to_none=True)
            images = module(photos.latents)
            clock.append(time.process_time())
            loss = setup.loss(images, photos)
            clock.append(time.process_time())
            (gradient,) = torch.autograd.grad(loss, images)
            clock.append(time.process_time())
            images.backward(gradient)
            clock.append(time.process_time())
            optimizer.step()
            clock.append(time.process_time())
            names = ("generator forward", "loss forward", "loss backward", "generator backward", "Adam")
            for name, (before, after) in zip(names, zip(clock, clock[1:], strict=False), strict=True):
                spent.setdefault(name, []).append(1e3 * (after - before))
            spent.setdefault("step", []).append(1e3 * (clock[-1] - clock[0]))
        say(f"{kernels} kernels", {name: statistics.median(values[rounds:]) for name, values in spent.items()})


def convolutions(rounds: int) -> None:
    """The convolutions of a step and nothing else."""
    layers: dict[str, Callable[[], object]] = {}
    flop = 0.0
    side = 4
    for name, layer in EmbeddedGenerator(compute=ComputeSettings()).fresh().named_modules():
        if isinstance(layer, SynthesisLayer):
            outputs, inputs = layer.weight.shape[:2]
            x = channels_last(PHOTOS, inputs, side)
            layers[f"generator {name}"] = both_passes(layer.weight.detach(), x, up=layer.up, weights=True)
            flop += 3 * 2 * 9 * PHOTOS * inputs * outputs * side**2
            side = 2 * side if layer.up else side
    for inputs, outputs, size, kernel, padding in _LPIPS_CONVOLUTIONS:
        weight = channels_last(outputs, inputs, kernel)
        x = channels_last(PHOTOS, inputs, size)
        layers[f"LPIPS {inputs} to {outputs}"] = both_passes(weight, x, padding=padding, weights=False)
        flop += 2 * 2 * kernel**2 * PHOTOS * inputs * outputs * (size + 2 * padding - kernel + 1) ** 2
    found = by_turns(layers, rounds)
    total = sum(found.values())
    say("convolutions alone, forward and backward", found | {"all": total})
    product = matrix_product()() / 1e9
    print(f"  {flop / 1e9:.2f} GFLOP at {flop / total / 1e6:.0f} GFLOP/s; matrix product {product:.0f} GFLOP/s")


def both_passes(
    weight: Tensor, x: Tensor, *, up: bool = False, padding: int = 1, weights: bool
) -> Callable[[], object]:
    """A convolution with its gradients by x and, for ``weights``, by the weight."""
    x = x.requires_grad_(True)
    weight = weight.clone().requires_grad_(weights)
    wanted = [x, weight] if weights else [x]

    def forward() -> Tensor:
        if up:
            return F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        return F.conv2d(x, weight, padding=padding)

    gradient = torch.randn_like(forward())
    return lambda: torch.autograd.grad(forward(), wanted, gradient)


def channels_last(*shape: int) -> Tensor:
    """Noise ``[n, c, s, s]`` for (n, c, s)."""
    return torch.randn(*shape, shape[-1]).contiguous(memory_format=torch.channels_last)


def photos(rounds: int) -> None:
    """Inversion by photos in a pass."""
    for kernels in KERNELS:
        setup = Setup.of(kernels=kernels)
        test, module = setup.photos(48), setup.generator.fresh().requires_grad_(False)
        runs = {
            f"{count} photos a pass": partial(
                invert,
                module,
                test.images,
                test.features,
                test.latents,
                settings=InversionSettings(steps=2, batch_size=count),
                lpips=setup.lpips,
            )
            for count in (1, 4, 8, 24, 48)
        }
        found = by_turns(runs, rounds)
        say(f"inversion step of a photo, {kernels} kernels", {name: spent / 96 for name, spent in found.items()})


def trials(rounds: int) -> None:
    """Layers of several trials at once, each trial with weights of its own."""
    for together in (2, 4):
        found = {}
        for side, channels in ((4, 192), (8, 160), (16, 80), (32, 40), (64, 20)):
            inputs = [channels_last(PHOTOS, channels, side) for _ in range(together)]
            weights = [channels_last(channels, channels, 3) for _ in range(together)]
            single = [both_passes(weight, x, weights=True) for weight, x in zip(weights, inputs, strict=True)]
            joined, weight = torch.cat(inputs, 1).requires_grad_(True), torch.cat(weights).requires_grad_(True)
            spent = by_turns(
                {
                    "grouped": partial(_grouped, joined, weight, together),
                    "single": lambda runs=single: [run() for run in runs],
                },
                rounds,
            )
            found[f"{side} px"] = spent["grouped"] / spent["single"]
        say(f"{together} trials as one grouped convolution / one after the other", found, unit="×")


def _grouped(x: Tensor, weight: Tensor, groups: int) -> object:
    return torch.autograd.grad(F.conv2d(x, weight, padding=1, groups=groups).sum(), [x, weight])


def upsampling(rounds: int) -> None:
    """The upsampling convolution with its filter, in three equal ways."""
    fir = fir_filter()
    spread = torch.stack([_filtered(index, fir) for index in range(9)])

    def composed(weight: Tensor) -> Tensor:
        outputs, inputs = weight.shape[:2]
        return (weight.reshape(outputs, inputs, 9) @ spread).view(outputs, inputs, 6, 6)

    def polyphase(x: Tensor, weight: Tensor) -> Tensor:
        kernel, taps = composed(weight), ([4, 2, 0], [5, 3, 1])
        phases = [kernel[:, :, rows][:, :, :, columns] for rows in taps for columns in taps]
        return F.pixel_shuffle(F.conv2d(x, torch.stack(phases, 1).flatten(0, 1), padding=1), 2)

    ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "transposed 3x3, then filter": lambda x, w: blur_upsampled(
            F.conv_transpose2d(x, w.transpose(0, 1), stride=2), fir
        ),
        "transposed 6x6": lambda x, w: F.conv_transpose2d(x, composed(w).transpose(0, 1), stride=2, padding=2),
        "polyphase": polyphase,
    }
    for side, inputs, outputs in ((4, 192, 160), (8, 160, 80), (16, 80, 40), (32, 40, 20)):
        x = torch.randn(PHOTOS, inputs, side, side, requires_grad=True)
        weight = torch.randn(outputs, inputs, 3, 3, requires_grad=True)
        expected = ways["transposed 3x3, then filter"](x, weight)
        for name, way in ways.items():
            assert float((way(x, weight) - expected).detach().abs().max()) < 1e-3 * float(expected.detach().std()), name
        runs = {
            name: lambda way=way, x=x, w=weight: torch.autograd.grad(way(x, w).sum(), [x, w])
            for name, way in ways.items()
        }
        say(f"{side} to {2 * side} px, {inputs} to {outputs} channels", by_turns(runs, rounds))


def _filtered(index: int, fir: Tensor) -> Tensor:
    """What a tap of a 3x3 kernel becomes in the 6x6 kernel: ``[36]``."""
    tap = torch.zeros(9)
    tap[index] = 1.0
    return F.conv2d(F.pad(tap.view(1, 1, 3, 3), (3, 3, 3, 3)), 4 * fir[None, None]).flatten()


def precision(rounds: int) -> None:
    """The whole step under the precisions that do something on a CPU."""
    runs: dict[str, Callable[[], object]] = {}
    for kernels in KERNELS:
        for name in ("float32", "bf16"):
            setup = Setup.of(kernels=kernels, precision=name)
            runs[f"{kernels} {name}"] = step_of(setup)
    say("step", by_turns(runs, rounds))


def step_of(
    setup: Setup, module: nn.Module | None = None, photos: TrainingPhotos | None = None
) -> Callable[[], object]:
    """A training step of a copy of the packaged generator, or of another network with its photos."""
    module = module or setup.generator.fresh()
    photos_ = photos or setup.photos(PHOTOS)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4, fused=KERNELS[setup.compute.kernels].fused or None)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        setup.loss(module(photos_.latents), photos_).backward()
        optimizer.step()

    return step


WIDTHS = ((192, 160, 80, 40, 20), (192, 128, 64, 32, 16), (192, 160, 80, 32, 16), (192, 160, 96, 48, 32))


class Widths(StyleGAN2Settings):
    """A generator with numbers of channels of its own, from 4 px up."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        object.__setattr__(self, "_channels", channels)

    def channels(self, resolution: int) -> int:
        found: int = self._channels[self.block_resolutions.index(resolution)]  # type: ignore[attr-defined]
        return found


def widths(rounds: int) -> None:
    """The step and an inversion step of a photo, 24 a pass, by channels from 4 to 64 px."""
    steps: dict[str, Callable[[], object]] = {}
    inversions: dict[str, Callable[[], object]] = {}
    for channels in WIDTHS:
        name = ", ".join(map(str, channels))
        setup = Setup.of()
        network = StyleGAN2(Widths(channels)).synthesis
        apply_compute(network, setup.compute)
        images, latents = torch.rand(24, 3, 64, 64) - 0.5, torch.randn(24, 256)
        test = TrainingPhotos.prepare(latents, images, setup.lpips)
        steps[name] = step_of(setup, network, test.rows(torch.arange(PHOTOS)))
        inversions[name] = partial(
            invert,
            copy.deepcopy(network).requires_grad_(False),
            images,
            test.features,
            latents,
            settings=InversionSettings(steps=2, batch_size=24),
            lpips=setup.lpips,
        )
    say("step", by_turns(steps, rounds))
    say("inversion step of a photo", {name: spent / 48 for name, spent in by_turns(inversions, rounds).items()})


def adam(rounds: int) -> None:
    """Adam's step alone, on weights and gradients that are there."""
    module = EmbeddedGenerator(compute=ComputeSettings()).fresh()
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    flat = torch.cat([weight.detach().flatten() for weight in weights])
    for weight in (*weights, flat):
        weight.grad = torch.randn_like(weight)
    optimizers = {
        "list, one weight after the other": torch.optim.Adam(weights, lr=1e-9, foreach=False),
        "list, fused": torch.optim.Adam(weights, lr=1e-9, fused=True),
        "flat buffer, fused": torch.optim.Adam([flat], lr=1e-9, fused=True),
    }
    runs: dict[str, Callable[[], object]] = {name: one.step for name, one in optimizers.items()}
    buffer = torch.empty_like(flat)

    def gather() -> None:
        buffer.zero_()  # gradients are added to views of it, where a list takes each gradient as it is
        for weight, view in zip(weights, buffer.split([weight.numel() for weight in weights]), strict=True):
            view.view(weight.shape).add_(weight.grad)

    runs["gradients into a flat buffer"] = gather
    say(f"{len(flat):,} weights in {len(weights)} tensors", by_turns(runs, 5 * rounds))


def layouts(rounds: int) -> None:
    """Other ways to compute the layers' convolutions, forward and backward."""
    for side, channels in ((8, 160), (16, 80), (32, 40), (64, 20)):
        x = channels_last(PHOTOS, channels, side).requires_grad_(True)
        weight = channels_last(channels, channels, 3).requires_grad_(True)
        style = torch.rand(PHOTOS, channels, requires_grad=True)

        def product(x: Tensor, weight: Tensor) -> Tensor:
            return weight.flatten(1) @ F.unfold(x, 3, padding=1)

        def scaled(x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
            return F.conv2d(x * style[:, :, None, None], weight, padding=1)

        def folded(x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
            own = (weight * style[:, None, :, None, None]).flatten(0, 1)
            return F.conv2d(x.flatten(0, 1)[None], own, padding=1, groups=PHOTOS).view_as(x)

        with torch.no_grad():
            assert torch.allclose(product(x, weight).view_as(x), F.conv2d(x, weight, padding=1), atol=1e-2)
            assert torch.allclose(folded(x, weight, style), scaled(x, weight, style), atol=1e-2)
        runs = {
            "convolution": lambda x=x, w=weight: torch.autograd.grad(F.conv2d(x, w, padding=1).sum(), [x, w]),
            "im2col and product": lambda x=x, w=weight: torch.autograd.grad(product(x, w).sum(), [x, w]),
            "scaled activations": lambda x=x, w=weight, s=style: torch.autograd.grad(scaled(x, w, s).sum(), [x, w, s]),
            "weights of every photo": lambda x=x, w=weight, s=style: torch.autograd.grad(
                folded(x, w, s).sum(), [x, w, s]
            ),
        }
        say(f"{side} px, {channels} channels", by_turns(runs, rounds))


def curves(rounds: int) -> None:
    """Largest relative difference of the losses of 50 training steps of the same schedule."""
    single, double = torch.float32, torch.float64
    found = {(kernels, kind): _curve(kernels, kind) for kernels in KERNELS for kind in (single, double)}
    for title, one, other in (
        ("fused beside plain, float64", ("fused", double), ("plain", double)),
        ("fused beside plain, float32", ("fused", single), ("plain", single)),
        ("plain float32 beside float64", ("plain", single), ("plain", double)),
        ("fused float32 beside float64", ("fused", single), ("plain", double)),
    ):
        pairs = list(zip(found[one], found[other], strict=True))
        apart = [max(abs(mine - its) / its for mine, its in pairs[:steps]) for steps in (3, 10, 50)]
        print(f"  {title:<32} {apart[0]:.1e} over 3 steps, {apart[1]:.1e} over 10, {apart[2]:.1e} over 50", flush=True)


def _curve(kernels: str, kind: torch.dtype) -> list[float]:
    setup, plain = Setup.of(kernels=kernels), Setup.of(kernels="plain").photos(PHOTOS)
    module, lpips = setup.generator.fresh().to(kind), setup.lpips.to(kind)
    noise = 0.05 * torch.randn(PHOTOS, 256, generator=torch.Generator().manual_seed(1))
    photos = TrainingPhotos.prepare((plain.latents + noise).to(kind), plain.images.to(kind), lpips)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.003)
    losses = []
    for _ in range(50):
        optimizer.zero_grad(set_to_none=True)
        loss = setup.loss(module(photos.latents), photos)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def compiled(rounds: int) -> None:
    """The whole step with the plain generator compiled, in two fresh processes that share what is compiled."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder}
        for name in ("first process", "next process"):
            done = subprocess.run(
                [sys.executable, "-c", _COMPILED, str(rounds)],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            first, later = map(float, done.stdout.split()[-2:])
            say(f"compiled, {name}", {"to the end of the first step": first}, unit="s")
            say("", {"step after it": later})


_COMPILED = """
import statistics, sys, time, torch
torch.set_num_threads(1)
from benchmarks.step import Setup, by_turns, step_of
started = time.monotonic()
step = step_of(Setup.of(compile=True))
step()
first = time.monotonic() - started
print(first, by_turns({"step": step}, int(sys.argv[1]))["step"])
"""


def say(title: str, found: Mapping[str, float], unit: str = "ms") -> None:
    """A section's lines."""
    print(title, flush=True)
    for name, value in found.items():
        print(f"  {name:<32} {value:8.2f} {unit}", flush=True)


SECTIONS = {
    one.__name__: one
    for one in (parts, convolutions, photos, trials, upsampling, precision, widths, adam, layouts, curves, compiled)
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    if unknown := [name for name in args.sections if name not in SECTIONS]:
        parser.error(f"there is no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    torch.set_num_threads(args.threads)
    print(", ".join(f"{name} {value}" for name, value in describe().items()))
    for name in args.sections or SECTIONS:
        SECTIONS[name](args.rounds)


if __name__ == "__main__":
    main()
