"""The trainer core with latents of other shapes than w: the same numbers where the latents say the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings
from clstudy.metrics.lpips import LPIPS
from clstudy.metrics.psnr import PSNRMetric
from clstudy.settings.profiles import EvaluationSettings, InversionSettings, TrainerSettings
from clstudy.training import evaluation
from clstudy.training.evaluation import convex_combinations, evaluate
from clstudy.training.inversion import invert
from clstudy.training.personalise import TrainingPhotos, personalise

SETTINGS = StyleGAN2Settings(img_resolution=32, z_dim=8, w_dim=8, channel_base=256, channel_max=8)


@pytest.fixture(scope="module")
def lpips() -> LPIPS:
    return LPIPS()


def network() -> nn.Module:
    torch.manual_seed(0)
    return StyleGAN2(SETTINGS).synthesis.requires_grad_(False)


def in_all_layers(w: Tensor) -> Tensor:
    return w[:, None].repeat(1, SETTINGS.num_ws, 1)


def test_training_and_evaluation_in_w_plus_give_the_numbers_of_w_where_all_layers_are_equal(lpips: LPIPS) -> None:
    rng = torch.Generator().manual_seed(1)
    w, images = torch.randn(2, 8, generator=rng), torch.rand(2, 3, 32, 32, generator=rng) * 2 - 1
    found = []
    for latents in (w, in_all_layers(w)):
        module = network().requires_grad_(True)
        losses: list[float] = []
        photos = TrainingPhotos.prepare(latents, images, lpips)
        personalise(
            module,
            photos,
            photos.rows(torch.tensor([1])),
            settings=TrainerSettings(epochs=2, batch_size=1, replay_batch_size=1),
            learning_rate=0.01,
            lpips=lpips,
            new_rng=np.random.default_rng(0),
            replay_rng=np.random.default_rng(1),
            losses=losses,
        )
        module.requires_grad_(False)
        metric = PSNRMetric()
        scored = EvaluationSettings(synthesis_images=2, synthesis_anchors=2)
        test = evaluation.TestSet(
            timestamp=0,
            digests=("a", "b"),
            images=images,
            features=lpips.features(images),
            start=latents,
            prepared={metric.name: metric.prepare(images)},
            combinations=convex_combinations(latents, scored, np.random.default_rng(2)),
        )
        inversion = InversionSettings(steps=0)
        rows = evaluate(module, [test], [metric], train_timestamp=0, inversion=inversion, lpips=lpips).rows
        found.append((losses, [row.value for row in rows]))
    assert found[0] == found[1] and len(found[0][1]) == 2


@pytest.mark.parametrize("space", ["w", "w_plus"])
def test_inversion_of_latents_that_are_w_plus_is_that_of_w_in_w_plus(lpips: LPIPS, space: str) -> None:
    rng = torch.Generator().manual_seed(2)
    w, images = torch.randn(2, 8, generator=rng), torch.rand(2, 3, 32, 32, generator=rng) * 2 - 1
    settings = InversionSettings(steps=2, learning_rate=0.1, latent_space="w_plus")
    features = lpips.features(images)
    expected = invert(network(), images, features, w, settings=settings, lpips=lpips)
    given = replace(settings, latent_space=space)
    assert torch.equal(invert(network(), images, features, in_all_layers(w), settings=given, lpips=lpips), expected)


@pytest.mark.parametrize("size", [3, 512])
def test_combinations_of_vectors_are_bit_by_bit_what_they_were(size: int) -> None:
    anchors = torch.randn(9, size, generator=torch.Generator().manual_seed(0))
    settings = EvaluationSettings(synthesis_images=20, synthesis_anchors=3)
    rng = np.random.default_rng(5)
    expected = []
    for _ in range(20):
        chosen = rng.choice(9, 3, replace=False)
        weights = torch.from_numpy(rng.dirichlet(np.ones(3)).astype(np.float32))
        expected.append(weights @ anchors[torch.from_numpy(chosen)])
    found = convex_combinations(anchors, settings, np.random.default_rng(5))
    assert torch.equal(found, torch.stack(expected))
    shaped = convex_combinations(anchors.view(9, 1, size), settings, np.random.default_rng(5))
    assert torch.equal(shaped, found.view(20, 1, size))
    assert convex_combinations(anchors.view(9, 1, size), replace(settings, synthesis_images=0), rng).shape == (
        0,
        1,
        size,
    )
