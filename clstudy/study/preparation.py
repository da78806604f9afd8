"""Checks, opens and plans everything before the main job spends its first expensive second."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clstudy.errors import PhotoError, UserError
from clstudy.identities.catalogue import is_outline, open_data_set
from clstudy.identities.dataset import DataSet
from clstudy.identities.preparation.selection import evenly
from clstudy.registry import is_foreign
from clstudy.settings.claims import with_row_names
from clstudy.settings.expansion import Expansion, check_buffer_sizes, check_trial_count, expand
from clstudy.settings.metric_facts import as_published
from clstudy.settings.named_profiles import named_profile
from clstudy.settings.overrides import with_settings
from clstudy.settings.profiles import Profile
from clstudy.settings.space import SearchSpace
from clstudy.settings.space_file import load_space, override
from clstudy.settings.trial_spec import GridCell, TrialSpec
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.storage.places import Place, open_place
from clstudy.strategies import make_strategy
from clstudy.strategies.lookup import strategy_class
from clstudy.study.neighbours import expected_processor, related_studies
from clstudy.study.plan import Plan, make_plan
from clstudy.study.preflight import Equipment, equip, require_alignment
from clstudy.study.profile_check import require_parts
from clstudy.study.requirements import (
    check_cells,
    named_measures,
    require_answerable,
    require_conditions,
    require_horizons,
    require_offered,
    require_places,
    require_used,
    training_photos,
)
from clstudy.study.run_options import RunOptions
from clstudy.study.search.search_setup import SearchSetup, chosen_rates, search_plan, set_up_search, uses_buffer_size
from clstudy.trial.requests import Basis
from clstudy.trial.shared_store import shared_store
from clstudy.workloads.base import own_measures

if TYPE_CHECKING:
    from clstudy.generators.base import GeneratorWeights


Busy = Callable[[str], AbstractContextManager[object]]
"""Context manager that tells the user, while it is open, that something takes a moment."""

_DRIFT_PEOPLE, _DRIFT_PHOTOS = 5, 4  # a plan is wanted within seconds; `identities check` looks at everybody


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A study with everything checked and read, before the first expensive second."""

    space: SearchSpace
    profile: Profile
    equipment: Equipment
    weights: GeneratorWeights | None
    data: DataSet
    search: SearchSetup | None
    basis: Basis
    out: Place
    home: Path
    """Local folder shared by studies: packaged data sets and the local tracking database."""
    keep_weights: str
    images: bool
    others: tuple[Place, ...]
    """Other studies in the same storage, whose finished stages this one takes over."""
    processor: str | None
    """Kind of processor that its workers compute on, if that is known before they start."""

    @property
    def store(self) -> StudyStore:
        """The study's store, with the other studies behind it, to look only."""
        others = () if self.processor is None else self.others
        return shared_store(self.out, others, self.processor or "", keep=False)


@dataclass(frozen=True, kw_only=True)
class PreparedStudy(Opened):
    """A study with its current plan."""

    expansion: Expansion | None
    """None until the search for learning rates is over."""
    rates: Mapping[GridCell, float] | None
    plan: Plan

    @property
    def searching(self) -> SearchSetup | None:
        """The search until it is over, then None."""
        return self.search if self.expansion is None else None

    @property
    def people(self) -> DataSet:
        """The people to run trials on now: the reported people, or a search's validation people."""
        return self.data if self.searching is None else self.searching.people

    @property
    def sentence(self) -> str:
        """A sentence on what runs now."""
        if self.expansion is not None:
            return self.expansion.sentence
        assert self.search is not None
        return self.search.sentence()


def drift_lines(prepared: PreparedStudy) -> list[str]:
    """Lines on how much the photos change over time, before any training: without drift there is little to forget."""
    from clstudy.identities.drift import WARNING, estimate, is_little, mean, words

    people = prepared.people
    if is_outline(people) or len(people.identities[0].timestamps) < 2:
        return []
    some = [people.identities[place] for place in evenly(len(people.identities), _DRIFT_PEOPLE)]
    try:
        alignment = prepared.profile.data.alignment
        average = mean(estimate(some, alignment=alignment, most_photos=_DRIFT_PHOTOS))
    except PhotoError:  # the photo fails its own trials, which report it
        return []
    if average is None:
        return []
    lines = [f"drift    {words(average)}"]
    return [*lines, f"[yellow]warning[/yellow]  {WARNING}"] if is_little(average) else lines


def prepare(options: RunOptions, busy: Busy) -> PreparedStudy:
    """Check everything and make the plan.

    Raises:
        UserError: anything about the input is wrong.
    """
    return planned(open_study(options, busy), options)


