"""Strategies with hooks around a stage, on the real embedded generator: MeRGAN (JTR, RA) and EWC."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load
from torch import Tensor

from clstudy.assets import manifest
from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.generators.stylegan2 import StyleGAN2Settings
from clstudy.identities.dataset import Identity, load_folder
from clstudy.identities.dcgan import LATENT_SIZE, FaceSource
from clstudy.metrics.lpips import LPIPS
from clstudy.metrics.psnr import PSNRMetric
from clstudy.records.stage_record import StageRecord
from clstudy.settings.profiles import EvaluationSettings, InversionSettings, Profile, TrainerSettings, smoke
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.content_addressed_store import STAGE_RECORD, StudyStore
from clstudy.strategies.base import Memory, Past, make_items
from clstudy.strategies.ewc import ElasticWeightConsolidation
from clstudy.strategies.generative_replay import frozen_images
from clstudy.strategies.mergan_jtr import MerganJointRetraining
from clstudy.trial.listener import StageReport
from clstudy.trial.requests import Basis, LearnedRequest, StageRequest, Support, stage_requests
from clstudy.trial.stage_runner import StageRunner
from clstudy.trial.story import trial_stages
from tests.support.oracles import official_lpips

TIMESTAMPS, TRAIN = 3, 3
DIGEST = manifest()["embedded_generator.safetensors"]["sha256"]
PROFILE: Profile = replace(
    smoke(),
    trainer=TrainerSettings(epochs=2),
    inversion=InversionSettings(steps=1),
    evaluation=EvaluationSettings(metrics=("psnr",), synthesis_images=1),
)


class Silent:
    """A listener that does not listen."""

    def progress(self, t: int, phase: str, done: int, total: int, loss: float) -> None:
        return


@pytest.fixture(scope="module")
def generator() -> EmbeddedGenerator:
    return EmbeddedGenerator()


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """Someone of whom every photo shows a different face: all the better for telling weights apart."""
    root = tmp_path_factory.mktemp("photos")
    latents = np.random.default_rng(0).standard_normal((TIMESTAMPS * (TRAIN + 1), LATENT_SIZE))
    faces = iter(FaceSource().draw(latents))
    for t in range(TIMESTAMPS):
        for split, count in (("train", TRAIN), ("test", 1)):
            folder = root / "anna" / f"t{t}" / split
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(next(faces)).save(folder / f"{number}.png")
    return load_folder(root).identities[0]


def bench(generator: EmbeddedGenerator, folder: Path, passes: int = 2) -> StageRunner:
    basis = Basis(replace(PROFILE, trainer=TrainerSettings(epochs=passes)), DIGEST)
    return StageRunner.personalising(basis, generator, LPIPS(), [PSNRMetric()], StudyStore(folder))


def spec(strategy: str, size: int | None = None, rate: float = 0.003) -> TrialSpec:
    return TrialSpec(identity="anna", strategy=strategy, buffer_size=size, learning_rate=rate, seed=0)


def run(work: StageRunner, person: Identity, one: TrialSpec) -> list[tuple[StageRequest, StageReport]]:
    return list(trial_stages(work, one, person, Silent()))


def weights(work: StageRunner, request: StageRequest) -> dict[str, Tensor]:
    return work.trainer.weights(request)


def distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    return float(torch.cat([(ours[name] - theirs[name]).flatten() for name in ours]).norm())


def support_of(requests: Sequence[tuple[StageRequest, StageReport]], t: int) -> tuple[StageRequest, Support]:
    request = requests[t][0]
    assert request.support is not None
    return request, request.support


@pytest.mark.parametrize(("strategy", "size"), [("ewc(weight=0.0)", None), ("mergan_ra(weight=0.0)", 3)])
def test_a_penalty_of_weight_0_leaves_every_bit_of_lower(
    strategy: str, size: int | None, generator: EmbeddedGenerator, person: Identity, tmp_path: Path
) -> None:
    work = bench(generator, tmp_path)
    plain, penalised = run(work, person, spec("lower")), run(work, person, spec(strategy, size))
    for t, ((ours, report), (theirs, other)) in enumerate(zip(plain, penalised, strict=True)):
        assert (ours.key == theirs.key) == (t == 0), "only the first stage is shared: the others were computed"
        assert not other.reused or t == 0
        assert report.rows.equals(other.rows) and report.loss == other.loss
        before, after = weights(work, ours), weights(work, theirs)
        assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("strategy", "size"),
    [("ewc(weight=1e12)", None), pytest.param("mergan_ra(weight=1e4)", 3, marks=pytest.mark.slow)],
)
def test_a_heavy_penalty_holds_the_weights_back(
    strategy: str, size: int | None, generator: EmbeddedGenerator, person: Identity, tmp_path: Path
) -> None:
    work = bench(generator, tmp_path, passes=10)
    free, held = run(work, person, spec("lower", rate=1e-3)), run(work, person, spec(strategy, size, rate=1e-3))
    start = weights(work, free[0][0])
    moved_free, moved_held = (distance(weights(work, trial[1][0]), start) for trial in (free, held))
    if strategy.startswith("ewc"):
        assert moved_held < 0.2 * moved_free, f"moved {moved_held:.3g} instead of {moved_free:.3g}"
    request = held[1][0]
    assert request.parent is not None
    anchors, _ = work.photos.anchors(person, 0)
    before = frozen_images(work.trainer.frozen(request.parent), anchors)
    drift = [
        float((frozen_images(work.trainer.frozen(trial[1][0]), anchors) - before).square().mean())
        for trial in (free, held)
    ]
    assert drift[1] < 0.5 * drift[0], f"old images moved by {drift[1]:.3g} instead of {drift[0]:.3g}"


def test_fisher_terms_equal_a_brute_force_with_the_official_lpips(
    generator: EmbeddedGenerator, person: Identity, tmp_path: Path
) -> None:
    """The first term from squared gradients of single photos; the second adds to the first (decay 1)."""
    if importlib.util.find_spec("lpips") is None:
        pytest.skip("install the lpips extra to compare with the official package")
    work = bench(generator, tmp_path)
    requests = [request for request, _ in run(work, person, spec("ewc"))]
    official = official_lpips()
    expected: dict[str, Tensor] = {}
    for t in range(2):
        module = work.trainer.frozen(requests[t]).requires_grad_(True)
        photos = work.photos.training(person, (t,))
        for i in range(TRAIN):
            module.zero_grad()
            image, target = module(photos.latents[i : i + 1]), photos.images[i : i + 1]
            (official(image, target).sum() + (image - target).square().mean()).backward()
            for name, parameter in module.named_parameters():
                assert parameter.grad is not None
                expected[name] = expected.get(name, 0.0) + parameter.grad.square() / TRAIN
        support = requests[t + 1].support
        assert support is not None and support.learned is not None
        found = work.trainer.learned(support.learned)
        assert set(found) == set(expected)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=2e-3, atol=1e-9 * float(value.max()) + 1e-20)


def test_learned_terms_are_stored_and_come_back(generator: EmbeddedGenerator, person: Identity, tmp_path: Path) -> None:
    work = bench(generator, tmp_path)
    requests = [request for request, _ in run(work, person, spec("ewc"))]
    request = requests[2]
    assert request.support is not None and isinstance(request.support.learned, LearnedRequest)
    key = request.support.learned.key
    first = work.store.learned.get(key)
    assert first is not None
    (work.store.learned.folder(key) / "learned.safetensors").write_bytes(b"")
    again = work.trainer.learned(request.support.learned)
    assert all(torch.equal(again[name], value) for name, value in load(first["learned.safetensors"]).items())


def test_replays_are_the_frozen_generators_images_of_the_recorded_latents(
    generator: EmbeddedGenerator, person: Identity, tmp_path: Path
) -> None:
    work = bench(generator, tmp_path)
    requests = run(work, person, spec("mergan_jtr(images=6)", 4))
    request, support = support_of(requests, 2)
    assert request.parent is not None and request.parent.key == requests[1][0].key and not request.replay, (
        "no photo is replayed"
    )
    files = work.store.stages.get(request.key)
    assert files is not None
    recorded = load(files["replays.safetensors"])["latents"]
    shown = np.asarray(requests[2][1].buffer)
    frozen = EmbeddedGenerator().fresh(work.trainer.weights(request.parent))
    with torch.no_grad():
        images = frozen(recorded)
    pixels = images.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(shown, np.concatenate(list(pixels), axis=1))
    stored = {item.timestamp: [] for item in support.memory.items}
    for item in support.memory.items:
        stored[item.timestamp].append(item.latent)
    for latent in recorded.numpy():
        assert any(in_span(latent, np.stack(anchors)) for anchors in stored.values())


def in_span(latent: np.ndarray, anchors: np.ndarray) -> bool:
    """Whether a latent is a convex combination of anchors (least squares, then the signs)."""
    system = np.vstack([anchors.T.astype(np.float64), np.ones(len(anchors))])
    found, *_ = np.linalg.lstsq(system, np.append(latent, 1.0), rcond=None)
    return bool((found > -1e-5).all() and np.abs(system @ found - np.append(latent, 1.0)).max() < 1e-4)


def test_generated_replays_change_the_training_and_no_photo_of_the_past_is_opened(
    generator: EmbeddedGenerator, person: Identity, tmp_path: Path
) -> None:
    work = bench(generator, tmp_path)
    lower, jtr = run(work, person, spec("lower")), run(work, person, spec("mergan_jtr(images=4)", 3))
    assert lower[0][0].key == jtr[0][0].key and jtr[0][1].reused, "t = 0 is shared by all"
    assert distance(weights(work, lower[1][0]), weights(work, jtr[1][0])) > 0


def test_hooks_are_pure() -> None:
    anchors = np.random.default_rng(0).standard_normal((5, StyleGAN2Settings().w_dim)).astype(np.float32)
    memory = Memory(tuple(make_items(0, list("abcde"), anchors)))
    past = Past(memory, {}, EmbeddedGenerator().fresh().requires_grad_(False))
    strategy = MerganJointRetraining(images=3)
    first, second, other = (strategy.replays(past, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.images, second.images) and not torch.equal(first.latents, other.latents)


@pytest.mark.parametrize(("strategy", "size"), [("ewc", None), ("mergan_jtr(images=4)", 2), ("er_rand", 2)])
def test_a_stage_records_the_size_of_the_weights_its_hooks_look_at(
    strategy: str, size: int | None, generator: EmbeddedGenerator, person: Identity, tmp_path: Path
) -> None:
    work = bench(generator, tmp_path, passes=1)
    for request, _ in run(work, person, spec(strategy, size)):
        files = work.store.stages.get(request.key)
        assert files is not None
        held = StageRecord.decode(files[STAGE_RECORD]).frozen_bytes
        if request.parent is None or strategy == "er_rand":
            assert held is None
        else:
            assert held == sum(4 * value.numel() for value in weights(work, request.parent).values())


@pytest.mark.parametrize("strategy", ["ewc", "mergan_jtr(images=4)", "mergan_ra(images=4)"])
def test_another_run_reads_every_stage_and_gets_the_same_rows(
    strategy: str, generator: EmbeddedGenerator, person: Identity, tmp_path: Path
) -> None:
    size = None if strategy == "ewc" else 3
    first = run(bench(generator, tmp_path), person, spec(strategy, size))
    (bench(generator, tmp_path).store.stages.folder(first[2][0].key) / "COMPLETE").unlink()
    second = run(bench(generator, tmp_path), person, spec(strategy, size))
    assert [report.reused for _, report in second] == [True, True, False]
    assert all(ours.rows.equals(theirs.rows) for (_, ours), (_, theirs) in zip(first, second, strict=True))


def test_settings_change_the_keys(generator: EmbeddedGenerator, person: Identity) -> None:
    basis = Basis(PROFILE, DIGEST)
    keys = [
        [request.key for request in stage_requests(spec(name), person, basis, lambda request: Memory())]
        for name in ("ewc", "ewc(weight=5.0)", "ewc(decay=0.5)")
    ]
    assert len({found[0] for found in keys}) == 1 and len({found[1] for found in keys}) == 3


@pytest.mark.parametrize("bad", [{"weight": -1.0}, {"weight": float("nan")}, {"decay": 1.5}])
def test_ewc_refuses_settings_that_make_no_sense(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        ElasticWeightConsolidation(**bad)
