"""The people that a search for learning rates is judged by. It never sees the test photos of a reported person.

Either *derived* people, one per reported person, tested on a third of that person's training photos; or *named* people
of the data set, who are not reported and are used whole. A derived person trains on two thirds of the photos, so for
fewer steps per timestamp when training is counted in epochs; named people do not have this difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from clstudy.errors import UserError, nearest
from clstudy.identities.dataset import Identity, Timestamp
from clstudy.seeding import derive_rng
from clstudy.settings.space import THIRD, reported_too

VALIDATION_MARK = "+validation"
"""The end of a derived person's name. Trial ids keep all its characters, so that no other name can become equal there
(other characters would be replaced by '_')."""


def hold_out_third(identity: Identity) -> Identity:
    """Return the derived person: trained on two thirds of each timestamp's training photos, tested on the rest.

    Which photos are held out depends on the names of person and timestamp and on the photos' digests, not on order;
    the number held out is n/3 of n photos, rounded, and at least one. The person's own test photos appear nowhere.

    Raises:
        UserError: a timestamp has fewer than two training photos.
    """
    return Identity(
        identity.name + VALIDATION_MARK,
        tuple(_hold_out(identity.name, timestamp) for timestamp in identity.timestamps),
    )


def _hold_out(person: str, timestamp: Timestamp) -> Timestamp:
    count = len(timestamp.train)
    if count < 2:
        raise UserError(
            f"{person}, timestamp {timestamp.name!r} has {count} training photo{'' if count == 1 else 's'}; to hold a "
            "third out for choosing a learning rate takes at least 2. Add photos, name other people in "
            "search.validation, or give a list of learning rates"
        )
    canonical = sorted(timestamp.train, key=lambda photo: photo.digest)
    rng = derive_rng("validation third", person, timestamp.name)
    held = {canonical[place] for place in rng.choice(count, size=round(count / 3), replace=False)}
    return replace(
        timestamp,
        train=tuple(photo for photo in timestamp.train if photo not in held),
        test=tuple(photo for photo in timestamp.train if photo in held),
    )


def validation_people(
    people: Iterable[Identity], reported: Sequence[str], validation: str | Sequence[str]
) -> tuple[Identity, ...]:
    """Return the people a search runs on.

    Args:
        people: everybody that the study has opened: the reported people and the named ones.
        reported: names of the people whose results are reported.
        validation: ``search.validation`` of the space: ``"third"`` or names.

    Raises:
        UserError: a name is unknown, a named person is reported too, a person has the name that a derived one would
            get, or there are too few training photos.
    """
    known = {person.name: person for person in people}
    wanted = reported if validation == THIRD else validation
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise UserError(f"unknown identity {unknown[0]!r}.{nearest(unknown[0], known)} Known: {', '.join(known)}.")
    if validation == THIRD:
        derived = tuple(hold_out_third(known[name]) for name in wanted)
        taken = [person.name for person in derived if person.name in known]
        if taken:
            raise UserError(
                f"the data set has a person called {taken[0]!r}, the name that a search gives to the held-out part of "
                f"{taken[0].removesuffix(VALIDATION_MARK)!r}; rename that folder, or name people in search.validation"
            )
        return derived
    problem = reported_too(wanted, reported)
    if problem:
        raise UserError(f"search.validation: {problem}")
    return tuple(known[name] for name in wanted)
