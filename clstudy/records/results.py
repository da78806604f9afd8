"""Result files: the rows of a finished trial with their checksum; written, read and rebuilt here (no torch, no Ray).

A result holds nothing that is not in its trial's stages, which have checksums of their own. So the next run rebuilds
a result that is damaged, or that an earlier version wrote without a checksum, from its stages: quickly, and to the same
rows. A report, which changes nothing, leaves a damaged result out and says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clstudy.records.rows import RESULT_SCHEMA, SORT_KEY, STAGE_KEYS, STAGE_SCHEMA, result_table
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.checksums import State, read_checked, write_checked
from clstudy.storage.content_addressed_store import ROWS, StudyStore, ValueStore, is_key
from clstudy.storage.documents import load_json
from clstudy.storage.patience import patiently
from clstudy.storage.places import Place

REMEDY = "run the study again: it is rebuilt from its stages"


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """A result file as it was read.

    Attributes:
        place: its path.
        state: what is known about it; also DAMAGED if its rows cannot be read, whatever its checksum says.
        rows: ``RESULT_SCHEMA``; None if it is absent or damaged.
        keys: of its trial's stages in order; empty if the file has none.
        trouble: what is wrong with a damaged file, in words.
    """

    place: Place
    state: State
    rows: pa.Table | None = None
    keys: tuple[str, ...] = ()
    trouble: str = ""


def result_path(out: Place, trial_id: str, part: str = "results") -> Place:
    """The path of a finished trial's rows; a learning-rate search has its own ``part``."""
    return out / part / f"{trial_id}.parquet"


def trial_table(spec: TrialSpec, stages: Sequence[pa.Table], keys: Sequence[str]) -> pa.Table:
    """Rows of a finished trial (``RESULT_SCHEMA``); the stage keys travel in the schema's metadata."""
    return _with_keys(result_table(stages, **spec.columns()), keys)


def parquet_bytes(table: pa.Table) -> bytes:
    """Encode a table as Parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def write_result(place: Place, table: pa.Table) -> None:
    """Write a trial's rows and their checksum."""
    write_checked(place, parquet_bytes(table))


def read_result(place: Place) -> ResultFile:
    """Read a result file and determine its state.

    Raises:
        OSError: the storage does not answer.
    """
    state, content = read_checked(place)
    if state is State.ABSENT:
        return ResultFile(place=place, state=state)
    if state is State.DAMAGED:
        return ResultFile(place=place, state=state, trouble="it does not match its checksum")
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError, ValueError) as error:
        return ResultFile(place=place, state=State.DAMAGED, trouble=f"it is not a Parquet file ({_words(error)})")
    if table.schema.names != RESULT_SCHEMA.names or table.schema.types != RESULT_SCHEMA.types:
        trouble = f"it has the columns {', '.join(table.schema.names)}; expected {', '.join(RESULT_SCHEMA.names)}"
        return ResultFile(place=place, state=State.DAMAGED, trouble=trouble)
    return ResultFile(place=place, state=state, rows=table, keys=_keys_in(table.schema))


def result_keys(place: Place) -> tuple[str, ...]:
    """Keys of a trial's stages; empty if its result is absent, damaged or without keys."""
    state, content = read_checked(place)
    if state in (State.ABSENT, State.DAMAGED):
        return ()
    try:
        return _keys_in(pq.read_schema(pa.BufferReader(content)))
    except (pa.ArrowException, OSError, ValueError):
        return ()


def result_identity(place: Place) -> str:
    """The person that the rows belong to; empty if the file is absent, damaged or empty.

    Raises:
        OSError: the storage does not answer.
    """
    state, content = read_checked(place)
    if state in (State.ABSENT, State.DAMAGED):
        return ""
    try:
        table = pq.read_table(pa.BufferReader(content), columns=["identity"])
        return str(table["identity"][0].as_py()) if table.num_rows else ""
    except (pa.ArrowException, KeyError):
        return ""


def stage_rows(content: bytes) -> pa.Table | None:
    """The rows of a stage (``STAGE_SCHEMA``) from ``parquet_bytes``; None if the bytes hold something else."""
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError, ValueError):
        return None
    return table if table.schema.equals(STAGE_SCHEMA) else None


