"""``stage.json``: what a stage was asked to do, and how its training went. Written and read here only.

``request`` is the stage's request as it enters its key (``clstudy.trial.requests.StageRequest.document``): by itself,
the record of a finished stage says which photos, people and settings its rows belong to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from clstudy.storage.content_addressed_store import STAGE_RECORD, digest_of
from clstudy.storage.documents import json_object

OWNER = "about.json"
"""File in every value of a study's store that marks which person it belongs to."""

StoredItem = tuple[int, str]
"""Timestamp and photo digest of what a strategy kept."""


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """One stage's record.

    Args:
        request: the document whose hash is the stage's key.
        loss: mean training loss of the last epoch.
        micro_batch: most photos in a pass, if the GPU's memory made it smaller than the settings' batch.
        computed_on: kind of processor (``clstudy.training.processor``); empty in records from before it was written.
            It is not part of the key: another kind gives the same numbers but for their last digits.
        frozen_bytes: size of the trained parameters of t-1 that were held frozen beside those in training, for a
            strategy with hooks; None where nothing was held.
    """

    request: Mapping[str, Any]
    loss: float
    micro_batch: int | None = None
    computed_on: str = ""
    frozen_bytes: int | None = None

    def encode(self) -> bytes:
        """The content of the file."""
        document: dict[str, Any] = {"request": self.request, "loss": self.loss}
        if self.micro_batch is not None:
            document["micro_batch"] = self.micro_batch
        if self.computed_on:
            document["computed_on"] = self.computed_on
        if self.frozen_bytes is not None:
            document["frozen_bytes"] = self.frozen_bytes
        return json.dumps(document, indent=1).encode()

    @classmethod
    def decode(cls, content: bytes) -> StageRecord:
        """Read the file.

        Raises:
            ValueError: it is not a JSON object, or lacks the request.
        """
        document = json_object(content)
        request, loss, micro_batch = (document.get(name) for name in ("request", "loss", "micro_batch"))
        if not isinstance(request, Mapping):
            raise ValueError(f"{STAGE_RECORD} has no request")
        computed_on, frozen_bytes = document.get("computed_on"), document.get("frozen_bytes")
        return cls(
            request=request,
            loss=float(loss) if isinstance(loss, int | float) else float("nan"),
            micro_batch=micro_batch if isinstance(micro_batch, int) else None,
            computed_on=computed_on if isinstance(computed_on, str) else "",
            frozen_bytes=frozen_bytes if isinstance(frozen_bytes, int) else None,
        )

    @cached_property
    def asked(self) -> StageInputs:
        """The request, split into its parts.

        Raises:
            ValueError: a part is missing or has another form.
        """
        try:
            return StageInputs.read(self.request)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"{STAGE_RECORD}'s request is incomplete: {type(error).__name__} {error}") from error


@dataclass(frozen=True, kw_only=True)
class StageInputs:
    """The parts of a stage's request that are read back.

    Attributes:
        seed, identity, t: the trial's seed, the person and the timestamp.
        generator: digest of the pretrained generator.
        fingerprint: the part of the machine's arithmetic that it depends on.
        image_size: side of a photo in pixels.
        new: (timestamp, digests of its training photos) that were trained on.
        replay: stored photos that were replayed.
        anchored: for each timestamp seen, digests of its training photos in the order of their anchors.
        tested: for each timestamp seen, digests of its test photos in the order of their starting latents.
        anchors: keys of the timestamps' anchors, if the workload's settings are part of them.
        support: what a strategy with hooks was given (``clstudy.trial.requests.Support.document``); None without hooks.
    """

    seed: int
    identity: str
    t: int
    generator: str
    fingerprint: Mapping[str, Any]
    image_size: int
    new: tuple[tuple[int, tuple[str, ...]], ...]
    replay: tuple[StoredItem, ...]
    anchored: tuple[tuple[str, ...], ...]
    tested: tuple[tuple[str, ...], ...]
    anchors: tuple[str, ...]
    support: Mapping[str, Any] | None

    @classmethod
    def read(cls, request: Mapping[str, Any]) -> StageInputs:
        """Read the parts from a stage's request."""
        seed, identity, t = request["stream"]
        support = request.get("support")
        if support is not None and not isinstance(support, Mapping):
            raise TypeError("support is not a mapping")
        return cls(
            seed=int(seed),
            identity=str(identity),
            t=int(t),
            generator=str(request["generator"]),
            fingerprint=request["fingerprint"],
            image_size=int(request["image_size"]),
            new=tuple((int(k), tuple(map(str, digests))) for k, digests in request["new"]),
            replay=_items(request["replay"]),
            anchored=tuple(tuple(map(str, digests)) for digests in request["anchored"]),
            tested=tuple(tuple(map(str, digests)) for digests in request["tested"]),
            anchors=tuple(map(str, request.get("anchors", ()))),
            support=support,
        )

    @property
    def supported(self) -> tuple[StoredItem, ...]:
        """What a strategy with hooks kept: anchors of generated replays."""
        return () if self.support is None else _items(self.support["items"])

    @property
    def stored(self) -> tuple[StoredItem, ...]:
        """Every stored photo (or anchor) that the stage trained with."""
        return self.replay or self.supported

    @property
    def learned(self) -> str | None:
        """Key of what the strategy had learned, if anything."""
        return None if self.support is None else self.support.get("learned")

    def anchors_key(self, k: int) -> str:
        """Key of timestamp k's anchors."""
        if self.anchors:
            return self.anchors[k]
        return anchors_key(self.generator, self.fingerprint, train=self.anchored[k], test=self.tested[k])


def _items(entries: Any) -> tuple[StoredItem, ...]:
    return tuple((int(timestamp), str(digest)) for timestamp, digest in entries)


def anchors_key(
    generator: str,
    fingerprint: Mapping[str, Any],
    *,
    train: tuple[str, ...],
    test: tuple[str, ...],
    choosing: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Key of the anchors of a timestamp: its training photos' latents, then its test photos' starting latents.

    Args:
        generator: digest of the pretrained generator.
        fingerprint: the part of the machine's arithmetic that they depend on.
        train, test: digests of the photos in canonical order.
        choosing: everything else that latents depend on (``clstudy.trial.requests.Basis.choosing``).
    """
    return digest_of(
        {
            "what": "anchors",
            "generator": generator,
            "fingerprint": dict(fingerprint),
            "train": list(train),
            "test": list(test),
            **choosing,
        }
    )


def owned_by(identity: str, computed_on: str = "") -> dict[str, bytes]:
    """The file that marks which person a stored value belongs to, so that the person can be forgotten.

    ``computed_on``: kind of processor (``StageRecord``), so that another study can tell whether it may use the value.
    """
    return {OWNER: json.dumps({"identity": identity, **({"computed_on": computed_on} if computed_on else {})}).encode()}


def computed_on(files: Mapping[str, bytes]) -> str:
    """Kind of processor that a stored value was computed on; empty if it does not say.

    Values of earlier versions say it in a stage's record only.
    """
    for name in (OWNER, STAGE_RECORD):
        try:
            said = json_object(files[name]).get("computed_on") if name in files else None
        except ValueError:
            said = None
        if isinstance(said, str) and said:
            return said
    return ""


def owner_in(content: bytes) -> str:
    """The person that a value is marked with (``owned_by``).

    Raises:
        ValueError: it is not a JSON object, or names nobody.
    """
    if not (identity := json_object(content).get("identity")):
        raise ValueError(f"{OWNER} names nobody")
    return str(identity)
