"""Personalising and inversion: ours against a plain rendering of the reference loop, in the same run.

    python benchmarks/personalize.py [--device cpu|cuda] [--size 64] [--steps 10] [--kernels plain|fused]
                                     [--precision float32|tf32|bf16] [--compile] [--activation-checkpointing]
                                     [--effect] [--memory 1024]

The plain loop is written from the protocol: one photo at a time, the target's LPIPS features computed again at every
use, gradients added up over the photos of a step. Both train a StyleGAN2 with config-f channels and random weights on
random photos, from the same start and with the same draws; images per second are photos through forward and backward
pass. Then test-time inversion: photos in one batch with their features computed once, against one photo at a time.

With ``--precision``, ``--compile`` or fused kernels (the default) images of the same latents under plain float32 are
compared too: largest and root mean square difference, and LPIPS between them. ``--memory SIZE`` runs one forward pass
and one training step at that size (1024: config-f of the FFHQ checkpoint) and prints seconds and memory.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings, SynthesisNetwork
from clstudy.generators.synthesis_copies import apply_compute
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.kernels import FUSED, KERNELS, PLAIN
from clstudy.settings.precision import PRECISIONS
from clstudy.settings.profiles import ComputeSettings, InversionSettings, Resources, TrainerSettings
from clstudy.training.inversion import invert
from clstudy.training.numerics import configure_torch, loss_lpips, torch_device
from clstudy.training.personalise import TrainingPhotos, epochs, personalise, replay_draws

NEW, STORED, TESTED = 20, 10, 10
RATE = 3e-4
PLAINLY = ComputeSettings(kernels=PLAIN)
INVERSION = InversionSettings(steps=1, learning_rate=5e-3, prior_weight=0.0, final_lr_fraction=1.0, batch_size=5)


def config_f(size: int) -> StyleGAN2Settings:
    """Sizes of the published FFHQ network (config-f) at a resolution."""
    return StyleGAN2Settings(
        img_resolution=size, z_dim=512, w_dim=512, channel_base=32768, channel_max=512, mapping_layers=8
    )


def network(size: int, compute: ComputeSettings, device: torch.device) -> SynthesisNetwork:
    """A synthesis network with seeded random weights."""
    torch.manual_seed(0)
    module = StyleGAN2(config_f(size)).synthesis.to(device)
    apply_compute(module, compute)
    return module


def photos(count: int, size: int, seed: int, lpips: LPIPS, device: torch.device) -> TrainingPhotos:
    """Random latents and photos."""
    rng = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, 512, generator=rng).to(device)
    images = (torch.rand(count, 3, size, size, generator=rng) * 2 - 1).to(device)
    return TrainingPhotos.prepare(latents, images, lpips)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Elapsed seconds, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def plain_personalise(
    module: nn.Module, new: TrainingPhotos, stored: TrainingPhotos, lpips: LPIPS, steps: int
) -> list[float]:
    """The reference loop: one photo at a time, target features computed again. Returns the loss of every step."""
    losses = []
    module.requires_grad_(True)
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE)
    draws = epochs(len(new), 2, np.random.default_rng(3)), replay_draws(len(stored), 2, np.random.default_rng(4))
    for _ in range(steps):
        optimizer.zero_grad()
        total = 0.0
        for source, stream in zip((new, stored), draws, strict=True):
            for index in next(stream).tolist():
                image = module(source.latents[index : index + 1])
                target = source.images[index : index + 1]
                loss = lpips(image, target).sum() + (image - target).square().mean()
                (loss / 4).backward()
                total += loss.item() / 4
        optimizer.step()
        losses.append(total)
    return losses


def plain_invert(module: nn.Module, test: TrainingPhotos, lpips: LPIPS, steps: int) -> None:
    """One test photo at a time, target features computed again at every step."""
    for index in range(len(test)):
        w = torch.zeros_like(test.latents[:1]).requires_grad_(True)
        optimizer = torch.optim.Adam([w], lr=INVERSION.learning_rate)
        for _ in range(steps):
            image, target = module(w), test.images[index : index + 1]
            loss = lpips(image, target).sum() + (image - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()


def largest_difference(ours: nn.Module, theirs: nn.Module) -> float:
    """Largest difference of any weight."""
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def compare_personalising(size: int, steps: int, compute: ComputeSettings, device: torch.device) -> None:
    lpips = loss_lpips(compute, device)
    new, stored = (photos(count, size, seed, lpips, device) for count, seed in ((NEW, 1), (STORED, 2)))
    assert steps % 10 == 0, "an epoch over 20 photos in pairs has 10 steps"
    settings = TrainerSettings(epochs=steps // 10)

    curves: dict[str, list[float]] = {"ours": [], "plain": []}

    def ours(module: nn.Module, passes: TrainerSettings) -> None:
        curves["ours"].clear()
        personalise(
            module,
            new,
            stored,
            settings=passes,
            learning_rate=RATE,
            lpips=lpips,
            new_rng=np.random.default_rng(3),
            replay_rng=np.random.default_rng(4),
            fused_adam=KERNELS[compute.kernels].fused,
            losses=curves["ours"],
        )

    ours(network(size, compute, device), TrainerSettings(epochs=1))  # warm-up (and compilation)
    module = network(size, compute, device)
    seconds = timed(lambda: ours(module, settings), device)
    plain, plain_lpips = network(size, PLAINLY, device), LPIPS().to(device)
    plain_personalise(network(size, PLAINLY, device), new, stored, plain_lpips, 2)  # warm-up
    plain_seconds = timed(
        lambda: curves["plain"].extend(plain_personalise(plain, new, stored, plain_lpips, steps)), device
    )
    apart = max(abs(a / b - 1) for a, b in zip(curves["ours"], curves["plain"], strict=True))
    images = 4 * steps
    print(
        f"personalise  {size} px: ours {images / seconds:7.2f} images/s, plain {images / plain_seconds:7.2f} images/s, "
        f"ratio {plain_seconds / seconds:.2f}; largest difference of a weight after {steps} steps "
        f"{largest_difference(module, plain):.1e}, losses of the steps differ by at most {apart:.0e} of their values"
    )


def compare_inversion(size: int, steps: int, compute: ComputeSettings, device: torch.device) -> None:
    lpips = loss_lpips(compute, device)
    test = photos(TESTED, size, 5, lpips, device)
    settings = replace(INVERSION, steps=steps)
    start = torch.zeros(TESTED, 512, device=device)
    module = network(size, compute, device).requires_grad_(False)

    def ours(how: InversionSettings) -> Tensor:
        return invert(module, test.images, test.features, start, settings=how, lpips=lpips)

    ours(replace(settings, steps=1))
    seconds = timed(lambda: ours(settings), device)
    plain, plain_lpips = network(size, PLAINLY, device).requires_grad_(False), LPIPS().to(device)
    plain_invert(plain, test, plain_lpips, 1)
    plain_seconds = timed(lambda: plain_invert(plain, test, plain_lpips, steps), device)
    images = TESTED * steps
    print(
        f"invert       {size} px: ours {images / seconds:7.2f} images/s, plain {images / plain_seconds:7.2f} images/s, "
        f"ratio {plain_seconds / seconds:.2f}"
    )


@torch.no_grad()
def numerical_effect(size: int, compute: ComputeSettings, device: torch.device, lpips: LPIPS) -> None:
    w = photos(8, size, 6, lpips, device).latents
    configure_torch(PLAINLY, Resources(gpus=float(device.type == "cuda"), threads=torch.get_num_threads()))
    exact = network(size, PLAINLY, device)(w)
    configure_torch(compute, Resources(gpus=float(device.type == "cuda"), threads=torch.get_num_threads()))
    ours = network(size, compute, device)(w)
    spread = float(exact.std())
    print(
        f"{compute.kernels} {compute.precision}{' compiled' if compute.compile else ''} against plain float32: largest "
        f"difference {float((ours - exact).abs().max()) / spread:.1e}, root mean square "
        f"{float((ours - exact).square().mean().sqrt()) / spread:.1e} (in standard deviations of the images), LPIPS "
        f"{float(lpips(ours.clamp(-1, 1), exact.clamp(-1, 1)).mean()):.1e}"
    )


def memory(size: int, compute: ComputeSettings, device: torch.device, lpips: LPIPS) -> None:
    """One forward pass and one training step (2 + 2 photos) at full size."""
    module = network(size, compute, device)
    parameters = sum(p.numel() for p in module.parameters())
    w = torch.randn(1, 512, generator=torch.Generator().manual_seed(7)).to(device)
    with torch.no_grad():
        forward = timed(lambda: module(w), device)
    after_forward = peak(device)
    new, stored = (photos(2, size, seed, lpips, device) for seed in (1, 2))
    rngs = {"new_rng": np.random.default_rng(3), "replay_rng": np.random.default_rng(4)}
    one = TrainerSettings(epochs=1)
    step = timed(
        lambda: personalise(module, new, stored, settings=one, learning_rate=RATE, lpips=lpips, **rngs), device
    )
    print(
        f"{size} px, config-f, {parameters / 1e6:.1f} M synthesis parameters, {compute}: forward pass {forward:.1f} s "
        f"(peak {after_forward / 1e9:.1f} GB), training step on 2 + 2 photos {step:.1f} s "
        f"(peak {peak(device) / 1e9:.1f} GB)"
    )


def peak(device: torch.device) -> int:
    """Largest memory so far in bytes: of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", type=int, default=64, help="pixels (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="a multiple of 10 (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch (default: %(default)s)")
    parser.add_argument("--kernels", choices=tuple(KERNELS), default=FUSED)
    parser.add_argument("--precision", choices=tuple(PRECISIONS), default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--effect", action="store_true", help="only the effect of --precision and --compile on images")
    parser.add_argument("--memory", type=int, metavar="SIZE", help="only one forward pass and one step at this size")
    args = parser.parse_args()
    compute = ComputeSettings(
        precision=args.precision,
        compile=args.compile,
        activation_checkpointing=args.activation_checkpointing,
        kernels=args.kernels,
    )
    resources = Resources(gpus=float(args.device == "cuda"), threads=args.threads)
    device = torch_device(resources)
    configure_torch(compute, resources)
    lpips = loss_lpips(compute, device)
    if args.memory is not None:
        memory(args.memory, compute, device, lpips)
        return 0
    if args.effect:
        numerical_effect(args.size, compute, device, lpips)
        return 0
    print(f"{args.device}, {args.threads} threads, torch {torch.__version__}, {compute}")
    compare_personalising(args.size, args.steps, compute, device)
    compare_inversion(args.size, args.steps, compute, device)
    if compute != replace(PLAINLY, activation_checkpointing=args.activation_checkpointing):
        numerical_effect(args.size, compute, device, lpips)
    return 0


if __name__ == "__main__":
    sys.exit(main())
