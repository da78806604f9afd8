"""Two studies set against each other: what was done otherwise, and paired differences on the people of both.

A difference between studies is one between everything that they did otherwise at once; which of it matters is for the
reader to say, so all of it is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import pyarrow as pa

from clstudy.analysis.comparisons import paired_differences
from clstudy.analysis.matrix import ScoreCell
from clstudy.analysis.printed import PRINTED_SCORES, flat_settings
from clstudy.analysis.report_data import Arm, ReportData
from clstudy.analysis.score_tables import CELL_FIELDS, INTERVAL_FIELDS, interval_fields
from clstudy.analysis.statistics.intervals import Interval, identity_interval
from clstudy.records.study_record import StudyRecord

BETWEEN_SCHEMA = pa.schema(
    [("first", pa.string()), ("second", pa.string())]
    + CELL_FIELDS
    + [("first_mean", pa.float64()), ("second_mean", pa.float64()), ("difference", pa.float64())]
    + [field for field in INTERVAL_FIELDS if field[0] != "mean"]
)
TestPhotos = Mapping[str, set[str]]
"""Identity -> digests of test photos."""
_UNTOLD = ("name", "description", "trials", "claims", "other", "metrics", "chosen_rates")
"""Fields of a record that are compared otherwise, or say nothing about numbers."""
_PACKAGED = ("virtual", "synthetic", "orl", "real_video", "digits")
"""Data sets in which an identity's name and the seed say who it is."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A setting, version or digest that is not the same in all studies; "–" where a study does not have it."""

    what: str
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Between:
    """One cell of both studies on the people and seeds of both: means, and second minus first with its interval."""

    cell: ScoreCell
    first: float
    second: float
    difference: Interval
    n_seeds: int

    @property
    def label(self) -> str:
        """Strategy, buffer size and rate, as figures and tables say them."""
        rate = "" if self.cell.learning_rate is None else f", lr {self.cell.learning_rate:g}"
        return Arm(self.cell.strategy, self.cell.buffer_size).label + rate

    @property
    def n_identities(self) -> int:
        """People on whom both were measured."""
        return self.difference.n


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Who is in both studies.

    Attributes:
        people: identities of both that are the same people, sorted.
        test_photos: share of all their test photos that both studies have, in [0, 1].
        other_people: names of both that stand for different people.
    """

    people: tuple[str, ...]
    test_photos: float
    other_people: tuple[str, ...]


def what_differs(records: Sequence[StudyRecord]) -> list[Difference]:
    """Everything in ``study.yaml`` that is not the same in all studies, in the file's order."""
    flat = [dict(_flat(record)) for record in records]
    names = dict.fromkeys(name for values in flat for name in values)
    return [
        Difference(what=name, values=tuple(values.get(name, "–") for values in flat))
        for name in names
        if len({values.get(name) for values in flat}) > 1
    ]


def _flat(record: StudyRecord) -> list[tuple[str, str]]:
    document = {name: value for name, value in record.document().items() if name not in _UNTOLD}
    document["strategies"] = sorted({trial.strategy for trial in record.trials})
    document["learning_rates"] = sorted({trial.learning_rate for trial in record.trials})
    document["seeds"] = sorted({trial.seed for trial in record.trials})
    return list(flat_settings(document))


def shared_people(first: StudyRecord, second: StudyRecord, photos: tuple[TestPhotos, TestPhotos]) -> Shared:
    """Identities of both studies that are the same people, and how many of their test photos both have.

    Equal names are the same people if the studies used the same packaged data set with the same seed, or if any of
    their test photos are in both.

    Args:
        photos: of each study, as ``test_photos`` gives them.
    """
    names = sorted(photos[0].keys() & photos[1].keys())
    same_data = _people_of(first) is not None and _people_of(first) == _people_of(second)
    people = tuple(name for name in names if same_data or photos[0][name] & photos[1][name])
    both = sum(len(photos[0][name] & photos[1][name]) for name in people)
    either = sum(len(photos[0][name] | photos[1][name]) for name in people)
    others = tuple(name for name in names if name not in people)
    return Shared(people=people, test_photos=both / either if either else 0.0, other_people=others)


def _people_of(record: StudyRecord) -> tuple[str, str] | None:
    data = record.profile.get("data") if isinstance(record.profile, Mapping) else None
    seed = data.get("data_seed") if isinstance(data, Mapping) else None
    # the presets of the virtual people (virtual, virtual_strong, virtual_ages, …) show the same people
    family = "virtual" if (record.data_set or "").split("_")[0] == "virtual" else record.data_set
    return None if family not in _PACKAGED or seed is None else (str(family), str(seed))


def test_photos(rows: pa.Table) -> TestPhotos:
    """Digests of everybody's test photos, from rows with the columns ``identity`` and ``image``."""
    found: dict[str, set[str]] = {}
    for row in rows.group_by(["identity", "image"]).aggregate([]).to_pylist():
        found.setdefault(row["identity"], set()).add(row["image"])
    return found


def between(first: ReportData, second: ReportData, people: Sequence[str]) -> list[Between]:
    """Every cell of printed scores that both studies have, on these people, in the order of the first one's tables."""
    found = []
    order = {panel: place for place, panel in enumerate(first.panels)}
    for cell, values in sorted(first.values.items(), key=lambda item: order.get(item[0][:2], len(order))):
        theirs = second.values.get(cell)
        if theirs is None or cell.score not in PRINTED_SCORES:
            continue
        mine = {name: values[name] for name in people if name in values}
        differences, n_seeds = paired_differences(theirs, mine)
        if not differences:
            continue
        found.append(
            Between(
                cell=cell,
                first=_mean(mine, theirs, differences),
                second=_mean(theirs, mine, differences),
                difference=identity_interval(list(differences.values())),
                n_seeds=n_seeds,
            )
        )
    return found


def _mean(
    values: Mapping[str, Mapping[int, float]], others: Mapping[str, Mapping[int, float]], people: Iterable[str]
) -> float:
    """The mean over people of the mean over the seeds that both sides have."""
    return fmean(fmean(values[name][seed] for seed in values[name].keys() & others[name].keys()) for name in people)


def between_table(pairs: Mapping[tuple[str, str], Sequence[Between]]) -> pa.Table:
    """All of them as ``BETWEEN_SCHEMA``: names of two studies -> their cells. BWT as defined, not as printed."""
    rows = [
        {
            **one.cell._asdict(),
            "first": first,
            "second": second,
            "first_mean": one.first,
            "second_mean": one.second,
            "difference": one.difference.mean,
            **interval_fields(one.difference, one.n_seeds),
        }
        for (first, second), cells in pairs.items()
        for one in cells
    ]
    return pa.Table.from_pylist(rows, schema=BETWEEN_SCHEMA)
