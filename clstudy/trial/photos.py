"""Reads a person's photos for a stage: checked, with their anchors, ready for training or testing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from clstudy.errors import PhotoError
from clstudy.identities.dataset import Identity, Photo
from clstudy.images import to_unit_range
from clstudy.records.stage_record import owned_by
from clstudy.seeding import derive_rng
from clstudy.storage.content_addressed_store import ANCHORS, StudyStore
from clstudy.training.micro_batches import with_smaller_batches
from clstudy.trial.requests import Basis, StageRequest, anchors_key, canonical_test, canonical_train
from clstudy.workloads.workload import AnchoredSamples, Samples, TestSamples, Workload

_LOG = logging.getLogger(__name__)


class StagePhotos:
    """Photos for the stages that a worker computes. Test sets are kept between trials of one person."""

    def __init__(self, basis: Basis, workload: Workload[Any, Any], store: StudyStore, say: Callable[[str], None]):
        self._basis = basis
        self._workload = workload
        self._store = store
        self._say = say
        self._test_sets: dict[tuple[str, ...], Any] = {}

    def read(self, photos: Sequence[Photo]) -> list[np.ndarray]:
        """Photos from their files, checked against their digests: uint8 ``[s, s, 3]``.

        Raises:
            PhotoError: a photo cannot be read, or is not the one that the plan was made with.
        """
        return [photo.read(self._basis.profile.data.image_size) for photo in photos]

    def samples(self, photos: Sequence[Photo]) -> Samples:
        """Photos, read as by ``read``, with their conditions, on the device."""
        images = to_unit_range(np.stack(self.read(photos))).to(self._workload.device)
        digests = tuple(photo.digest for photo in photos)
        return Samples(digests=digests, images=images, conditions=self.conditions(photos))

    def conditions(self, photos: Sequence[Photo]) -> dict[str, Tensor]:
        """The photos' conditions by name: float32 ``[n, width]``, on the device; empty if they have none.

        Raises:
            PhotoError: some photos lack a condition that others have, or have it with a different number of values.
        """
        widths = [{name: len(numbers) for name, numbers in photo.conditions.items()} for photo in photos]
        for photo, found in zip(photos, widths, strict=True):
            if found != widths[0]:
                raise PhotoError(
                    f"photo {photo.path} has the conditions {found}, expected {widths[0]} as {photos[0].path} has "
                    "(name: how many numbers); give all photos the same ones"
                )
        return {
            name: torch.tensor(
                [photo.conditions[name] for photo in photos], dtype=torch.float32, device=self._workload.device
            )
            for name in (widths[0] if widths else ())
        }

    def anchors(self, identity: Identity, k: int) -> tuple[Tensor, Tensor]:
        """Anchors of the training photos of k and starting latents of its test photos (canonical order)."""
        timestamp = identity.timestamps[k]
        key = anchors_key(self._basis, timestamp)
        files = self._store.anchors.get(key)
        if files is not None:
            tensors = loaded(files[ANCHORS], self._workload.device)
        else:
            samples = {
                "train": self.samples(canonical_train(timestamp)),
                "test": self.samples(canonical_test(timestamp)),
            }
            tensors, _ = with_smaller_batches(
                lambda size: {split: self._workload.candidates(part, size) for split, part in samples.items()},
                self._basis.profile.anchors.batch_size,
                self.say_halved(identity.name),
            )
            owner = owned_by(identity.name, self._workload.processor)
            self._store.anchors.put(key, {ANCHORS: stored_tensors(tensors), **owner})
        return tensors["train"], tensors["test"]

    def training(self, identity: Identity, timestamps: Sequence[int]) -> AnchoredSamples:
        """Training photos of the given timestamps in canonical order, with their anchors."""
        latents = torch.cat([self.anchors(identity, k)[0] for k in timestamps])
        photos = [photo for k in timestamps for photo in canonical_train(identity.timestamps[k])]
        return AnchoredSamples(**vars(self.samples(photos)), latents=latents)

    def stored(self, request: StageRequest) -> AnchoredSamples | None:
        """The buffer's photos with their anchors, in canonical order; None if there is no buffer."""
        if not request.replay:
            return None
        latents = torch.from_numpy(np.stack([item.latent for item in request.replay])).to(self._workload.device)
        return AnchoredSamples(**vars(self.samples(buffer_photos(request))), latents=latents)

    def test_set(self, identity: Identity, k: int, seed: int) -> Any:
        """The test photos of k and everything independent of the state (``Workload.test_set``); kept between trials."""
        photos = canonical_test(identity.timestamps[k])
        cached = (str(seed), identity.name, str(k), *(photo.digest for photo in photos))
        if cached not in self._test_sets:
            # test sets of other people would only waste memory: a worker finishes one trial before it begins another
            for other in [key for key in self._test_sets if key[1] != identity.name]:
                del self._test_sets[other]
            anchors, start = self.anchors(identity, k)
            self._test_sets[cached] = self._workload.test_set(
                TestSamples(
                    **vars(self.samples(photos)),
                    timestamp=k,
                    latents=start,
                    anchors=anchors,
                    rng=derive_rng(seed, identity.name, k, "synthesis"),
                )
            )
        return self._test_sets[cached]

    def say_halved(self, whose: str) -> Callable[[str], None]:
        """Report that a micro-batch was halved: in full to the log, in one line for all stages to the user."""

        def say(text: str) -> None:
            _LOG.warning("%s: %s", whose, text)
            # one line for all stages of a trial: the log has the sizes, and stage.json the size that was used
            self._say(
                f"{whose}: out of GPU memory; computed in smaller micro-batches (same mathematics, in stage.json)"
            )

        return say


def stored_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a stored value."""
    return save_tensors({name: value.contiguous() for name, value in tensors.items()})


def loaded(content: bytes, device: torch.device) -> dict[str, Tensor]:
    """The tensors of a stored value, on a device."""
    return {name: value.to(device) for name, value in load_tensors(content).items()}


def buffer_photos(request: StageRequest) -> list[Photo]:
    """The photos of a stage's replay items, in their order."""
    known = {photo.digest: photo for timestamp in request.identity.timestamps for photo in timestamp.train}
    return [known[item.digest] for item in request.replay]
