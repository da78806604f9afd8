"""Builds a profile's generator and workload without a study, so that they can be checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from clstudy.generators import load_generators
from clstudy.generators.base import GENERATORS
from clstudy.generators.conformance import GeneratorInHand, noise_photos
from clstudy.settings.profiles import Profile
from clstudy.study.preflight import Equipment, equip
from clstudy.training.numerics import loss_lpips, torch_device
from clstudy.workloads.base import WorkloadKind, workload_of
from clstudy.workloads.workload import Workload

_ANY_PHOTOS = "synthetic"
"""Photos are not needed, but a profile is complete only with a data set; this one always exists."""


def opened_generator(profile: Profile, weights: Sequence[str] = ()) -> GeneratorInHand:
    """The profile's generator, built twice, with photos of noise in its size.

    Args:
        profile: gives the settings to build it with.
        weights: the ``--weights`` options.

    Raises:
        UserError: there is no such generator, or its files are missing or are not what they should be.
    """
    load_generators()
    kind = GENERATORS[profile.generator]
    equipment = _equipped(profile, weights)
    read = kind.read(equipment.files)
    device = torch_device(profile.resources)
    lpips = loss_lpips(profile.compute, device)
    sized = replace(profile, data=replace(profile.data, image_size=kind.image_size(read, profile)))
    generator, again = (kind.build(read, sized, device, lpips) for _ in range(2))
    return GeneratorInHand(generator, again, noise_photos(sized.data.image_size, device))


def opened_workload(profile: Profile, weights: Sequence[str] = ()) -> tuple[WorkloadKind, Profile, Workload[Any, Any]]:
    """The profile's workload as a worker builds it, and the profile with the size of its photos.

    Raises:
        UserError: as ``opened_generator``.
    """
    load_generators()
    workload, kind = workload_of(profile), GENERATORS[profile.generator]
    equipment = _equipped(profile, weights)
    read = kind.read(equipment.files)
    sized = replace(equipment.profile, data=replace(profile.data, image_size=kind.image_size(read, profile)))
    return workload, sized, workload.build(sized, read, equipment.files, torch_device(sized.resources))


def _equipped(profile: Profile, weights: Sequence[str]) -> Equipment:
    return equip(profile, weights=list(weights), data=_ANY_PHOTOS)
