"""Where the uncertainty of a paired difference comes from: people, seeds, photos; and the gain from one more of each.

The difference of two strategies for person i under seed s is decomposed as d_is = mu + person_i + photos_i + seed_is:

- *people*: how much the true difference varies from person to person (the draw of training photos is part of it: there
  is one such draw per person);
- *photos*: the part of a person's difference due to the few test photos that it was measured on, the same for all
  seeds;
- *seeds*: everything that a new seed changes, draws within training and evaluation, nested in people (a seed means
  other random numbers for every person), including changes photo by photo.

People and seeds come from the nested analysis of variance (method of moments: the mean squares are set equal to their
expectations), photos from the per-image rows by the delta method: a score is a function of the means R[t, k], its
gradient weighs the photos of each k, and the variance of a weighted mean of m photos is their variance / m. For
Forgetting the gradient is taken at the best scores as observed; where two are nearly equal, that understates photos.

Pure functions first; ``variance_table`` applies them to a study. Sources: Searle, Casella and McCulloch, Variance
Components, ch. 3 and 4 (moments, negative estimates); Efron and Tibshirani, An Introduction to the Bootstrap, ch. 21
(delta method); Cronbach et al., The Dependability of Behavioral Measurements, 1972 (the gain from more of each facet).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import chdtri, stdtrit

from clstudy.analysis.comparisons import Comparison, compare
from clstudy.analysis.matrix import ScoreCell, codes, read_rows
from clstudy.analysis.score_tables import CELL_FIELDS, cell_order
from clstudy.analysis.scores import SCORES
from clstudy.analysis.statistics.intervals import CONFIDENCE
from clstudy.analysis.summary import Summary

BUDGETED_SCORES = ("aip", "forgetting")
ONE_SEED = "one seed: people and seeds cannot be told apart"
ONE_PHOTO = "photos cannot be told apart from people: that takes two test photos or more of every timestamp"
ONE_PERSON = "one person: no spread over people"
NO_PHOTOS = "photos are not told apart: the scores are of generated images, or strategies were tested on other photos"

VARIANCE_SCHEMA = pa.schema(
    CELL_FIELDS
    + [("baseline", pa.string()), ("baseline_size", pa.int64())]
    + [(name, pa.int64()) for name in ("n_identities", "n_seeds", "n_photos")]
    + [(name, pa.float64()) for name in ("variance", "people", "seeds", "photos", "half_width")]
    + [(f"half_width_{name}", pa.float64()) for name in ("person", "seed", "photos")]
    + [("note", pa.string())]
)


@dataclass(frozen=True, kw_only=True)
class VarianceBudget:
    """Parts of the variance of one person's difference (mean over seeds), and half-widths of the 95% t interval.

    NaN means that a part cannot be estimated. The estimated parts and the rest add up to ``total``: an estimate below 0
    counts as 0, and the others are then scaled to the total.

    Attributes:
        n: identities.
        total: variance over identities of their mean differences.
        people, seeds, photos: parts of it; ``people`` includes photos if these are NaN.
        half_width: of the present interval.
        with_person, with_seed, with_photos: expected half-width with one more person, with one more seed for everybody,
            with twice the test photos. The estimated parts are treated as the true ones.
    """

    n: int
    total: float
    people: float
    seeds: float
    photos: float
    half_width: float
    with_person: float
    with_seed: float
    with_photos: float


# --- pure functions -------------------------------------------------------------------------------------------------


def variance_budget(
    seed_differences: Sequence[Sequence[float]], photo_variances: Sequence[float], *, confidence: float = CONFIDENCE
) -> VarianceBudget:
    """Decompose the variance of paired differences.

    Args:
        seed_differences: per identity, one difference per seed (their numbers may differ).
        photo_variances: per identity, ``photo_variance`` of its mean over seeds; NaN if it cannot be estimated.

    Raises:
        ValueError: no identity, an identity without a difference, unequal lengths, or a difference that is not finite.
    """
    groups = [np.asarray(values, dtype=np.float64) for values in seed_differences]
    if not groups or len(groups) != len(photo_variances):
        raise ValueError(f"expected a photo variance per identity, got {len(photo_variances)} for {len(groups)}")
    if any(group.ndim != 1 or not group.size or not np.isfinite(group).all() for group in groups):
        raise ValueError("expected one finite difference or more per identity, one per seed")
    n, counts = len(groups), np.array([group.size for group in groups])
    total = float(np.var([group.mean() for group in groups], ddof=1)) if n > 1 else math.nan
    freedom = int((counts - 1).sum())
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    seeds = within / freedom * float((1 / counts).mean()) if freedom else math.nan
    photos = float(np.mean(photo_variances))
    people, seeds, photos = _parts(total, seeds, max(photos, 0.0) if not math.isnan(photos) else photos)
    fewer = float((1 / (counts + 1)).mean() / (1 / counts).mean())

    def half(people_count: int, variance: float) -> float:
        if people_count < 2 or math.isnan(variance):
            return math.nan
        return float(stdtrit(people_count - 1, 0.5 + confidence / 2)) * math.sqrt(max(variance, 0.0) / people_count)

    return VarianceBudget(
        n=n,
        total=total,
        people=people,
        seeds=seeds,
        photos=photos,
        half_width=half(n, total),
        with_person=half(n + 1, total),
        with_seed=half(n, total - (1 - fewer) * seeds),
        with_photos=half(n, total - photos / 2),
    )


def photo_variance(terms: Sequence[np.ndarray]) -> float:
    """Variance of a person's difference (mean over seeds) that is due to the draw of test photos; may be negative.

    With several seeds, the interaction of photos and seeds is estimated from the two-way table and removed: it belongs
    to the seeds.

    Args:
        terms: per test timestamp, float ``[seeds, photos]``: each photo's contribution to the difference, whose mean
            over photos, summed over timestamps, is the difference (up to a constant).

    Returns:
        NaN if a timestamp that contributes has only one photo.
    """
    total = 0.0
    for z in terms:
        seeds, photos = z.shape
        if not z.any():
            continue
        if photos < 2:
            return math.nan
        means = z.mean(axis=0)
        variance = float(means.var(ddof=1))
        if seeds > 1:
            rest = z - z.mean(axis=1, keepdims=True) - means + z.mean()
            variance -= float((rest**2).sum()) / ((seeds - 1) * (photos - 1)) / seeds
        total += variance / photos
    return total


def score_gradient(r: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Derivative ``[T, T]`` of a score with respect to each R[t, k], k <= t; 0 above the diagonal.

    Forward differences: AIP is linear and Forgetting piecewise linear, so they are exact up to rounding, except for
    best scores that are equal to a millionth of the matrix's size.

    Args:
        r: float ``[T, T]``.
        compute: R ``[..., T, T]`` -> ``[...]``.
    """
    size = r.shape[-1]
    t, k = np.nonzero(np.tri(size, dtype=bool))
    step = 1e-6 * float(np.nanmax(np.abs(r))) or 1e-6
    moved = np.repeat(r[None], len(t), axis=0)
    moved[np.arange(len(t)), t, k] += step
    gradient = np.zeros((size, size))
    gradient[t, k] = (compute(moved) - compute(r)) / step
    return gradient


