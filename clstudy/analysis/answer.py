"""The study's answer in two sentences, computed from its numbers; or what the study cannot say, and why.

First: which strategy and buffer forget least, and by how much less than ``lower``. Second: how much memory is enough.
Both speak of Forgetting under the main metric (the first one of the tables). Nothing is called better, or enough,
beyond what a paired interval over identities supports; an interval that includes 0 is not taken for equality.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from clstudy.analysis.comparisons import paired_difference
from clstudy.analysis.intervals import CONFIDENCE, Interval
from clstudy.analysis.material import Material, panel_title
from clstudy.analysis.matrix import Cell

_SCORE = "forgetting"
_PHOTOS = "stored photos"


def answer(material: Material) -> tuple[str, str]:
    """Return the two sentences (each may hold a semicolon, but ends once)."""
    cells = _candidates(material)
    if not cells:
        return _nothing(material)
    best = min(cells, key=lambda cell: (_mean(material, cell), cells.index(cell)))
    return _least_forgetting(material, best, cells), _enough_memory(material, best)


def _candidates(material: Material) -> list[Cell]:
    """Cells of every strategy but ``lower`` that rest on as many identities as any: others are not comparable."""
    if material.panel is None:
        return []
    cells = [
        cell
        for cell in material.values
        if (cell.protocol, cell.metric, cell.score) == (*material.panel, _SCORE) and cell.strategy != "lower"
    ]
    most = max((len(material.values[cell]) for cell in cells), default=0)
    return sorted(
        (cell for cell in cells if len(material.values[cell]) == most),
        key=lambda cell: (cell.learning_rate, cell.strategy, cell.buffer_size or 0),
    )


def _nothing(material: Material) -> tuple[str, str]:
    if material.panel is None:
        return (
            "No trial is in the numbers yet, so nothing can be said about forgetting.",
            "Run the study again: finished stages are kept, and only the rest is computed.",
        )
    scores = {row["score"] for row in material.summary.scores.to_pylist()}
    if _SCORE not in scores:
        why = "with one timestamp, or with joint training alone, there is no past to forget"
        return (
            f"Forgetting is not defined in this study: {why}.",
            "How much memory is enough cannot be said either.",
        )
    return (
        "Only lower, which has no memory, is in the numbers: which strategy forgets least cannot be said.",
        "How much memory is enough needs a strategy with a buffer.",
    )


def _least_forgetting(material: Material, best: Cell, cells: Sequence[Cell]) -> str:
    name, unit = _name(material, best), f"Forgetting in {panel_title((best.protocol, best.metric))}"
    level = _number(material, _mean(material, best))
    n = len(material.values[best])
    lower = best._replace(strategy="lower", buffer_size=None)
    paired = paired_difference(material.values[best], material.values.get(lower, {}))
    if paired is None:
        return (
            f"{name} forgets least on average ({unit} {level}, n = {n}), but there is no lower on the same "
            "identities, so how much forgetting it spares cannot be said."
        )
    difference = paired[0]
    theirs = _number(material, _mean(material, lower))
    against = f"{unit} of {level} against {theirs} for lower"
    if math.isnan(difference.low):
        return (
            f"In one identity alone, {name} forgets least: {against}; with n = 1 there is no interval, and nothing can "
            "be said about other people."
        )
    sure = "" if _decided(difference) else "; the interval includes 0, so even that is not certain"
    spared = f"a difference of {_signed(material, difference.mean)} ({_interval(material, difference)})"
    return f"{name} forgets least on average: {against}, {spared}{sure}{_rivals(material, best, cells)}."


def _rivals(material: Material, best: Cell, cells: Sequence[Cell]) -> str:
    """How many of the other combinations cannot be told from the one with the smallest mean."""
    others = [cell for cell in cells if cell != best]
    if not others:
        return ""
    close = 0
    for cell in others:
        paired = paired_difference(material.values[best], material.values[cell])
        close += paired is None or not _decided(paired[0])
    if not close:
        return f"; it differs from each of the {len(others)} other combinations"
    if close == len(others) == 1:
        return "; it cannot be told apart from the other combination"
    those = "all" if close == len(others) else str(close)
    return f"; {those} of the {len(others)} other combinations cannot be told apart from it"


def _enough_memory(material: Material, best: Cell) -> str:
    strategy = best.strategy
    if best.buffer_size is None:
        return f"{strategy} stores nothing, so how much memory is enough is not the question here."
    n = len(material.values[best])
    same = [cell for cell in material.values if cell._replace(buffer_size=best.buffer_size) == best]
    sizes = sorted(
        cell.buffer_size for cell in same if cell.buffer_size is not None and len(material.values[cell]) == n
    )
    largest = sizes[-1]
    if len(sizes) == 1:
        return f"How much memory is enough cannot be said: {strategy} was tried with {largest} {_PHOTOS} only."
    if n == 1:
        return (
            f"How much memory is enough cannot be said from one identity; {strategy} was tried with "
            f"{', '.join(map(str, sizes[:-1]))} and {largest} {_PHOTOS}."
        )
    whole = material.values[best._replace(buffer_size=largest)]
    differences: dict[int, Interval] = {}
    for size in sizes[:-1]:
        paired = paired_difference(material.values[best._replace(buffer_size=size)], whole)
        if paired is not None and not math.isnan(paired[0].low):
            differences[size] = paired[0]
    # From the top: a small buffer is not "enough" by its wide interval while a larger one is measurably worse.
    enough = None
    for size in reversed(sizes[:-1]):
        if size not in differences or differences[size].low > 0:
            break
        enough = size
    if enough is None:
        size = sizes[-2]
        found = differences.get(size)
        how = (
            ""
            if found is None
            else f": {size} forget {_number(material, found.mean)} more ({_interval(material, found)})"
        )
        return f"No buffer below the largest tried is enough: with {strategy}, {largest} {_PHOTOS} forget least{how}."
    return (
        f"With {strategy}, {enough} {_PHOTOS} are the fewest that cannot be told apart from {largest}: the difference "
        f"in Forgetting is {_signed(material, differences[enough].mean)} ({_interval(material, differences[enough])}), "
        "which does not show that they are equal."
    )


def _decided(interval: Interval) -> bool:
    return not math.isnan(interval.low) and not interval.low <= 0 <= interval.high


def _mean(material: Material, cell: Cell) -> float:
    return fmean(fmean(seeds.values()) for seeds in material.values[cell].values())


def _name(material: Material, cell: Cell) -> str:
    size = "" if cell.buffer_size is None else f" with {cell.buffer_size} {_PHOTOS}"
    return f"{cell.strategy}{size}" + (f" at learning rate {cell.learning_rate:g}" if len(material.rates) > 1 else "")


def _number(material: Material, value: float) -> str:
    return f"{value:.{material.digits}f}"


def _signed(material: Material, value: float) -> str:
    return f"{value:+.{material.digits}f}"


def _interval(material: Material, interval: Interval) -> str:
    low, high = _signed(material, interval.low), _signed(material, interval.high)
    return f"{CONFIDENCE:.0%} interval {low} to {high}, n = {interval.n}, {interval.population}"
