"""Trains the classifier of real images that the workload ``class_gan`` is scored by.

    python -m clstudy.generators.pretraining classifier --out weights/classifier.safetensors
    python -m clstudy.generators.pretraining classifier --images FOLDER --out weights/classifier.safetensors

Without ``--images`` it is of the digits. FOLDER holds one folder for each class, or IDX files. The images that are held
back for tests (``clstudy.identities.categories.orders``) are not trained on, and its accuracy is that on them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clstudy.generators.image_classifier import (
    ClassifierFacts,
    ImageClassifier,
    epochs,
    fresh_classifier,
    in_batches,
    save_classifier,
    trained_classifier,
)
from clstudy.identities.categories.orders import held_back_images, training_images
from clstudy.identities.categories.sources import Categories
from clstudy.images import to_unit_range

PASSES = 8
_LEAST_DEVIATION = 1e-3
"""A feature that does not vary would be divided by nothing."""


def classifier_of(source: Categories, *, passes: int = PASSES, seed: int = 0) -> ImageClassifier:
    """Trained, with its features standardised over the training images, and frozen."""
    pixels, labels = training_images(source)
    images = to_unit_range(pixels)
    network = fresh_classifier(["of real images", seed], classes=len(source.names), size=images.shape[-1])
    trained = trained_classifier(epochs(images, torch.from_numpy(labels), passes, ["of real images", seed]), network)
    features = in_batches(images, trained.features)
    trained.mean.copy_(features.mean(0))
    trained.scale.copy_(features.std(0).clamp_min(_LEAST_DEVIATION))
    return trained


def accuracies(network: ImageClassifier, source: Categories) -> np.ndarray:
    """Share of the images held back for tests that it recognises, by category ``[classes]``."""
    pixels, labels = held_back_images(source)
    found: Tensor = in_batches(to_unit_range(pixels), network).argmax(1)
    right = (found.numpy() == labels).astype(float)
    return np.bincount(labels, right) / np.bincount(labels)


def write_classifier(source: Categories, out: Path, seed: int) -> None:
    """Train, write ``out`` (float16), and print its accuracy."""
    network = classifier_of(source, seed=seed)
    facts = ClassifierFacts(source.names, source.images[0].shape[1])
    save_classifier(network.half(), facts, out)
    found = accuracies(network.float(), source)
    each = ", ".join(f"{name} {share:.2f}" for name, share in zip(source.names, found, strict=True))
    print(f"{out}: recognises {found.mean():.4f} of {100} held-back images of each category ({each})")
