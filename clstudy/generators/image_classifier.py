"""A small classifier of real images: it names what generated images show, and its features are what strategies see.

``python -m clstudy.generators.pretraining classifier`` trains one; that of the data set ``digits`` is packaged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from clstudy.assets.readers.tensor_files import read_with_metadata
from clstudy.errors import UserError
from clstudy.generators.base import GENERATORS, GeneratorWeights, NoGenerator
from clstudy.generators.synthesis_copies import arrays_under
from clstudy.seeding import derive_rng, derive_seed
from clstudy.settings.profiles import Profile

_BATCH = 256


class ImageClassifier(nn.Module):
    """Images ``[n, 3, s, s]`` in [-1, 1] -> logits ``[n, classes]``; s is a multiple of 8.

    ``mean`` and ``scale`` standardise its features over the images it was trained on.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, *, classes: int, size: int, width: int = 16, features: int = 128):
        super().__init__()
        widths = [3, width, 2 * width, 2 * width]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in zip(widths, widths[1:], strict=False)
        )
        self.neck = nn.Linear(widths[-1] * (size // 8) ** 2, features)
        self.head = nn.Linear(features, classes)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def features(self, images: Tensor) -> Tensor:
        """What the last layer sees, before its rectification: ``[n, features]``."""
        x = images
        for conv in self.convs:
            x = F.max_pool2d(F.relu(conv(x)), 2)
        found: Tensor = self.neck(x.flatten(1))
        return found

    def forward(self, images: Tensor) -> Tensor:
        return self.of_features(self.features(images))

    def of_features(self, features: Tensor) -> Tensor:
        """Logits of features ``[n, features]``."""
        logits: Tensor = self.head(F.relu(features))
        return logits

    def standardised(self, features: Tensor) -> Tensor:
        """Features with mean 0 and deviation 1 over the training images."""
        return (features - self.mean) / self.scale


@dataclass(frozen=True)
class ClassifierFacts:
    """What a classifier's file says of it: names of classes in the order of labels, and the images' side."""

    names: tuple[str, ...]
    size: int


def trained_classifier(
    batches: Iterator[tuple[Tensor, Tensor]], network: ImageClassifier, learning_rate: float = 1e-3
) -> ImageClassifier:
    """Train by cross entropy (Adam) on batches of images ``[n, 3, s, s]`` and labels ``[n]``, and freeze."""
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    network.train()
    with torch.enable_grad():
        for images, labels in batches:
            loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
    return network.eval().requires_grad_(False)


def fresh_classifier(seed: Sequence[str | int], *, classes: int, size: int, width: int = 16) -> ImageClassifier:
    """One with random weights, from words and numbers that name the draw."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("classifier", *seed))
        return ImageClassifier(classes=classes, size=size, width=width)


def epochs(
    images: Tensor, labels: Tensor, count: int, seed: Sequence[str | int], batch: int = 64
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches of so many passes."""
    rng = derive_rng("classifier batches", *seed)
    for _ in range(count):
        for index in torch.split(torch.from_numpy(rng.permutation(len(images))), batch):
            yield images[index], labels[index]


@torch.no_grad()
def in_batches(images: Tensor, what: Any) -> Tensor:
    """A function of images ``[n, 3, s, s]``, computed a few hundred at a time."""
    return torch.cat([what(part) for part in torch.split(images, _BATCH)])


def save_classifier(network: ImageClassifier, facts: ClassifierFacts, path: Path) -> None:
    """Write ``path`` (safetensors, float32)."""
    metadata = {"names": json.dumps(facts.names), "size": str(facts.size)}
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path, metadata=metadata)


def read_classifier(path: Path) -> tuple[dict[str, np.ndarray], ClassifierFacts]:
    """What ``save_classifier`` wrote.

    Raises:
        UserError: another kind of file.
    """
    expected = "expected a file of `python -m clstudy.generators.pretraining classifier`"
    try:
        arrays, metadata = read_with_metadata(path)
        facts = ClassifierFacts(tuple(json.loads(metadata["names"])), int(metadata["size"]))
        network_of(arrays, facts)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"classifier: {path} is no classifier of images; {expected}") from error
    return arrays, facts


def network_of(arrays: Mapping[str, np.ndarray], facts: ClassifierFacts) -> ImageClassifier:
    """The frozen network of a file's content."""
    width, features = len(arrays["convs.0.weight"]), len(arrays["neck.weight"])
    network = ImageClassifier(classes=len(facts.names), size=facts.size, width=width, features=features)
    network.load_state_dict(arrays_under("", arrays))
    return network.eval().requires_grad_(False)


class ImageClassifierKind(NoGenerator):
    """Nothing is generated by it: a workload whose networks begin untrained is scored by it."""

    description = "a classifier of real images, for workloads whose networks begin untrained"

    def read(self, files: Mapping[str, Path]) -> GeneratorWeights:
        """Read the file of the role ``classifier``."""
        arrays, facts = read_classifier(files["classifier"])
        return GeneratorWeights(arrays, {"names": list(facts.names), "size": facts.size})

    def image_size(self, weights: GeneratorWeights, profile: Profile) -> int:
        """The size of the images that it was trained on."""
        return int(weights.facts["size"])


GENERATORS.register("image_classifier")(ImageClassifierKind())
