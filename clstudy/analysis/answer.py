"""Writes the study's answer in two short paragraphs from its results, or states what it cannot show, and why.

First: which strategy and buffer are best, in AIP and Forgetting together, and by how much over ``lower``. Second: how
much memory is enough. Both are about the main metric (the first one of the tables). The rules:

* Forgetting alone would favour a model that never learned, since it has nothing to forget. So the best strategy is the
  one with the best mean AIP, and a strategy whose mean AIP is worse than ``lower``'s (at any learning rate, on common
  identities and seeds) is never called best, whether or not the interval of that difference excludes 0: not being shown
  to be worse does not show that it is good. Strategies that forget less but are excluded for this are named.
* Where ``lower`` itself forgot nothing that can be measured (the interval of its Forgetting does not lie above 0; with
  one identity, its value does not), there is no Forgetting in which strategies could differ: the first sentence says
  so, and no order by Forgetting is given. With several learning rates, this applies to each rate separately.
* Nothing is called better, or enough, beyond what a paired interval over identities supports; an interval that includes
  0 is not taken as equality. −BWT is given beside Forgetting, whose max picks up photo noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from clstudy.analysis.comparisons import paired_difference
from clstudy.analysis.matrix import ScoreCell
from clstudy.analysis.printed import interval_texts, number, panel_title, printed_value, score_title
from clstudy.analysis.report_data import ReportData
from clstudy.analysis.scores import SCORES
from clstudy.analysis.statistics.intervals import CONFIDENCE, Interval, identity_interval

_PHOTOS = "stored photos"
_MOST_NAMED = 3
_UNLEARNED = "what was not learned cannot be forgotten"


def answer(material: ReportData) -> tuple[str, str]:
    """Return the two paragraphs, each of one to a few sentences."""
    cells = _candidates(material)
    if not cells:
        return _nothing(material)
    behind = {cell for cell in cells if _beaten_by_lower(material, cell)}
    eligible = [cell for cell in cells if cell not in behind]
    forgetful = [cell for cell in cells if not _nothing_forgotten(material, cell)]
    if not forgetful:
        return _without_forgetting(material, cells, eligible)
    if not eligible:
        return _nobody_is_best(material, cells)
    best = _first(material, eligible, "aip")
    if best not in forgetful:  # of several learning rates, one at which lower forgot nothing
        return _without_forgetting(material, cells, eligible)
    ranked = [cell for cell in eligible if cell in forgetful]
    first = [
        _lead(material, best, ranked),
        *_against_lower(material, best, ("aip", "forgetting", "bwt")),
        *_photo_noise(material, best),
        *_rivals(material, best, cells, ("aip", "forgetting")),
        *_least_forgetting(material, best, ranked),
        *_left_out(material, best, behind),
        *_fewer_identities(material, cells),
    ]
    return " ".join(first), _enough_memory(material, best, ("aip", "forgetting"))


def _candidates(material: ReportData) -> list[ScoreCell]:
    """AIP cells of every strategy but ``lower`` with the largest number of identities: others are not comparable.

    Only cells that also have a Forgetting score are returned.
    """
    if material.panel is None:
        return []
    cells = [cell for cell in _with_aip(material) if cell.strategy != "lower"]
    most = max((len(material.values[cell]) for cell in cells), default=0)
    return sorted(
        (cell for cell in cells if len(material.values[cell]) == most),
        key=lambda cell: (cell.learning_rate or 0.0, cell.strategy, cell.buffer_size or 0),
    )


def _with_aip(material: ReportData) -> list[ScoreCell]:
    return [
        cell
        for cell in material.values
        if (cell.protocol, cell.metric) == material.panel
        and cell.score == "aip"
        and _of(cell, "forgetting") in material.values
    ]


# --- rules --------------------------------------------------------------------------------------------------------


def _beaten_by_lower(material: ReportData, cell: ScoreCell) -> bool:
    """Whether the mean AIP is worse than ``lower``'s, at any learning rate, on the identities and seeds of both."""
    for lower in material.values:
        if lower._replace(learning_rate=cell.learning_rate) == _lower(cell):
            paired = paired_difference(material.values[cell], material.values[lower])
            if paired is not None and _sign(material, cell) * paired[0].mean < 0:
                return True
    return False


