"""What shows the eyes of real people in the small generator: longer training, or inversion in W+?

    python benchmarks/few_photos.py --people s01,s02,s05 --passes 150,400

personalises the packaged generator for people of the ORL set (fetched on first use) on the two training photos of their
first timestamp, as the profile ``few_photos`` does but for so many passes, inverts the test photo in W and in W+, and
prints LPIPS, ID and LPIPS of eyes and mouth of every reconstruction, and their means over people.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from clstudy.assets import manifest
from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.identities.catalogue import open_data_set
from clstudy.metrics import load_metrics
from clstudy.metrics.base import METRICS, MetricSettings
from clstudy.settings.kernels import KERNELS
from clstudy.settings.profiles import LATENT_SPACE_WORDS, few_photos
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.training.inversion import invert
from clstudy.training.numerics import loss_lpips
from clstudy.training.personalise import TrainingPhotos, personalise
from clstudy.trial.requests import Basis, canonical_test
from clstudy.trial.stage_runner import StageRunner

NAMES = ("lpips", "id", "lpips_eyes_mouth")
LEARNING_RATE = 0.003


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--people", default="s01,s02,s05")
    parser.add_argument("--passes", default="150,400")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="its data/ takes the photos")
    args = parser.parse_args()
    torch.set_num_threads(1)
    load_metrics()
    profile = few_photos()
    lpips = loss_lpips(profile.compute, torch.device("cpu"))
    data = open_data_set(
        "orl",
        identities=None,
        names=args.people.split(","),
        timestamps=3,
        train=profile.data.train,
        test=profile.data.test,
        data_seed=0,
        cache=args.folder / "data",
        image_size=64,
    )
    basis = Basis(profile, manifest()["embedded_generator.safetensors"]["sha256"])
    runner = StageRunner.personalising(
        basis, EmbeddedGenerator(compute=profile.compute), lpips, [], StudyStore(args.folder / "few_photos_benchmark")
    )
    metrics = [METRICS[name](MetricSettings()) for name in NAMES]
    found: dict[tuple[int, str], list[list[float]]] = defaultdict(list)
    for identity in data.identities:
        test = runner.photos.samples(canonical_test(identity.timestamps[0])).images
        training = runner.photos.training(identity, [0])
        new = TrainingPhotos.prepare(training.latents, training.images, lpips)
        _, start = runner.photos.anchors(identity, 0)
        features = lpips.features(test)
        for passes in map(int, args.passes.split(",")):
            module = runner.workload.generator.fresh(None)
            personalise(
                module,
                new,
                None,
                settings=replace(profile.trainer, epochs=passes),
                learning_rate=LEARNING_RATE,
                lpips=lpips,
                new_rng=np.random.default_rng(0),
                replay_rng=np.random.default_rng(1),
                fused_adam=KERNELS[profile.compute.kernels].fused,
            )
            module.requires_grad_(False)
            for space in LATENT_SPACE_WORDS:
                settings = replace(profile.inversion, latent_space=space)
                w = invert(module, test, features, start, settings=settings, lpips=lpips)
                with torch.no_grad():
                    images = module(w).clamp(-1, 1)
                values = [float(metric.pairs(images, metric.prepare(test)).mean()) for metric in metrics]
                found[passes, space].append(values)
                print(line(identity.name, passes, space, values), flush=True)
    for (passes, space), rows in found.items():
        print(line("mean", passes, space, np.mean(rows, axis=0).tolist()))


def line(who: str, passes: int, space: str, values: list[float]) -> str:
    said = ", ".join(f"{name} {value:.4f}" for name, value in zip(NAMES, values, strict=True))
    return f"{who:<5} {passes:>4} passes, {space:<7} {said}"


if __name__ == "__main__":
    main()
