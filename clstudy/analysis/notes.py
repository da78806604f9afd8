"""Sentences that readers of a study's tables need: population, layout, limits, missing trials."""

from __future__ import annotations

from clstudy.analysis.claim_notes import claim_notes
from clstudy.analysis.claims import main_panel
from clstudy.analysis.limits import not_concluded
from clstudy.analysis.photo_bias_notes import photo_bias_notes
from clstudy.analysis.printed import decimals_of
from clstudy.analysis.score_tables import JOINT_NOTE, UNBUFFERED_NOTE
from clstudy.analysis.statistics.intervals import CONFIDENCE, NEW_IDENTITIES
from clstudy.analysis.summary import Summary
from clstudy.safe_text import one_line
from clstudy.settings.profiles import LATENT_SPACE_WORDS, PERSONALISE

MINUS_BWT_NOTE = (
    "−BWT stands beside Forgetting because Forgetting's max over time picks up photo noise: where nothing is forgotten "
    "it is above 0 on average, and −BWT is not. summary.csv and paired.csv hold BWT itself (higher is better)."
)
BEST = "best"
BEST_NOTE = (
    "{mark}: best of its column, shown only where the paired interval to every other strategy excludes 0; upper does "
    "not compete."
)


def notes(summary: Summary) -> list[str]:
    """Sentences that readers of the numbers need: population, layout, claims, limits, published values."""
    metrics = summary.study.metrics
    return [
        *population_notes(summary),
        *_layout_notes(summary),
        *photo_bias_notes(summary.scores, metrics),
        *claim_notes(summary, decimals_of(metrics, main_panel(summary))),
        *limit_notes(summary),
    ]


def limit_notes(summary: Summary) -> list[str]:
    """What cannot be concluded, and whether published values are shown beside the numbers."""
    return [*not_concluded(summary), *([summary.published_note] if summary.scores.num_rows else [])]


def population_notes(summary: Summary) -> list[str]:
    """Which population the numbers are about."""
    if not summary.scores.num_rows:
        return []
    n = max(summary.scores["n_identities"].to_pylist())
    seeds = sorted(set(summary.scores["n_seeds"].to_pylist()))
    span = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    over = f"each the average over {span} seed{'' if seeds == [1] else 's'}"
    if n == 1:
        return [f"Values of one identity (n = 1), {over}."]
    interval = f"Mean [{CONFIDENCE:.0%} Student t interval] over n = {n} identities, {over}."
    return [f"{interval} The intervals speak of {NEW_IDENTITIES}."]


def _inversion_note(space: str) -> str:
    smaller = ", which fits forgotten faces, too: scores and their differences are smaller than in W"
    said = f"Test photos were inverted in {LATENT_SPACE_WORDS.get(space, one_line(space))}"
    return f"{said}{smaller if space == 'w_plus' else ''}."


def _layout_notes(summary: Summary) -> list[str]:
    if not summary.scores.num_rows:
        return []
    said = []
    strategies, joint = set(summary.scores["strategy"].to_pylist()), summary.study.joint_strategies
    rows = summary.scores.to_pylist()
    if summary.study.workload == PERSONALISE and "reconstruction" in summary.scores["protocol"].to_pylist():
        said.append(_inversion_note(summary.study.practice.latent_space))
    if "lower" in strategies:
        said.append(f"lower: {UNBUFFERED_NOTE}.")
    said += [f"{name} *: {JOINT_NOTE}: no AIP, no Forgetting." for name in sorted(strategies & joint)]
    if summary.study.chosen_rates:
        chosen = (
            f"{strategy}{'' if size is None else f' K = {size}'}: {rate:g}"
            for strategy, size, rate in summary.study.chosen_rates
        )
        said.append(f"Every cell at the learning rate that a search chose for it ({'; '.join(chosen)}).")
    if summary.best:
        said.append(BEST_NOTE.format(mark=BEST))
    elif max(summary.scores["n_identities"].to_pylist()) > 1 and len(strategies - joint) > 1:
        said.append("Nothing is marked best: in no column do the paired intervals tell one strategy from every other.")
    if summary.paired.num_rows:
        said.append(
            "Paired differences are strategy minus baseline on the same identities and seeds; "
            '"better" or "worse" stands only where the interval excludes 0.'
        )
    if any(row["score"] == "bwt" for row in rows):
        said.append(MINUS_BWT_NOTE)
    else:
        said.append("Forgetting and BWT are not defined here: they need a continual learner and two timestamps.")
    if any(row["n_trials"] < row["n_planned"] for row in rows):
        said.append("A cell with n=... or .../... trials rests only on the identities or trials that are there.")
    if summary.checksum_note:
        said.append(summary.checksum_note)
    return said


def missing_notes(summary: Summary) -> list[str]:
    """Trials that are missing in whole or in part, one per line, and results that are not in the plan."""
    said = []
    if summary.missing:
        total = len(summary.study.planned)
        said.append(f"{len(summary.missing)} of {total} trials are missing, in whole or in part:")
        said += [f"{missing.trial}: {missing.reason}" for missing in summary.missing]
    if summary.left_out:
        said.append(f"Not of this plan and left out: {', '.join(summary.left_out)}")
    return said
