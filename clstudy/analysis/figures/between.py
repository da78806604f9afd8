"""Two studies in one figure: what each has on the people of both, and their paired differences."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from clstudy.analysis.between_studies import Between
from clstudy.analysis.figures.style import BOUND, INK, PALETTE, TEXT, Drawing, bare, drawing, panel_grid
from clstudy.analysis.printed import panel_title, score_title
from clstudy.settings.metric_facts import Metrics

_SCORES, _JOINT_SCORES = ("aip", "forgetting"), ("final",)
"""What is shown, and what where joint training alone is in both."""
_LINE = 0.24
"""Height of a line in inches."""


def between_drawing(
    first: str, second: str, cells: Sequence[Between], metrics: Metrics, *, name: str
) -> Drawing | None:
    """AIP and Forgetting of the cells' first metric: both studies' means, and second minus first with its interval.

    Where both have joint training alone, which has neither, its final performance.

    Args:
        first, second: the studies' names.
        cells: those of both, in the tables' order.
        name: stem of the drawing's files.

    Returns:
        None if there is no such cell.
    """
    if not cells:
        return None
    panel = cells[0].cell[:2]
    shown = _by_score(cells, panel, _SCORES) or _by_score(cells, panel, _JOINT_SCORES)
    if not shown:
        return None
    labels = {score: [one.label for one in found] for score, found in shown.items()}
    most = max(map(len, labels.values()))
    left = 0.25 + 0.068 * max(len(label) for found in labels.values() for label in found)
    figure, axes = panel_grid(
        2 * len(shown), 2, size=(2.6, max(0.7, _LINE * most)), gap=(0.35, 0.75), margin=(left, 0.15, 0.5, 0.55)
    )
    for place, (score, found) in enumerate(shown.items()):
        levels, apart = axes[2 * place], axes[2 * place + 1]
        _levels(levels, found, first, second)
        _differences(apart, found)
        levels.set_yticks([-i for i in range(len(found))], labels[score])
        apart.set_yticks([])
        levels.set_xlabel(score_title(score), fontsize=TEXT)
        apart.set_xlabel(f"{score_title(score)}: square minus circle", fontsize=TEXT)
    axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False, fontsize=TEXT, borderaxespad=0.2)
    title = f"{panel_title(metrics, panel)}: {second} beside {first}"
    people = max(one.n_identities for found in shown.values() for one in found)
    return drawing(
        figure,
        name=name,
        title=title,
        caption=f"On the people of both ({people}): left the mean of each, right the paired difference, {second} minus "
        f"{first}, with its 95% Student t interval over people.",
        alt=f"{title}, for {', '.join(labels[next(iter(labels))])}; the tables have the same numbers.",
    )


def _by_score(cells: Sequence[Between], panel: tuple[str, str], scores: Sequence[str]) -> dict[str, list[Between]]:
    found = {score: [one for one in cells if one.cell[:2] == panel and one.cell.score == score] for score in scores}
    return {score: own for score, own in found.items() if own}


def _levels(axes: Axes, cells: Sequence[Between], first: str, second: str) -> None:
    heights = [-place for place in range(len(cells))]
    for one, height in zip(cells, heights, strict=True):
        axes.plot([one.first, one.second], [height, height], color="#bbbbbb", linewidth=1.0, zorder=1)
    looks = (
        (first, [one.first for one in cells], BOUND, "o"),
        (second, [one.second for one in cells], PALETTE[0], "s"),
    )
    for name, values, colour, marker in looks:
        axes.plot(values, heights, color=colour, marker=marker, markersize=4.5, linestyle="none", label=name)
    _frame(axes, len(cells))


def _differences(axes: Axes, cells: Sequence[Between]) -> None:
    axes.axvline(0.0, color=INK, linewidth=0.7)
    for place, one in enumerate(cells):
        if one.n_identities > 1:
            limits = [one.difference.low, one.difference.high]
            axes.plot(limits, [-place, -place], color=PALETTE[0], linewidth=2.0, solid_capstyle="butt")
        axes.plot([one.difference.mean], [-place], color=PALETTE[0], marker="o", markersize=4.5, linestyle="none")
    _frame(axes, len(cells))


def _frame(axes: Axes, lines: int) -> None:
    axes.set_ylim(-lines + 0.4, 0.6)
    axes.locator_params(axis="x", nbins=4)
    bare(axes, "x")
    axes.tick_params(axis="y", length=0)
