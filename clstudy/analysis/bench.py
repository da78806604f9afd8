"""clstudy-bench: fixed people, settings and question, on which a strategy of one's own is set against the others.

The question, fixed with the data before any entry: AIP and Forgetting in reconstruction LPIPS at the benchmark's buffer
size, paired over people against ``er_rand``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clstudy.analysis.comparisons import Comparison, Evidence, compare, weigh
from clstudy.analysis.matrix import TRIAL_COLUMNS, ScoreValues, read_rows, result_matrices, score_values
from clstudy.analysis.statistics.intervals import Interval, identity_interval
from clstudy.analysis.study_folder import kinds_of_processor
from clstudy.analysis.summary import summarise
from clstudy.assets import asset_path
from clstudy.errors import UserError
from clstudy.records.bench_entry import Entry, EntryFacts, read_entry
from clstudy.records.rows import RESULT_SCHEMA, SORT_KEY
from clstudy.records.study_record import CompleteRecord, read_complete_record
from clstudy.registry import Registry, instance_of, is_foreign, source_digest
from clstudy.seeding import derive_rng
from clstudy.settings.metric_facts import BALANCED, RECONSTRUCTION
from clstudy.settings.profile_documents import BESIDE_THE_POINT, profile_from_document
from clstudy.settings.profiles import key_document
from clstudy.storage.content_addressed_store import digest_of

BASELINE = "er_rand"
SCORES = ("aip", "forgetting")
PANEL = (RECONSTRUCTION, "lpips")
_PROTOCOLS, _METRICS = (RECONSTRUCTION, BALANCED), ("lpips", "id")
"""What an entry holds."""
_SAME_START = 0.02
"""How far R[0, 0] may be from the reference's: before the first update of a memory all strategies train on the same
photos, and processors differ by far less."""
_RANGES = {"lpips": (0.0, 2.0), "id": (-1.0, 1.0)}


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark: a space that is run with other strategies, and the entry of those that come with it.

    Attributes:
        space: name of the packaged space, or path of a file.
        buffer_size: at which strategies are compared.
        file: the reference's file; a name without folder is a packaged one.
    """

    name: str
    space: str
    buffer_size: int
    file: str

    @cached_property
    def reference(self) -> Entry:
        """The entry of the packaged strategies."""
        return read_entry(asset_path(self.file) if Path(self.file).name == self.file else Path(self.file))


