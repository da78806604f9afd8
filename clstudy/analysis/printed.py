"""Formats numbers and scores: digits that never contradict an interval, and −BWT beside Forgetting.

A limit that is not 0 but rounds to it would read as an interval that touches 0. So an interval that excludes 0 gets as
many more digits as its nearer limit needs, up to ``MORE_DIGITS``; a limit still smaller is printed as a power of ten.
BWT is stored as defined (higher is better) and printed as −BWT (lower is better), in the direction and unit of
Forgetting: Forgetting's max picks up photo noise and −BWT does not, so the two should be read together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from clstudy.analysis.scores import SCORES
from clstudy.settings.metric_facts import MetricFacts, Metrics

PRINTED_SCORES = ("aip", "forgetting", "bwt", "final")
"""The scores of printed tables, in their order."""
MORE_DIGITS = 3
DEFAULT_DECIMALS = 4
_NEGATED = frozenset({"bwt"})
_LIMITS = ("mean", "low", "high")


def decimals_of(metrics: Metrics, panel: tuple[str, str] | None) -> int:
    """Decimals for scores of a (protocol, metric), unless an interval needs more."""
    facts = None if panel is None else metrics.get(panel[1])
    return DEFAULT_DECIMALS if facts is None else facts.decimals


def panel_title(metrics: Metrics, panel: tuple[str, str]) -> str:
    """Title of a (protocol, metric); made of the two names if the metric does not have the protocol."""
    protocol, metric = panel
    facts = metrics.get(metric)
    if facts is None or protocol not in facts.protocols:
        return f"{protocol} {metric}".capitalize()
    return f"{protocol.replace('_', ' ').capitalize()} {facts.title}"


def score_title(score: str) -> str:
    """Name of a score as it is printed: BWT is printed as −BWT."""
    return ("−" if score in _NEGATED else "") + SCORES[score].title


def printed_higher_is_better(score: str, metric: MetricFacts) -> bool:
    """Direction of the printed number."""
    return SCORES[score].direction(metric.higher_is_better) != (score in _NEGATED)


def better_when(score: str, metric: MetricFacts) -> str:
    """Which sign of a printed difference favours the strategy: "positive" or "negative"."""
    return "positive" if printed_higher_is_better(score, metric) else "negative"


def printed_value(score: str, value: float) -> float:
    """A score as it is printed."""
    return -value if score in _NEGATED else value


def directed_title(score: str, metric: MetricFacts) -> str:
    """The score's title with its direction, e.g. ``AIP (lower is better)``."""
    better = "higher" if printed_higher_is_better(score, metric) else "lower"
    return f"{score_title(score)} ({better} is better)"


def printed_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with ``score``, ``mean``, ``low`` and ``high`` (of ``SCORES_SCHEMA`` or ``PAIRED_SCHEMA``) as printed."""
    if row["score"] not in _NEGATED:
        return dict(row)
    mean, low, high = (None if row[name] is None else -row[name] for name in _LIMITS)
    return {**row, "mean": mean, "low": high, "high": low}


def digits_for(low: float | None, high: float | None, digits: int) -> int:
    """Decimals such that no limit of an interval that excludes 0 is printed as 0 (at most ``MORE_DIGITS`` more)."""
    if low is None or high is None or not (low > 0 or high < 0):
        return digits
    near = min(abs(low), abs(high))
    return next((digits + more for more in range(MORE_DIGITS) if round(near, digits + more)), digits + MORE_DIGITS)


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """A number with this many decimals; one that rounds to 0 has no sign."""
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text if text.strip("+-0.") else f"{0.0:.{digits}f}"


def interval_texts(mean: float, low: float, high: float, digits: int, *, signed: bool = False) -> tuple[str, str, str]:
    """Mean and limits of an interval as text, all with the decimals that the limits need."""
    digits = digits_for(low, high, digits)
    excludes = low > 0 or high < 0

    def text(value: float) -> str:
        # smaller than any digit shown: a power of ten, since 0.0000 would be a limit of 0
        tiny = excludes and value and not round(value, digits)
        return f"{value:{'+' if signed else ''}.0e}" if tiny else number(value, digits, signed=signed)

    return text(mean), text(low), text(high)


def mean_and_interval(
    mean: float, low: float | None, high: float | None, digits: int, *, signed: bool = False, missing: str = ""
) -> tuple[str, str]:
    """A mean and "[low, high]" as text; ``missing`` if there is no interval."""
    if low is None or high is None:
        return number(mean, digits, signed=signed), missing
    middle, least, most = interval_texts(mean, low, high, digits, signed=signed)
    return middle, f"[{least}, {most}]"


def flat_settings(values: Any, before: str = "") -> Iterable[tuple[str, str]]:
    """Nested settings as (dotted name, text)."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from flat_settings(value, f"{before}.{key}" if before else str(key))
    elif isinstance(values, list | tuple):
        yield before, ", ".join(map(str, values)) or "none"
    elif values is not None or before:
        yield before, "none" if values is None else str(values)
