"""Forget a person: remove everything that studies and MLflow hold of one identity (no torch, no Ray).

``forget`` tells the story. For every study, find out which person everything belongs to (``census``), and what belongs
to this one: in its folder (``traces``), in MLflow (``tracked_runs``), in data sets beside it (``photo_folders``). List
all of that (``removal_plan``), ask, and remove it (``removal``, ``ray_sessions``). Then make the reports again without
the person (``remade_report``).

A file in every value marks its person (``about.json``). Values of earlier versions lack it; there a stage's own record
names the person, and gives the keys of what belongs to the stage. A value that cannot be shown to be another person's
is removed too, if it can be computed again at any time (anchors, for instance). Nothing of anybody else is touched:
their rows and stages are the same bytes afterwards, under the same keys.

Every step may be repeated. ``study.yaml`` is changed last, so after a kill the same command finds what is left.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from clstudy.errors import UserError, nearest
from clstudy.records.study_record import NAME, StudyRecord, read_complete_record
from clstudy.storage.documents import STUDY
from clstudy.storage.driver_lock import only_driver
from clstudy.storage.places import Place, open_place, read_plain
from clstudy.storage.trees import folders_in
from clstudy.study.privacy.census import take_census
from clstudy.study.privacy.removal import carry_out
from clstudy.study.privacy.removal_plan import Forgetting, plan_forgetting


def forget(
    name: str,
    studies: Sequence[str],
    *,
    to: str | None = None,
    photos: bool = False,
    confirm: Callable[[], bool],
    say: Callable[[str], None] = print,
) -> list[str] | None:
    """Forget a person in one or more studies.

    Args:
        name: the person's, as their photo folder is called.
        studies: folders or URIs.
        to: MLflow's tracking URI, or "none"; None: as the environment says, else the database beside each study.
        photos: also remove their photos from the storage's own data sets.
        confirm: asked once, after everything that will be removed was listed.
        say: called with what will be removed, and with the outcome.

    Returns:
        What is left for somebody else to do; None if the removal was not confirmed.

    Raises:
        UserError: no such study or person, a study in use, or MLflow does not answer. Nothing was removed then.
    """
    places = list(dict.fromkeys(open_place(text).resolve() for text in studies))
    for place in places:
        read_complete_record(place)  # before a lock is created in a folder that is not a study
    with ExitStack() as held:
        for place in places:
            held.enter_context(only_driver(place))
        plans = {place: plan_forgetting(name, place, to, photos) for place in places}
        found = [plan for plan in plans.values() if plan is not None]
        if not found:
            censuses = [take_census(place, read_complete_record(place).trials) for place in places]
            known = sorted({one for census in censuses for one in census.people})
            raise UserError(
                f"nobody called {name!r} is in {', '.join(map(str, places))}, so nothing was removed."
                f"{nearest(name, known)} Known: {', '.join(known)}"
            )
        for place, plan in plans.items():
            for line in plan.lines() if plan else [f"{place}: nobody called {name!r}"]:
                say(line)
        if not confirm():
            return None
        left = [what for plan in found for what in carry_out(plan)]
    for sentence in [*_closing_lines(found, photos), *_other_studies(name, places)]:
        say(sentence)
    return left


def _other_studies(name: str, places: Sequence[Place]) -> list[str]:
    """A sentence if studies beside these have the person, too: each computed or took over values of its own."""
    beside = {str(place): place for home in {place.parent for place in places} for place in folders_in(home)}
    holding = [shown for shown, place in beside.items() if place not in places and _has(place, name)]
    if not holding:
        return []
    named = " ".join(f"--study {shlex.quote(place)}" for place in holding)
    return [f"Other studies of this storage still hold {name}; to forget them there, too: {named}"]


def _has(study: Place, name: str) -> bool:
    try:
        return name in (StudyRecord.decode(read_plain(study / NAME, STUDY.size)).data_digests or {})
    except (OSError, ValueError):  # no study, or closed to this user
        return False


def _closing_lines(plans: Sequence[Forgetting], photos: bool) -> list[str]:
    name = plans[0].name
    sets = ", ".join(sorted({repr(str(plan.record.data_set)) for plan in plans}))
    kept = [str(folder.photos) for plan in plans for folder in plan.folders if not photos]
    where = f"in {', '.join(kept)} and " if kept else ""
    return [
        f"{name} is forgotten.",
        f"Not touched: their photos {where}wherever the originals of data set {sets} lie, the conditions and what "
        "`prepare` left beside them (OUT-report, OUT/.prepare), copies and backups, and exported generators. While a "
        "space still names them, the next `python -m clstudy.run` computes them anew.",
    ]
