"""Sets up a study's learning-rate search, estimates its cost, and keeps its results.

:mod:`clstudy.study.search.rate_search` makes proposals and decisions. The trials are ordinary ones of validation people
(:mod:`clstudy.study.search.validation_people`); their rows go to the study's ``search/``, not ``results/``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.storages import InMemoryStorage

from clstudy.analysis.tables import to_csv
from clstudy.errors import UserError
from clstudy.identities.dataset import DataSet
from clstudy.settings.expansion import expand_cells
from clstudy.settings.profile_documents import search_document
from clstudy.settings.space import RateRange, SearchSpace
from clstudy.settings.trial_spec import GridCell
from clstudy.storage.checksums import write_checked
from clstudy.storage.content_addressed_store import StudyStore, digest_of
from clstudy.storage.places import Place, write_atomically
from clstudy.strategies.lookup import strategy_class, strategy_document
from clstudy.study.plan import START_SECONDS, Plan, disk_estimate, find_pace
from clstudy.study.search.rate_search import RateSearch
from clstudy.study.search.validation_people import validation_people
from clstudy.tracking.local_database import sqlite_uri
from clstudy.trial.requests import Basis, identity_digest
from clstudy.trial.work import likely_work

PART = "search"
"""A study's folder for the rows of a search's trials, the proposals and Optuna's database."""
DATABASE = "optuna.db"


@dataclass(frozen=True, kw_only=True)
class SearchSetup:
    """A search before it runs: cells, validation people, the source of its trials and Optuna's storage."""

    cells: tuple[GridCell, ...]
    people: DataSet
    rates: RateRange
    database: Path
    source: RateSearch
    seeds: tuple[int, ...]

    @property
    def trials(self) -> int:
        """Number of trials of the whole search (fewer if some are stopped early)."""
        return len(self.cells) * self.rates.trials * len(self.people.identities) * len(self.seeds)

    @property
    def decided(self) -> int:
        """Number of proposals that are decided already."""
        return sum(row["state"] != "running" for row in self.source.table().to_pylist())

    def sentence(self) -> str:
        """The search in a sentence, for the plan."""
        names = ", ".join(person.name for person in self.people.identities)
        return (
            f"{len(self.cells)} cells x {self.rates.trials} learning rates from {self.rates.low:g} to "
            f"{self.rates.high:g}, each on {names}: {self.trials} trials to choose the rates by"
        )


def uses_buffer_size(strategy: str) -> bool:
    """Whether a strategy depends on the buffer size."""
    return strategy_class(strategy).uses_buffer_size


def set_up_search(
    space: SearchSpace,
    everybody: DataSet,
    reported: Sequence[str],
    basis: Basis,
    out: Place,
    home: Path,
    *,
    look_only: bool = False,
) -> SearchSetup:
    """Open (or begin) the search of a space with a range of learning rates.

    Args:
        everybody: the reported people and those named by ``search.validation``.
        reported: names of the reported people.
        basis: what all stages share.
        out: the study's folder. Optuna's database is in it or, if it is an object store, in ``home`` with a copy in
            the store.
        home: a local folder.
        look_only: begin nothing; only read what was begun.

    Raises:
        UserError: the people are not suitable, or the database holds a search with other settings.
    """
    assert isinstance(space.grid.learning_rate, RateRange) and space.search is not None
    if "lpips" not in basis.profile.evaluation.metrics:
        raise UserError("a learning-rate search is judged by LPIPS, which --without leaves out; keep it")
    people = validation_people(everybody.identities, reported, space.search.validation)
    cells = expand_cells(space, uses_buffer_size)
    database = out / PART / DATABASE if isinstance(out, Path) else home / f"{space.name}-{DATABASE}"
    if not isinstance(out, Path) and not database.is_file() and (out / PART / DATABASE).is_file():
        write_atomically(database, (out / PART / DATABASE).read_bytes())
    if not look_only:
        database.parent.mkdir(parents=True, exist_ok=True)
    source = RateSearch(
        cells,
        [person.name for person in people],
        space.seeds,
        space.grid.learning_rate,
        storage=sqlite_uri(database) if database.is_file() or not look_only else InMemoryStorage(),
        study_name=space.name,
        seed=0,
        asha=space.search.asha,
        timestamps=min(len(person.timestamps) for person in people),
        basis=digest_of(
            {
                "profile": search_document(basis.profile),
                "generator": basis.generator_digest,
                "fingerprint": basis.fingerprint(),
                "photos": {person.name: identity_digest(person) for person in people},
                "strategies": [strategy_document(name) for name in space.grid.strategy],
            }
        )[:12],
    )
    return SearchSetup(
        cells=cells,
        people=DataSet(everybody.name, everybody.root, people),
        rates=space.grid.learning_rate,
        database=database,
        source=source,
        seeds=space.seeds,
    )


def search_plan(setup: SearchSetup, basis: Basis, store: StudyStore, out: Place, workers: int) -> Plan:
    """Plan what the search has left, before sharing and early stops: its trials are not known until they begin."""
    each = len(setup.people.identities) * len(setup.seeds)
    left = (len(setup.cells) * setup.rates.trials - setup.decided) * each
    people = {person.name: person for person in setup.people.identities}
    lengths = {name: len(person.timestamps) for name, person in people.items()}
    stages = left * sum(lengths.values()) // max(len(lengths), 1)
    per_person = [
        sum(likely_work(basis.profile, person, t) for t in range(lengths[name])) for name, person in people.items()
    ]
    work = left * sum(per_person) / len(per_person)
    pace = find_pace(basis, store, out)
    seconds = work * pace.seconds_per_pass
    return Plan(
        trials=(),
        open_trials=left,
        done=frozenset(),
        stages_without_sharing=stages,
        stages=stages,
        stages_done=0,
        exact=False,
        seconds=seconds / max(workers, 1) + (START_SECONDS if left else 0.0),
        start_seconds=START_SECONDS if left else 0.0,
        worker_seconds=seconds,
        work=work,
        estimate_from=pace.source,
        disk_bytes=disk_estimate(basis.profile, (), left * 2, max(lengths.values()), workers, "last"),
        retrained=0,
        chains={},
    )


def keep_search(setup: SearchSetup, out: Place) -> None:
    """Write the search's results so far: ``search/proposals.csv``, and Optuna's database if it is kept elsewhere."""
    write_checked(out / PART / "proposals.csv", to_csv(setup.source.table()).encode())
    if not isinstance(out, Path):
        write_atomically(out / PART / DATABASE, setup.database.read_bytes())


def chosen_rates(setup: SearchSetup) -> Mapping[GridCell, float] | None:
    """The rate of every cell, or None until the search is over.

    Raises:
        UserError: all rates of a cell diverged.
    """
    return setup.source.best() if setup.source.complete() else None