def rows_from_stages(stages: ValueStore, columns: Mapping[str, Any], keys: Sequence[str]) -> pa.Table | None:
    """A trial's rows rebuilt from its stages (``columns``: the trial's own); None if a stage is missing or damaged."""
    tables = []
    for key in keys:
        content = stages.file(key, ROWS)
        table = None if content is None else stage_rows(content)
        if table is None:
            return None
        tables.append(table)
    return _with_keys(result_table(tables, **columns), keys)


def same_rows(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables have bit-identical rows, in any order."""
    if one.num_rows != other.num_rows or one.schema.names != other.schema.names:
        return False
    first, second = (
        table.set_column(
            table.schema.get_field_index("value"),
            "value",
            pc.cast(pc.fill_null(table["value"], float("nan")), pa.float64()).combine_chunks().view(pa.int64()),
        ).sort_by([*SORT_KEY, ("value", "ascending")])
        for table in (one, other)
    )
    equal: bool = first.equals(second)
    return equal


def contradicts_stages(result: ResultFile, columns: Mapping[str, Any], stages: ValueStore) -> bool | None:
    """Whether an unchecked result differs from its stages' rows; None if that cannot be decided."""
    if result.rows is None or not result.keys:
        return None
    made = rows_from_stages(stages, columns, result.keys)
    return None if made is None else not same_rows(result.rows, made)


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A study's result files, each examined.

    Attributes:
        readable: trial -> file, for files that may be used.
        damaged: trial -> why its file must not be used, and what to do.
        unchecked: trials among ``readable`` whose files have no checksum.
        unconfirmed: those of ``unchecked`` that could not be compared with their stages either.
    """

    readable: Mapping[str, Path]
    damaged: Mapping[str, str]
    unchecked: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()


def examine(study: Path, trials: Mapping[str, Mapping[str, Any]]) -> Examined:
    """Examine the result files of these trials (trial -> its columns) by checksums or, without checksums, by stages."""
    readable: dict[str, Path] = {}
    damaged: dict[str, str] = {}
    unchecked, unconfirmed = [], []
    stages = StudyStore(study).stages
    for name, columns in trials.items():
        place = result_path(study, name)
        assert isinstance(place, Path)
        try:
            found = read_result(place)
        except OSError as error:
            damaged[name] = f"{place} cannot be read ({error.strerror or error}); {REMEDY}"
            continue
        if found.state is State.ABSENT:
            continue
        if found.state is State.DAMAGED:
            damaged[name] = f"{place} is damaged: {found.trouble}; {REMEDY}"
            continue
        if found.state is State.UNCHECKED:
            contradicts = contradicts_stages(found, columns, stages)
            if contradicts:
                damaged[name] = f"{place} is damaged: its rows are not those of its stages; {REMEDY}"
                continue
            unchecked.append(name)
            if contradicts is None:
                unconfirmed.append(name)
        readable[name] = place
    return Examined(readable=readable, damaged=damaged, unchecked=tuple(unchecked), unconfirmed=tuple(unconfirmed))


def restore_results(store: StudyStore, out: Place, wanted: Mapping[TrialSpec, Sequence[str]]) -> list[str]:
    """Write the results of trials that have all their stages; returns those that were written.

    Args:
        wanted: trial -> keys of its stages. A trial with a stage that turns out damaged is left for the run.
    """
    written = []
    for spec, keys in wanted.items():
        table = rows_from_stages(store.stages, spec.columns(), keys)
        if table is not None:
            place = result_path(out, spec.trial_id)
            patiently(lambda place=place, table=table: write_result(place, table))  # type: ignore[misc]
            written.append(spec.trial_id)
    return written


def _with_keys(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    return table.replace_schema_metadata({STAGE_KEYS: json.dumps(list(keys))})


def _keys_in(schema: pa.Schema) -> tuple[str, ...]:
    try:
        keys = load_json((schema.metadata or {})[STAGE_KEYS.encode()])
    except (KeyError, ValueError):
        return ()
    return tuple(keys) if isinstance(keys, list) and all(map(is_key, keys)) else ()


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
