"""The class-conditional generator, its critic, and the classifier of real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clstudy.errors import UserError
from clstudy.generators.class_conditional import (
    ClassGAN,
    ConditionalBatchNorm,
    ConditionalGenerator,
    Critic,
    latents_of,
)
from clstudy.generators.image_classifier import (
    ClassifierFacts,
    ImageClassifierKind,
    fresh_classifier,
    network_of,
    read_classifier,
    save_classifier,
)
from clstudy.generators.pretraining.classifier import accuracies, classifier_of
from clstudy.identities.categories.orders import HELD_BACK, training_images
from clstudy.identities.categories.sources import Categories
from clstudy.images import to_unit_range


def networks(size: int = 16) -> tuple[ConditionalGenerator, Critic]:
    torch.manual_seed(0)
    return ConditionalGenerator(z_dim=6, classes=3, width=4, size=size), Critic(classes=3, width=4, size=size)


def bars(count: int = HELD_BACK + 40, size: int = 16) -> Categories:
    """Two categories that anybody can tell apart: upright and level bars."""
    rng = np.random.default_rng(0)
    found = []
    for level in (False, True):
        images = rng.integers(0, 40, (count, size, size, 3), np.uint8)
        for image in images:
            place = int(rng.integers(2, size - 4))
            image[(slice(place, place + 2), slice(None)) if level else (slice(None), slice(place, place + 2))] = 230
        found.append(images)
    return Categories(("upright", "level"), tuple(found))


@pytest.mark.parametrize("size", [8, 16, 32])
def test_images_have_the_size_and_classes_matter(size: int) -> None:
    generator, critic = networks(size)
    z = torch.randn(4, 6)
    images = [generator.eval()(latents_of(z, torch.full((4,), label), 3)) for label in range(3)]
    assert images[0].shape == (4, 3, size, size) and float(images[0].abs().max()) <= 1
    assert torch.equal(images[0], images[1]), "scales and shifts begin alike"
    with torch.no_grad():
        generator.norms[0].shift[1] += 1.0  # type: ignore[union-attr, operator]
    changed = generator(latents_of(z, torch.full((4,), 1), 3))
    assert not torch.allclose(changed, images[1])
    assert torch.equal(generator(latents_of(z, torch.full((4,), 2), 3)), images[2]), "another class is not touched"
    scores, logits = critic(images[0])
    assert scores.shape == (4,) and logits.shape == (4, 3)


@pytest.mark.parametrize("size", [4, 24, 512])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(UserError, match=f"images of {size} px; expected a power of two from 8 to 256"):
        networks(size)


def test_conditional_normalisation_is_that_of_the_batch_with_each_samples_own_scale() -> None:
    layer = ConditionalBatchNorm(2, 3)
    torch.nn.init.normal_(layer.scale)
    torch.nn.init.normal_(layer.shift)
    x, labels = torch.randn(5, 2, 4, 4), [0, 2, 1, 1, 0]
    found = layer(x, torch.eye(3)[labels])
    for sample, label in enumerate(labels):
        for channel in range(2):
            values = x[:, channel]
            normed = (x[sample, channel] - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt()
            expected = normed * layer.scale[label, channel] + layer.shift[label, channel]
            torch.testing.assert_close(found[sample, channel], expected, atol=1e-5, rtol=1e-5)


def test_the_prior_is_of_the_classes_seen_so_far_and_repeats() -> None:
    generator, critic = networks()
    generator.seen[torch.tensor([0, 2])] = True
    gan = ClassGAN(generator, critic)
    latents = gan.prior(400, np.random.default_rng(1))
    counts = latents[:, 6:].sum(0)
    assert float(counts[1]) == 0 and abs(float(counts[0]) - 200) < 50
    assert abs(float(latents[:, :6].mean())) < 0.1 and abs(float(latents[:, :6].std()) - 1) < 0.1
    assert torch.equal(latents, gan.prior(400, np.random.default_rng(1)))
    assert {name.partition(".")[0] for name, _ in gan.named_parameters()} == {"generator"}


def test_labels_are_the_critics() -> None:
    generator, critic = networks()
    gan = ClassGAN(generator.eval(), critic)
    latents = latents_of(torch.randn(7, 6), torch.zeros(7, dtype=torch.int64), 3)
    with torch.no_grad():
        critic.classify.bias.copy_(torch.tensor([0.0, 50.0, 0.0]))
        images = gan(latents)
    found = gan.relabelled(latents, images)
    assert torch.equal(found[:, :6], latents[:, :6]) and torch.equal(found[:, 6:], torch.eye(3)[[1] * 7])


def test_a_classifier_learns_what_it_is_shown_and_standardises_its_features(tmp_path: Path) -> None:
    source = bars()
    network = classifier_of(source, passes=4)
    assert accuracies(network, source).min() > 0.95
    pixels, labels = training_images(source)
    assert len(pixels) == 80 and labels.tolist() == [0] * 40 + [1] * 40
    features = network.standardised(network.features(to_unit_range(pixels)))
    torch.testing.assert_close(features.mean(0), torch.zeros(128), atol=1e-4, rtol=0)
    varied = network.scale > 2e-3
    torch.testing.assert_close(features.std(0)[varied], torch.ones(int(varied.sum())), atol=1e-3, rtol=0)
    save_classifier(network, ClassifierFacts(source.names, 16), tmp_path / "classifier.safetensors")
    arrays, facts = read_classifier(tmp_path / "classifier.safetensors")
    assert facts == ClassifierFacts(("upright", "level"), 16)
    images = to_unit_range(pixels[:5])
    assert torch.equal(network_of(arrays, facts)(images), network(images))
    again = classifier_of(source, passes=4)
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), again.parameters(), strict=True))


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no weights")
    other = fresh_classifier(["x"], classes=2, size=16)
    save_classifier(other, ClassifierFacts(("a", "b", "c"), 16), tmp_path / "odd.safetensors")
    for name in ("missing", "text", "odd"):
        with pytest.raises(UserError, match=rf"classifier: .*{name}.safetensors is no classifier of images; expected"):
            ImageClassifierKind().read({"classifier": tmp_path / f"{name}.safetensors"})
