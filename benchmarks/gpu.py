"""Everything to measure the moment a GPU is at hand, in under eight minutes.

    bash benchmarks/gpu.sh [--json FILE]             # installs nothing; needs a CUDA build of torch
    python -m benchmarks.gpu --device cpu --quick --sizes 64      # to see that it runs: ten slow minutes

Correctness first: images, gradients and fifty training steps on the GPU against the CPU, in float32 (TF32 off), TF32
and bfloat16, each with its tolerance. Then, at every size: photos per second of personalising and inversion beside the
plain loop of ``benchmarks/personalize.py``, share of the card's own matrix product in the same precision, memory, with
and without compilation; how often the host waits for the device in a training loop; and how many trials one card takes
side by side. What does not fit into ``--seconds`` is left out, and the end says so.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.personalize import (
    NEW,
    PLAINLY,
    STORED,
    TESTED,
    network,
    peak,
    photos,
    plain_invert,
    plain_personalise,
    timed,
)
from clstudy.settings.kernels import FUSED, KERNELS
from clstudy.settings.profiles import ComputeSettings, InversionSettings, Resources, TrainerSettings
from clstudy.training.inversion import invert
from clstudy.training.numerics import configure_torch, loss_lpips
from clstudy.training.personalise import personalise

SIZES = (64, 256, 512, 1024)
INVERSION_STEPS = 10
STEPS_PER_EPOCH = NEW // 2
PRECISIONS = ("float32", "tf32", "bf16")
TOLERANCES = {"float32": (1e-4, 1e-3), "tf32": (1e-2, 2e-2), "bf16": (1e-1, 1e-1)}
"""Precision -> of images (largest difference, in standard deviations) and of the gradient (in its norm); of a loss."""


@dataclass(frozen=True)
class Amount:
    """How much of everything.

    Attributes:
        traced: epochs whose losses are compared.
        epochs: epochs of a timed training.
        repeats: timed runs, of which the median counts.
        packed: numbers of trials side by side, and the seconds that they train.
    """

    traced: int = 5
    epochs: int = 2
    repeats: int = 3
    packed: tuple[int, ...] = (1, 2, 4, 8)
    packed_seconds: float = 6.0


QUICK = Amount(traced=1, epochs=1, repeats=1, packed=(2,), packed_seconds=0.1)


@dataclass(frozen=True)
class Figure:
    """One line of the result."""

    what: str
    value: float
    unit: str
    passed: bool | None = None

    def __str__(self) -> str:
        verdict = {None: "", True: "  ok", False: "  FAILED"}[self.passed]
        return f"{self.what:<72} {self.value:>12.4g} {self.unit}{verdict}"


class Work:
    """Network, photos and the two loops at one size, in one precision."""

    def __init__(self, size: int, compute: ComputeSettings, device: torch.device) -> None:
        configure_torch(compute, Resources(gpus=float(device.type == "cuda"), threads=torch.get_num_threads()))
        self.lpips, self.device, self.fused = loss_lpips(compute, device), device, KERNELS[compute.kernels].fused
        self.module = network(size, compute, device)
        self.new, self.stored, self.test = (
            photos(count, size, seed, self.lpips, device) for count, seed in ((NEW, 1), (STORED, 2), (TESTED, 5))
        )

    def train(self, epochs: int, losses: list[float] | None = None) -> None:
        personalise(
            self.module.requires_grad_(True),
            self.new,
            self.stored,
            settings=TrainerSettings(epochs=epochs),
            learning_rate=3e-4,
            lpips=self.lpips,
            new_rng=np.random.default_rng(3),
            replay_rng=np.random.default_rng(4),
            losses=losses,
            fused_adam=self.fused,
        )

    def invert(self, steps: int = INVERSION_STEPS) -> Tensor:
        self.module.requires_grad_(False)
        settings = InversionSettings(steps=steps, batch_size=TESTED)
        start = torch.zeros(TESTED, 512, device=self.device)
        return invert(self.module, self.test.images, self.test.features, start, settings=settings, lpips=self.lpips)

    def plain(self, steps: int) -> None:
        plain_personalise(self.module, self.new, self.stored, self.lpips, steps)

    def plain_inversion(self, steps: int) -> None:
        plain_invert(self.module.requires_grad_(False), self.test, self.lpips, steps)


def correctness(device: torch.device, amount: Amount, size: int = 64) -> Iterator[Figure]:
    """The same images, gradients and training on the device and on the CPU."""
    host = Work(size, PLAINLY, torch.device("cpu"))
    image, gradient, losses = _trace(host, amount.traced)
    for precision in PRECISIONS:
        there = Work(size, replace(PLAINLY, precision=precision), device)
        other, slope, found = _trace(there, amount.traced)
        pixels, relative = TOLERANCES[precision]
        off = float((other - image).abs().max() / image.std())
        yield Figure(f"{precision}: largest difference of images from the CPU's", off, "std", off <= pixels)
        off = float((slope - gradient).norm() / gradient.norm())
        yield Figure(f"{precision}: difference of the gradient from the CPU's", off, "of its norm", off <= pixels)
        off = float(np.abs(np.array(found) / np.array(losses) - 1).max())
        yield Figure(f"{precision}: largest difference of {len(found)} losses", off, "relative", off <= relative)


def _trace(work: Work, epochs: int) -> tuple[Tensor, Tensor, list[float]]:
    """Images, a gradient and the losses of training, on the CPU."""
    module = work.module.requires_grad_(True)
    image = module(work.test.latents)
    image.square().mean().backward()
    gradient = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]).cpu()
    module.zero_grad(set_to_none=True)
    losses: list[float] = []
    work.train(epochs, losses)
    return image.detach().float().cpu(), gradient, losses


def matrix_peak(device: torch.device, precision: str) -> float:
    """FLOP per second of a large product in a precision: the best of five."""
    n = 8192 if device.type == "cuda" else 1024
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(n, n, device=device, dtype=kind) for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    seconds = [timed(lambda: a @ b, device) for _ in range(6)][1:]
    return 2 * n**3 / min(seconds)


def speed(size: int, compute: ComputeSettings, device: torch.device, amount: Amount) -> Iterator[Figure]:
    """Photos per second of both loops, beside the plain ones in float32."""
    name = f"{size} px, {compute.kernels} {compute.precision}{', compiled' if compute.compile else ''}"
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    work = Work(size, compute, device)
    steps = amount.epochs * STEPS_PER_EPOCH
    work.train(1)  # warm-up, and compilation
    with FlopCounterMode(display=False) as counter:
        work.train(1)
    flop = counter.get_total_flops() * amount.epochs
    seconds = statistics.median(timed(lambda: work.train(amount.epochs), device) for _ in range(amount.repeats))
    top = matrix_peak(device, compute.precision)
    yield Figure(f"{name}: personalise", 4 * steps / seconds, "photos/s")
    yield Figure(
        f"{name}: personalise, share of the matrix product ({top / 1e12:.1f} TFLOP/s)", flop / seconds / top, ""
    )
    yield Figure(f"{name}: memory of a training step", peak(device) / 1e9, "GB")
    work.invert(1)
    inverted = statistics.median(timed(work.invert, device) for _ in range(amount.repeats))
    yield Figure(f"{name}: invert", TESTED * INVERSION_STEPS / inverted, "photos/s")
    if compute == PLAINLY:
        work.plain(1)
        plain = timed(lambda: work.plain(steps), device)
        yield Figure(f"{name}: personalise, plain loop / ours", plain / seconds, "times")
        work.plain_inversion(1)
        plain = timed(lambda: work.plain_inversion(2), device) * INVERSION_STEPS / 2
        yield Figure(f"{name}: invert, plain loop / ours", plain / inverted, "times")


def synchronisations(device: torch.device) -> Iterator[Figure]:
    """How often the host waits for the device in 40 steps of training and in 10 of inversion."""
    if device.type != "cuda":
        return
    work = Work(64, PLAINLY, device)
    work.train(1)
    for what, run, most in (("40 training steps", lambda: work.train(4), 8), ("10 inversion steps", work.invert, 4)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            run()
            torch.cuda.set_sync_debug_mode("default")
        count = sum("synchroniz" in str(one.message) for one in caught)
        yield Figure(f"host waits for the device in {what} (at most {most})", count, "times", count <= most)


def packing(device: torch.device, amount: Amount) -> Iterator[Figure]:
    """Photos per second of several trials in processes of their own on one card."""
    context = multiprocessing.get_context("spawn")
    for count in amount.packed:
        barrier, results = context.Barrier(count), context.Queue()
        processes = [
            context.Process(target=_trial, args=(str(device), amount.packed_seconds, barrier, results))
            for _ in range(count)
        ]
        for process in processes:
            process.start()
        rates = [results.get(timeout=240) for _ in processes]
        for process in processes:
            process.join()
        yield Figure(
            f"64 px: {count} trial{'s' if count > 1 else ''} on one device, all together", sum(rates), "photos/s"
        )


def _trial(device: str, seconds: float, barrier: Any, results: Any) -> None:
    torch.set_num_threads(1)
    work = Work(64, PLAINLY, torch.device(device))
    work.train(1)
    barrier.wait()
    started, trained = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        work.train(1)
        trained += 4 * STEPS_PER_EPOCH
    results.put(trained / (time.perf_counter() - started))


class Deadline:
    """Runs parts while there is time."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.figures: list[Figure] = []
        self.left_out: list[str] = []

    def run(self, what: str, part: Callable[[], Iterator[Figure]]) -> None:
        """All figures of a part, printed as they come; what the device has no memory for is left out."""
        if time.monotonic() > self._end:
            self.left_out.append(f"{what} (no time)")
            return
        try:
            for figure in part():
                self.figures.append(figure)
                print(figure, flush=True)
        except torch.OutOfMemoryError:
            self.left_out.append(f"{what} (no memory)")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def configured() -> Iterator[None]:
    """torch's switches as they were afterwards."""
    switches = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = switches


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="PX")
    parser.add_argument(
        "--seconds", type=float, default=450.0, help="begin nothing after so long (default: %(default)g)"
    )
    parser.add_argument("--quick", action="store_true", help="a little of everything, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"error: torch {torch.__version__} sees no CUDA GPU here; use --device cpu to try it", file=sys.stderr)
        return 2
    amount = QUICK if args.quick else Amount()
    device, deadline = torch.device(args.device), Deadline(args.seconds)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}")
    modes = [replace(PLAINLY, precision=one) for one in (PRECISIONS if args.device == "cuda" else PRECISIONS[:1])]
    modes.append(replace(PLAINLY, kernels=FUSED))
    compiled = replace(PLAINLY, precision="bf16", compile=True)
    with configured():
        deadline.run("correctness", lambda: correctness(device, amount))
        deadline.run("waits", lambda: synchronisations(device))
        for size in args.sizes:
            for compute in modes:
                title = f"{size} px, {compute.kernels} {compute.precision}"
                deadline.run(title, lambda s=size, c=compute: speed(s, c, device, amount))
        deadline.run("packing", lambda: packing(device, amount))
        for size in args.sizes if args.device == "cuda" else ():
            deadline.run(f"{size} px, compiled", lambda s=size: speed(s, compiled, device, amount))
    if deadline.left_out:
        print("left out: " + "; ".join(deadline.left_out))
    if args.json:
        document = {
            "device": name,
            "torch": torch.__version__,
            "figures": [asdict(one) for one in deadline.figures],
            "left_out": deadline.left_out,
        }
        args.json.write_text(json.dumps(document, indent=2) + "\n")
    return int(any(figure.passed is False for figure in deadline.figures))


if __name__ == "__main__":
    sys.exit(main())
