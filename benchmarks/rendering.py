"""How fast EG3D's volume is rendered, against a plain rendering of the same rays in the same run.

    python -m benchmarks.rendering                     # the embedded 3D generator's sizes, one thread
    python -m benchmarks.rendering --published         # tri-planes, samples and resolution of the published face models

The plain rendering follows the text: both passes' features are put in the order of depths, and every interval's mean is
multiplied with its weight. Prints times of a forward pass and of one with its backward pass, their ratio, what is kept
for the backward pass, and which share of the processor's own matrix products that is. Images differ in last digits.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clstudy.generators import embedded_3d
from clstudy.generators.eg3d import EG3D, EG3DSettings, RenderingSettings
from clstudy.generators.eg3d_copies import usual_view
from clstudy.generators.volume_rendering import (
    Midpoints,
    camera_rays,
    interval_weights,
    points_at,
    resampled_depths,
    spaced_depths,
)

Work = Callable[[], tuple[Tensor, Tensor]]


def plain_render(network: EG3D, planes: Tensor, cameras: Tensor) -> tuple[Tensor, Tensor]:
    """What ``EG3D.render`` returns, computed as it is written down."""
    settings = network.settings.rendering
    rays = camera_rays(cameras, settings.resolution)
    depths = spaced_depths(rays, settings.near, settings.far, settings.coarse, Midpoints())

    def found(at: Tensor) -> tuple[Tensor, Tensor]:
        features, densities = network.at_points(planes, points_at(rays, at))
        return torch.unflatten(features, 1, at.shape[1:3]), torch.unflatten(densities, 1, at.shape[1:3])

    features, densities = found(depths)
    with torch.no_grad():
        weights = interval_weights(densities, depths)
    fine = resampled_depths(depths, weights, settings.fine, Midpoints())
    more_features, more_densities = found(fine)
    depths, order = torch.sort(torch.cat([depths, fine], dim=2), dim=2)
    features = torch.cat([features, more_features], dim=2)
    features = features.gather(2, order.expand_as(features))
    densities = torch.cat([densities, more_densities], dim=2).gather(2, order)
    weights = interval_weights(densities, depths)
    seen = (weights * (features[:, :, 1:] + features[:, :, :-1]) / 2).sum(2)
    depth = (weights * (depths[:, :, 1:] + depths[:, :, :-1]) / 2).sum(2) / weights.sum(2)
    size = (settings.resolution, settings.resolution)
    images = torch.unflatten((seen * 2 - 1).transpose(1, 2), 2, size)
    return images, torch.unflatten(depth.transpose(1, 2), 2, size)


def backwards(work: Work, network: EG3D) -> None:
    """A forward pass and its backward pass, whose gradients are dropped."""
    image, depth = work()
    torch.autograd.backward(image.square().mean() + depth.mean())
    network.zero_grad(set_to_none=True)


def seconds(works: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median time of each, taken in turns."""
    times: list[list[float]] = [[] for _ in works]
    for one in works:
        one()
    for _ in range(rounds):
        for index, one in enumerate(works):
            started = time.perf_counter()
            one()
            times[index].append(time.perf_counter() - started)
    return [statistics.median(values) for values in times]


def kept_megabytes(work: Work) -> float:
    """Size of the tensors that a forward pass keeps for its backward pass; a tensor kept twice counts once."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        kept = work()
    del kept
    return sum(sizes.values()) / 1e6


def peak_flops() -> float:
    """Of matrix products of this processor, with the threads of this run."""
    a, b = torch.rand(768, 768), torch.rand(768, 768)
    (best,) = seconds([lambda: a @ b], 20)
    return 2 * 768**3 / best


def published() -> EG3DSettings:
    """The sizes of the published face models that matter for rendering; the tri-planes' network is small."""
    backbone = replace(embedded_3d.SETTINGS.backbone, img_resolution=256, channel_base=1024, channel_max=16)
    return replace(
        embedded_3d.SETTINGS,
        backbone=replace(backbone, img_channels=96),
        features=32,
        hidden=64,
        rendering=RenderingSettings(),
    )


def main() -> None:
    """Print times, ratio, memory and share of the peak."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    settings = published() if options.published else embedded_3d.SETTINGS
    batch = options.batch or (1 if options.published else 8)
    network = EG3D(settings)
    w = torch.randn(batch, settings.backbone.w_dim)
    cameras = torch.stack([usual_view(settings.camera, 5 * index - 10) for index in range(batch)])
    with torch.no_grad():
        planes = network.planes(w)
    planes.requires_grad_(True)

    def ours() -> tuple[Tensor, Tensor]:
        return network.render(planes, cameras)

    def plain() -> tuple[Tensor, Tensor]:
        return plain_render(network, planes, cameras)

    with torch.no_grad():
        (image, _), (expected, _) = ours(), plain()
    rendering = settings.rendering
    print(
        f"{batch} images of {rendering.resolution} px, {rendering.coarse} + {rendering.fine} samples a ray, "
        f"{settings.features} features, {options.threads} thread; images differ by at most "
        f"{float((image - expected).abs().max()):.1e}"
    )
    with torch.no_grad():
        forward = seconds([ours, plain], options.rounds)
    both = seconds([lambda: backwards(ours, network), lambda: backwards(plain, network)], options.rounds)
    for name, (mine, theirs) in (("forward", forward), ("forward and backward", both)):
        print(f"{name:<21} {mine * 1e3:7.1f} ms, plain {theirs * 1e3:7.1f} ms: {theirs / mine:.2f} times as fast")
    mine, theirs = kept_megabytes(ours), kept_megabytes(plain)
    print(f"{'kept for backward':<21} {mine:7.1f} MB, plain {theirs:7.1f} MB: {mine / theirs:.0%}")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ours()
    work = counter.get_total_flops()
    share = work / forward[0] / peak_flops()
    print(f"matrix products       {work / 1e9:.2f} GFLOP forward: {share:.0%} of this processor's peak")


if __name__ == "__main__":
    main()
