"""The ``synthetic`` data set: people who do not exist, at any number of timestamps.

A person is one DCGAN latent (``people.draw_person``). A timestamp adds a latent offset of its own and an appearance
that the domain generator never saw (``appearance``); a photo adds small noise to both. Photos whose identity
embedding is too far from the person's portrait are drawn again.

Random streams: person i does not depend on the number of people, nor timestamp t on the number of timestamps, and a
longer training or test set begins with the shorter one's photos.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clstudy.errors import UserError
from clstudy.faces.geometry import FACE_SIZE, aligned_template, similarity_transform
from clstudy.identities.appearance import Appearance, put_on, timestamp_appearance
from clstudy.identities.dcgan import LATENT_SIZE
from clstudy.identities.people import FaceTools, Person, draw_person
from clstudy.images import to_unit_range
from clstudy.seeding import derive_rng

GENERATOR_VERSION = 1
"""Increased by hand whenever the photos of given settings change."""

MIN_COSINE = 0.45
"""Smallest identity cosine between a photo and its person's portrait (equal error rate of the embedder: 0.353)."""

TIMESTAMP_SPREAD = 0.25
"""Standard deviation of the latent offset that a timestamp's photos share."""

PHOTO_SPREAD = 0.18
"""Standard deviation of a photo's own latent noise."""

_MAX_YAW = 0.4
_PROBES = {"train": 6, "test": 3}
_MAX_PROBES_REJECTED = 3
_MAX_ATTEMPTS = 40
_MAX_DRAWS = 400