def open_study(options: RunOptions, busy: Busy) -> Opened:
    """Check and read everything that a study is made from.

    Raises:
        UserError: any of it is wrong.
    """
    space = override(
        load_space(options.space, profile=options.profile),
        identities=options.identities,
        seeds=options.seeds,
        profile=options.profile,
        data=options.data,
        settings=options.settings,
    )
    space = the_variant(space, options.variant)
    for name in space.grid.strategy:
        make_strategy(name)  # refuses what does not exist before anything else is done
    out = study_place(options, space.name)
    home = out.parent if isinstance(out, Path) else Path("runs")
    if not options.dry_run:
        require_places(out, home)
    profile = with_compute(with_settings(named_profile(space.profile), space.settings), options)
    require_used(space, profile)
    require_offered(space, profile)
    if is_foreign(space.profile):
        require_parts(profile)
    own = named_measures(profile)
    primary = with_row_names(space.primary, {one.place: one.facts.name for one in own})
    space = space.model_copy(update={"primary": primary})
    equipment = equip(
        with_as_published(profile, options.without) if options.as_published else profile,
        weights=list(options.weights),
        device=options.device,
        without=list(options.without),
        data=space.data,
        address=options.address,
    )
    profile, weights = read_generator(equipment, busy)
    profile = with_gpu_share(profile, options.gpu_share)
    timestamps = timestamps_of(space, options.timestamps)
    data = open_study_data(space, profile, timestamps, home / "data", busy, look_only=options.dry_run)
    require_horizons(space, data)
    require_alignment(data.root, profile)
    require_conditions(profile, data)
    basis = Basis(profile, equipment.generator_digest, equipment.metric_files, own_measures(profile))
    require_answerable(space, basis, data)
    names = [identity.name for identity in data.identities]
    search = None
    if space.search is not None:
        everybody = open_named_too(
            space, names, data, profile, timestamps, home / "data", busy, look_only=options.dry_run
        )
        search = set_up_search(space, everybody, names, basis, out, home, look_only=options.dry_run)
        check_trial_count(search.trials, yes=options.yes)
        check_cells(search.cells, [*data.identities, *search.people.identities])
    return Opened(
        space=space,
        profile=profile,
        equipment=equipment,
        weights=weights,
        data=data,
        search=search,
        basis=basis,
        out=out,
        home=home,
        keep_weights=options.keep_weights or space.weights,
        images=profile.log_images if options.mlflow_images is None else options.mlflow_images,
        others=() if options.alone else related_studies(out, basis),
        processor=expected_processor(profile, options.address),
    )


def the_variant(space: SearchSpace, name: str | None) -> SearchSpace:
    """The space of the variant that is asked for; the space itself if it has none.

    Raises:
        UserError: it has variants and none is named, or not this one.
    """
    if name is not None:
        return space.of_variant(name)
    if space.variants is not None:
        raise UserError(f"{space.name} is several studies; name one of its variants: {', '.join(space.variants)}")
    return space


def planned(opened: Opened, options: RunOptions) -> PreparedStudy:
    """Plan what a study has left to do: its search for learning rates or, once that is over, its trials.

    Raises:
        UserError: too many trials, buffers larger than a person's photos, or no learning rate that works for a cell.
    """
    search, data, workers = opened.search, opened.data, expected_workers(opened.profile, options)
    rates = None if search is None else chosen_rates(search)
    expansion = None
    if search is not None and rates is None:
        plan = search_plan(search, opened.basis, opened.store, opened.out, workers)
    else:
        expansion = expand(
            opened.space,
            [one.name for one in data.identities],
            uses_buffer_size,
            rates,
            joint=lambda name: strategy_class(name).joint,
        )
        check_trial_count(len(expansion.trials), yes=options.yes)
        data = data.select(list(dict.fromkeys(spec.identity for spec in expansion.trials)))
        check_buffer_sizes(expansion.trials, training_photos(data.identities))
        plan = plan_of(expansion.trials, data, opened.basis, opened.out, workers, opened.keep_weights, opened.store)
    known = {entry.name: getattr(opened, entry.name) for entry in fields(Opened)}
    return PreparedStudy(**{**known, "data": data}, expansion=expansion, rates=rates, plan=plan)


def timestamps_of(space: SearchSpace, typed: int | None) -> int | None:
    """Number of timestamps that a space or the command line asks for; None: as many as the profile says.

    Raises:
        UserError: both do.
    """
    if typed is not None and space.grid.longest is not None:
        listed = ", ".join(map(str, space.grid.timestamps or ()))
        raise UserError(
            f"--timestamps {typed}, and the space has grid.timestamps ({listed}); leave the option out, or edit the "
            "space"
        )
    return typed or space.grid.longest


