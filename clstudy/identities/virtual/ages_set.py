"""The data set ``virtual_ages``: virtual people whose timestamps are ages, and what they look like at other ages.

Photos arrive age after age: timestamp t of T shows the person at the t-th of T ages from ``YOUNGEST_LEARNED`` to
``OLDEST_LEARNED``, on an occasion of ``virtual_strong`` of the same seed. Every test moment is photographed at the age
of its timestamp and, all else but the camera's noise equal, at every age of ``TARGETS``: what an ageing method should
make of the first. The condition ``target`` says which is which (``known_ages``). All photos have, besides a photo's
truth (``data_set.truth``) without landmarks, the number ``moment``, shared by photos of one moment. The same bytes on
every machine, as for ``virtual``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from clstudy.errors import UserError
from clstudy.identities.known_ages import TARGET, Target, target_among
from clstudy.identities.known_geometry import MOMENT
from clstudy.identities.virtual.data_set import Variant, VirtualSettings
from clstudy.identities.virtual.occasions import Frame, Occasion
from clstudy.identities.virtual.person import draw_virtual_person
from clstudy.identities.virtual.photo import Photograph, Sitter

AGES_VERSION = 2
"""Increased by hand whenever the photos or their conditions change for given settings, beyond those of ``virtual``."""

YOUNGEST_LEARNED, OLDEST_LEARNED = 30, 66
"""Years of the first and the last timestamp."""

TARGETS = (20, 30, 40, 50, 60, 70, 80)
"""Years at which test moments are photographed besides their own: among the learned ages, between them and beyond."""

PHOTOS_OF_MOMENT = 1 + len(TARGETS)


def learned_ages(timestamps: int) -> list[int]:
    """Whole years of the timestamps, evenly spread.

    Raises:
        UserError: more timestamps than years.
    """
    span = OLDEST_LEARNED - YOUNGEST_LEARNED
    if timestamps > span + 1:
        raise UserError(
            f"virtual_ages data set: {timestamps} timestamps; expected at most {span + 1}, one for each year"
        )
    return [YOUNGEST_LEARNED + (span * t) // max(timestamps - 1, 1) for t in range(timestamps)]


def check_ages(settings: VirtualSettings) -> None:
    """Refuse settings that this data set does not have.

    Raises:
        UserError: too many timestamps, or test photos that are not whole moments.
    """
    learned_ages(settings.timestamps)
    if settings.test % PHOTOS_OF_MOMENT:
        raise UserError(
            f"virtual_ages data set: test = {settings.test}; expected a multiple of {PHOTOS_OF_MOMENT}, since every "
            f"test moment is photographed at its own age and at {len(TARGETS)} others"
        )


def _photographed(index: int, settings: VirtualSettings) -> Iterator[tuple[str, Frame, Photograph, dict[str, int]]]:
    sitter = Sitter(replace(draw_virtual_person(settings.data_seed, index), base_age=float(YOUNGEST_LEARNED)))
    learned = learned_ages(settings.timestamps)
    for t in range(len(learned)):
        for name, moment, target, frame, taken in _taken(sitter, settings, t, learned):
            yield f"t{t:03d}/{name}", frame, taken, {MOMENT: moment, TARGET: target}


def _taken(
    sitter: Sitter, settings: VirtualSettings, t: int, learned: list[int]
) -> Iterator[tuple[str, int, int, Frame, Photograph]]:
    """Place of each photo without suffix, number of its moment, its ``Target``, its frame, and the photo.

    One age after the other, since a head at an age takes longer to make than a photo of it.
    """
    occasion = Occasion(sitter.person, settings.numbers, settings.data_seed, t)
    tests = occasion.test(settings.test // PHOTOS_OF_MOMENT)

    def photo(frame: Frame, years: int, noise: int = 0) -> tuple[Frame, Photograph]:
        moment = replace(frame.moment, age=float(years), noise_seed=frame.moment.noise_seed + noise)
        return replace(frame, moment=moment), sitter.photograph(moment, settings.image_size)

    for number, frame in enumerate(occasion.train(settings.train)):
        yield f"train/{number:03d}", number, Target.OWN, *photo(frame, learned[t])
    for number, frame in enumerate(tests):
        yield f"test/{number * PHOTOS_OF_MOMENT:03d}", number, Target.OWN, *photo(frame, learned[t])
    for place, years in enumerate(TARGETS, start=1):
        for number, frame in enumerate(tests):
            target = target_among(years, learned)
            yield f"test/{number * PHOTOS_OF_MOMENT + place:03d}", number, target, *photo(frame, years, noise=place)


VARIANT = Variant(
    name="virtual_ages",
    version={"ages_version": AGES_VERSION},
    check=check_ages,
    photographed=_photographed,
    facts=lambda settings: {"ages": learned_ages(settings.timestamps), "targets": list(TARGETS)},
)