def _nothing_forgotten(material: ReportData, cell: ScoreCell) -> bool:
    """Whether ``lower`` at the cell's learning rate forgot nothing measurable; False if there is no ``lower``."""
    lower = material.values.get(_of(_lower(cell), "forgetting"))
    return lower is not None and not _above_zero(_interval_of(lower))


def _above_zero(interval: Interval) -> bool:
    return (interval.mean if math.isnan(interval.low) else interval.low) > 0


def _decided(interval: Interval) -> bool:
    return not math.isnan(interval.low) and not interval.low <= 0 <= interval.high


# --- paragraphs ---------------------------------------------------------------------------------------------------


def _nothing(material: ReportData) -> tuple[str, str]:
    if material.panel is None:
        return (
            "No trial is in the numbers yet, so nothing can be said about forgetting.",
            "Run the study again: finished stages are kept, and only the rest is computed.",
        )
    if not any(cell.score == "forgetting" for cell in material.values):
        why = "with one timestamp, or with joint training alone, there is no past to forget"
        return (
            f"Forgetting is not defined in this study: {why}.",
            "How much memory is enough cannot be said either.",
        )
    return (
        "Only lower, which has no memory, is in the numbers: which strategy is best cannot be said.",
        "How much memory is enough needs a strategy with a buffer.",
    )


def _without_forgetting(
    material: ReportData, cells: Sequence[ScoreCell], eligible: Sequence[ScoreCell]
) -> tuple[str, str]:
    """The answer if ``lower`` forgot nothing: says that first, then compares by AIP alone."""
    best = _first(material, eligible or cells, "aip")
    lower = _lower(best)
    found = _interval_of(material.values[_of(lower, "forgetting")])
    alone = " in this one identity" if math.isnan(found.low) else ""
    first = [
        f"Nothing was measurably forgotten here{alone}: {_named(material, lower)} has a Forgetting of "
        f"{_level(material, lower, 'forgetting')} and a −BWT of {_level(material, lower, 'bwt')} "
        f"({_title(material, best)}), so strategies cannot be told apart by Forgetting."
    ]
    if not eligible:
        first.append("In AIP none is better than lower on average, so none is called best.")
        return " ".join(first), "How much memory is enough cannot be said: no strategy is better than lower."
    first.append(f"In AIP, {_named(material, best)} is best{_where(best, material)}.")
    first += [
        *_against_lower(material, best, ("aip",)),
        *_rivals(material, best, cells, ("aip",)),
        *_fewer_identities(material, cells),
    ]
    return " ".join(first), _enough_memory(material, best, ("aip",))


def _nobody_is_best(material: ReportData, cells: Sequence[ScoreCell]) -> tuple[str, str]:
    closest = _first(material, cells, "aip")
    name, title = _named(material, closest), _title(material, closest)
    worse = "worse than lower in AIP on average"
    first = [
        f"No strategy is called best: all are {worse}, {name} least so ({title})."
        if len(cells) > 1
        else f"No strategy is called best: {name} is {worse} ({title}).",
        *_against_lower(material, closest, ("aip", "forgetting", "bwt")),
        f"Less Forgetting than lower's is no merit there: {_UNLEARNED}.",
        *_fewer_identities(material, cells),
    ]
    return " ".join(first), "How much memory is enough cannot be said: no strategy is better than lower."


