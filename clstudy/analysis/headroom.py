"""How much could choosing well matter? What random choice leaves to gain, and how far random memories differ.

Two numbers bound what any way of choosing photos can show, and both come before a comparison of strategies:

- *left*: the share that random choice (``er_rand``) leaves of what forgetting costs. In final performance it is the
  share of the gap between ``lower`` and ``upper`` that is not closed; in Forgetting, ``er_rand``'s share of
  ``lower``'s. Both are quotients of means with Fieller's interval (``clstudy.analysis.efficiency.gap_interval``).
- *spread*: the standard deviation of ``er_rand``'s score between seeds, within identities. A seed draws other photos to
  keep *and* another order of training; ``lower`` keeps nothing, so its spread is what the order alone makes, and
  ``of_choice`` is the spread that remains after it: sqrt(max(0, spread² - control²)).

Where nothing is left, or choices make no difference beyond the order of training, strategies cannot differ.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import fmean, variance
from typing import Any

import pyarrow as pa
import pyarrow.csv

from clstudy.analysis.efficiency import LOWER, UPPER, gap_interval
from clstudy.analysis.matrix import ScoreCell
from clstudy.analysis.score_tables import CELL_FIELDS, cell_order
from clstudy.analysis.summary import Summary

HEADROOM = "headroom.csv"
"""File of a report with ``headroom_table``."""
RANDOM = "er_rand"
"""The strategy that chooses at random."""
HEADROOM_SCORES = ("final", "forgetting")
HEADROOM_SCHEMA = pa.schema(
    [field for field in CELL_FIELDS if field[0] != "strategy"]
    + [(name, pa.float64()) for name in ("left", "left_low", "left_high", "spread", "control", "of_choice", "gained")]
    + [("n_identities", pa.int64()), ("n_seeds", pa.int64())]
)

_Scores = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True, kw_only=True)
class Headroom:
    """The headroom of one score at one buffer size; NaN where the study does not show it.

    Attributes:
        cell: of ``er_rand``.
        left, left_low, left_high: share that random choice leaves, 1 for all; with its interval.
        spread, control: standard deviation between seeds, within identities, of ``er_rand`` and of ``lower``.
        gained: what ``er_rand`` gains over ``lower``; positive is better, whatever the score's direction.
        n_identities, n_seeds: identities in ``left``, and fewest seeds in ``spread``.
    """

    cell: ScoreCell
    left: float
    left_low: float
    left_high: float
    spread: float
    control: float
    gained: float
    n_identities: int
    n_seeds: int

    @property
    def of_choice(self) -> float:
        """The part of the spread that the choice of photos makes; NaN without two seeds or without ``lower``."""
        rest = self.spread**2 - self.control**2
        return rest if math.isnan(rest) else math.sqrt(max(0.0, rest))

    @property
    def share(self) -> str:
        """What is left, in percent with its interval; a dash if it is not known."""
        if math.isnan(self.left):
            return "–"
        between = "" if math.isnan(self.left_low) else f" [{self.left_low:.0%}, {self.left_high:.0%}]"
        return f"{self.left:.0%}{between}"

    @property
    def none(self) -> bool:
        """Whether the interval of what is left includes nothing."""
        return self.left_low <= 0


def headrooms(summary: Summary) -> list[Headroom]:
    """The headroom at every buffer size of ``er_rand``, in the order of the tables; none without ``lower``."""
    found = []
    for cell in sorted(summary.values, key=cell_order(summary.study)):
        lower = cell._replace(strategy=LOWER, buffer_size=None)
        if cell.strategy != RANDOM or cell.score not in HEADROOM_SCORES or lower not in summary.values:
            continue
        upper = summary.values.get(cell._replace(strategy=UPPER, buffer_size=None))
        mine, below = summary.values[cell], summary.values[lower]
        if cell.score == "forgetting":
            left, low, high, n = _forgetting_left(mine, below)
        else:
            left, low, high, n = _final_left(mine, below, {} if upper is None else upper)
        better = cell.score == "final" and summary.study.metrics[cell.metric].higher_is_better
        common = [
            (fmean(mine[name].values()), fmean(below[name].values())) for name in sorted(mine.keys() & below.keys())
        ]
        gained = fmean(ours - theirs for ours, theirs in common) if common else math.nan
        found.append(
            Headroom(
                cell=cell,
                left=left,
                left_low=low,
                left_high=high,
                spread=seed_spread(mine),
                control=seed_spread(below),
                gained=gained if better else -gained,
                n_identities=n,
                n_seeds=min(map(len, mine.values())),
            )
        )
    return found


def read_headrooms(content: bytes) -> list[Headroom]:
    """What ``headroom_table`` wrote as CSV.

    Raises:
        ValueError: it is something else.
    """
    try:
        rows = pyarrow.csv.read_csv(
            io.BytesIO(content), convert_options=pyarrow.csv.ConvertOptions(column_types=HEADROOM_SCHEMA)
        ).to_pylist()
        return [_read(row) for row in rows]
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(f"no table of headroom: {error}") from error


def _read(row: Mapping[str, Any]) -> Headroom:
    places = {name: row[name] for name in ScoreCell._fields if name != "strategy"}
    numbers = {entry.name: row[entry.name] for entry in fields(Headroom) if entry.name != "cell"}
    known: dict[str, Any] = {name: math.nan if value is None else value for name, value in numbers.items()}
    return Headroom(cell=ScoreCell(strategy=RANDOM, **places), **known)


def headroom_table(found: Sequence[Headroom]) -> pa.Table:
    """``HEADROOM_SCHEMA``: one row per protocol, metric, score, learning rate and buffer size."""
    rows = []
    for one in found:
        cell = {name: value for name, value in one.cell._asdict().items() if name != "strategy"}
        numbers = {name: getattr(one, name) for name in HEADROOM_SCHEMA.names if name not in cell}
        rows.append(cell | {name: None if _is_nan(value) else value for name, value in numbers.items()})
    return pa.Table.from_pylist(rows, schema=HEADROOM_SCHEMA)


def seed_spread(scores: _Scores) -> float:
    """Standard deviation between seeds within identities, pooled; NaN if no identity has two seeds."""
    variances = [(variance(seeds.values()), len(seeds) - 1) for seeds in scores.values() if len(seeds) > 1]
    degrees = sum(count for _, count in variances)
    return math.sqrt(sum(value * count for value, count in variances) / degrees) if degrees else math.nan


def _final_left(mine: _Scores, lower: _Scores, upper: _Scores) -> tuple[float, float, float, int]:
    """The share of the gap between ``lower`` and ``upper`` that is not closed, its interval, and the identities."""
    names = sorted(mine.keys() & lower.keys() & upper.keys())
    share = gap_interval(_means(mine, names), _means(lower, names), _means(upper, names)) if names else None
    if share is None:
        return math.nan, math.nan, math.nan, len(names)
    return 1 - share.mean, 1 - share.high, 1 - share.low, share.n


def _forgetting_left(mine: _Scores, lower: _Scores) -> tuple[float, float, float, int]:
    """Forgetting as a share of ``lower``'s, its interval, and the identities."""
    names = sorted(mine.keys() & lower.keys())
    share = gap_interval(_means(mine, names), [0.0] * len(names), _means(lower, names)) if names else None
    if share is None:
        return math.nan, math.nan, math.nan, len(names)
    return share.mean, share.low, share.high, share.n