BENCHMARKS: Registry[Benchmark] = Registry("benchmark", foreign=instance_of(Benchmark))
"""By name; one of your own is ``module:NAME``."""
BENCHMARKS.register("v1")(Benchmark(name="v1", space="bench_v1", buffer_size=3, file="bench_v1.parquet"))


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A strategy's place.

    Attributes:
        rank: by mean AIP, 1 is best; None for the bounds ``lower`` and joint training, which have no memory to choose.
        aip, forgetting: over people; Forgetting is None for joint training.
        to_baseline: score -> difference to ``er_rand`` and what it is worth; empty for ``er_rand`` and joint training.
        origin: sha256 of its source; None for a packaged one.
    """

    strategy: str
    rank: int | None
    aip: Interval | None
    forgetting: Interval | None
    to_baseline: Mapping[str, Evidence]
    origin: str | None


def entry_of(study: Path, benchmark: Benchmark, strategies: Sequence[str] | None = None) -> Entry:
    """The entry of a finished study of the benchmark's space.

    Args:
        study: its folder.
        strategies: those to enter; None: all.

    Raises:
        UserError: it is no such study, or trials of these strategies are missing.
    """
    record = read_complete_record(study)
    summary = summarise(study)
    wanted = [
        trial
        for trial in summary.study.trials
        if trial.buffer_size in (None, benchmark.buffer_size) and (strategies is None or trial.strategy in strategies)
    ]
    if not wanted:
        raise UserError(f"{study} has no trial of {', '.join(strategies or ())} with K = {benchmark.buffer_size}")
    lacking = [trial.trial for trial in wanted if trial.trial not in summary.files]
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(wanted)} trials are not finished, e.g. {lacking[0]}; call the same command again"
        )
    names = dict.fromkeys(trial.strategy for trial in wanted)
    facts = EntryFacts(
        benchmark=benchmark.name,
        settings=settings_digest(record),
        generator=record.generator,
        data_digests=dict(record.data_digests),
        strategies={name: _origin(name) for name in names},
        joint=tuple(sorted({trial.strategy for trial in wanted if trial.joint})),
        versions=dict(record.versions or {}),
        git_commit=record.git_commit or None,
        processors=tuple(sorted(kinds_of_processor(study, (trial.trial for trial in wanted)))),
    )
    return Entry(facts=facts, cells=cells_of(read_rows([summary.files[trial.trial] for trial in wanted])))


def _origin(name: str) -> str | None:
    """sha256 of the source of a strategy outside the package, which may have settings: ``module:Class(weight=1.0)``."""
    plain = name.partition("(")[0]
    return source_digest("strategy", plain) if is_foreign(plain) else None


def settings_digest(record: CompleteRecord) -> str:
    """Digest of everything in a study's profile that a number depends on.

    As in the stages' keys, settings that were added later are left out while they have their default.
    """
    document = key_document(profile_from_document(record.profile))
    return digest_of({name: value for name, value in document.items() if name not in BESIDE_THE_POINT})


def cells_of(rows: pa.Table) -> pa.Table:
    """Rows of single photos -> cells (``RESULT_SCHEMA``): means over the photos of a timestamp, and their digest.

    Sums run in the order of the rows, so equal rows give equal bits.
    """
    wanted = pc.field("protocol").isin(_PROTOCOLS) & pc.field("metric").isin(_METRICS)
    rows = rows.filter(wanted).sort_by(SORT_KEY)
    keys = [*TRIAL_COLUMNS, "train_timestamp", "test_timestamp", "protocol", "metric"]
    cells = rows.group_by(keys, use_threads=False).aggregate([("value", "mean"), ("image", "list")])
    images = [digest_of({"photos": sorted(names)}) for names in cells["image_list"].to_pylist()]
    columns = {name: cells[name] for name in keys} | {"image": pa.array(images), "value": cells["value_mean"]}
    return pa.table([columns[name] for name in RESULT_SCHEMA.names], schema=RESULT_SCHEMA).sort_by(SORT_KEY)


def complaints(entry: Entry, benchmark: Benchmark) -> list[str]:
    """What keeps an entry from being compared with the reference, as sentences; empty: nothing."""
    reference = benchmark.reference
    mine, theirs = entry.facts, reference.facts
    if mine.benchmark != benchmark.name:
        return [f"It is of the benchmark {mine.benchmark}, not of {benchmark.name}."]
    found = []
    if mine.settings != theirs.settings:
        found.append("It was computed with other settings than the benchmark's.")
    if mine.generator != theirs.generator:
        found.append("It was computed with another pretrained generator.")
    other = sorted(name for name, digest in theirs.data_digests.items() if mine.data_digests.get(name) != digest)
    if other:
        found.append(f"It was computed on other photos of {len(other)} people, e.g. {other[0]}.")
    return found or _wrong_cells(entry, reference)


def _wrong_cells(entry: Entry, reference: Entry) -> list[str]:
    found = []
    told = set(entry.facts.strategies)
    own = {name: _cells_by_person(entry, name) for name in sorted(told)}
    if set(entry.cells["strategy"].to_pylist()) != told:
        found.append(f"Its cells are of other strategies than it names ({', '.join(sorted(told))}).")
    wanted = _cells_by_person(reference, _continual(reference))
    joint = _cells_by_person(reference, reference.facts.joint[0]) if reference.facts.joint else {}
    for name, mine in own.items():
        due = joint if name in entry.facts.joint else wanted
        if mine.keys() != due.keys():
            found.append(f"{name} lacks cells or has too many: {len(mine)} instead of {len(due)}.")
        elif any(mine[key][0] != due[key][0] for key in due):
            found.append(f"{name} was tested on other photos.")
    for metric, (low, high) in _RANGES.items():
        values = entry.cells.filter(pc.equal(entry.cells["metric"], metric))["value"].to_numpy()
        if not (np.isfinite(values).all() and (values >= low).all() and (values <= high).all()):
            found.append(f"Values of {metric} are outside {low:g} to {high:g}.")
    return found or _other_start({name: own[name] for name in own if name not in entry.facts.joint}, wanted)


def _continual(entry: Entry) -> str:
    """A strategy of an entry that is no joint training."""
    return next(name for name in entry.facts.strategies if name not in entry.facts.joint)


_Cells = Mapping[tuple[object, ...], tuple[str, float]]


def _cells_by_person(entry: Entry, strategy: str) -> _Cells:
    """Everything that tells the cells of a strategy apart -> photos and value."""
    rows = entry.cells.filter(pc.equal(entry.cells["strategy"], strategy)).to_pylist()
    names = ("identity", "learning_rate", "seed", "train_timestamp", "test_timestamp", "protocol", "metric")
    return {tuple(row[name] for name in names): (row["image"], row["value"]) for row in rows}


def _other_start(learners: Mapping[str, _Cells], wanted: _Cells) -> list[str]:
    for name, cells in learners.items():
        for key, (_, value) in cells.items():
            if key[3:5] == (0, 0) and key[6] == "lpips" and abs(value - wanted[key][1]) > _SAME_START:
                return [
                    f"{name} begins elsewhere: R[0, 0] of {key[0]} is {value:.4f}, and {wanted[key][1]:.4f} for all "
                    "others, though before its first update no memory can matter."
                ]
    return []


def standings(benchmark: Benchmark, entries: Iterable[Entry] = ()) -> list[Standing]:
    """Everybody's place: the reference's strategies and the entries', best AIP first, bounds last.

    p-values of all differences to ``er_rand`` in one score are adjusted together (Holm).

    Raises:
        UserError: a strategy's name is in two entries.
    """
    both = [benchmark.reference, *entries]
    owner: dict[str, Entry] = {}
    for entry in both:
        for name in entry.facts.strategies:
            if name in owner:
                raise UserError(f"strategy {name} is in two entries; leave one out, or give it another name")
            owner[name] = entry
    values = _values(both)
    evidence = {score: _to_baseline(values, score) for score in SCORES}
    people = {(cell.score, cell.strategy): _over_people(by_name) for cell, by_name in values.items()}
    bounds = {"lower"} | {name for entry in both for name in entry.facts.joint}
    ranked = sorted(owner.keys() - bounds, key=lambda name: (people["aip", name].mean, name))
    places = {name: place for place, name in enumerate(ranked, 1)}
    return [
        Standing(
            strategy=name,
            rank=places.get(name),
            aip=people.get(("aip", name)),
            forgetting=people.get(("forgetting", name)),
            to_baseline={score: evidence[score][name] for score in SCORES if name in evidence[score]},
            origin=owner[name].facts.strategies[name],
        )
        for name in [*ranked, *sorted(bounds & owner.keys())]
    ]


def against_all(benchmark: Benchmark, entry: Entry) -> dict[str, list[Evidence]]:
    """Score -> an entry's strategies minus each of the reference's; the p-values of a score are one family."""
    names = list(benchmark.reference.facts.strategies)
    values = _values([benchmark.reference, entry])
    found = {}
    for score in SCORES:
        pairs = [one for one in compare(values, names, [score]) if one.cell.strategy in entry.facts.strategies]
        found[score] = _weighed(pairs)
    return found


def _values(entries: Sequence[Entry]) -> ScoreValues:
    """Scores of ``PANEL``."""
    cells = pa.concat_tables([entry.cells for entry in entries])
    protocol, metric = PANEL
    mine = cells.filter((pc.field("protocol") == protocol) & (pc.field("metric") == metric))
    joint = {name for entry in entries for name in entry.facts.joint}
    return score_values(result_matrices(mine, joint=joint))


def _to_baseline(values: ScoreValues, score: str) -> dict[str, Evidence]:
    weighed = _weighed(compare(values, [BASELINE], [score]))
    return {one.comparison.cell.strategy: one for one in weighed}


def _weighed(pairs: Sequence[Comparison]) -> list[Evidence]:
    if not pairs:
        return []
    return list(weigh(pairs, rng=derive_rng(0, "analysis", "benchmark", pairs[0].cell.score)).members)


def _over_people(by_name: Mapping[str, Mapping[int, float]]) -> Interval:
    return identity_interval([fmean(seeds.values()) for seeds in by_name.values()])