def _lead(material: ReportData, best: ScoreCell, eligible: Sequence[ScoreCell]) -> str:
    """Which cell is best in AIP, and whether it also has the best Forgetting of those that may be called best."""
    name, where = _named(material, best), _where(best, material)
    title = _title(material, best)
    if _first(material, eligible, "forgetting") != best:
        return f"{name} has the best AIP{where} ({title})."
    if len(eligible) == 1:
        return f"{name} is the best combination{where} in AIP and Forgetting ({title})."
    return f"{name} has the best AIP and the least Forgetting{where} ({title})."


def _least_forgetting(material: ReportData, best: ScoreCell, eligible: Sequence[ScoreCell]) -> list[str]:
    """Which cell forgets less than the one with the best AIP, and whether that is shown."""
    least = _first(material, eligible, "forgetting")
    if least == best:
        return []
    paired = paired_difference(material.values[_of(least, "forgetting")], material.values[_of(best, "forgetting")])
    against = f"{_level(material, least, 'forgetting')} against {_mean_of(material, _of(best, 'forgetting'))}"
    apart = ""
    if paired is not None and not math.isnan(paired[0].low):
        apart = f", a difference of {_difference(material, 'forgetting', paired[0])}"
        apart += "" if _decided(paired[0]) else ", by which the two cannot be told apart"
    return [f"{_named(material, least)} has the least Forgetting, {against}{apart}."]


def _photo_noise(material: ReportData, best: ScoreCell) -> list[str]:
    """A warning if ``lower``'s Forgetting is above 0 but its −BWT, which has no such bias, is not."""
    lower = _lower(best)
    if _of(lower, "bwt") not in material.values:
        return []
    found = _interval_of(material.values[_of(lower, "bwt")])
    # BWT is above 0 if old timestamps improved; below 0, something was forgotten
    if (found.mean if math.isnan(found.low) else found.high) < 0:
        return []
    return [
        f"But lower's −BWT is {_level(material, lower, 'bwt')}: its Forgetting, whose max picks up photo noise, may be "
        "that noise."
    ]


def _fewer_identities(material: ReportData, cells: Sequence[ScoreCell]) -> list[str]:
    """How many combinations were not compared because they have too few identities."""
    left = sum(cell.strategy != "lower" for cell in _with_aip(material)) - len(cells)
    if not left:
        return []
    are = (
        "combination rests on fewer identities and is" if left == 1 else "combinations rest on fewer identities and are"
    )
    return [f"{left} {are} not compared."]


def _where(cell: ScoreCell, material: ReportData) -> str:
    """The population that a mean refers to, as text."""
    n = len(material.values[cell])
    return " in one identity alone" if n == 1 else f" on average over n = {n} identities"


def _against_lower(material: ReportData, cell: ScoreCell, scores: Sequence[str]) -> list[str]:
    """Each score of a cell beside ``lower``'s, with the paired difference; without ``lower``, what cannot be said."""
    lower = _lower(cell)
    said, alone, n = [], False, 0
    for score in scores:
        mine, theirs = _of(cell, score), _of(lower, score)
        paired = paired_difference(material.values.get(mine, {}), material.values.get(theirs, {}))
        if paired is None:
            continue
        alone, n = math.isnan(paired[0].low), paired[0].n
        text = f"{_mean_of(material, mine)} against {_mean_of(material, theirs)}"
        if not alone:
            sure = "" if _decided(paired[0]) else ", which includes 0"
            text += f", a difference of {_difference(material, score, paired[0], sure)}"
        said.append(f"{score_title(score)} {text}")
    if not said:
        own = ", ".join(
            f"{score_title(score)} {_mean_of(material, _of(cell, score))}"
            for score in scores
            if _of(cell, score) in material.values
        )
        return [
            f"It has {own}; there is no lower on the same identities, so how much forgetting it spares, and whether it "
            "learned more than a model without memory, cannot be said."
        ]
    ends = (
        "; with n = 1 there is no interval, and nothing can be said about other people"
        if alone
        else f"; intervals are {CONFIDENCE:.0%}, paired, for new identities"
        + (f" (n = {n})" if n < len(material.values[cell]) else "")
    )
    at = f" at learning rate {cell.learning_rate:g}" if len(material.rates) > 1 else ""
    return [f"Compared with lower{at}: {'; '.join(said)}{ends}."]


