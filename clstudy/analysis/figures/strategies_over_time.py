"""All strategies on one axis: performance and Forgetting over timestamps, and what sets each apart from a baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from clstudy.analysis.comparisons import BASELINES
from clstudy.analysis.figures.curves import line_with_band, of_learners, over_identities, timestamp_axis
from clstudy.analysis.figures.style import (
    BOUND,
    DASHES,
    INK,
    PALETTE,
    TEXT,
    Drawing,
    NothingToDrawError,
    drawing,
    label_ends,
    panel_grid,
)
from clstudy.analysis.printed import panel_title
from clstudy.analysis.report_data import Arm, ReportData
from clstudy.analysis.scores import average_performance, forgetting

_SIZE, _LEFT = (2.9, 1.75), 0.72
_MOST_BANDS = 6
"""With more strategies than this the bands of their differences would hide each other."""
_BANDS = (
    ", with 95% Student t intervals: where a band leaves out 0, the two differ at that timestamp (each taken alone)"
)
_LOWER = " lower is far from the others and is left out there."
_People = Mapping[str, np.ndarray]
_Band = tuple[np.ndarray, np.ndarray, np.ndarray]


def strategies_over_time(material: ReportData) -> list[Drawing]:
    """A drawing per buffer size, that of the other figures first: AP_t and Forgetting, differences to a baseline below.

    Strategies without a buffer are in every one of them. The baseline is ``er_rand``, or ``lower`` where there is none.
    """
    sizes: list[int | None] = sorted(material.shown_sizes, key=lambda size: (size != material.focus_size, size))
    drawings = [_drawing(material, size, first=place == 0) for place, size in enumerate(sizes or [None])]
    found = [drawn for drawn in drawings if drawn is not None]
    if not found:
        raise NothingToDrawError("Strategies over time need two continual learners that have seen two timestamps.")
    return found


def forgetting_so_far(r: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """Forgetting as if the study had ended after t, for every t; ``[T, T] -> [T]``, NaN at t = 0."""
    lost = [forgetting(r[: t + 1, : t + 1], higher_is_better) for t in range(1, len(r))]
    return np.array([np.nan, *lost])


def _drawing(material: ReportData, size: int | None, *, first: bool) -> Drawing | None:
    panel = material.panel
    if panel is None:
        return None
    upward = material.metrics[panel[1]].higher_is_better

    def over_people(compute: Callable[[np.ndarray], np.ndarray]) -> dict[Arm, _People]:
        found = of_learners(material, panel, compute)
        return {arm: people for arm, people in found.items() if arm.buffer_size in (None, size)}

    columns = [
        (f"AP_t ({'higher' if upward else 'lower'} is better)", over_people(average_performance)),
        ("Forgetting (lower is better)", over_people(lambda r: forgetting_so_far(r, upward))),
    ]
    arms = list(columns[0][1])
    longest = max((len(value) for people in columns[0][1].values() for value in people.values()), default=0)
    if len(arms) < 2 or longest < 2:
        return None
    names = [arm.strategy for arm in arms]
    baseline = next((arm for name in BASELINES for arm in arms if arm.strategy == name), arms[0])
    compared = [arm for arm in arms if arm != baseline and (arm.strategy != "lower" or len(arms) == 2)]
    banded = len(compared) <= _MOST_BANDS
    room = 0.45 + 0.068 * max(map(len, names))
    figure, axes = panel_grid(4, 2, size=_SIZE, gap=(room + _LEFT, 0.4), margin=(_LEFT, room, 0.45, 0.1))
    for panel_axes in axes:
        timestamp_axis(panel_axes, longest - 1)
    for place, (title, values) in enumerate(columns):
        above, below = axes[place], axes[place + 2]
        _lines(above, {arm: _mean_alone(people) for arm, people in values.items()}, names)
        above.set_ylabel(title, fontsize=TEXT)
        apart = {arm: _differences(values[arm], values[baseline]) for arm in compared}
        band = over_identities if banded else _mean_alone
        below.axhline(0.0, color=INK, linewidth=0.7)
        _lines(below, {arm: band(people) for arm, people in apart.items() if people}, names)
        below.set_ylabel(f"minus {baseline.strategy}", fontsize=TEXT)
        below.set_xlabel("timestamp t", labelpad=1)
    sized = "" if size is None else f", K = {size}"
    title = f"{panel_title(material.metrics, panel)}: performance and Forgetting over timestamps{sized}"
    return drawing(
        figure,
        name="strategies_over_time" if size is None else f"strategies_over_time_k{size}",
        title=title,
        caption="Left: AP_t, the mean over the test photos of all timestamps seen so far. Right: Forgetting, as if the "
        f"study had ended after timestamp t. Above: means over identities. Below: paired differences to "
        f"{baseline.label} on the same photos and seeds, means over identities{_BANDS if banded else ''}."
        f"{_LOWER if 'lower' in names and len(compared) < len(names) - 1 else ''}{material.rate_note}",
        alt=f"Line charts of {title} for {', '.join(names)}, and of the differences to {baseline.strategy}.",
        first=first,
    )


def _differences(people: _People, baseline: _People) -> dict[str, np.ndarray]:
    """Values minus the baseline's for everybody who has both, as far as both go."""
    shared = {name: min(len(people[name]), len(baseline[name])) for name in people.keys() & baseline.keys()}
    return {name: people[name][:count] - baseline[name][:count] for name, count in sorted(shared.items())}


def _look(name: str, names: list[str]) -> tuple[str, Any]:
    """Colour and dashes: the same for a strategy in all four panels, grey for ``lower``."""
    if name == "lower":
        return BOUND, DASHES[1]
    place = [other for other in names if other != "lower"].index(name)
    return PALETTE[place % len(PALETTE)], DASHES[place // len(PALETTE) % len(DASHES)]


def _mean_alone(people: _People) -> _Band:
    mean, _, _ = over_identities(people)
    nothing = np.full_like(mean, np.nan)
    return mean, nothing, nothing


def _lines(axes: Axes, values: Mapping[Arm, _Band], names: list[str]) -> None:
    ends = []
    for arm, band in values.items():
        colour, dash = _look(arm.strategy, names)
        ends.append(line_with_band(axes, band, colour, arm.strategy, dash=dash))
    label_ends(axes, ends, height=_SIZE[1])
