"""How often a strategy is better for a person: probability of improvement over a baseline, and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from clstudy.analysis.comparisons import BASELINES, Comparison
from clstudy.analysis.figures.style import (
    INK,
    PALETTE,
    TEXT,
    Drawing,
    NothingToDrawError,
    bare,
    drawing,
    panel_grid,
)
from clstudy.analysis.matrix import ScoreCell
from clstudy.analysis.printed import panel_title
from clstudy.analysis.report_data import Arm, ReportData
from clstudy.analysis.scores import SCORES
from clstudy.analysis.statistics.paired import probability_of_improvement

_SCORES = ("aip", "forgetting")
_FEWEST = 2
"""People without whom a share says nothing."""
_LINE = 0.26
"""Height of a line in inches."""


def improvements(material: ReportData) -> list[Drawing]:
    """Probability of improvement over ``er_rand`` (or ``lower``), and how often each strategy takes which rank."""
    found = [drawn for drawn in (_probabilities(material), _ranks(material)) if drawn is not None]
    if not found:
        raise NothingToDrawError(
            "How often a strategy is better than others needs two continual learners that two people have in common."
        )
    return found


def _comparisons(material: ReportData, score: str) -> list[Comparison]:
    """Everything against the first baseline that the study has, under the main metric and the shown rate."""
    there = {arm.strategy for arm in material.arms}
    baseline = next((name for name in BASELINES if name in there), None)
    pairs = [] if baseline is None else material.compared(score, baseline)
    return [one for one in pairs if len(one.differences) >= _FEWEST and one.cell.learning_rate == material.rate]


def _probabilities(material: ReportData) -> Drawing | None:
    found = {score: _comparisons(material, score) for score in _SCORES}
    there = {Arm(one.cell.strategy, one.cell.buffer_size) for score in _SCORES for one in found[score]}
    lines = sorted(there, key=lambda arm: (material.strategies.index(arm.strategy), arm.buffer_size or 0))
    if not lines or material.panel is None:
        return None
    baseline = next(one.baseline for score in _SCORES for one in found[score])
    names = [arm.label for arm in lines]
    left = 0.25 + 0.068 * max(map(len, names))
    figure, axes = panel_grid(
        2, 2, size=(2.6, max(0.7, _LINE * len(lines))), gap=(0.35, 0.0), margin=(left, 0.15, 0.5, 0.3)
    )
    for place, (score, panel_axes) in enumerate(zip(_SCORES, axes, strict=True)):
        _bars(panel_axes, found[score], lines)
        panel_axes.set_title(SCORES[score].title, loc="left", fontsize=TEXT + 1)
        panel_axes.set_yticks([-i for i in range(len(lines))], names if place == 0 else [])
        panel_axes.set_xlabel(f"P(better than {baseline} for a new person)", fontsize=TEXT)
    people = max(len(one.differences) for score in _SCORES for one in found[score])
    title = f"{panel_title(material.metrics, material.panel)}: how likely a new person gains over {baseline}"
    return drawing(
        figure,
        name="probability_of_improvement",
        title=title,
        caption=f"Share of the {people} people for whom a strategy is better than {baseline} at the same buffer size "
        "(ties count half), with Clopper and Pearson's 95% limits. At 0.5 neither is better more often; how much "
        f"better, the paired differences say.{material.rate_note}",
        alt=f"{title}, for {', '.join(names)}; the evidence table has the same numbers.",
    )


def _bars(axes: Axes, found: Sequence[Comparison], lines: Sequence[Arm]) -> None:
    axes.axvline(0.5, color=INK, linewidth=0.7)
    for one in found:
        height = -lines.index(Arm(one.cell.strategy, one.cell.buffer_size))
        chance = probability_of_improvement(one.differences, negative_is_better=one.negative_is_better)
        axes.plot([chance.low, chance.high], [height, height], color=PALETTE[0], linewidth=2.0, solid_capstyle="butt")
        axes.plot([chance.mean], [height], color=PALETTE[0], marker="o", markersize=5, linestyle="none")
    axes.set(xlim=(-0.03, 1.03), ylim=(-len(lines) + 0.4, 0.6))
    bare(axes, "x")
    axes.tick_params(axis="y", length=0)


def shares_of_ranks(
    scores: Mapping[str, Mapping[str, float]], *, higher_is_better: bool
) -> tuple[list[str], np.ndarray]:
    """How often each strategy takes which rank among all, person by person.

    Args:
        scores: strategy -> person -> score; people who lack one of the strategies are left out.

    Returns:
        Strategies by mean rank, best first, and shares ``[n, n]``: row strategy, column rank from 1. Equal scores share
        their ranks equally.
    """
    names = list(scores)
    people = sorted(set.intersection(*(set(values) for values in scores.values()))) if names else []
    shares = np.zeros((len(names), len(names)))
    for person in people:
        values = np.array([scores[name][person] for name in names]) * (-1.0 if higher_is_better else 1.0)
        for place, value in enumerate(values):
            first, tied = int((values < value).sum()), int((values == value).sum())
            shares[place, first : first + tied] += 1 / tied
    shares /= max(len(people), 1)
    order = np.argsort(shares @ np.arange(1, len(names) + 1), kind="stable")
    return [names[place] for place in order], shares[order]


def _ranks(material: ReportData) -> Drawing | None:
    if material.panel is None:
        return None
    scores = {}
    for arm in material.focus_arms:
        people = material.values.get(ScoreCell(*material.panel, "aip", material.rate, *arm), {})
        if people:
            scores[arm.label] = {name: float(np.mean(list(seeds.values()))) for name, seeds in people.items()}
    common = set.intersection(*(set(people) for people in scores.values())) if scores else set()
    if len(scores) < 2 or len(common) < _FEWEST:
        return None
    upward = material.metrics[material.panel[1]].higher_is_better
    names, shares = shares_of_ranks(scores, higher_is_better=upward)
    left = 0.25 + 0.068 * max(map(len, names))
    cell = 0.42
    figure, (axes,) = panel_grid(
        1, 1, size=(cell * len(names), 0.7 * cell * len(names)), margin=(left, 0.15, 0.15, 0.45)
    )
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.2, aspect="auto", interpolation="none")
    for (row, column), share in np.ndenumerate(shares):
        if share:
            axes.text(
                column, row, f"{100 * share:.0f}%", ha="center", va="center", fontsize=TEXT - 1,
                color="white" if share > 0.6 else INK,
            )  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=TEXT)
    axes.set_xticks(range(len(names)), [str(rank + 1) for rank in range(len(names))], fontsize=TEXT)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    title = f"{panel_title(material.metrics, material.panel)}: ranks by AIP, person by person"
    return drawing(
        figure,
        name="ranks_aip",
        title=title,
        caption=f"Share of the {len(common)} people for whom a strategy takes each rank (1: best AIP) among those "
        f"shown; equal scores share their ranks.{material.rate_note}",
        alt=f"{title}: shares of ranks 1 to {len(names)} for {', '.join(names)}.",
    )