def make_synthetic(
    root: Path, *, people: int, timestamps: int, train: int, test: int, data_seed: int, tools: FaceTools | None = None
) -> None:
    """Write ``root/person_00/t00/{train,test}/00.png`` … (64x64 RGB) and ``root/manifest.json``.

    The manifest holds the settings, per photo the sha256 and the identity cosine to the person's portrait, per
    timestamp its appearance and how many draws were rejected, and the totals.

    Raises:
        UserError: a count is below 1.
    """
    settings = {
        "people": people,
        "timestamps": timestamps,
        "train": train,
        "test": test,
        "data_seed": data_seed,
    }
    for name in ("people", "timestamps", "train", "test"):
        if settings[name] < 1:
            raise UserError(f"synthetic data set: {name} = {settings[name]}; expected at least 1")
    tools = tools or FaceTools.load()
    photos: dict[str, Any] = {}
    stamps: dict[str, Any] = {}
    for index in range(people):
        person = draw_person(tools, data_seed, index)
        for t in range(timestamps):
            occasion, given_up = open_occasion(tools, person, data_seed, index, t)
            folder = f"person_{index:02d}/t{t:02d}"
            for split, count in (("train", train), ("test", test)):
                (root / folder / split).mkdir(parents=True, exist_ok=True)
                for number, shot in enumerate(occasion.take(split, count)):
                    path = f"{folder}/{split}/{number:02d}.png"
                    (root / path).write_bytes(shot.png)
                    photos[path] = {
                        "sha256": hashlib.sha256(shot.png).hexdigest(),
                        "identity_cosine": round(shot.cosine, 4),
                    }
            stamps[folder] = {
                "draws": occasion.draws,
                "rejected": dict(sorted(occasion.rejected.items())),
                "appearances_given_up": occasion.attempt,
                "draws_given_up": given_up,
                "appearance": asdict(occasion.appearance),
            }
    rejected = sum((Counter(stamp["rejected"]) for stamp in stamps.values()), Counter())
    manifest = {
        "data_set": "synthetic",
        "generator_version": GENERATOR_VERSION,
        "settings": settings,
        "min_identity_cosine": MIN_COSINE,
        "totals": {
            "photos": len(photos),
            "draws": sum(stamp["draws"] for stamp in stamps.values()),
            "rejected": dict(sorted(rejected.items())),
            "draws_given_up": sum(stamp["draws_given_up"] for stamp in stamps.values()),
            "mean_identity_cosine": round(float(np.mean([p["identity_cosine"] for p in photos.values()])), 4),
        },
        "timestamps": stamps,
        "photos": photos,
    }
    (root / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


@dataclass(frozen=True)
class Shot:
    """One accepted photo: PNG bytes and identity cosine to the person's portrait."""

    png: bytes
    cosine: float


class Occasion:
    """One timestamp of one person under one appearance; photos are drawn on request."""

    def __init__(
        self, tools: FaceTools, person: Person, key: tuple[int, int, int], attempt: int, appearance: Appearance
    ):
        self._tools, self._person, self._key = tools, person, key
        self.attempt, self.appearance = attempt, appearance
        self.draws = 0
        """Photos drawn so far under this appearance."""
        self.rejected: Counter[str] = Counter()
        """Reason -> photos rejected so far under this appearance."""
        self._offset = derive_rng("timestamp latent", *key, attempt).standard_normal(LATENT_SIZE) * TIMESTAMP_SPREAD
        self._streams = {split: self._draw_all(split) for split in _PROBES}
        self._drawn: dict[str, list[Shot | None]] = {split: [] for split in _PROBES}

    def promising(self) -> bool:
        """Whether most of a fixed number of first draws are accepted; the result does not depend on later requests."""
        for split, count in _PROBES.items():
            for number in range(count):
                self._draw_until(split, number + 1)
                if sum(self.rejected.values()) > _MAX_PROBES_REJECTED:
                    return False
        return True

    def take(self, split: str, count: int) -> list[Shot]:
        """The first ``count`` accepted photos of the train or test stream."""
        drawn = self._drawn[split]
        while sum(shot is not None for shot in drawn) < count:
            if len(drawn) >= _MAX_DRAWS + 10 * count:
                raise RuntimeError(f"person {self._key[1]}, timestamp {self._key[2]}: too few recognisable photos")
            self._draw_until(split, len(drawn) + 1)
        return [shot for shot in drawn if shot is not None][:count]

    def _draw_until(self, split: str, count: int) -> None:
        while len(self._drawn[split]) < count:
            self._drawn[split].append(next(self._streams[split]))

    def _draw_all(self, split: str) -> Iterator[Shot | None]:
        for number in range(1_000_000):
            shot = self._draw(derive_rng("synthetic photo", *self._key, self.attempt, split, number))
            self.draws += 1
            if isinstance(shot, str):
                self.rejected[shot] += 1
                yield None
            else:
                yield shot

    def _draw(self, rng: np.random.Generator) -> Shot | str:
        """One photo, or the reason it is rejected."""
        noise = rng.standard_normal(LATENT_SIZE) * PHOTO_SPREAD
        raw = self._tools.source.draw((self._person.latent + self._offset + noise)[None])[0]
        aligned = self._tools.finder.align(raw)
        if aligned is None:
            return "no face found"
        photo, face = aligned
        if abs(face.yaw()) > _MAX_YAW:
            return "turned away"
        transform = similarity_transform(face.points, aligned_template(FACE_SIZE))
        landmarks = face.landmarks @ transform[:, :2].T + transform[:, 2]
        photo = put_on(photo, landmarks, self.appearance.varied(rng))
        cosine = float(self._tools.embedder(to_unit_range(photo[None]))[0].numpy() @ self._person.embedding)
        if cosine < MIN_COSINE:
            return "not recognisable"
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, "PNG")
        return Shot(buffer.getvalue(), cosine)


def open_occasion(tools: FaceTools, person: Person, data_seed: int, index: int, timestamp: int) -> tuple[Occasion, int]:
    """The first appearance of a timestamp under which most draws are recognisable, and the draws spent before it."""
    given_up = 0
    for attempt in range(_MAX_ATTEMPTS):
        appearance = timestamp_appearance(data_seed, index, timestamp, attempt)
        occasion = Occasion(tools, person, (data_seed, index, timestamp), attempt, appearance)
        if occasion.promising():
            return occasion, given_up
        given_up += occasion.draws
    raise RuntimeError(f"no recognisable appearance for data seed {data_seed}, person {index}, timestamp {timestamp}")