def _rivals(material: ReportData, best: ScoreCell, cells: Sequence[ScoreCell], scores: Sequence[str]) -> list[str]:
    """How many other combinations cannot be distinguished from the best, for each score."""
    others = [cell for cell in cells if cell != best]
    if not others or len(material.values[best]) == 1:
        return []
    total = len(others)
    close = {score: sum(not _apart(material, best, cell, score) for cell in others) for score in scores}
    names = [SCORES[score].title for score in scores]
    rest = "the other combination" if total == 1 else f"the {total} other combinations"
    if not any(close.values()):
        both = " and ".join(names)
        return [f"It differs from {'each of ' if total > 1 else ''}{rest} in {both}."]
    if total == 1:
        alike = " or ".join(SCORES[score].title for score in scores if close[score])
        return [f"It cannot be told apart from {rest} in {alike}."]
    counts = [
        f"{'all' if close[score] == total else close[score] or 'none'} in {SCORES[score].title}" for score in scores
    ]
    return [f"Of {rest}, these cannot be told apart from it: {', '.join(counts)}."]


def _apart(material: ReportData, one: ScoreCell, other: ScoreCell, score: str) -> bool:
    paired = paired_difference(material.values[_of(one, score)], material.values[_of(other, score)])
    return paired is not None and _decided(paired[0])


def _left_out(material: ReportData, best: ScoreCell, behind: Iterable[ScoreCell]) -> list[str]:
    """Cells that forget less than the best but are worse than ``lower`` in AIP."""
    less = [
        cell for cell in behind if _mean(material, _of(cell, "forgetting")) < _mean(material, _of(best, "forgetting"))
    ]
    if not less:
        return []
    less.sort(key=lambda cell: (_mean(material, _of(cell, "forgetting")), cell.strategy, cell.buffer_size or 0))
    named = [
        f"{_named(material, cell)} (Forgetting {_mean_of(material, _of(cell, 'forgetting'))}, "
        f"AIP {_mean_of(material, cell)})"
        for cell in less[:_MOST_NAMED]
    ]
    more = f" and {len(less) - _MOST_NAMED} more" if len(less) > _MOST_NAMED else ""
    verb = "forgets" if len(less) == 1 else "forget"
    what = "is" if len(less) == 1 else "are"
    return [f"{', '.join(named)}{more} {verb} less but {what} worse than lower in AIP: {_UNLEARNED}."]


def _enough_memory(material: ReportData, best: ScoreCell, scores: Sequence[str]) -> str:
    """The fewest photos with which no score is measurably worse than with the largest buffer."""
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
        return f"How much memory is enough cannot be said: {strategy} was tried with {_stored(largest)} only."
    if n == 1:
        return (
            f"How much memory is enough cannot be said from one identity; {strategy} was tried with "
            f"{', '.join(map(str, sizes[:-1]))} and {_stored(largest)}."
        )
    names = " and ".join(SCORES[score].title for score in scores)
    # From the largest down: a small buffer with a wide interval is not "enough" if a larger one is measurably worse.
    enough, differences = largest, dict[str, Interval]()
    for size in reversed(sizes[:-1]):
        found = _minus_largest(material, best._replace(buffer_size=size), largest, scores)
        worse = {
            score: one
            for score, one in found.items()
            if _decided(one) and _sign(material, _of(best, score)) * one.mean < 0
        }
        if worse or len(found) < len(scores):
            if enough == largest:
                how = "; ".join(
                    f"{SCORES[score].title} differs by {_difference(material, score, one)}"
                    for score, one in worse.items()
                )
                shown = f": with {_stored(size)}, {how}" if how else ""
                return (
                    f"No buffer below the largest tried is enough: {strategy} is better with {_stored(largest)}{shown}."
                )
            break
        enough, differences = size, found
    shown = "; ".join(
        f"{SCORES[score].title} differs by {_difference(material, score, one)}" for score, one in differences.items()
    )
    verb = "is" if enough == 1 else "are"
    return (
        f"With {strategy}, {_stored(enough)} {verb} the fewest that {verb} not measurably worse than {largest} in "
        f"{names} ({shown}), which does not show that they are equal."
    )


