"""Scores after fewer timestamps than a study has: does more history change the answer?

A continual trial of T' timestamps is the beginning of one of T > T': the same photos, in the same order, from the same
random numbers. So its R is the upper left block of the longer trial's, and nothing is computed for it. Joint training
is no such beginning; it has trials of its own (``Study.shorter``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa

from clstudy.analysis.matrix import ResultMatrix, ScoreValues, score_values
from clstudy.analysis.score_tables import PAIRED_SCHEMA, SCORES_SCHEMA, paired_table, scores_table
from clstudy.analysis.scores import missing_cells
from clstudy.analysis.summary import Summary

_COLUMN = pa.field("timestamps", pa.int64())
HORIZON_SCORES_SCHEMA = SCORES_SCHEMA.insert(0, _COLUMN)
HORIZON_PAIRED_SCHEMA = PAIRED_SCHEMA.insert(0, _COLUMN)


def matrices_at(summary: Summary, timestamps: int) -> list[ResultMatrix]:
    """R of every complete trial as after its first timestamps: ``[timestamps, timestamps]`` each."""
    own = [matrix for matrix in summary.shorter if matrix.trial.timestamps == timestamps]
    alone = {matrix.trial.strategy for matrix in own}
    cut = [
        replace(matrix, r=matrix.r[:timestamps, :timestamps])
        for matrix in summary.matrices
        if matrix.r.shape[-1] >= timestamps
        and (not matrix.trial.joint or (matrix.r.shape[-1] == timestamps and matrix.trial.strategy not in alone))
    ]
    return [matrix for matrix in (*cut, *own) if not missing_cells(matrix.r, matrix.trial.joint)]


def horizon_scores(summary: Summary) -> pa.Table:
    """``HORIZON_SCORES_SCHEMA``: the scores table once for each of the study's horizons; empty without horizons."""
    return _at_horizons(summary, lambda values: scores_table(summary.study, values, None, {}), HORIZON_SCORES_SCHEMA)


def horizon_paired(summary: Summary) -> pa.Table:
    """``HORIZON_PAIRED_SCHEMA``: the paired differences once for each horizon; empty without horizons."""
    return _at_horizons(summary, lambda values: paired_table(summary.study, values), HORIZON_PAIRED_SCHEMA)


def _at_horizons(summary: Summary, tabulate: Callable[[ScoreValues], pa.Table], schema: pa.Schema) -> pa.Table:
    tables = [schema.empty_table()]
    for timestamps in summary.study.horizons:
        table = tabulate(score_values(matrices_at(summary, timestamps), summary.study.metrics))
        tables.append(table.add_column(0, _COLUMN, pa.array([timestamps] * table.num_rows, pa.int64())))
    return pa.concat_tables(tables)
