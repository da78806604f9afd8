"""What every generator promises, checked on photos of noise: ``clstudy generators check``.

The contract is ``clstudy.generators.base.DomainGenerator``. Nothing is trained, so it takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clstudy.generators.base import DomainGenerator, trainable
from clstudy.registry import Check

_COUNT = 3
_TOLERANCE = 1e-3
"""Between images in [-1, 1] made one at a time and in a batch: kernels of different sizes round differently."""


@dataclass(frozen=True)
class GeneratorInHand:
    """A generator, and another one built from the same weights.

    Args:
        generator, again: the two.
        photos: float32 ``[3, 3, s, s]`` in [-1, 1], of the profile's image size.
    """

    generator: DomainGenerator
    again: DomainGenerator
    photos: Tensor

    def latents(self) -> Tensor:
        """The anchors of the photos."""
        with torch.no_grad():
            return self.generator.anchors(self.photos)

    def images(self, tunable: dict[str, Tensor] | None = None) -> Tensor:
        """The images that a fresh copy makes of these latents."""
        with torch.no_grad():
            return self.generator.fresh(tunable)(self.latents())  # type: ignore[no-any-return]


def noise_photos(size: int, device: torch.device, count: int = _COUNT) -> Tensor:
    """Smooth coloured noise ``[count, 3, size, size]`` in [-1, 1], the same every time."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear").to(device)


def _anchors(held: GeneratorInHand) -> Iterator[str]:
    """anchors of photos are finite latents [n, *latent_shape], independent of the rest of a batch"""
    latents, wanted = held.latents(), (len(held.photos), *held.generator.latent_shape)
    if tuple(latents.shape) != wanted:
        yield f"anchors of {len(held.photos)} photos have the shape {tuple(latents.shape)}, expected {wanted}"
        return
    if not bool(latents.isfinite().all()):
        yield "an anchor is NaN or infinite"
    with torch.no_grad():
        alone = torch.cat([held.generator.anchors(photo[None]) for photo in held.photos])
    if not torch.allclose(alone, latents, atol=_TOLERANCE * float(latents.abs().max().clamp_min(1))):
        yield f"an anchor differs by {float((alone - latents).abs().max()):g} when other photos are in the batch"


def _images(held: GeneratorInHand) -> Iterator[str]:
    """a copy maps latents to finite images [n, 3, s, s] of the photos' size, independent of the rest of a batch"""
    images = held.images()
    if images.shape != held.photos.shape:
        yield f"images have the shape {tuple(images.shape)}, expected {tuple(held.photos.shape)}"
        return
    if not bool(images.isfinite().all()):
        yield "an image has pixels that are NaN or infinite"
    module, latents = held.generator.fresh(), held.latents()
    with torch.no_grad():
        alone = torch.cat([module(latent[None]) for latent in latents])
    if not torch.allclose(alone, images, atol=_TOLERANCE):
        yield f"an image differs by {float((alone - images).abs().max()):g} when other latents are in the batch"


def _same(held: GeneratorInHand) -> Iterator[str]:
    """built again from the same weights, it gives the same anchors and images, bit for bit"""
    with torch.no_grad():
        latents = held.again.anchors(held.photos)
        images = held.again.fresh()(latents)
    if not torch.equal(latents, held.latents()):
        yield "anchors differ; random numbers must not come from a global generator"
    elif not torch.equal(images, held.images()):
        yield "images differ; random numbers must not come from a global generator"


def _gradients(held: GeneratorInHand) -> Iterator[str]:
    """a copy has parameters that require a gradient, and images give one to each of them and to the latent"""
    module, latents = held.generator.fresh(), held.latents().clone().requires_grad_(True)
    parameters = trainable(module)
    if not parameters:
        yield "no parameter of a copy requires a gradient, so nothing could be trained"
        return
    module(latents).square().mean().backward()
    without = [name for name, value in parameters.items() if value.grad is None]
    if without:
        yield f"no gradient reaches {without[0]} (of {len(parameters)}, {len(without)} get none)"
    if latents.grad is None or not bool(latents.grad.abs().sum() > 0):
        yield "no gradient reaches the latent, so photos could not be inverted"


def _changed(held: GeneratorInHand) -> dict[str, Tensor]:
    module = held.generator.fresh()
    with torch.no_grad():
        for value in trainable(module).values():
            value.add_(0.05)
    return held.generator.tunable_state(module)


def _copies(held: GeneratorInHand) -> Iterator[str]:
    """training a copy changes neither the pretrained generator nor another copy"""
    before, anchors, other = held.images(), held.latents(), held.generator.fresh()
    _changed(held)
    with torch.no_grad():
        from_other = other(anchors)
    if not torch.equal(held.images(), before) or not torch.equal(held.latents(), anchors):
        yield "after a copy was changed, a fresh one gives different images or anchors: they share tensors"
    elif not torch.equal(from_other, before):
        yield "after a copy was changed, another copy gives different images: they share tensors"


def _stored(held: GeneratorInHand) -> Iterator[str]:
    """a copy made from a trained copy's tunable state makes its images, bit for bit"""
    module = held.generator.fresh()
    with torch.no_grad():
        for value in trainable(module).values():
            value.add_(0.05)
        trained = module(held.latents())
    state = held.generator.tunable_state(module)
    if torch.equal(trained, held.images()):
        yield "changed weights give the same images: the trainable parameters have no effect on them"
    elif not torch.equal(held.images(state), trained):
        yield f"images differ by {float((held.images(state) - trained).abs().max()):g}"
    elif set(trainable(held.generator.fresh(state))) != set(trainable(held.generator.fresh())):
        yield "a copy made from a tunable state has different trainable parameters"


CHECKS: dict[str, Check[GeneratorInHand]] = {
    "anchors": _anchors,
    "images": _images,
    "same": _same,
    "gradients": _gradients,
    "copies": _copies,
    "stored": _stored,
}
"""All checks by name, in the order of their findings."""
