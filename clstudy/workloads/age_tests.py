"""What is asked of test photos: to be made at ages that were learned, between them and beyond."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clstudy.faces.embedding import IdentityEmbedder
from clstudy.generators.ageing import latents_at, split_latents
from clstudy.identities.known_ages import TARGET, Target
from clstudy.identities.known_geometry import MOMENT
from clstudy.workloads.ageing import BETWEEN, BEYOND, LEARNED
from clstudy.workloads.workload import TestSamples

_FAR = 10.0
"""Years that a photo differs from an age at least to be aged to it in scoring, where photos at many ages are known."""

_OF_TARGET = {Target.BETWEEN: BETWEEN, Target.BEYOND: BEYOND}


@dataclass(frozen=True)
class Asked:
    """Faces to be made of photos, and what they are compared with.

    Attributes:
        protocol: what they are scored as.
        names: of the n rows.
        latents: of the photos at the ages that are asked for ``[n, w_dim + 1]``.
        references: unit embeddings ``[n, r, d]``, of which the most similar counts.
        truth: the true faces ``[n, 3, s, s]``; None where they are not known.
    """

    protocol: str
    names: tuple[str, ...]
    latents: Tensor
    references: Tensor
    truth: Tensor | None

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from others."""
        ages = split_latents(self.latents)[1]
        return (self.protocol, *self.names, *(f"{age:.3f}" for age in ages.tolist()))


@dataclass(frozen=True)
class AgeTest:
    """Test photos of one timestamp: all of them, and which are as they were taken.

    Attributes:
        timestamp: the photos' timestamp.
        digests, images, w, ages, embeddings: of n photos; w ``[n, w_dim]``, unit embeddings ``[n, d]``.
        own: places of those at their timestamp's own age.
        asked: what is asked of them by themselves; nothing where no moment is known at several ages.
        strip: the first moment's true faces at ``STRIP_AGES``, as far as they are known.
    """

    timestamp: int
    digests: tuple[str, ...]
    images: Tensor
    w: Tensor
    ages: Tensor
    embeddings: Tensor
    own: tuple[int, ...]
    asked: tuple[Asked, ...]
    strip: Mapping[int, Tensor]


def age_test(samples: TestSamples, embedder: IdentityEmbedder) -> AgeTest:
    """Test photos, and what is asked of them where their moments are known at several ages."""
    w, ages = split_latents(samples.latents)
    kinds = samples.conditions[TARGET][:, 0].tolist() if TARGET in samples.conditions else [0.0] * len(samples)
    moments = samples.conditions[MOMENT][:, 0].tolist() if MOMENT in samples.conditions else range(len(samples))
    known = _Photos(samples, w, ages, embedder(samples.images), kinds, list(moments))
    return AgeTest(
        timestamp=samples.timestamp,
        digests=samples.digests,
        images=samples.images,
        w=w,
        ages=ages,
        embeddings=known.embeddings,
        own=tuple(known.own),
        asked=tuple(known.asked()),
        strip=known.strip(),
    )


@dataclass(frozen=True)
class _Photos:
    """A timestamp's test photos with what is known of each."""

    samples: TestSamples
    w: Tensor
    ages: Tensor
    embeddings: Tensor
    kinds: Sequence[float]
    moments: Sequence[float]

    @property
    def own(self) -> list[int]:
        """Places of the photos as they were taken."""
        return [place for place, kind in enumerate(self.kinds) if kind == Target.OWN]

    def asked(self) -> Iterator[Asked]:
        """Photos at other ages aged to the timestamp's own; own ones aged to ages that are not learned."""
        back: list[tuple[int, int]] = []
        out: dict[str, list[tuple[int, int]]] = {protocol: [] for protocol in (BETWEEN, BEYOND)}
        for own in self.own:
            for other in range(len(self.kinds)):
                if self.moments[other] != self.moments[own] or self.kinds[other] == Target.OWN:
                    continue
                if abs(float(self.ages[other] - self.ages[own])) >= _FAR:
                    back.append((other, own))
                if (protocol := _OF_TARGET.get(Target(int(self.kinds[other])))) is not None:
                    out[protocol].append((own, other))
        for protocol, pairs in ((LEARNED, back), *out.items()):
            if pairs:
                photos, truths = map(list, zip(*pairs, strict=True))
                names = photos if protocol == LEARNED else truths
                yield Asked(
                    protocol,
                    tuple(self.samples.digests[place] for place in names),
                    latents_at(self.w[photos], self.ages[truths]),
                    self.embeddings[truths][:, None],
                    self.samples.images[truths],
                )

    def strip(self) -> dict[int, Tensor]:
        """Age -> photo of the first moment."""
        first = self.moments[self.own[0]]
        return {
            round(float(self.ages[place])): self.samples.images[place]
            for place in range(len(self.kinds))
            if self.moments[place] == first
        }


def of_earlier(tests: Sequence[AgeTest], test: AgeTest) -> Asked:
    """Test photos of all earlier timestamps (of the first: its own) aged to the mean age of a timestamp's.

    For photos whose moments are known at one age only: compared with the timestamp's own test photos.
    """
    sources = [one for one in tests if one.timestamp < test.timestamp] or [test]
    age = test.ages[list(test.own)].mean()
    w = torch.cat([one.w[list(one.own)] for one in sources])
    references = test.embeddings[list(test.own)]
    return Asked(
        LEARNED,
        tuple(one.digests[place] for one in sources for place in one.own),
        latents_at(w, age.expand(len(w))),
        references.expand(len(w), *references.shape),
        None,
    )
