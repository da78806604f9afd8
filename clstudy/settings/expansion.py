"""Expands a search space into trials, and checks the limits of a study's size.

It is independent of strategies and data sets: :func:`expand` takes what it needs of them as arguments, so that nothing
heavy is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from clstudy.errors import UserError, nearest
from clstudy.settings.space import Grid, RateRange, SearchSpace
from clstudy.settings.trial_spec import GridCell, TrialSpec, refuse_equal_ids

MAX_TRIALS_WITHOUT_YES = 500
"""A space with more trials than this runs only with ``--yes``."""


@dataclass(frozen=True, kw_only=True)
class Expansion:
    """The trials of a space, in the order in which they should start.

    ``collapsed`` counts the combinations of the full grid that are not trials of their own; ``sentence`` reports them.
    """

    trials: tuple[TrialSpec, ...]
    collapsed: int
    sentence: str


def choose_identities(wanted: int | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the identities of a data set that a space selects, in the data set's order.

    Raises:
        UserError: a name is unknown (the nearest known one is named), or a count exceeds the data set.
    """
    if isinstance(wanted, int):
        if wanted > len(known):
            raise UserError(
                f"the search space asks for {wanted} identities, the data set has {len(known)}; "
                f"ask for at most {len(known)}"
            )
        return tuple(known[:wanted])
    unknown = [name for name in wanted if name not in known]
    if unknown:
        listed = " ".join(f"unknown identity {name!r}.{nearest(name, known)}" for name in unknown)
        shown = ", ".join(known[:12]) + (f", … ({len(known)} in all)" if len(known) > 12 else "")
        raise UserError(f"{listed} The data set has: {shown}.")
    return tuple(wanted)


def expand_cells(space: SearchSpace, uses_buffer_size: Callable[[str], bool]) -> tuple[GridCell, ...]:
    """Return the cells of a space, strategy by strategy; a strategy that ignores the buffer size has one cell.

    Args:
        uses_buffer_size: returns whether a strategy, given by name, depends on the buffer size; raises for an unknown
            name.

    Raises:
        UserError: unknown strategy, no buffer size where one is needed.
    """
    grid = space.grid
    needs_size = {strategy: uses_buffer_size(strategy) for strategy in grid.strategy}
    if grid.buffer_size is None and any(needs_size.values()):
        needing = ", ".join(strategy for strategy, needs in needs_size.items() if needs)
        raise UserError(f"grid.buffer_size is missing, and {needing} needs one; add e.g. buffer_size: [3, 5, 10]")
    return tuple(
        GridCell(strategy=strategy, buffer_size=size)
        for strategy, needs in needs_size.items()
        for size in ((grid.buffer_size or (None,)) if needs else (None,))
    )


def expand(
    space: SearchSpace,
    identities: Sequence[str],
    uses_buffer_size: Callable[[str], bool],
    rates: Mapping[GridCell, float] | None = None,
    joint: Callable[[str], bool] = lambda strategy: False,
) -> Expansion:
    """Return every trial of a space once.

    A strategy that does not depend on the buffer size gives one trial instead of one per size. Trials are ordered
    seed, learning rate, strategy, buffer size, identity (fastest), so that workers begin with different identities
    instead of waiting for each other's first timestamp. A space with a range of learning rates gives the trials that
    are reported: every cell at the one rate chosen for it (the search's own trials come from
    :class:`clstudy.study.search.rate_search.RateSearch`).

    Args:
        identities: names of the data set's identities, in its order.
        uses_buffer_size: returns whether a strategy, given by name, depends on the buffer size; raises for an unknown
            name.
        rates: the chosen rate of every cell; given if and only if the space has a range.
        joint: returns whether a strategy is joint training, which has a trial for each of ``grid.timestamps``.

    Raises:
        UserError: unknown identity or strategy, no buffer size where one is needed, two trials with one name.
        ValueError: ``rates`` is given for a list, missing for a range, or incomplete.
    """
    grid = space.grid
    chosen = choose_identities(grid.identity, identities)
    cells = expand_cells(space, uses_buffer_size)
    choices = _rates_of_cells(grid, cells, rates)
    trials = tuple(
        TrialSpec(
            identity=identity,
            strategy=cell.strategy,
            buffer_size=cell.buffer_size,
            learning_rate=choice[cell],
            seed=seed,
        )
        for seed, choice, cell, identity in product(space.seeds, choices, cells, chosen)
    )
    shorter = tuple(
        replace(trial, timestamps=count)
        for trial in trials
        if joint(trial.strategy)
        for count in sorted(grid.timestamps or ())[:-1]
    )
    if not trials:
        raise UserError(f"search space {space.name!r} expands to no trial: the data set has no identity")
    refuse_equal_ids([*trials, *shorter])
    combinations = len(chosen) * len(grid.strategy) * len(grid.buffer_size or (None,)) * len(choices) * len(space.seeds)
    return Expansion(
        trials=(*trials, *shorter),
        collapsed=combinations - len(trials),
        sentence=_collapse_sentence(trials, combinations, [cell.strategy for cell in cells if cell.buffer_size is None])
        + _shorter_sentence(grid, shorter),
    )


