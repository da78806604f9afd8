"""Trainer core, inversion and evaluation on a tiny generator, against plain loops."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings
from clstudy.metrics.base import Metric
from clstudy.metrics.lpips import LPIPS
from clstudy.metrics.psnr import PSNRMetric
from clstudy.settings.profiles import EvaluationSettings, InversionSettings, TrainerSettings
from clstudy.training import evaluation
from clstudy.training.evaluation import NotFiniteError, convex_combinations, evaluate
from clstudy.training.inversion import invert
from clstudy.training.personalise import (
    LossLog,
    StepLoss,
    TrainingDivergedError,
    TrainingPhotos,
    backpropagate,
    epochs,
    largest_sane_loss,
    personalise,
    replay_draws,
    schedule,
    total_steps,
)

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


class Counting(torch.nn.Module):
    """A generator that notes the latents of every step."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module
        self.seen: list[torch.Tensor] = []

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        self.seen.append(w.detach().clone())
        return self.module(w)


def test_beside_a_short_last_batch_as_many_are_replayed_as_the_setting_says(lpips: LPIPS) -> None:
    """Five new photos in batches of two end in one alone; the reference scripts then replay one, not two."""
    new, replay = photos(5, lpips), photos(3, lpips, seed=2)
    seen = {}
    for how in ("full", "as_new"):
        module = Counting(tiny())
        settings = TrainerSettings(epochs=2, short_batch_replay=how)
        personalise(module, new, replay, settings=settings, learning_rate=1e-4, lpips=lpips, **rngs())
        seen[how] = module.seen
    assert [len(batch) for batch in seen["full"]] == [4, 4, 3] * 2
    assert [len(batch) for batch in seen["as_new"]] == [4, 4, 2] * 2
    for full, short in zip(seen["full"], seen["as_new"], strict=True):
        assert torch.equal(full[: len(short)], short), "the same photos, but for those left out"


def step_loss(photos: float, penalty: float = 0.0) -> StepLoss:
    return StepLoss(torch.tensor(photos), torch.tensor(photos + penalty))


def pull_to_zero(module: torch.nn.Module) -> torch.Tensor:
    """A penalty that every parameter takes part in."""
    return 0.01 * torch.stack([value.square().sum() for value in module.parameters()]).sum()


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
    settings = TrainerSettings(epochs=2, mse_weight=0.7)
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
    settings = TrainerSettings(epochs=6)
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
    looked = [log.add(step_loss(loss)) for loss in losses]
    assert log.values == losses and looked[-1]
    assert [i + 1 for i, yes in enumerate(looked) if yes] == [*range(every, len(losses), every), len(losses)]


def test_looking_rarely_still_names_the_first_bad_step() -> None:
    log = LossLog(100, 0.1, every=20)
    for _ in range(6):
        log.add(step_loss(1.0))
    with pytest.raises(TrainingDivergedError, match="became nan at step 7 of 100 with learning rate 0.1"):
        for step in range(14):
            log.add(step_loss(float("nan") if step == 0 else float("inf")))


def test_a_finite_loss_that_no_image_has_stops_too_and_a_penalty_may_be_of_any_size() -> None:
    limit = largest_sane_loss(TrainerSettings(mse_weight=0.5))
    log = LossLog(100, 0.1, every=3, limit=limit)
    for _ in range(3):
        log.add(step_loss(limit, penalty=1e9))
    assert log.values == pytest.approx([limit + 1e9] * 3)
    log.add(step_loss(1.0))
    log.add(step_loss(1.5 * limit))
    with pytest.raises(TrainingDivergedError, match=r"became 87.075 at step 5 of 100 with learning rate 0.1 \(above"):
        log.add(step_loss(1.0))
    with pytest.raises(TrainingDivergedError, match="became inf at step 1 of 100"):
        LossLog(100, 0.1, every=1, limit=limit).add(step_loss(1.0, penalty=float("inf")))


def test_what_images_cannot_reach(lpips: LPIPS) -> None:
    """The bound of LPIPS from the packaged heads, and images that try: in range, and far out of it."""
    heads = [getattr(lpips, f"head{level}") for level in range(5)]
    assert all((head >= 0).all() for head in heads)
    bound = 2 * sum(float(head.max()) for head in heads)
    plain = TrainerSettings(mse_weight=0.0)
    assert bound <= largest_sane_loss(plain) <= 1.01 * bound
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(8, 3, 32, 32, generator=rng)
    for scale in (1.0, 1e4, 1e15):
        assert (lpips(scale * noise, -noise.sign()) < largest_sane_loss(plain)).all()
    weighted = TrainerSettings(mse_weight=2.0)
    assert largest_sane_loss(weighted) > bound + 2.0 * 4 * 10, "room for images that leave the range"


