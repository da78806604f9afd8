"""Paths that are arithmetic: training and inversion of the packaged 64 px generator, its loss, face embeddings.

The baselines are the plain loops of ``benchmarks/personalize.py``, on the same network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.checkout import module, settings
from benchmarks.paths.base import BASELINE, OURS, HotPath, Prepared, Work

NEW, STORED, TESTED = 20, 5, 10
"""Photos of a timestamp, of a buffer, of a test set, as in ``hull_sizes``."""
RATE = 0.003
STEPS = 10


def flop(run: Callable[[], object]) -> float:
    """Floating-point operations of convolutions and matrix products in a run, backward passes included."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


class Network:
    """The packaged generator and LPIPS as the embedded profile computes them, plain ones for the plain loops."""

    def __init__(self) -> None:
        self.trained = module("personalise")
        self.plain_lpips = module("lpips").LPIPS()
        self.profile = module("profiles").embedded()
        self.w_dim = module("stylegan2").StyleGAN2Settings().w_dim
        open_generator = module("embedded_generator").EmbeddedGenerator
        self.options: dict[str, Any] = {}
        if hasattr(self.profile.compute, "kernels"):
            from clstudy.settings.kernels import KERNELS, PLAIN

            self.generator = open_generator(compute=self.profile.compute)
            self.plain_generator = open_generator(compute=replace(self.profile.compute, kernels=PLAIN))
            self.lpips = module("numerics").loss_lpips(self.profile.compute, torch.device("cpu"))
            self.options = {"fused_adam": KERNELS[self.profile.compute.kernels].fused}
        else:  # a checkout from before there was a choice
            self.generator = self.plain_generator = open_generator()
            self.lpips = self.plain_lpips

    def photos(self, count: int, seed: int) -> Any:
        """``TrainingPhotos`` whose anchors lie beside the latents that made them, drawn by the generator."""
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            latents = 0.3 * torch.randn(count, self.w_dim, generator=rng)
            images = self.plain_generator.fresh()(latents).clamp(-1, 1)
        return self.trained.TrainingPhotos.prepare(
            latents + 0.05 * torch.randn(latents.shape, generator=rng), images, self.lpips
        )

    def trainer(self, epochs: int) -> Any:
        """The embedded profile's trainer for fewer epochs."""
        given = self.profile.trainer
        return settings(
            type(given), epochs=epochs, batch_size=given.batch_size, replay_batch_size=given.replay_batch_size
        )

    def personalise(self, network: nn.Module, new: Any, stored: Any, epochs: int) -> None:
        """Ours, in place."""
        self.trained.personalise(
            network,
            new,
            stored,
            settings=self.trainer(epochs),
            learning_rate=RATE,
            lpips=self.lpips,
            new_rng=np.random.default_rng(3),
            replay_rng=np.random.default_rng(4),
            **self.options,
        )

    def plain_personalise(self, network: nn.Module, new: Any, stored: Any, epochs: int) -> None:
        """The same steps, one photo at a time."""
        from benchmarks.personalize import plain_personalise  # for this checkout's names only, as all baselines are

        plain_personalise(network, new, stored, self.plain_lpips, epochs * len(new) // 2)

    def plain_invert(self, network: nn.Module, test: Any, steps: int) -> None:
        """One test photo at a time."""
        from benchmarks.personalize import plain_invert

        plain_invert(network, test, self.plain_lpips, steps)

    def invert(self, network: nn.Module, test: Any, steps: int) -> Tensor:
        """Ours, with the embedded profile's settings for so many steps."""
        given = self.profile.inversion
        how = settings(type(given), **{**_common(given), "steps": steps})
        found: Tensor = module("inversion").invert(
            network, test.images, test.features, torch.zeros_like(test.latents), settings=how, lpips=self.lpips
        )
        return found


def _common(given: Any) -> dict[str, Any]:
    """An inversion's settings that every checkout has."""
    names = ("steps", "learning_rate", "prior_weight", "batch_size")
    return {name: getattr(given, name) for name in names if hasattr(given, name)}


class PersonaliseStep(HotPath):
    """Steps of training: 2 new and 2 stored photos, forward and backward through generator and LPIPS, Adam."""

    title: ClassVar[str] = "personalise step (2 + 2 photos, 64 px)"
    unit: ClassVar[str] = "step"
    baseline: ClassVar[str] = "plain loop, a photo at a time"
    comparable: ClassVar[bool] = True

    def prepare(self, folder: Path) -> Prepared:
        given = Network()
        new, stored = given.photos(NEW, 1), given.photos(STORED, 2)

        def ours(epochs: int = 1) -> None:
            network = given.generator.fresh()
            given.personalise(network, new, stored, epochs)

        def plain() -> None:
            given.plain_personalise(given.plain_generator.fresh(), new, stored, 1)

        steps = NEW / 2
        return Prepared({OURS: Work(ours, steps, flop(ours)), BASELINE: Work(plain, steps)}, {"photos in a step": 4.0})


class InversionStep(HotPath):
    """Steps of test-time inversion of a test set."""

    title: ClassVar[str] = "inversion step (10 test photos, 64 px)"
    unit: ClassVar[str] = "step of 10 photos"
    baseline: ClassVar[str] = "plain loop, a photo at a time"
    comparable: ClassVar[bool] = True

    def prepare(self, folder: Path) -> Prepared:
        given = Network()
        test = given.photos(TESTED, 5)
        network, plain_network = (one.fresh().requires_grad_(False) for one in (given.generator, given.plain_generator))

        def ours() -> None:
            given.invert(network, test, STEPS)

        def plain() -> None:
            given.plain_invert(plain_network, test, 2)

        return Prepared(
            {OURS: Work(ours, STEPS, flop(ours)), BASELINE: Work(plain, 2.0)}, {"photos in a step": float(TESTED)}
        )


class Stage(HotPath):
    """A stage of a study from photos to weights and latents: targets, training, inversion of two test sets."""

    title: ClassVar[str] = "a stage (20 + 5 photos, 2 test sets of 10)"
    unit: ClassVar[str] = "stage of 3 epochs, 10 inversion steps"
    baseline: ClassVar[str] = "the two plain loops"
    rounds: ClassVar[int] = 3
    comparable: ClassVar[bool] = True

    def prepare(self, folder: Path) -> Prepared:
        given = Network()
        new, stored = given.photos(NEW, 1), given.photos(STORED, 2)
        tests = [given.photos(TESTED, seed) for seed in (5, 6)]

        def ours() -> None:
            network = given.generator.fresh()
            fresh = [
                given.trained.TrainingPhotos.prepare(one.latents, one.images, given.lpips) for one in (new, stored)
            ]
            given.personalise(network, *fresh, 3)
            weights = given.generator.tunable_state(network)
            network.requires_grad_(False)
            for test in tests:
                found = given.invert(network, test, STEPS)
                with torch.no_grad():
                    network(found)
            assert weights

        def plain() -> None:
            network = given.plain_generator.fresh()
            given.plain_personalise(network, new, stored, 3)
            network.requires_grad_(False)
            for test in tests:
                given.plain_invert(network, test, STEPS)

        return Prepared({OURS: Work(ours, 1, flop(ours)), BASELINE: Work(plain, 1)})


class LongStudyStage(HotPath):
    """The average stage of a study of ten timestamps of 20 + 20 photos: training, and test photos of six timestamps.

    A quarter of the embedded profile's epochs and of its inversion steps, so that both have their share of the time.
    """

    title: ClassVar[str] = "a stage at T = 10 (20 + 5 photos, 6 test sets of 20)"
    unit: ClassVar[str] = "stage of 6 epochs, 5 inversion steps"
    baseline: ClassVar[str] = "the two plain loops"
    rounds: ClassVar[int] = 2
    comparable: ClassVar[bool] = True

    def prepare(self, folder: Path) -> Prepared:
        given = Network()
        new, stored, test = given.photos(NEW, 1), given.photos(STORED, 2), given.photos(6 * 20, 3)

        def ours() -> None:
            network = given.generator.fresh()
            given.personalise(network, new, stored, 6)
            given.invert(network.requires_grad_(False), test, 5)

        def plain() -> None:
            network = given.plain_generator.fresh()
            given.plain_personalise(network, new, stored, 6)
            given.plain_invert(network.requires_grad_(False), test, 5)

        return Prepared({OURS: Work(ours, 1, flop(ours)), BASELINE: Work(plain, 1)})


class Lpips(HotPath):
    """LPIPS of a batch to targets whose features are known, forward and backward."""

    title: ClassVar[str] = "LPIPS (10 images, 64 px, with gradient)"
    unit: ClassVar[str] = "image"
    baseline: ClassVar[str] = "features of image and target, an image at a time"
    comparable: ClassVar[bool] = True

    def prepare(self, folder: Path) -> Prepared:
        network = Network()
        lpips, plain_lpips = network.lpips, network.plain_lpips
        rng = torch.Generator().manual_seed(0)
        images, targets = (torch.rand(TESTED, 3, 64, 64, generator=rng) * 2 - 1 for _ in range(2))
        with torch.no_grad():
            features = lpips.features(targets)

        def ours() -> None:
            given = images.clone().requires_grad_(True)
            lpips.distance(lpips.features(given), features).sum().backward()

        def plain() -> None:
            for image, target in zip(images.split(1), targets.split(1), strict=True):
                given = image.clone().requires_grad_(True)
                plain_lpips(given, target).sum().backward()

        return Prepared({OURS: Work(ours, TESTED, flop(ours)), BASELINE: Work(plain, TESTED)})


class IdentityEmbedding(HotPath):
    """Identity embeddings of a batch of aligned faces, crops included."""

    title: ClassVar[str] = "identity embedding (10 faces)"
    unit: ClassVar[str] = "face"
    baseline: ClassVar[str] = "one face at a time"

    def prepare(self, folder: Path) -> Prepared:
        from clstudy.faces.embedding import IdentityEmbedder

        embedder = IdentityEmbedder(threads=torch.get_num_threads())
        images = Network().photos(TESTED, 7).images

        def ours() -> None:
            embedder(images)

        def plain() -> None:
            for image in images.split(1):
                embedder(image)

        return Prepared({OURS: Work(ours, TESTED), BASELINE: Work(plain, TESTED)})