def _minus_largest(material: ReportData, cell: ScoreCell, largest: int, scores: Sequence[str]) -> dict[str, Interval]:
    """Paired differences of a cell to its strategy's largest buffer, for every score with an interval."""
    found = {}
    for score in scores:
        whole = _of(cell, score)._replace(buffer_size=largest)
        paired = paired_difference(material.values.get(_of(cell, score), {}), material.values.get(whole, {}))
        if paired is not None and not math.isnan(paired[0].low):
            found[score] = paired[0]
    return found


# --- parts --------------------------------------------------------------------------------------------------------


def _of(cell: ScoreCell, score: str) -> ScoreCell:
    return cell._replace(score=score)


def _lower(cell: ScoreCell) -> ScoreCell:
    return cell._replace(strategy="lower", buffer_size=None)


def _title(material: ReportData, cell: ScoreCell) -> str:
    return panel_title(material.metrics, (cell.protocol, cell.metric))


def _sign(material: ReportData, cell: ScoreCell) -> float:
    """+1 if a higher score is better, otherwise -1."""
    return 1.0 if SCORES[cell.score].direction(material.metrics[cell.metric].higher_is_better) else -1.0


def _first(material: ReportData, cells: Sequence[ScoreCell], score: str) -> ScoreCell:
    """The cell with the best mean of a score; the first of equals."""
    return max(
        cells,
        key=lambda cell: (_sign(material, _of(cell, score)) * _mean(material, _of(cell, score)), -cells.index(cell)),
    )


def _mean(material: ReportData, cell: ScoreCell) -> float:
    return fmean(fmean(seeds.values()) for seeds in material.values[cell].values())


def _interval_of(identities: dict[str, dict[int, float]]) -> Interval:
    return identity_interval([fmean(identities[name].values()) for name in sorted(identities)])


def _named(material: ReportData, cell: ScoreCell) -> str:
    size = "" if cell.buffer_size is None else f" with {_stored(cell.buffer_size)}"
    return f"{cell.strategy}{size}" + (f" at learning rate {cell.learning_rate:g}" if len(material.rates) > 1 else "")


def _stored(size: int) -> str:
    return f"{size} {_PHOTOS if size != 1 else _PHOTOS.removesuffix('s')}"


def _number(material: ReportData, value: float) -> str:
    return number(value, material.digits)


def _mean_of(material: ReportData, cell: ScoreCell) -> str:
    return _number(material, printed_value(cell.score, _mean(material, cell)))


def _level(material: ReportData, cell: ScoreCell, score: str) -> str:
    """A cell's own mean and interval."""
    found = _interval_of(material.values[_of(cell, score)])
    if math.isnan(found.low):
        return _mean_of(material, _of(cell, score))
    mean, low, high = _texts(material, score, found)
    return f"{mean} ({CONFIDENCE:.0%} interval {low} to {high})"


def _difference(material: ReportData, score: str, interval: Interval, remark: str = "") -> str:
    mean, low, high = _texts(material, score, interval, signed=True)
    return f"{mean} ({low} to {high}{remark})"


def _texts(material: ReportData, score: str, interval: Interval, *, signed: bool = False) -> tuple[str, str, str]:
    low, high = sorted(printed_value(score, end) for end in (interval.low, interval.high))
    return interval_texts(printed_value(score, interval.mean), low, high, material.digits, signed=signed)
