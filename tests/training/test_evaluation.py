"""Evaluation of several test sets: how photos are put together changes nothing but time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.generators.stylegan2 import StyleGAN2Settings
from clstudy.metrics.lpips import LPIPS, LPIPSMetric
from clstudy.metrics.psnr import PSNRMetric
from clstudy.settings.profiles import EvaluationSettings, InversionSettings, smoke
from clstudy.training.evaluation import Evaluation, convex_combinations, evaluate
from clstudy.training.evaluation import TestSet as PhotosOfTimestamp
from clstudy.workloads.personalised_generator import PersonalisedGenerator
from clstudy.workloads.workload import TestSamples as PhotosWithLatents

W_DIM = StyleGAN2Settings().w_dim

SETTINGS = EvaluationSettings(synthesis_images=2, synthesis_anchors=2)


@pytest.fixture(scope="module")
def lpips() -> LPIPS:
    return LPIPS()


def make_test_sets(counts: list[int], lpips: LPIPS) -> list[PhotosOfTimestamp]:
    module, metrics = EmbeddedGenerator().fresh(), [LPIPSMetric(), PSNRMetric()]
    made = []
    for k, count in enumerate(counts):
        start = 0.3 * torch.randn(count, W_DIM, generator=torch.Generator().manual_seed(k))
        with torch.no_grad():
            images = module(start * 1.1).clamp(-1, 1)
            features = lpips.features(images)
        prepared = {metric.name: metric.prepare(images) for metric in metrics}
        names = tuple(f"photo {k}.{index}" for index in range(count))
        mixed = convex_combinations(start, SETTINGS, np.random.default_rng(k))
        made.append(PhotosOfTimestamp(k, names, images, features, start, prepared, mixed))
    return made


def evaluated(counts: list[int], lpips: LPIPS, **inversion: int | bool) -> tuple[Evaluation, list[int], list[int]]:
    """The evaluation, photos of every pass with gradient, and the finished test sets as they were reported."""
    module = EmbeddedGenerator().fresh().requires_grad_(False)
    passes: list[int] = []
    module.register_forward_hook(lambda _, given, image: passes.append(len(image)) if image.requires_grad else None)
    finished: list[int] = []
    found = evaluate(
        module,
        make_test_sets(counts, lpips),
        [LPIPSMetric(), PSNRMetric()],
        train_timestamp=len(counts),
        inversion=InversionSettings(steps=1, **inversion),
        lpips=lpips,
        on_test_set=finished.append,
    )
    return found, passes, finished


@pytest.mark.parametrize(
    ("counts", "batch", "passes"),
    [
        ([2, 3, 1], 6, [6]),
        ([2, 3, 1], 5, [5, 1]),
        ([2, 3, 1], 4, [2, 4]),
        ([5, 1, 1], 3, [3, 2, 2]),  # a set that is larger than a batch is divided as ever
        ([1], 8, [1]),
    ],
)
def test_sets_that_fit_into_a_batch_are_inverted_together(counts, batch, passes, lpips):
    together, found, finished = evaluated(counts, lpips, batch_size=batch, test_sets_together=True)
    alone, separate, _ = evaluated(counts, lpips, batch_size=batch)
    assert found == passes and finished == list(range(len(counts)))
    assert sum(separate) == sum(counts) and len(separate) >= len(found)
    assert [row[:-1] for row in map(tuple_of, together.rows)] == [row[:-1] for row in map(tuple_of, alone.rows)]
    values, expected = ([row.value for row in one.rows] for one in (together, alone))
    np.testing.assert_allclose(values, expected, rtol=1e-3)
    assert len(together.examples) == len(counts)


def test_photos_of_a_balanced_set_are_scored_apart(lpips):
    (plain,) = make_test_sets([4], lpips)
    mixed = replace(plain, balanced=frozenset({"photo 0.1", "photo 0.3"}))
    found = {}
    for name, test in (("plain", plain), ("mixed", mixed)):
        found[name] = evaluate(
            EmbeddedGenerator().fresh().requires_grad_(False),
            [test],
            [LPIPSMetric(), PSNRMetric()],
            train_timestamp=0,
            inversion=InversionSettings(steps=1),
            lpips=lpips,
        ).rows
    apart = [row for row in found["mixed"] if row.protocol == "balanced_reconstruction"]
    assert {row.image for row in apart} == mixed.balanced and len(apart) == 2 * 2
    together = [row._replace(protocol="reconstruction") if row in apart else row for row in found["mixed"]]
    assert together == list(found["plain"]), "the values are those of any test photo"


def test_the_mark_comes_from_a_photos_condition():
    samples = {
        "digests": ("a", "b", "c"),
        "images": torch.zeros(3, 3, 64, 64),
        "latents": torch.zeros(3, W_DIM),
        "timestamp": 0,
        "anchors": torch.zeros(3, W_DIM),
        "rng": np.random.default_rng(0),
    }
    workload = PersonalisedGenerator(smoke(), EmbeddedGenerator(), LPIPS(), [])
    marks = {"balanced": torch.tensor([[0.0], [1.0], [0.0]])}
    assert workload.test_set(PhotosWithLatents(**samples, conditions=marks)).balanced == {"b"}
    assert workload.test_set(PhotosWithLatents(**samples, conditions={"age": torch.ones(3, 1)})).balanced == set()


def tuple_of(row) -> tuple:
    return (row.train_timestamp, row.test_timestamp, row.protocol, row.metric, row.image, row.value)
