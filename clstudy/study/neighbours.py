"""Finds other studies in the same storage whose stages a study may take over (no torch, no Ray)."""

from __future__ import annotations

from clstudy.records.study_record import NAME
from clstudy.settings.instruction_sets import likely_processor
from clstudy.settings.profiles import Profile
from clstudy.storage.documents import STUDY
from clstudy.storage.places import Place, read_plain
from clstudy.storage.trees import folders_in
from clstudy.trial.requests import Basis


def related_studies(out: Place, basis: Basis) -> tuple[Place, ...]:
    """Studies beside this one that personalise the same pretrained generator, ordered by name.

    Every key contains the generator's digest, so no other study can have an equal one. ``study.yaml`` is searched for
    the digest, not parsed: that takes a second per large study, and the keys decide anyway.
    """
    generator = basis.generator_digest.encode()
    return tuple(
        place for place in folders_in(out.parent) if place.name != out.name and generator in _settings_of(place)
    )


def _settings_of(study: Place) -> bytes:
    try:
        return read_plain(study / NAME, STUDY.size)
    except OSError:  # no study, or closed to this user
        return b""


def expected_processor(profile: Profile, address: str | None) -> str | None:
    """Kind of processor that a study's workers will report; None if it is not known before they start (a cluster)."""
    if address is not None:
        return None
    if not profile.resources.gpus:
        return likely_processor(profile.compute.instruction_set)
    import torch  # such a profile has read its generator with it already

    from clstudy.training.processor import kind_of_processor

    return kind_of_processor(torch.device("cuda")) if torch.cuda.is_available() else None
