"""Sentences on what a study cannot show: few identities, unequal histories, references missing or exceeded."""

from __future__ import annotations

import math

from clstudy.analysis.comparisons import paired_difference
from clstudy.analysis.matrix import ScoreCell
from clstudy.analysis.printed import decimals_of, mean_and_interval, panel_title
from clstudy.analysis.statistics.intervals import NEW_IDENTITIES
from clstudy.analysis.summary import Summary, timestamp_counts

_MOST_NAMED = 6
_REFERENCES = {
    "lower": "there is nothing to measure the gain of a memory against",
    "upper": "it is not known how much of the gap to joint training is closed",
}
"""What cannot be concluded without a reference strategy."""


def not_concluded(summary: Summary) -> list[str]:
    """Sentences on what this study cannot show: few identities, one seed, no reference to compare with."""
    scores = summary.scores
    if not scores.num_rows:
        return [f"No trial of {summary.study.name!r} is in the numbers yet: nothing can be concluded."]
    said = []
    n, seeds = max(scores["n_identities"].to_pylist()), max(scores["n_seeds"].to_pylist())
    if n == 1:
        said.append(f"One identity: no interval can be given, and nothing is said about {NEW_IDENTITIES}.")
    if n == 2:
        said.append(
            "Two identities: an interval rests on a single difference (one degree of freedom, factor 12.7), so that "
            "hardly any effect can be told from chance."
        )
    if seeds == 1:
        said.append("One seed: how much of a difference is the draw of photos and of training is not measured.")
    present = set(scores["strategy"].to_pylist())
    planned = set(summary.study.strategies)
    said += [
        f"Without {name} ({'it is not in the plan' if name not in planned else 'none of its trials has finished'}) "
        f"{lacks}."
        for name, lacks in _REFERENCES.items()
        if name not in present
    ]
    short = {name for name in planned - present if name not in _REFERENCES}
    if short:
        said.append(f"Nothing is known of {', '.join(sorted(short))}: no trial of it is in the numbers.")
    said += [*unequal_timestamps(summary), *upper_exceeded(summary)]
    if n > 1 and summary.missing:
        said.append(
            "Trials are missing: means of cells with different identities are not comparable; paired differences use "
            "the identities and seeds that both have."
        )
    return said


def unequal_timestamps(summary: Summary) -> list[str]:
    """A sentence with the counts if identities have different numbers of timestamps; none if they are equal."""
    identities: dict[int, list[str]] = {}
    for identity, count in timestamp_counts(summary.study, summary.matrices).items():
        identities.setdefault(count, []).append(identity)
    if len(identities) < 2:
        return []
    counts = "; ".join(f"T = {count}: {_listed(names)}" for count, names in sorted(identities.items()))
    return [
        f"Identities have different numbers of timestamps ({counts}). Each identity's scores are means over its own "
        "timestamps, and Forgetting tends to grow with their number: a mean over these identities weighs different "
        "histories alike. Differences between strategies are paired within identities, each of the same history."
    ]


def upper_exceeded(summary: Summary) -> list[str]:
    """A sentence per learning rate at which a strategy ends better than ``upper``, with all metrics concerned."""
    said = []
    cells = [ScoreCell(**{name: row[name] for name in ScoreCell._fields}) for row in summary.scores.to_pylist()]
    for rate in summary.study.rates:
        where = [
            text
            for cell in cells
            if (cell.strategy, cell.score, cell.learning_rate) == ("upper", "final", rate)
            for text in _exceeding(summary, cell)
        ]
        if where:
            at = f" at learning rate {rate:g}" if len(summary.study.rates) > 1 else ""
            said.append(
                f"upper is not an upper bound of the means here{at}: better at the end is {'; '.join(where)}. A gap "
                "closed above 100% says the same: upper is what one run on all photos reaches in its steps, not "
                "the best that can be reached."
            )
    return said


def _exceeding(summary: Summary, upper: ScoreCell) -> list[str]:
    """The cells that end better than a cell of ``upper``: the best of them, and how many there are."""
    metrics, panel = summary.study.metrics, (upper.protocol, upper.metric)
    sign = 1.0 if metrics[upper.metric].higher_is_better else -1.0
    gains = {}
    for cell, values in summary.values.items():
        if cell._replace(strategy="upper", buffer_size=None) != upper or cell == upper:
            continue
        paired = paired_difference(values, summary.values[upper])
        if paired is not None and sign * paired[0].mean > 0:
            gains[cell] = paired[0]
    if not gains:
        return []
    best = max(gains, key=lambda cell: sign * gains[cell].mean)
    found = gains[best]
    size = "" if best.buffer_size is None else f" with K = {best.buffer_size}"
    others = f" (and {len(gains) - 1} more)" if len(gains) > 1 else ""
    title = panel_title(metrics, panel)
    alone = math.isnan(found.low)
    mean, interval = mean_and_interval(
        found.mean,
        None if alone else found.low,
        None if alone else found.high,
        decimals_of(metrics, panel),
        signed=True,
        missing="(one identity)",
    )
    includes = ", which includes 0" if found.low <= 0 <= found.high else ""
    return [f"{best.strategy}{size}{others} in {title} by {mean} {interval}{includes}"]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
