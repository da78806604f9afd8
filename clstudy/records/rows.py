"""The rows that every result consists of, and their two tables (pyarrow only).

A *stage* table holds what one stage measured. A *result* table adds the trial's columns; one Parquet file per
finished trial. Neither holds a time, a host or a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

_MEASURED = [
    ("train_timestamp", pa.int64()),
    ("test_timestamp", pa.int64()),
    ("protocol", pa.string()),
    ("metric", pa.string()),
    ("image", pa.string()),
    ("value", pa.float64()),
]
STAGE_SCHEMA = pa.schema(_MEASURED)
TRIAL_FIELDS = [
    ("trial", pa.string()),
    ("identity", pa.string()),
    ("strategy", pa.string()),
    ("buffer_size", pa.int64()),
    ("learning_rate", pa.float64()),
    ("seed", pa.int64()),
]
"""The columns that say which trial a row belongs to (``TrialSpec.columns``)."""
RESULT_SCHEMA = pa.schema([*TRIAL_FIELDS, *_MEASURED])
STAGE_KEYS = "clstudy.stage_keys"
"""Schema metadata of a result file: JSON list of the keys of its stages."""

SORT_KEY = [
    (name, "ascending") for name in ("trial", "train_timestamp", "test_timestamp", "protocol", "metric", "image")
]


class Row(NamedTuple):
    """One metric of one image: trained up to t, tested on timestamp k."""

    train_timestamp: int
    test_timestamp: int
    protocol: str
    metric: str
    image: str
    value: float


def stage_table(rows: Sequence[Row]) -> pa.Table:
    """Rows of one stage as a sorted table with ``STAGE_SCHEMA``."""
    columns = [[row[place] for row in rows] for place in range(len(STAGE_SCHEMA))]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, STAGE_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=STAGE_SCHEMA).sort_by(SORT_KEY[1:])


def result_table(
    stages: Sequence[pa.Table],
    *,
    trial: str,
    identity: str,
    strategy: str,
    buffer_size: int | None,
    learning_rate: float,
    seed: int,
) -> pa.Table:
    """All stages of one trial with the trial's columns in front, sorted, with ``RESULT_SCHEMA``."""
    measured = pa.concat_tables(stages) if stages else STAGE_SCHEMA.empty_table()
    constants = (trial, identity, strategy, buffer_size, learning_rate, seed)
    fields = list(RESULT_SCHEMA)[: len(constants)]
    columns = [
        pa.array([value] * measured.num_rows, field.type) for value, field in zip(constants, fields, strict=True)
    ]
    return pa.Table.from_arrays([*columns, *measured.columns], schema=RESULT_SCHEMA).sort_by(SORT_KEY)