def spread_factors(n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Limits of the true standard deviation as multiples of the one observed in n normal values."""
    low, high = (1 - confidence) / 2, (1 + confidence) / 2
    return math.sqrt((n - 1) / float(chdtri(n - 1, low))), math.sqrt((n - 1) / float(chdtri(n - 1, high)))


def _parts(total: float, seeds: float, photos: float) -> tuple[float, float, float]:
    """(people, seeds, photos) that add up to the total; people NaN where seeds are."""
    if math.isnan(total):
        return math.nan, seeds, photos
    known = np.nan_to_num([seeds, photos])
    if known.sum() > total:
        seeds, photos = (value * total / known.sum() for value in (seeds, photos))
        known = np.nan_to_num([seeds, photos])
    return (math.nan if math.isnan(seeds) else max(total - float(known.sum()), 0.0)), seeds, photos


# --- a study --------------------------------------------------------------------------------------------------------


Contributions = Sequence[tuple[np.ndarray, np.ndarray]]
"""For each test timestamp of a trial: its photos (codes ``[m]``, ascending) and what each adds to the score ``[m]``."""


def variance_table(summary: Summary) -> pa.Table:
    """``VARIANCE_SCHEMA``: the budget of every paired difference of the main metric, for ``BUDGETED_SCORES``."""
    panel = next(((row["protocol"], row["metric"]) for row in summary.scores.to_pylist()), None)
    order = cell_order(summary.study)
    comparisons = sorted(
        (
            one
            for one in compare(summary.values, metrics=summary.study.metrics)
            if (one.cell.protocol, one.cell.metric) == panel and one.cell.score in BUDGETED_SCORES
        ),
        key=lambda one: (order(one.cell), one.baseline, one.baseline_size or 0),
    )
    if panel is None or not comparisons:
        return VARIANCE_SCHEMA.empty_table()
    measured = _measured(summary, panel) if panel[0] == "reconstruction" else {}
    higher = summary.study.metrics[panel[1]].higher_is_better
    contributions = {
        score: {trial: _contributions(cells, score, higher) for trial, cells in measured.items()}
        for score in dict.fromkeys(one.cell.score for one in comparisons)
    }
    rows = [_budget_row(summary, one, contributions[one.cell.score]) for one in comparisons]
    return pa.Table.from_pylist(rows, schema=VARIANCE_SCHEMA)


def _budget_row(summary: Summary, one: Comparison, contributions: Mapping[str, Contributions]) -> dict[str, Any]:
    values = summary.values
    strategy, baseline = _arms(one, values)
    names = {
        (trial.learning_rate, trial.strategy, trial.buffer_size, trial.identity, trial.seed): trial.trial
        for trial in summary.study.trials
    }
    differences, variances, photos = [], [], []
    other_photos = False
    for identity in one.identities:
        seeds = sorted(values[strategy][identity].keys() & values[baseline][identity].keys())
        differences.append([values[strategy][identity][seed] - values[baseline][identity][seed] for seed in seeds])
        pairs = [
            [
                contributions.get(names[cell.learning_rate, cell.strategy, cell.buffer_size, identity, seed], ())
                for cell in (strategy, baseline)
            ]
            for seed in seeds
        ]
        terms = _paired_terms(pairs)
        other_photos |= terms is None
        variances.append(math.nan if terms is None else photo_variance(terms))
        photos += [] if terms is None else [z.shape[1] for z in terms]
    budget = variance_budget(differences, variances)
    notes = [ONE_PERSON] * (budget.n == 1) + [ONE_SEED] * math.isnan(budget.seeds)
    if math.isnan(budget.photos):
        notes.append(NO_PHOTOS if other_photos else ONE_PHOTO)
    head = one.cell._asdict() | {"baseline": one.baseline, "baseline_size": one.baseline_size}
    counts = {"n_identities": budget.n, "n_seeds": one.n_seeds, "n_photos": min(photos, default=None)}
    numbers = {
        "variance": budget.total,
        "people": budget.people,
        "seeds": budget.seeds,
        "photos": budget.photos,
        "half_width": budget.half_width,
        "half_width_person": budget.with_person,
        "half_width_seed": budget.with_seed,
        "half_width_photos": budget.with_photos,
    }
    known = {name: None if math.isnan(value) else value for name, value in numbers.items()}
    return head | counts | known | {"note": "; ".join(notes)}


def _arms(one: Comparison, values: Mapping[ScoreCell, Any]) -> tuple[ScoreCell, ScoreCell]:
    """The two cells of a comparison as named in the scores (without a size if the strategy has none)."""
    baseline = one.cell._replace(strategy=one.baseline, buffer_size=one.baseline_size)
    first, second = (cell if cell in values else cell._replace(buffer_size=None) for cell in (one.cell, baseline))
    return first, second


def _paired_terms(pairs: Sequence[Sequence[Contributions]]) -> list[np.ndarray] | None:
    """Contributions of photos to a difference per test timestamp, ``[seeds, photos]``; None: not the same photos."""
    every = [trial for pair in pairs for trial in pair]
    if any(len(trial) == 0 or len(trial) != len(every[0]) for trial in every):
        return None
    terms = []
    for k, (photos, _) in enumerate(every[0]):
        if any(not np.array_equal(trial[k][0], photos) for trial in every):
            return None
        terms.append(np.array([strategy[k][1] - baseline[k][1] for strategy, baseline in pairs]))
    return terms


def _contributions(cells: Sequence[tuple[np.ndarray, np.ndarray]], score: str, higher_is_better: bool) -> Contributions:
    """What each photo of a trial adds to its score; ``cells``: per k, photos ``[m]`` and values ``[m, T - k]``."""
    size = len(cells)
    r = np.full((size, size), np.nan)
    for k, (_, values) in enumerate(cells):
        r[k:, k] = values.mean(axis=0)
    gradient = score_gradient(r, lambda moved: SCORES[score].compute(moved, higher_is_better))
    return [(photos, values @ gradient[k:, k]) for k, (photos, values) in enumerate(cells)]


def _measured(summary: Summary, panel: tuple[str, str]) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Trial -> per test timestamp k, its photos (codes) and their values ``[m, T - k]``, of continual trials that are
    complete: every photo of k has a value after each t >= k."""
    continual = [trial.trial for trial in summary.study.trials if not trial.joint]
    rows = read_rows(
        [summary.files[trial] for trial in continual if trial in summary.files],
        columns=["trial", "train_timestamp", "test_timestamp", "image", "value"],
        where=(pc.field("protocol") == panel[0]) & (pc.field("metric") == panel[1]),
    )
    if not rows.num_rows:
        return {}
    names, trial = codes(rows["trial"])
    _, image = codes(rows["image"])
    t, k, value = (rows[name].to_numpy() for name in ("train_timestamp", "test_timestamp", "value"))
    order = np.lexsort((t, image, k, trial))
    trial, image, t, k, value = trial[order], image[order], t[order], k[order], value[order]
    starts = np.searchsorted(trial, np.arange(len(names) + 1))
    sizes = {matrix.trial.trial: matrix.r.shape[-1] for matrix in summary.matrices}
    found = {}
    for place, name in enumerate(names):
        own = slice(starts[place], starts[place + 1])
        cells = _cells(t[own], k[own], image[own], value[own], sizes.get(name, 0))
        if cells is not None:
            found[name] = cells
    return found


def _cells(
    t: np.ndarray, k: np.ndarray, image: np.ndarray, value: np.ndarray, size: int
) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """One trial's rows, sorted by k, photo and t, as arrays per k; None if one is missing or duplicated."""
    cells = []
    for timestamp in range(size):
        own = k == timestamp
        after = size - timestamp
        if not own.any() or own.sum() % after or not (t[own].reshape(-1, after) == np.arange(timestamp, size)).all():
            return None
        photos = image[own].reshape(-1, after)
        if (photos != photos[:, :1]).any():
            return None
        cells.append((photos[:, 0], value[own].reshape(-1, after)))
    return cells if size else None