def open_named_too(
    space: SearchSpace,
    reported: Sequence[str],
    data: DataSet,
    profile: Profile,
    timestamps: int | None,
    cache: Path,
    busy: Busy,
    *,
    look_only: bool,
) -> DataSet:
    """Open the reported people and those named by ``search.validation``."""
    assert space.search is not None
    if isinstance(space.search.validation, str):
        return data
    everybody = [*reported, *(name for name in space.search.validation if name not in reported)]
    grid = space.grid.model_copy(update={"identity": tuple(everybody)})
    return open_study_data(
        space.model_copy(update={"grid": grid}), profile, timestamps, cache, busy, look_only=look_only
    )


def study_place(options: RunOptions, name: str) -> Place:
    """The study's folder or URI.

    Raises:
        UserError: the storage cannot be used.
    """
    return open_place(options.out) if options.out else open_place(options.storage or "runs") / name


def plan_of(
    trials: Sequence[TrialSpec],
    data: DataSet,
    basis: Basis,
    out: Place,
    workers: int,
    keep_weights: str,
    store: StudyStore,
) -> Plan:
    """The plan of some trials of a study."""
    people = {identity.name: identity for identity in data.identities}
    return make_plan(trials, people, basis, store, out, workers=workers, weights=keep_weights)


def with_compute(profile: Profile, options: RunOptions) -> Profile:
    """The profile with the precision, compilation and activation checkpointing from the command line."""
    compute = profile.compute
    return replace(
        profile,
        compute=replace(
            compute,
            precision=options.precision or compute.precision,
            compile=options.compile or compute.compile,
            activation_checkpointing=options.activation_checkpointing or compute.activation_checkpointing,
        ),
    )


def with_as_published(profile: Profile, without: Sequence[str] = ()) -> Profile:
    """The profile with its metrics also scored the way the published scripts do it, if the scripts have them.

    These come after the ordinary metrics, so that none of them becomes the study's main metric. Metrics that
    ``without`` leaves out are not scored that way either.
    """
    metrics = profile.evaluation.metrics
    known = as_published()
    twins = [known[name] for name in metrics if name in known and name not in without]
    metrics = (*metrics, *(twin for twin in twins if twin not in metrics))
    return replace(profile, evaluation=replace(profile.evaluation, metrics=metrics))


def with_gpu_share(profile: Profile, share: float | None) -> Profile:
    """The profile with this share of a GPU per trial; None leaves it as it is.

    Raises:
        UserError: its trials use no GPU.
    """
    if share is None:
        return profile
    if not profile.resources.gpus:
        raise UserError(f"--gpu-share {share:g}: trials of profile {profile.name!r} compute on the CPU; leave it out")
    return replace(profile, resources=replace(profile.resources, gpus=share))


def read_generator(equipment: Equipment, busy: Busy) -> tuple[Profile, GeneratorWeights | None]:
    """Read a generator that comes from a file: a wrong one must be refused now, and it fixes the size of photos.

    A packaged one is known to be good, so reading it is left to the study (planning needs no torch).
    """
    profile = equipment.profile
    if profile.weights is not None:
        return profile, None
    from clstudy.generators import load_generators
    from clstudy.generators.base import GENERATORS

    load_generators()
    kind = GENERATORS[profile.generator]
    with busy("reading the generator …"):
        weights = kind.read(equipment.files)
    return replace(profile, data=replace(profile.data, image_size=kind.image_size(weights, profile))), weights


def open_study_data(
    space: SearchSpace,
    profile: Profile,
    timestamps: int | None,
    cache: Path,
    busy: Busy,
    *,
    look_only: bool = False,
) -> DataSet:
    """Open the data set of a space; on first use create it, unless ``look_only``."""
    wanted = space.grid.identity
    settings = profile.data
    with busy("reading photos (a packaged data set is made on first use) …"):
        return open_data_set(
            space.data or settings.name,
            identities=wanted if isinstance(wanted, int) else None,
            names=None if isinstance(wanted, int) else wanted,
            timestamps=timestamps or settings.timestamps,
            train=settings.train,
            test=settings.test,
            data_seed=settings.data_seed,
            cache=cache,
            image_size=settings.image_size,
            look_only=look_only,
        )


def expected_workers(profile: Profile, options: RunOptions) -> int:
    """Trials at a time, for the estimate: as many as fit here, or as --max-concurrent allows on a cluster.

    The size of a cluster is not known before connecting to it, and may change; one worker is the honest guess then.
    """
    if options.address is not None:
        return options.max_concurrent or 1
    share = profile.resources
    fits = (os.cpu_count() or 1) / share.cpus if share.cpus else 1.0
    if share.gpus:
        import torch  # such a profile has read its generator with it already

        fits = min(fits, torch.cuda.device_count() / share.gpus)
    return min(max(1, int(fits)), options.max_concurrent or max(1, int(fits)))
