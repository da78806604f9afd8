"""Trainer core, inversion and evaluation on a tiny generator, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clstudy.evaluation import convex_combinations
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings
from clstudy.inversion import invert
from clstudy.metrics.lpips import LPIPS
from clstudy.personalize import (
    LossLog,
    TrainingDivergedError,
    TrainingPhotos,
    epochs,
    personalise,
    replay_draws,
    schedule,
    total_steps,
)
from clstudy.profiles import EvaluationSettings, InversionSettings, TrainerSettings

SETTINGS = StyleGAN2Settings(img_resolution=32, z_dim=8, w_dim=8, channel_base=256, channel_max=16)


@pytest.fixture(scope="module")
def lpips() -> LPIPS:
    return LPIPS()


def tiny(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return StyleGAN2(SETTINGS).synthesis


def photos(count: int, lpips: LPIPS, seed: int = 1) -> TrainingPhotos:
    rng = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, 8, generator=rng)
    images = torch.rand(count, 3, 32, 32, generator=rng) * 2 - 1
    return TrainingPhotos.prepare(latents, images, lpips)


def rngs() -> dict[str, np.random.Generator]:
    return {"new_rng": np.random.default_rng(3), "replay_rng": np.random.default_rng(4)}


@given(count=st.integers(1, 12), batch=st.integers(1, 5), seed=st.integers(0, 99))
def test_every_epoch_shows_every_photo_once(count: int, batch: int, seed: int) -> None:
    stream = epochs(count, batch, np.random.default_rng(seed))
    per_epoch = -(-count // batch)
    for _ in range(3):
        batches = [next(stream) for _ in range(per_epoch)]
        assert sorted(np.concatenate(batches).tolist()) == list(range(count))
        assert all(len(b) == batch for b in batches[:-1]), "only the last batch of an epoch may be short"


@given(count=st.integers(1, 12), batch=st.integers(1, 5), seed=st.integers(0, 99))
def test_replay_batches_are_always_full_and_even(count: int, batch: int, seed: int) -> None:
    stream = replay_draws(count, batch, np.random.default_rng(seed))
    drawn = np.concatenate([next(stream) for _ in range(count)])  # count * batch draws = batch whole epochs
    assert np.bincount(drawn, minlength=count).tolist() == [batch] * count


def test_personalising_equals_a_plain_loop_with_the_official_recipe(lpips: LPIPS) -> None:
    """New and replayed photos 1:1, mean over all of LPIPS + lambda MSE, Adam: written out the slow way."""
    settings = TrainerSettings(passes=2, mse_weight=0.7)
    new, replay = photos(3, lpips), photos(5, lpips, seed=2)
    ours = tiny()
    personalise(ours, new, replay, settings=settings, learning_rate=2e-3, lpips=lpips, **rngs())
    theirs = tiny()
    optimizer = torch.optim.Adam(theirs.parameters(), lr=2e-3)
    new_stream = epochs(3, 2, np.random.default_rng(3))
    replay_stream = replay_draws(5, 2, np.random.default_rng(4))
    for _ in range(4):
        losses = []
        for source, index in ((new, next(new_stream)), (replay, next(replay_stream))):
            for i in index.tolist():
                image, target = theirs(source.latents[i : i + 1]), source.images[i : i + 1]
                losses.append(lpips(image, target).sum() + 0.7 * (image - target).square().mean())
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4, msg=name)


def test_personalising_lowers_the_loss_is_deterministic_and_counts_steps(lpips: LPIPS) -> None:
    settings = TrainerSettings(passes=6)
    results, seen = [], []
    for _ in range(2):
        module = tiny()
        steps: list[tuple[int, int, float]] = []
        last = personalise(
            module,
            photos(3, lpips),
            None,
            settings=settings,
            learning_rate=1e-2,
            lpips=lpips,
            on_step=lambda *state, into=steps: into.append(state),
            **rngs(),
        )
        results.append(module(torch.ones(1, 8)))
        seen = steps
    assert torch.equal(results[0], results[1])
    assert len(seen) == total_steps(3, settings) == 12
    assert last < seen[0][2]


def test_a_loss_that_is_not_finite_stops_with_step_and_rate(lpips: LPIPS) -> None:
    with pytest.raises(TrainingDivergedError, match=r"step \d+ of \d+ with learning rate 1e\+30"):
        personalise(
            tiny(),
            photos(3, lpips),
            None,
            settings=TrainerSettings(),
            learning_rate=1e30,
            lpips=lpips,
            **rngs(),
        )


@given(count=st.integers(1, 9), batch=st.integers(1, 4), steps=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_schedule_is_the_stream(count: int, batch: int, steps: int, seed: int) -> None:
    stream = epochs(count, batch, np.random.default_rng(seed))
    planned = schedule(epochs(count, batch, np.random.default_rng(seed)), steps, torch.device("cpu"))
    assert [index.tolist() for index in planned] == [next(stream).tolist() for _ in range(steps)]


@given(losses=st.lists(st.floats(0, 10, width=32), min_size=1, max_size=50), every=st.integers(1, 25))
def test_looking_rarely_loses_no_loss(losses: list[float], every: int) -> None:
    log = LossLog(len(losses), 0.1, every=every)
    looked = [log.add(torch.tensor(loss)) for loss in losses]
    assert log.values == losses and looked[-1]
    assert [i + 1 for i, yes in enumerate(looked) if yes] == [*range(every, len(losses), every), len(losses)]


def test_looking_rarely_still_names_the_first_bad_step() -> None:
    log = LossLog(100, 0.1, every=20)
    for _ in range(6):
        log.add(torch.tensor(1.0))
    with pytest.raises(TrainingDivergedError, match="became nan at step 7 of 100 with learning rate 0.1"):
        for step in range(14):
            log.add(torch.tensor(float("nan") if step == 0 else float("inf")))


def test_inversion_lowers_the_loss_and_photos_do_not_influence_each_other(lpips: LPIPS) -> None:
    module = tiny().requires_grad_(False)
    targets = module(torch.randn(3, 8, generator=torch.Generator().manual_seed(5)))
    start = torch.zeros(3, 8)
    features = lpips.features(targets)
    settings = InversionSettings(steps=25, learning_rate=0.1, prior_weight=0.0, batch_size=3)
    together = invert(module, targets, features, start, settings=settings, lpips=lpips)
    with torch.no_grad():
        assert (lpips(module(together), targets) < lpips(module(start), targets)).all()
    for i in range(3):
        alone = invert(
            module,
            targets[i : i + 1],
            lpips.features(targets[i : i + 1]),
            start[i : i + 1],
            settings=settings,
            lpips=lpips,
        )
        torch.testing.assert_close(alone[0], together[i], rtol=1e-2, atol=1e-2)
    assert torch.equal(start, torch.zeros(3, 8)), "the start must stay as it was"


def test_a_strong_prior_keeps_w_at_its_start(lpips: LPIPS) -> None:
    module = tiny().requires_grad_(False)
    targets = module(torch.randn(2, 8, generator=torch.Generator().manual_seed(5)))
    features = lpips.features(targets)
    moved = {}
    for prior in (0.0, 1e3):
        settings = InversionSettings(steps=30, learning_rate=0.05, prior_weight=prior)
        w = invert(module, targets, features, torch.zeros(2, 8), settings=settings, lpips=lpips)
        moved[prior] = float(w.norm())
    assert moved[1e3] < 0.1 * moved[0.0]


@given(count=st.integers(1, 8), seed=st.integers(0, 50))
def test_combinations_lie_in_the_hull_and_come_from_the_seed(count: int, seed: int) -> None:
    anchors = torch.eye(count)
    settings = EvaluationSettings(synthesis_images=5, synthesis_anchors=3)
    w = convex_combinations(anchors, settings, np.random.default_rng(seed))
    assert torch.equal(w, convex_combinations(anchors, settings, np.random.default_rng(seed)))
    assert (w >= 0).all()
    torch.testing.assert_close(w.sum(dim=1), torch.ones(5))
    assert ((w > 0).sum(dim=1) <= 3).all()