def _rates_of_cells(
    grid: Grid, cells: Sequence[GridCell], rates: Mapping[GridCell, float] | None
) -> list[Mapping[GridCell, float]]:
    """The rates of all cells, once per round over the cells: a round per listed rate, or one with the chosen rates."""
    listed = grid.learning_rate
    if isinstance(listed, RateRange):
        missing = [cell.label for cell in cells if rates is None or cell not in rates]
        if rates is None or missing:
            raise ValueError(f"the space has a range of learning rates: no rate is chosen for {', '.join(missing)}")
        return [rates]
    if rates is not None:
        raise ValueError("the space lists its learning rates; there is none to choose")
    return [dict.fromkeys(cells, rate) for rate in listed]


def _collapse_sentence(trials: Sequence[TrialSpec], combinations: int, bounds: Sequence[str]) -> str:
    collapsed = combinations - len(trials)
    if not collapsed:
        return f"{_counted(len(trials), 'trial')}, one per combination."
    kept = sum(trial.buffer_size is None for trial in trials)
    subject = f"{' and '.join(bounds)} {'does' if len(bounds) == 1 else 'do'}"
    return (
        f"{combinations} combinations, {_counted(len(trials), 'trial')}: {subject} not depend on the buffer size, "
        f"so {kept + collapsed} combinations are {_counted(kept, 'trial')}, shown in every column."
    )


def _shorter_sentence(grid: Grid, shorter: Sequence[TrialSpec]) -> str:
    if not grid.timestamps:
        return ""
    *fewer, longest = map(str, sorted(grid.timestamps))
    if not fewer:
        return ""
    names = " and ".join(dict.fromkeys(trial.strategy for trial in shorter))
    extra = f"; {names} has {_counted(len(shorter), 'trial')} more, on those alone" if shorter else ""
    return f" Results after {', '.join(fewer)} timestamps are the beginnings of trials of {longest}{extra}."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def check_trial_count(trials: int, *, yes: bool = False) -> None:
    """Refuse a study with more than ``MAX_TRIALS_WITHOUT_YES`` trials unless it was confirmed.

    Raises:
        UserError: too many trials and no ``--yes``.
    """
    if trials > MAX_TRIALS_WITHOUT_YES and not yes:
        raise UserError(
            f"the search space expands to {trials} trials, more than {MAX_TRIALS_WITHOUT_YES}; look at the plan with "
            "--dry-run, then shorten the space (--identities, --seeds), or start it all the same with --yes"
        )


def check_buffer_sizes(trials: Iterable[TrialSpec], training_photos: Mapping[str, int]) -> None:
    """Refuse buffers that could hold more photos than an identity has for training.

    A size above the number of candidates at an early timestamp is normal: the buffer is simply not full yet.

    Args:
        training_photos: identity -> number of its training photos over all timestamps.

    Raises:
        UserError: sizes are too large; the message names them all, and the identity with the fewest photos.
    """
    too_large = sorted(
        {
            (trial.buffer_size, training_photos[trial.identity], trial.identity)
            for trial in trials
            if trial.buffer_size is not None and trial.buffer_size > training_photos[trial.identity]
        },
        key=lambda entry: (entry[1], entry[2], entry[0]),
    )
    if too_large:
        _, photos, identity = too_large[0]
        sizes = ", ".join(str(size) for size in sorted({entry[0] for entry in too_large}))
        raise UserError(
            f"buffer size {sizes} is larger than all training photos of {identity!r} together ({photos}); "
            f"use sizes up to {photos}"
        )
