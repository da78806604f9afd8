"""What a study's settings, photos and budget must fulfil before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clstudy.errors import UserError
from clstudy.identities.cameras import CAMERA
from clstudy.identities.catalogue import DATA_SETS, is_outline
from clstudy.identities.dataset import DataSet, Identity
from clstudy.identities.known_geometry import MOMENT
from clstudy.records.sessions import duration
from clstudy.registry import is_foreign
from clstudy.settings.claims import check_claims
from clstudy.settings.expansion import check_buffer_sizes
from clstudy.settings.metric_facts import BALANCED, BALANCED_PHOTO, EDITED, NOVEL_VIEW, SYNTHESIS, TURNED, OwnMetric
from clstudy.settings.profiles import Profile
from clstudy.settings.space import SearchSpace
from clstudy.settings.trial_spec import GridCell, TrialSpec
from clstudy.storage.places import Place, require_writable
from clstudy.strategies.lookup import strategy_class
from clstudy.study.plan import Plan
from clstudy.study.run_options import RunOptions
from clstudy.study.search.search_setup import uses_buffer_size
from clstudy.tracking.addresses import tracking_address
from clstudy.tracking.local_database import local_database
from clstudy.trial.requests import Basis
from clstudy.workloads.base import measured_facts, own_measures, workload_of

if TYPE_CHECKING:
    pass


def require_budget(plan: Plan, options: RunOptions) -> None:
    """Refuse a plan that exceeds the budget and was not confirmed.

    Raises:
        UserError: it needs more hours than given, and there is no --yes.
    """
    hours = options.budget_hours
    if hours is not None and plan.seconds / 3600 > hours and not options.yes:
        raise UserError(
            f"the plan needs about {duration(plan.seconds)} (from {plan.estimate_from}), --budget-hours is {hours:g}; "
            "shorten the space (--identities, --seeds), raise the budget, or begin all the same with --yes: it stops "
            "cleanly at the limit, and the same command goes on from there"
        )


def named_measures(profile: Profile) -> tuple[OwnMetric, ...]:
    """Metrics that a profile measures beyond the packaged ones.

    Raises:
        UserError: one cannot be imported, is not a metric, or has an invalid name or facts.
    """
    foreign = [name for name in profile.evaluation.metrics if is_foreign(name)]
    if foreign:
        from clstudy.metrics.base import METRICS  # imports torch, as the module of such a metric does

        for name in foreign:
            METRICS[name]  # refuses what is not a metric
    return own_measures(profile)


def require_answerable(space: SearchSpace, basis: Basis, data: DataSet) -> None:
    """Refuse a primary comparison or smallest differences that the study's numbers cannot answer.

    Raises:
        UserError: as ``check_claims``.
    """
    if space.primary is None and space.effects is None:
        return
    drawn = basis.profile.evaluation.synthesis_images > 0
    stamps = [timestamp for identity in data.identities for timestamp in identity.timestamps]
    tested = [photo.conditions for timestamp in stamps for photo in timestamp.test]
    balanced = is_outline(data) or any(known.get(BALANCED_PHOTO) == (1.0,) for known in tested)
    seen_again = is_outline(data) or any(MOMENT in known for known in tested)
    further = workload_of(basis.profile).further_protocols
    computed = {one: one in further for one in (NOVEL_VIEW, TURNED, EDITED)}
    computed |= {SYNTHESIS: drawn, BALANCED: balanced, NOVEL_VIEW: computed[NOVEL_VIEW] and seen_again}
    check_claims(
        space.primary,
        space.effects,
        computed={
            (protocol, facts.name): computed.get(protocol, True)
            for facts in measured_facts(basis.profile, basis.own_metrics)
            for protocol in facts.protocols
        },
        uses_buffer_size=uses_buffer_size,
        joint=lambda name: strategy_class(name).joint,
        timestamps=min(len(identity.timestamps) for identity in data.identities),
    )


def require_horizons(space: SearchSpace, data: DataSet) -> None:
    """Refuse ``grid.timestamps`` beyond what a person has.

    Raises:
        UserError: names the person.
    """
    longest = space.grid.longest or 0
    for identity in data.identities:
        if len(identity.timestamps) < longest:
            raise UserError(
                f"grid.timestamps asks for {longest}, and {identity.name} has {len(identity.timestamps)} timestamps; "
                "ask for fewer, or leave that person out"
            )


def require_offered(space: SearchSpace, profile: Profile) -> None:
    """Refuse strategies that need what the workload does not offer: the loss of a photo, draws from a prior.

    Raises:
        UserError: names the strategy.
    """
    learning = [name for name in space.grid.strategy if strategy_class(name).learns()]
    if learning and not workload_of(profile).has_photo_loss:
        raise UserError(
            f"strategy {learning[0]} learns from the loss of single photos, which workload {profile.workload} does not "
            "offer; leave the strategy out of the space"
        )
    drawing = [name for name in space.grid.strategy if strategy_class(name).needs_prior]
    if drawing and not workload_of(profile).has_prior:
        raise UserError(
            f"strategy {drawing[0]} replays what the generator draws of classes it has learned, and the generator of "
            f"workload {profile.workload} has no classes; leave the strategy out of the space, or take mergan_jtr or "
            "mergan_ra, which draw around stored anchors"
        )


def require_conditions(profile: Profile, data: DataSet) -> None:
    """Refuse photos that lack a condition required by the profile's workload.

    Raises:
        UserError: a photo lacks one; the message names the first.
    """
    wanted = workload_of(profile).conditions
    if not wanted or is_outline(data):
        return
    stamps = [timestamp for identity in data.identities for timestamp in identity.timestamps]
    for photo in (photo for timestamp in stamps for photo in (*timestamp.train, *timestamp.test)):
        for name, width in wanted.items():
            found = len(photo.conditions.get(name, ()))
            if found != width:
                numbers = f"{width} number{'s' if width > 1 else ''}"
                remedy = (
                    f"write it into a sidecar file, {photo.path.with_suffix('.json').name} beside the photo or "
                    "conditions.json of its timestamp"
                )
                if name == CAMERA:
                    remedy = (
                        f"estimate the cameras: python -m clstudy.identities cameras {data.root} "
                        f"--size {profile.data.image_size}"
                    )
                raise UserError(
                    f"workload {profile.workload} needs the condition {name!r} ({numbers}) of every photo, and "
                    f"{photo.path.relative_to(data.root)} has {found or 'none'}; {remedy}"
                )


def require_used(space: SearchSpace, profile: Profile) -> None:
    """Refuse settings that only packaged data sets have if the photos come from a folder.

    Raises:
        UserError: the space sets one.
    """
    folder = space.data or profile.data.name
    given = [name for name in space.settings.get("data", {}) if name != "timestamps"]
    if given and folder not in DATA_SETS:
        raise UserError(
            f"data.{given[0]} is set, but all photos of the folder {folder!r} are used as they are; leave it out "
            f"(packaged data sets have it: {', '.join(DATA_SETS)})"
        )


def training_photos(people: Iterable[Identity]) -> dict[str, int]:
    """Number of training photos of each person over all timestamps."""
    return {one.name: sum(len(timestamp.train) for timestamp in one.timestamps) for one in people}


def check_cells(cells: Sequence[GridCell], people: Sequence[Identity]) -> None:
    """Refuse buffers larger than all photos of a person, before any rate is known.

    Raises:
        UserError: as ``check_buffer_sizes``.
    """
    nominal = [
        TrialSpec(identity=one.name, strategy=cell.strategy, buffer_size=cell.buffer_size, learning_rate=1.0, seed=0)
        for cell in cells
        for one in people
    ]
    check_buffer_sizes(nominal, training_photos(people))


def require_places(out: Place, home: Path) -> None:
    """Refuse to start if a folder or database that a study writes cannot be written.

    Args:
        out: the study's folder.
        home: folder of packaged data sets and the local tracking database.

    Raises:
        UserError: one of them cannot be written.
    """
    require_writable(out)
    database = local_database(tracking_address(home))
    if database is None:
        return
    remedy = "name another study folder with --out, or an MLflow address with MLFLOW_TRACKING_URI"
    require_writable(database.parent, "the folder of MLflow's database", remedy)
    if database.exists() and not (database.is_file() and os.access(database, os.R_OK | os.W_OK)):
        raise UserError(f"MLflow's database {database} is not a file that can be read and written; {remedy}")