def test_a_rate_that_destroys_the_generator_is_stopped_while_its_loss_is_finite(lpips: LPIPS) -> None:
    seen: list[float] = []
    with pytest.raises(TrainingDivergedError, match=r"became [\d.e+]+ at step \d+ of 180 with learning rate 1 \(above"):
        personalise(
            tiny(),
            photos(5, lpips),
            None,
            settings=TrainerSettings(epochs=60),
            learning_rate=1.0,
            lpips=lpips,
            on_step=lambda step, total, loss: seen.append(loss),
            **rngs(),
        )
    assert seen and max(seen) <= largest_sane_loss(TrainerSettings())


def doubled(photos: TrainingPhotos) -> TrainingPhotos:
    return TrainingPhotos(
        photos.latents.double(), photos.images.double(), tuple(level.double() for level in photos.features)
    )


@pytest.mark.parametrize("penalty", [None, pull_to_zero])
@pytest.mark.parametrize(("count", "micro_batch"), [(1, 1), (4, 1), (4, 2), (4, 3), (5, 2), (5, 4), (3, 8)])
def test_gradients_in_parts_are_those_of_the_whole(
    lpips: LPIPS, count: int, micro_batch: int, penalty: Callable[..., torch.Tensor] | None
) -> None:
    """In float64, where another order of the same sums differs far less than other mathematics would."""
    exact = deepcopy(lpips).double()
    batch = doubled(photos(count, lpips))
    found = []
    for size in (None, micro_batch):
        module = tiny().double()
        loss = backpropagate(module, batch, TrainerSettings(mse_weight=0.7), exact, penalty, micro_batch=size)
        # what the loss does not reach stays without gradient (None), in parts too
        gradients = {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
        found.append((loss, gradients))
    (whole, ours), (parted, theirs) = found
    torch.testing.assert_close(parted, whole, rtol=1e-10, atol=0)
    torch.testing.assert_close(theirs, ours, rtol=1e-8, atol=1e-12)


class Widest(torch.nn.Module):
    """Notes the largest batch that a generator is given."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module
        self.widest = 0

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        self.widest = max(self.widest, len(w))
        return self.module(w)


def run_with(
    lpips: LPIPS, micro_batch: int | None, **more: Any
) -> tuple[float, list[float], dict[str, torch.Tensor], int]:
    module, losses = Widest(tiny()), []
    loss = personalise(
        module,
        photos(5, lpips),
        more.pop("replay", None),
        settings=TrainerSettings(epochs=2),
        learning_rate=1e-3,
        lpips=lpips,
        on_step=lambda step, total, value: losses.append(value),
        micro_batch=micro_batch,
        **more,
        **rngs(),
    )
    return loss, losses, dict(module.module.named_parameters()), module.widest


@pytest.mark.parametrize("penalty", [None, pull_to_zero])
@pytest.mark.parametrize("replayed", [0, 3])
def test_personalising_in_parts_takes_the_same_steps(
    lpips: LPIPS, replayed: int, penalty: Callable[..., torch.Tensor] | None
) -> None:
    """Five new photos in batches of two leave a short last one in every epoch."""
    more = {"replay": photos(replayed, lpips, seed=2) if replayed else None, "penalty": penalty}
    loss, losses, weights, widest = run_with(lpips, None, **more)
    assert widest == (4 if replayed else 2)
    for micro_batch in (1, 2, 3):
        parted_loss, parted_losses, parted, width = run_with(lpips, micro_batch, **more)
        assert width == min(widest, micro_batch)
        assert parted_losses == pytest.approx(losses, rel=2e-3) and parted_loss == pytest.approx(loss, rel=2e-3)
        # six steps of Adam with 1e-3: one photo left out or counted twice moves weights by up to 1e-2
        torch.testing.assert_close(parted, weights, rtol=0, atol=1e-3)


def test_a_micro_batch_as_large_as_the_step_changes_no_bit(lpips: LPIPS) -> None:
    replay = photos(3, lpips, seed=2)
    loss, losses, weights, _ = run_with(lpips, None, replay=replay)
    same_loss, same_losses, same, _ = run_with(lpips, 4, replay=replay)
    assert (same_loss, same_losses) == (loss, losses)
    assert all(torch.equal(value, same[name]) for name, value in weights.items())


@pytest.mark.parametrize("micro_batch", [1, 2, 5, 9])
def test_target_features_in_parts_are_those_of_all_together(lpips: LPIPS, micro_batch: int) -> None:
    whole = photos(5, lpips)
    parted = TrainingPhotos.prepare(whole.latents, whole.images, lpips, micro_batch=micro_batch)
    torch.testing.assert_close(parted.features, whole.features, rtol=1e-4, atol=1e-5)


class Undefined(Metric):
    """A user's metric that divides by zero for the second image."""

    name = "undefined"
    in_synthesis = True

    def __init__(self, value: float, protocol: str):
        super().__init__()
        self._value, self._protocol = value, protocol

    def prepare(self, targets: torch.Tensor) -> None:
        return None

    def _values(self, count: int, protocol: str) -> torch.Tensor:
        values = torch.zeros(count)
        if protocol == self._protocol:
            values[1] = self._value
        return values

    def pairs(self, images: torch.Tensor, prepared: None) -> torch.Tensor:
        return self._values(len(images), "reconstruction")

    def synthesis(self, images: torch.Tensor, prepared: None) -> torch.Tensor:
        return self._values(len(images), "synthesis")


def one_test_set(lpips: LPIPS, metrics: list[Metric]) -> evaluation.TestSet:
    made = photos(2, lpips)
    return evaluation.TestSet(
        timestamp=1,
        digests=("one", "two"),
        images=made.images,
        features=made.features,
        start=torch.zeros(2, 8),
        prepared={metric.name: metric.prepare(made.images) for metric in metrics},
        combinations=photos(3, lpips, seed=3).latents,
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("protocol", "image"), [("reconstruction", "two"), ("synthesis", "synthesis/01")])
def test_a_metric_that_is_not_finite_is_named_and_never_stored(
    lpips: LPIPS, value: float, protocol: str, image: str
) -> None:
    metrics: list[Metric] = [PSNRMetric(), Undefined(value, protocol)]
    settings = InversionSettings(steps=1)
    module = tiny().requires_grad_(False)
    said = rf"metric undefined is {value} for image {image} \({protocol}, timestamp 1 under the model of timestamp 3\)"
    with pytest.raises(NotFiniteError, match=said):
        evaluate(module, [one_test_set(lpips, metrics)], metrics, train_timestamp=3, inversion=settings, lpips=lpips)
    metrics = [PSNRMetric(), Undefined(0.0, protocol)]
    done = evaluate(module, [one_test_set(lpips, metrics)], metrics, train_timestamp=3, inversion=settings, lpips=lpips)
    assert len(done.rows) == 2 + 2 + 3


class Blinding(torch.nn.Module):
    """A generator of which one pixel is infinite where a latent is large."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        images = self.module(w)
        images[w.norm(dim=1) > 1, 0, 0, 0] = float("inf")
        return images


def test_latents_and_images_that_are_not_finite_stop_the_evaluation(lpips: LPIPS) -> None:
    """An infinite pixel would be clamped to white, and a network that rounds to bytes would score NaN as black."""
    test = one_test_set(lpips, [PSNRMetric()])

    def scores(module: torch.nn.Module, settings: InversionSettings) -> None:
        evaluate(
            module.requires_grad_(False), [test], [PSNRMetric()], train_timestamp=3, inversion=settings, lpips=lpips
        )

    broken = tiny()
    torch.nn.init.constant_(broken.get_parameter("b32.torgb.bias"), float("nan"))
    with pytest.raises(NotFiniteError, match="a latent of timestamp 1 under the model of timestamp 3 became NaN"):
        scores(broken, InversionSettings(steps=1))
    with pytest.raises(NotFiniteError, match="a reconstruction of timestamp 1 under"):
        scores(broken, InversionSettings(steps=0))
    with pytest.raises(NotFiniteError, match="a generated image of timestamp 1 under"):
        scores(Blinding(tiny()), InversionSettings(steps=1))


def test_evaluation_in_parts_gives_the_same_rows(lpips: LPIPS) -> None:
    metrics: list[Metric] = [PSNRMetric()]
    found = []
    for micro_batch, widest in ((None, 2), (1, 1), (2, 2), (7, 2)):
        module = Widest(tiny().requires_grad_(False))
        done = evaluate(
            module,
            [one_test_set(lpips, metrics)],
            metrics,
            train_timestamp=3,
            inversion=InversionSettings(steps=3, batch_size=2),
            lpips=lpips,
            micro_batch=micro_batch,
        )
        assert module.widest == widest
        found.append(done.rows)
    for rows in found[1:]:
        assert [(row.metric, row.image) for row in rows] == [(row.metric, row.image) for row in found[0]]
        assert [row.value for row in rows] == pytest.approx([row.value for row in found[0]], rel=1e-3)
    assert found[2] == found[3] == found[0], "a micro-batch that is no smaller changes no bit"


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


def plain_w_plus(
    module: torch.nn.Module, target: torch.Tensor, start: torch.Tensor, lpips: LPIPS, settings: InversionSettings
) -> torch.Tensor:
    """W+ by its definition, a photo at a time: a list of one latent per layer, an optimiser over all of them."""
    layers = [start.clone().requires_grad_(True) for _ in range(8)]
    optimizer = torch.optim.Adam(layers, lr=settings.learning_rate)
    for _ in range(settings.steps):
        image = module(torch.stack(layers)[None])
        moved = torch.stack([(layer - start).square().mean() for layer in layers]).mean()
        loss = lpips(image, target[None]).sum() + (image - target).square().mean() + settings.prior_weight * moved
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.stack([layer.detach() for layer in layers])


@pytest.mark.parametrize("prior", [0.0, 0.5])
def test_inversion_in_w_plus_is_one_latent_per_layer_from_the_same_w(lpips: LPIPS, prior: float) -> None:
    module = tiny().requires_grad_(False)
    targets = photos(2, lpips, seed=5).images
    start = torch.randn(2, 8, generator=torch.Generator().manual_seed(6))
    features = lpips.features(targets)
    settings = InversionSettings(
        steps=3, learning_rate=0.1, prior_weight=prior, final_lr_fraction=1.0, latent_space="w_plus"
    )
    found = invert(module, targets, features, start, settings=settings, lpips=lpips)
    assert found.shape == (2, 8, 8)
    for index in range(2):
        expected = plain_w_plus(module, targets[index], start[index], lpips, settings)
        torch.testing.assert_close(found[index], expected, rtol=1e-3, atol=1e-3)
    unmoved = invert(
        module, targets, features, start, settings=InversionSettings(steps=0, latent_space="w_plus"), lpips=lpips
    )
    torch.testing.assert_close(module(unmoved), module(start))


def test_w_plus_reaches_what_w_cannot(lpips: LPIPS) -> None:
    """And the rows are scored on its pictures."""
    module = tiny().requires_grad_(False)
    test = one_test_set(lpips, [PSNRMetric()])
    values = {}
    for space in ("w", "w_plus"):
        settings = InversionSettings(steps=12, prior_weight=0.0, latent_space=space)
        done = evaluate(module, [test], [PSNRMetric()], train_timestamp=3, inversion=settings, lpips=lpips)
        values[space] = [row.value for row in done.rows if row.protocol == "reconstruction"]
    assert len(values["w"]) == len(values["w_plus"]) == 2
    assert all(plus > w for w, plus in zip(values["w"], values["w_plus"], strict=True))


@pytest.mark.parametrize(("how", "largest"), [("uniform", 11 / 18), ("normalised", 0.52)])
def test_how_far_combinations_spread(how: str, largest: float) -> None:
    """Uniform on the simplex the largest of three weights is 11/18 on average; of normalised numbers it is 0.52."""
    settings = EvaluationSettings(synthesis_images=4_000, synthesis_anchors=3, synthesis_weights=how)
    weights = convex_combinations(torch.eye(3), settings, np.random.default_rng(0))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(weights)))
    assert (weights >= 0).all()
    assert float(weights.max(dim=1).values.mean()) == pytest.approx(largest, abs=0.01)


@given(count=st.integers(1, 8), seed=st.integers(0, 50))
def test_combinations_lie_in_the_hull_and_come_from_the_seed(count: int, seed: int) -> None:
    anchors = torch.eye(count)
    settings = EvaluationSettings(synthesis_images=5, synthesis_anchors=3)
    w = convex_combinations(anchors, settings, np.random.default_rng(seed))
    assert torch.equal(w, convex_combinations(anchors, settings, np.random.default_rng(seed)))
    assert (w >= 0).all()
    torch.testing.assert_close(w.sum(dim=1), torch.ones(5))
    assert ((w > 0).sum(dim=1) <= 3).all()