def _means(scores: _Scores, names: Sequence[str]) -> list[float]:
    return [fmean(scores[name].values()) for name in names]


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def sentences(found: Sequence[Headroom]) -> list[str]:
    """What the headroom means, one sentence per score and buffer size."""
    return [_sentence(one) for one in found]


def _sentence(one: Headroom) -> str:
    of = "the gap between lower and upper" if one.cell.score == "final" else "lower's Forgetting"
    at = f"K = {one.cell.buffer_size}"
    if math.isnan(one.left):
        lacks = "lower and upper cannot be told apart" if one.n_identities else "upper is not in the study"
        if one.cell.score == "forgetting":
            lacks = "lower forgets nothing that can be told from 0"
        text = f"{at}: how much random choice leaves of {of} is not known ({lacks})"
    else:
        text = f"{at}: random choice leaves {one.share} of {of}"
        if one.none:
            text += ", which may be nothing: no way of choosing can show a gain here"
    if math.isnan(one.spread):
        return f"{text}; how far random memories differ needs two seeds."
    share = f" ({one.of_choice / abs(one.gained):.0%} of its gain)" if one.gained else ""
    if one.of_choice == 0:
        return f"{text}; random memories differ no more than the order of training makes lower differ."
    return f"{text}; the choice of photos moves a trial's score by {one.of_choice:.2g}{share}, one standard deviation."
