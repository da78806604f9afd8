"""A study folder with everything that the figures read: stages, anchors, faces, timings. No torch, no training."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from safetensors.numpy import save

from clstudy.identities.dataset import Identity, Photo, Timestamp
from clstudy.records.rows import STAGE_KEYS
from clstudy.settings.profiles import PROFILES
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.content_addressed_store import StudyStore, Timing, digest_of
from clstudy.strategies import STRATEGIES
from clstudy.strategies.base import Memory, make_items
from clstudy.trial.requests import (
    Basis,
    MemoryRequest,
    StageRequest,
    anchors_key,
    canonical_test,
    canonical_train,
    stage_requests,
)

BASIS = Basis(PROFILES["embedded"](), "generator")
TRAIN, TEST, SIDE, WIDTH = 6, 2, 16, 8


def person(name: str, timestamps: int) -> Identity:
    """Photos that exist by digest only."""

    def photos(t: int, kind: str, count: int) -> tuple[Photo, ...]:
        return tuple(
            Photo(Path(f"{name}/{t}/{kind}/{i}"), digest_of({"photo": [name, t, kind, i]})) for i in range(count)
        )

    return Identity(
        name,
        tuple(Timestamp(t, f"t{t}", photos(t, "train", TRAIN), photos(t, "test", TEST)) for t in range(timestamps)),
    )


def latents(timestamp: Timestamp) -> np.ndarray:
    """Made-up anchors ``[n, 8]`` of the training photos in canonical order, fixed by their digests."""
    return np.stack(
        [
            np.random.default_rng(int(photo.digest[:12], 16)).standard_normal(WIDTH).astype(np.float32)
            + 3 * timestamp.index
            for photo in canonical_train(timestamp)
        ]
    )


def remember(request: MemoryRequest) -> Memory:
    """What the real strategy chooses from these anchors."""
    timestamp = request.identity.timestamps[request.t]
    items = make_items(request.t, [photo.digest for photo in canonical_train(timestamp)], latents(timestamp))
    strategy = STRATEGIES[request.spec.strategy]()
    return strategy.select(request.memory, items, request.spec.buffer_size or 0, np.random.default_rng(request.t))


def faces(request: StageRequest) -> np.ndarray:
    """A picture whose cells say what they are, photos 10 k, reconstructions 10 k + t + 100: ``[2 s, (t + 1) s, 3]``."""
    top = [np.full((SIDE, SIDE, 3), 10 * k, np.uint8) for k in range(request.t + 1)]
    below = [np.full((SIDE, SIDE, 3), 10 * k + request.t + 100, np.uint8) for k in range(request.t + 1)]
    return np.concatenate([np.concatenate(top, axis=1), np.concatenate(below, axis=1)])


def _of_photos(rows: pa.Table, owner: Identity) -> pa.Table:
    """The rows with the digests of test photos for the names ``k-i`` that the study made up."""
    digests = {
        f"{timestamp.index}-{i}": photo.digest
        for timestamp in owner.timestamps
        for i, photo in enumerate(canonical_test(timestamp))
    }
    place = rows.schema.get_field_index("image")
    named = [digests.get(name, name) for name in rows["image"].to_pylist()]
    return rows.set_column(place, rows.schema.field(place), pa.array(named))


def furnish(study, computed_on=lambda request: {}) -> dict[str, list[StageRequest]]:
    """Give a ``tests.analysis.test_report.Study`` its stages, anchors and timings; trial -> its stage requests.

    ``computed_on``: what a stage's record says besides its request and loss.
    """
    store, requests = StudyStore(study.folder), {}
    for name in {spec["identity"] for spec in study.trials}:
        for timestamp in person(name, study.size).timestamps:
            test = np.zeros((len(canonical_test(timestamp)), WIDTH), np.float32)
            content = save({"train": latents(timestamp), "test": test})
            store.anchors.put(anchors_key(BASIS, timestamp), {"anchors.safetensors": content})
    for spec in study.trials:
        name = spec["trial"]
        if not study.results(name).exists():
            continue
        fields = {key: value for key, value in spec.items() if key != "trial"}
        requests[name] = list(
            stage_requests(TrialSpec(**fields), person(spec["identity"], study.size), BASIS, remember)
        )
        for request in requests[name]:
            sink = io.BytesIO()
            Image.fromarray(faces(request)).save(sink, "PNG")
            document = json.dumps({"request": request.document, "loss": 0.5, **computed_on(request)}).encode()
            store.stages.put(request.key, {"stage.json": document, "faces.png": sink.getvalue()})
            store.record_seconds(request.key, Timing(seconds=10.0 + request.t, work=1.0, kind="made up"))
        table = _of_photos(pq.read_table(study.results(name)), person(spec["identity"], study.size))
        keys = json.dumps([request.key for request in requests[name]])
        pq.write_table(table.replace_schema_metadata({STAGE_KEYS: keys}), study.results(name))
    return requests
