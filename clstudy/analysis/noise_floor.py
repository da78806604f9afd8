"""The noise floor of a study's arithmetic: the same trials, computed by another kind of processor.

Settings, photos and seeds are the same, and so are the draws; all that differs is the order in which sums are rounded,
which training carries on. Effects have to be larger than that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clstudy.analysis.printed import flat_settings
from clstudy.analysis.study_folder import kinds_of_processor
from clstudy.analysis.summary import Summary, summarise
from clstudy.errors import UserError
from clstudy.records.noise_floor import NoiseFloor, ScoreNoise
from clstudy.records.study_record import CompleteRecord, read_complete_record
from clstudy.settings.profile_documents import profile_from_document

ARITHMETIC = ("compute.instruction_set", "compute.precision", "compute.kernels", "compute.compile")
"""Settings that change how a study's numbers are computed, and not what they are."""


def measure_noise_floor(study: Path, repetition: Path) -> NoiseFloor:
    """Compare the scores of all trials that a study and its repetition have in common.

    Args:
        study: folder of the study.
        repetition: folder of a study with the same settings but for those of the arithmetic (``ARITHMETIC``), or of
            the same space computed on another machine.

    Raises:
        UserError: one is no study, they differ in more than their arithmetic, have the same arithmetic, or have no
            trial in common.
    """
    changed = _changed_arithmetic(read_complete_record(study), read_complete_record(repetition), repetition)
    one, two = summarise(study), summarise(repetition)
    here, there = (", ".join([_kind(summary), *words]) for summary, words in zip((one, two), changed, strict=True))
    if here == there:
        raise UserError(
            f"{study} and {repetition} were computed by the same kind of processor ({here}), so their difference says "
            "nothing; repeat trials of the study with --set compute.instruction_set=avx2, or on another machine"
        )
    found = [_noise(cell[:3], changes) for cell, changes in _changes(one, two).items()]
    if not found:
        raise UserError(f"{study} and {repetition} have no finished trial in common; repeat trials of the study")
    return NoiseFloor(here=here, there=there, scores=tuple(found))


def noise_of_difference(noise: ScoreNoise, people: int) -> float:
    """Root mean square of what rounding changes in a paired difference that is averaged over people.

    Both trials of each pair round independently of each other and of other people's.
    """
    return noise.rms * math.sqrt(2 / people)


def _noise(names: tuple[Any, ...], changes: list[float]) -> ScoreNoise:
    protocol, metric, score = names
    absolute = np.abs(changes)
    rms = float(np.sqrt(np.square(absolute).mean()))
    return ScoreNoise(
        protocol=protocol, metric=metric, score=score, trials=len(changes), rms=rms, largest=float(absolute.max())
    )


def _changes(one: Summary, two: Summary) -> dict[tuple[str, str, str], list[float]]:
    """Protocol, metric and score -> change of every trial that both studies have."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for cell, people in one.values.items():
        others = two.values.get(cell, {})
        for person, seeds in people.items():
            for seed in seeds.keys() & others.get(person, {}).keys():
                found.setdefault(cell[:3], []).append(others[person][seed] - seeds[seed])
    return found


def _kind(summary: Summary) -> str:
    """The kind of processor that computed a study.

    Raises:
        UserError: its stages do not say, or several did.
    """
    study = summary.study
    kinds = kinds_of_processor(study.folder, (trial.trial for trial in study.planned))
    if len(kinds) != 1:
        said = ", ".join(sorted(kinds)) or "no stage says which"
        raise UserError(f"{study.folder} was not computed by one known kind of processor ({said}); compare others")
    return next(iter(kinds))


def _changed_arithmetic(one: CompleteRecord, two: CompleteRecord, place: Path) -> tuple[list[str], list[str]]:
    """Settings of the arithmetic that differ, as each of the two has them, but for the instruction set (its kind says).

    Raises:
        UserError: they differ in more than that; with what differs.
    """
    here, there = (dict(flat_settings(_settings(record))) for record in (one, two))
    names = sorted(here.keys() | there.keys())
    differing = [name for name in names if name not in ARITHMETIC and here.get(name) != there.get(name)]
    photos = [name for name, digest in two.data_digests.items() if one.data_digests.get(name, digest) != digest]
    if one.generator != two.generator:
        differing.append("the pretrained generator")
    if photos:
        differing.append(f"photos of {', '.join(photos)}")
    if differing:
        raise UserError(
            f"{place} differs from the study in {', '.join(differing)}; repeat the study with its own settings and "
            "photos (the same runs/data), and --set compute.instruction_set or another machine"
        )
    said = [name for name in ARITHMETIC[1:] if here.get(name) != there.get(name)]

    def words(settings: Mapping[str, Any]) -> list[str]:
        return [f"{name.partition('.')[2]} {settings.get(name)}" for name in said]

    return words(here), words(there)


def _settings(record: CompleteRecord) -> Mapping[str, Any]:
    """A study's settings, with the defaults of those added since; as written where this version cannot read them."""
    try:
        return profile_from_document(record.profile).to_dict()
    except UserError:
        return record.profile
