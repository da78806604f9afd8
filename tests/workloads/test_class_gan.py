"""A class-conditional GAN that learns one category after the other: the contract, its scores, and what is forgotten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from clstudy.errors import UserError
from clstudy.generators.image_classifier import ClassifierFacts, ImageClassifierKind, save_classifier
from clstudy.generators.pretraining.classifier import classifier_of
from clstudy.identities.categories.orders import HELD_BACK, OrderSettings, make_orders
from clstudy.identities.categories.sources import Categories
from clstudy.identities.dataset import DataSet, load_folder
from clstudy.metrics.base import Metric
from clstudy.registry import findings_of
from clstudy.settings.class_gan import ClassGANProfile, ClassGANSettings
from clstudy.settings.profiles import DataSettings, class_gan_small, embedded
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.training.personalise import TrainingDivergedError
from clstudy.trial.listener import StageReport
from clstudy.trial.requests import Basis
from clstudy.trial.stage_runner import StageRunner
from clstudy.trial.story import trial_stages
from clstudy.workloads.class_conditional_gan import CategoryTest, ClassConditionalGAN
from clstudy.workloads.class_gan import ClassGANKind
from clstudy.workloads.conformance import CHECKS, WorkloadInHand
from clstudy.workloads.workload import TrainedStage
from tests.strategies.test_hooks import Silent

SIZE = 16


def shapes() -> Categories:
    """Three categories that anybody can tell apart: upright bars, level bars, filled squares."""
    rng = np.random.default_rng(0)
    found = []
    for kind in range(3):
        images = rng.integers(0, 30, (HELD_BACK + 40, SIZE, SIZE, 3), np.uint8)
        for image in images:
            at, across = rng.integers(2, SIZE - 6, 2)
            part = ((slice(None), slice(at, at + 3)), (slice(at, at + 3), slice(None)))[kind] if kind < 2 else None
            image[part or (slice(at, at + 5), slice(across, across + 5))] = 230
        found.append(images)
    return Categories(("upright", "level", "square"), tuple(found))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "classifier.safetensors"
    save_classifier(classifier_of(shapes(), passes=40), ClassifierFacts(shapes().names, SIZE), path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    root = tmp_path_factory.mktemp("orders")
    make_orders(root, shapes(), OrderSettings(orders=1, timestamps=3, train=30, test=12, data_seed=0), "shapes")
    return load_folder(root, image_size=SIZE)


def profile(**given: Any) -> ClassGANProfile:
    small = class_gan_small()
    assert isinstance(small, ClassGANProfile)
    settings = {"classes": 3, "width": 4, "steps": 6, "batch_size": 8, "replay_batch_size": 8, "scored_images": 12}
    settings |= {"reverse_steps": 20}
    return replace(
        small,
        data=DataSettings(name="shapes", timestamps=3, train=30, test=12, image_size=SIZE),
        evaluation=replace(small.evaluation, metrics=("psnr",)),  # there is no file of Inception's weights
        class_gan=replace(small.class_gan, **{**settings, **given}),
    )


def built(classifier: Path, **given: Any) -> ClassConditionalGAN:
    weights = ImageClassifierKind().read({"classifier": classifier})
    return ClassGANKind().build(profile(**given), weights, {}, torch.device("cpu"))


def runner(folder: Path, workload: ClassConditionalGAN) -> StageRunner:
    return StageRunner(Basis(workload.profile, "any"), workload, StudyStore(folder))


def run(work: StageRunner, data: DataSet, strategy: str, size: int | None = None) -> list[StageReport]:
    spec = TrialSpec(identity="order_00", strategy=strategy, buffer_size=size, learning_rate=2e-3, seed=0)
    return [report for _, report in trial_stages(work, spec, data.identities[0], Silent())]


def mean(report: StageReport, metric: str, k: int) -> float:
    rows = report.rows.to_pylist()
    return float(np.mean([row["value"] for row in rows if (row["metric"], row["test_timestamp"]) == (metric, k)]))


@pytest.mark.parametrize("adversarial", ["non_saturating", "wgan_gp"])
def test_it_keeps_the_contract_of_workloads(adversarial: str, classifier: Path) -> None:
    workload = built(classifier, adversarial=adversarial, critic_steps=2)
    held = WorkloadInHand(ClassGANKind(), workload.profile, workload)
    broken = [finding for finding in findings_of(CHECKS, held) if not finding.passed]
    assert broken == []


def test_a_stage_goes_on_bit_for_bit_with_both_optimisers(classifier: Path, data: DataSet, tmp_path: Path) -> None:
    whole = run(runner(tmp_path / "whole", built(classifier)), data, "er_rand", 4)
    # every stage by another worker: what a stage needs of the one before comes from the store
    folder = tmp_path / "parts"
    for _ in range(3):
        parts = run(runner(folder, built(classifier)), data, "er_rand", 4)
    for one, other in zip(whole, parts, strict=True):
        assert one.rows.equals(other.rows) and np.array_equal(one.pictures["samples"], other.pictures["samples"])
    assert parts[2].reused and not whole[2].reused
    assert whole[2].pictures["samples"].shape == (3 * SIZE, 8 * SIZE, 3)


@pytest.mark.parametrize(
    ("strategy", "size"),
    [
        ("lower", None), ("upper", None), ("ewc", None), ("jtr", None), ("dgr", None), ("ra", None),
        ("er_rand", 5), ("er_hull", 5), ("kmeans", 5), ("herding", 5), ("reservoir", 5), ("gdumb", 5),
        ("mergan_jtr", 5),
    ],
)  # fmt: skip
def test_every_kind_of_strategy_runs(
    strategy: str, size: int | None, classifier: Path, data: DataSet, tmp_path: Path
) -> None:
    last = run(runner(tmp_path, built(classifier, steps=2)), data, strategy, size)[-1]
    found = {(row["metric"], row["test_timestamp"]) for row in last.rows.to_pylist()}
    assert found == {(name, k) for name in ("accuracy", "reverse_accuracy", "classifier_fid") for k in range(3)}
    assert {row["protocol"] for row in last.rows.to_pylist()} == {"generated"}


def test_joint_training_takes_the_steps_of_all_categories(classifier: Path, data: DataSet, tmp_path: Path) -> None:
    (report,) = run(runner(tmp_path, built(classifier)), data, "upper")
    assert report.losses is not None and len(report.losses) == 3 * 6


def test_an_alignment_without_weight_is_sequential_training(classifier: Path, data: DataSet, tmp_path: Path) -> None:
    work = runner(tmp_path, built(classifier))
    for lower, aligned in zip(run(work, data, "lower"), run(work, data, "ra(weight=0.0)"), strict=True):
        assert lower.rows.equals(aligned.rows)


class Showing(nn.Module):
    """A generator that shows given images, class by class."""

    def __init__(self, images: dict[int, Tensor]):
        super().__init__()
        self.images = images
        self.z_dim = 128

    def forward(self, latents: Tensor) -> Tensor:
        labels = latents[:, self.z_dim :].argmax(1).tolist()
        taken = dict.fromkeys(self.images, 0)
        found = []
        for label in labels:
            found.append(self.images[label][taken[label] % len(self.images[label])])
            taken[label] += 1
        return torch.stack(found)


def scored(
    workload: ClassConditionalGAN, tests: list[CategoryTest], images: dict[int, Tensor]
) -> dict[tuple[str, int], list[float]]:
    state = workload.state(None)
    state.generator = Showing(images)  # type: ignore[assignment]
    trained = TrainedStage(state, {}, 0.0, np.zeros(1, np.float32))
    stage = workload.evaluate(trained, tests, timestamp=len(tests) - 1, on_test_set=lambda k: None)
    values: dict[tuple[str, int], list[float]] = {}
    for row in stage.rows:
        values.setdefault((row.metric, row.test_timestamp), []).append(row.value)
    return values


def test_scores_are_of_what_is_shown_and_of_what_can_be_learned_from_it(
    classifier: Path, data: DataSet, tmp_path: Path
) -> None:
    workload = built(classifier, scored_images=30, reverse_steps=150)
    work = runner(tmp_path, workload)
    tests = [work.photos.test_set(data.identities[0], k, 0) for k in range(3)]
    real = {test.label: work.photos.training(data.identities[0], (k,)).images for k, test in enumerate(tests)}
    right = scored(workload, tests, real)
    for k, test in enumerate(tests):
        known = [float(workload.classifier(image[None]).argmax() == test.label) for image in real[test.label]]
        assert right["accuracy", k] == known and np.mean(known) > 0.9
        assert len(right["reverse_accuracy", k]) == 12 and np.mean(right["reverse_accuracy", k]) > 0.9
        assert right["classifier_fid", k][0] == pytest.approx(0, abs=1e-6), "the same images"
    swapped = {tests[k].label: real[tests[(k + 1) % 3].label] for k in range(3)}
    wrong = scored(workload, tests, swapped)
    for k, test in enumerate(tests):
        assert np.mean(wrong["accuracy", k]) < 0.1 and np.mean(wrong["reverse_accuracy", k]) < 0.1
        network = workload.classifier
        a, b = (
            network.standardised(network.features(images[test.label])).numpy().astype(float)
            for images in (swapped, real)
        )
        root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T))
        expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root.real)
        assert wrong["classifier_fid", k][0] == pytest.approx(expected, rel=1e-3)


def test_sequential_training_forgets_and_replay_does_not(classifier: Path, data: DataSet, tmp_path: Path) -> None:
    workload = built(classifier, width=8, steps=120, batch_size=16, replay_batch_size=16, scored_images=40)
    work = runner(tmp_path, workload)
    lower, replayed = run(work, data, "lower"), run(work, data, "jtr(images=96)")
    assert mean(lower[0], "accuracy", 0) > 0.9, "learned at its own timestamp"
    assert mean(lower[2], "accuracy", 0) < 0.4, "chance is a third"
    assert mean(replayed[2], "accuracy", 0) > 0.7
    assert mean(replayed[2], "reverse_accuracy", 0) > mean(lower[2], "reverse_accuracy", 0) + 0.3


class Brightness(Metric):
    """A metric of sets: difference of mean brightness."""

    name, higher_is_better, title, unit = "kid", False, "brightness", "shade"
    bounds, description = (0.0, 2.0), "difference of mean brightness"
    in_reconstruction, in_synthesis, of_set = False, True, True

    def prepare(self, targets: Tensor) -> Tensor:
        return targets.mean()

    def synthesis(self, images: Tensor, prepared: Tensor) -> Tensor:
        return (images.mean() - prepared).abs()[None]


def test_metrics_of_sets_are_of_a_categorys_images(classifier: Path, data: DataSet, tmp_path: Path) -> None:
    plain = built(classifier)
    facts = ClassifierFacts(shapes().names, SIZE)
    given = replace(plain.profile, evaluation=replace(plain.profile.evaluation, metrics=("psnr", "kid")))
    workload = ClassConditionalGAN(given, plain.classifier, facts, torch.device("cpu"), [Brightness()])
    work = runner(tmp_path, workload)
    (first, *_) = run(work, data, "lower")
    (row,) = [row for row in first.rows.to_pylist() if row["metric"] == "kid"]
    assert (row["protocol"], row["image"]) == ("synthesis", "synthesis/set")
    test = work.photos.test_set(data.identities[0], 0, 0)
    assert 0 < row["value"] < 2 and set(test.prepared) == {"kid"}
    assert [one.name for one in ClassGANKind().measures(given)] == [
        "accuracy", "reverse_accuracy", "classifier_fid", "kid",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"classes": 4}, "class_gan.classes is 4, and the classifier of real images is made for 3"),
        ({"z_dim": 64}, "class_gan.z_dim is 64, and the classifier of real images is made for 128"),
    ],
)
def test_a_classifier_of_other_images_is_refused(given: dict[str, int], message: str, classifier: Path) -> None:
    with pytest.raises(UserError, match=message):
        built(classifier, **given)


def test_labels_that_are_none_are_refused(classifier: Path, data: DataSet, tmp_path: Path) -> None:
    work = runner(tmp_path, built(classifier))
    timestamp = data.identities[0].timestamps[0]
    for label in (0.5, 3.0, -1.0):
        photos = [replace(photo, conditions={"label": (label,)}) for photo in timestamp.train]
        with pytest.raises(UserError, match=f"a photo has the label {label:g}; expected a whole number from 0 to 2"):
            work.workload.candidates(work.photos.samples(photos))


def test_another_profile_is_refused() -> None:
    with pytest.raises(UserError, match="needs a profile with the section class_gan, and 'embedded' has none"):
        ClassGANKind().sections(embedded())


def test_a_rate_that_is_too_large_is_said(classifier: Path, data: DataSet, tmp_path: Path) -> None:
    work = runner(tmp_path, built(classifier, adversarial="wgan_gp", steps=30))
    spec = TrialSpec(identity="order_00", strategy="lower", buffer_size=None, learning_rate=1e18, seed=0)
    with pytest.raises((TrainingDivergedError, UserError), match="use a smaller learning rate"):
        list(trial_stages(work, spec, data.identities[0], Silent()))


def test_published_settings() -> None:
    published = ClassGANSettings()
    assert (published.adversarial, published.gradient_penalty, published.critic_steps) == ("wgan_gp", 10.0, 5)
    assert (published.batch_size, published.z_dim, published.width, published.steps) == (64, 128, 32, 4001)
    assert published.betas[0] == 0.0
