"""Intervals whose unit is the identity: a claim about new people is based on n identities, not on n x seeds x images.

Student t on identity values is the default because it is the one that keeps its coverage at n = 5
(``benchmarks/coverage.py`` measures it, ``docs/statistics.md`` quotes it). Two others are reported beside it, to show
how much depends on the distribution of the values: on identity values the inverted sign-flip test (fewer than
``BOOTSTRAP_T_FROM`` identities) or bootstrap-t, and a cluster bootstrap that starts from the photos. Every interval
names the population that it refers to.

Sources: Hartigan, Using Subsample Values as Typical Values, JASA 64(328), 1969 (the sign-flip test inverted); Efron and
Tibshirani, An Introduction to the Bootstrap, ch. 12 (bootstrap-t); Davison and Hinkley, Bootstrap Methods and their
Application, 3.8 (resampling of clusters); Hesterberg, What Teachers Should Know About the Bootstrap, The American
Statistician 69(4), 2015 (expanded percentiles).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from clstudy.analysis.scores import MissingCellsError

CONFIDENCE = 0.95
RESAMPLES = 10_000
CLUSTER_RESAMPLES = 4_000
BOOTSTRAP_T_FROM = 8
"""Fewest identities for bootstrap-t; with fewer, resamples of near-duplicates affect its quantiles."""
NEAR_DUPLICATES = 0.1
"""Share of the values' own spread below which a resample's spread is not used as a divisor (docs/statistics.md)."""
_ROUNDING = 1e-9
"""Relative tolerance: larger than the rounding error of a computed standard deviation."""
SUBSETS_UP_TO = 20
"""Largest number of values whose subsets are all enumerated (2^20)."""
NEW_IDENTITIES = "new identities"
THESE_IDENTITIES = "these identities"
THIS_IDENTITY = "this identity only (no interval from one identity)"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over ``n`` identities, for ``population``; ``low`` and ``high`` are NaN if there is no interval."""

    mean: float
    low: float
    high: float
    n: int
    population: str


@dataclass(frozen=True, kw_only=True)
class BootstrapInterval(Interval):
    """As ``Interval``, from ``resamples`` resamples, ``dropped`` of which (with next to no spread) were not used."""

    method: str
    resamples: int
    dropped: int = 0


@dataclass(frozen=True, kw_only=True)
class ExactInterval(Interval):
    """As ``Interval``, with the confidence that n values can attain instead of the requested one."""

    confidence: float


@dataclass(frozen=True, kw_only=True, eq=False)
class IdentityImages:
    """All values measured on one identity, image by image, for everything that is to be compared.

    Attributes:
        identity: its name; identities are resampled in the order of their names.
        labels: the entries of the first axis, e.g. one table ``Cell`` per strategy and buffer size. The same for all
            identities of an analysis.
        values: float ``[labels, seeds, T, T, images]``: after training on t, image i of test timestamp k; NaN where
            nothing was measured (above the diagonal, all but the last row of joint training) and beyond
            ``counts[k]``. Image i of k is the same photo for every label, seed and t.
        counts: int ``[T]``, images of each test timestamp, 1 to images.
    """

    identity: str
    labels: tuple[Hashable, ...]
    values: np.ndarray
    counts: np.ndarray

    def __post_init__(self) -> None:
        shape, counts = self.values.shape, np.asarray(self.counts)
        if len(shape) != 5 or 0 in shape or shape[2] != shape[3] or shape[0] != len(self.labels):
            raise ValueError(
                f"{self.identity}: values of shape {shape} for {len(self.labels)} labels, expected "
                "[labels, seeds, T, T, images], none of them empty"
            )
        if counts.shape != shape[2:3] or counts.min() < 1 or counts.max() > shape[4]:
            raise ValueError(f"{self.identity}: counts {counts.tolist()}, expected {shape[2]} in 1..{shape[4]}")


@dataclass(frozen=True, kw_only=True, eq=False)
class ClusterBootstrap:
    """Resampled means over identities of one score, all labels from the same draws.

    Attributes:
        labels: the entries of the last axes.
        identities: names, in the order of ``observed``.
        observed: float ``[n, labels]``, the score of each identity (mean over its seeds).
        resampled: float ``[resamples, labels]``, means over resampled identities.
        population: the one that the intervals refer to.
    """

    labels: tuple[Hashable, ...]
    identities: tuple[str, ...]
    observed: np.ndarray
    resampled: np.ndarray
    population: str

    def interval(
        self,
        label: Hashable,
        minus: Hashable | None = None,
        *,
        confidence: float = CONFIDENCE,
        expanded: bool | None = None,
    ) -> BootstrapInterval:
        """Percentile interval for the mean of a label, or for the paired difference ``label - minus``.

        Args:
            label, minus: of ``labels``.
            expanded: take the percentiles at which a bootstrap of n normal values has the width of Student's t
                (Hesterberg 2015, 4.3): plain percentiles are narrow by sqrt((n-1)/n) and ignore that the spread is
                estimated. By default True for new identities, whose n is small, and False for these identities.

        Raises:
            ValueError: an unknown label, ``confidence`` outside (0, 1), or ``expanded`` for one identity.
        """
        _check_confidence(confidence)
        n = len(self.identities)
        expanded = self.population == NEW_IDENTITIES if expanded is None else expanded
        if expanded and n < 2:
            raise ValueError(f"expanded percentiles need at least 2 identities, got {n}")
        observed, resampled = (self._values(label, minus, array) for array in (self.observed, self.resampled))
        tail = (1 - confidence) / 2
        if expanded:
            tail = float(ndtr(-math.sqrt(n / (n - 1)) * stdtrit(n - 1, 1 - tail)))
        low, high = np.quantile(resampled, [tail, 1 - tail])
        return BootstrapInterval(
            mean=float(observed.mean()),
            low=float(low),
            high=float(high),
            n=n,
            population=self.population,
            method=f"cluster bootstrap ({'expanded ' if expanded else ''}percentiles)",
            resamples=len(resampled),
        )

    def _values(self, label: Hashable, minus: Hashable | None, array: np.ndarray) -> np.ndarray:
        for name in (label, minus):
            if name is not None and name not in self.labels:
                raise ValueError(f"no label {name!r} in this bootstrap, it has {self.labels}")
        values = array[:, self.labels.index(label)]
        return values if minus is None else values - array[:, self.labels.index(minus)]


def t_interval(values: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """Student-t interval for the mean of one value per identity, ``values`` float ``[n]``.

    Raises:
        ValueError: fewer than 2 values, a value that is not finite, or ``confidence`` outside (0, 1).
    """
    values = _at_least_two(values)
    _check_confidence(confidence)
    mean, n = float(values.mean()), values.size
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(mean=mean, low=mean - half, high=mean + half, n=n, population=NEW_IDENTITIES)


def identity_interval(values: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """As ``t_interval``; for a single identity ``low`` and ``high`` are NaN, and the population says so.

    Raises:
        ValueError: no values, or as ``t_interval``.
    """
    values = _finite(values)
    if values.size != 1:
        return t_interval(values, confidence)
    return Interval(mean=float(values[0]), low=math.nan, high=math.nan, n=1, population=THIS_IDENTITY)


def sign_flip_interval(values: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE) -> ExactInterval:
    """The centres that the sign-flip test does not reject, for one value per identity, ``values`` float ``[n]``.

    Under the centre theta each value is as likely to lie as far on the other side of it. Flipping the signs of a subset
    of (values - theta) makes their sum no smaller exactly where the subset's mean is at most theta, so the 2^n - 1
    subset means cut the line into 2^n parts, each of which holds theta with probability 2^-n (Hartigan 1969): from the
    k-th smallest to the k-th largest of them is an interval of confidence 1 - 2k / 2^n. Here k is the largest that
    gives at least ``confidence``. Below 6 identities no k gives 95% (the test rejects no theta at all); then k = 1 is
    used, the interval from the smallest to the largest value, and ``confidence`` is what it attains: 93.75% at n = 5.
    Exact for values that are distributed symmetrically around their mean, whatever their shape otherwise.

    Raises:
        ValueError: as ``t_interval``, or more than ``SUBSETS_UP_TO`` values.
    """
    values = np.sort(_at_least_two(values))
    _check_confidence(confidence)
    n = values.size
    if n > SUBSETS_UP_TO:
        raise ValueError(f"{n} values have too many subsets to count (more than {SUBSETS_UP_TO}): take bootstrap_t")
    # 1e-9 guards against a product such as 0.05 * 2^n / 2 that is an integer except for its last bits
    k = max(1, math.floor((1 - confidence) * 2 ** (n - 1) + 1e-9))
    low, high = np.partition(_subset_means(values), [k - 1, 2**n - 1 - k])[[k - 1, 2**n - 1 - k]]
    return ExactInterval(
        mean=float(values.mean()),
        low=max(float(low), float(values[0])),  # a mean of equal values may be rounded to slightly below them
        high=min(float(high), float(values[-1])),
        n=n,
        population=NEW_IDENTITIES,
        confidence=1 - 2 * k / 2**n,
    )


def _subset_means(values: np.ndarray) -> np.ndarray:
    """Means of all non-empty subsets, ``[2^n - 1]``, in no particular order."""
    sums, sizes = np.zeros(1), np.zeros(1)
    for value in values:
        sums, sizes = np.concatenate([sums, sums + value]), np.concatenate([sizes, sizes + 1])
    return sums[1:] / sizes[1:]


def bootstrap_t(
    values: Sequence[float] | np.ndarray,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> BootstrapInterval:
    """Bootstrap-t interval for the mean of one value per identity, ``values`` float ``[n]``.

    The quantiles of (resample mean - mean) / (resample spread / sqrt(n)) take the place of Student's. A resample of
    near-duplicates (its spread below ``NEAR_DUPLICATES`` of the values' own; no spread at all included) would divide by
    next to nothing: it is dropped, and ``dropped`` counts them. Where few identities make this more than a rare event
    (fewer than ``BOOTSTRAP_T_FROM``), ``sign_flip_interval`` is the better second opinion.
    With n = 2 every other resample has the mean itself, so there is no interval: ``low`` and ``high`` are NaN, as they
    are if all values are equal. The order of ``values`` is irrelevant.

    Raises:
        ValueError: as ``t_interval``, or fewer than 1 resample.
    """
    values = np.sort(_at_least_two(values))
    _check_confidence(confidence)
    _check_resamples(resamples)
    n, mean = values.size, float(values.mean())
    own = float(values.std(ddof=1)) if values[-1] > values[0] else 0.0
    drawn = values[rng.integers(n, size=(resamples, n))]
    # the range is exact where a standard deviation may round to a little over 0; a spread at the limit itself, which
    # round numbers have, is kept however it rounds
    least = NEAR_DUPLICATES * own * (1 - _ROUNDING)
    kept = drawn[(drawn.max(axis=1) > drawn.min(axis=1)) & (drawn.std(axis=1, ddof=1) >= least)]
    low = high = math.nan
    if n > 2 and len(kept):
        studentised = (kept.mean(axis=1) - mean) / kept.std(axis=1, ddof=1)
        tails = np.quantile(studentised, [(1 + confidence) / 2, (1 - confidence) / 2])
        low, high = (mean - tails * own).tolist()
    return BootstrapInterval(
        mean=mean,
        low=low,
        high=high,
        n=n,
        population=NEW_IDENTITIES,
        method="bootstrap-t",
        resamples=resamples,
        dropped=resamples - len(kept),
    )


def cluster_bootstrap(
    identities: Sequence[IdentityImages],
    score: Callable[[np.ndarray], np.ndarray],
    rng: np.random.Generator,
    *,
    resamples: int = CLUSTER_RESAMPLES,
    new_identities: bool = True,
) -> ClusterBootstrap:
    """Two-level bootstrap of a score: identities, and within each drawn identity its seeds and its images.

    The score is recomputed from every resampled matrix R[t, k] of a trial and only then averaged over seeds, because
    Forgetting's max does not commute with a mean. Within an identity one draw of seeds, and one draw of images for each
    test timestamp k, serve all rows t of column k and all labels, so that differences between labels stay paired. An
    identity that is drawn twice gets two draws of its own.

    Draws depend on the identities' names and shapes, never on labels or scores: an equal seed gives equal resamples for
    every score. Their order, from ``rng``: identities ``integers(n, size=(resamples, n))`` (not for these
    identities); then for every identity by name, once for each place in which it was drawn: ``multinomial`` counts
    of its seeds, then of the images of k = 0, 1, ...

    Args:
        score: R float ``[..., T, T]`` -> ``[...]``, e.g. ``lambda r: forgetting(r, higher_is_better)``.
        new_identities: False keeps the identities as they are and resamples only within them: the interval then refers
            to these identities, measured again with other seeds and photos.

    Raises:
        ValueError: fewer than 2 identities (for new identities; 1 for these), a name twice, different labels,
            fewer than 1 resample, or a score that is not finite.
        MissingCellsError: a cell that the score needs is missing, or lacks images; the message names identity and
            label.
    """
    identities = sorted(identities, key=lambda one: one.identity)
    _check_identities(identities, at_least=2 if new_identities else 1)
    _check_resamples(resamples)
    n, labels = len(identities), identities[0].labels
    observed = np.array([_observed(one, score) for one in identities])
    kept = np.broadcast_to(np.arange(n), (resamples, n))
    drawn = rng.integers(n, size=(resamples, n)) if new_identities else kept
    total = np.zeros((resamples, len(labels)))
    for place, one in enumerate(identities):
        which, _ = np.nonzero(drawn == place)
        scores = _resampled(one, score, len(which), rng)
        for column in range(len(labels)):
            total[:, column] += np.bincount(which, weights=scores[:, column], minlength=resamples)
    return ClusterBootstrap(
        labels=labels,
        identities=tuple(one.identity for one in identities),
        observed=observed,
        resampled=total / n,
        population=NEW_IDENTITIES if new_identities else THESE_IDENTITIES,
    )


def _observed(one: IdentityImages, score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Score of each label, mean over seeds ``[labels]``, of the images as they are."""
    size = len(one.counts)
    r = np.stack([one.values[..., k, : one.counts[k]].mean(axis=-1) for k in range(size)], axis=-1)
    means = []
    for label, matrices in zip(one.labels, r, strict=True):
        try:
            scores = score(matrices)
        except MissingCellsError as error:
            raise MissingCellsError(error.cells, f"identity {one.identity}, {label}, R[seed, t, k]") from error
        if not np.isfinite(scores).all():
            raise ValueError(f"identity {one.identity}, {label}: the score is {scores}, expected finite numbers")
        means.append(scores.mean())
    return np.array(means)


def _resampled(
    one: IdentityImages, score: Callable[[np.ndarray], np.ndarray], draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Score of each label under ``draws`` resamples of seeds and images, ``[draws, labels]``."""
    labels, seeds, size = one.values.shape[:3]
    seed_weights = _weights(seeds, draws, rng)
    image_weights = [_weights(int(count), draws, rng).T for count in one.counts]
    scores = np.zeros((draws, labels))
    r = np.empty((size, size, draws))  # draws last and so contiguous, because a score adds rows of draws
    for label in range(labels):
        for seed in range(seeds):  # one at a time: all at once would be seeds times the memory
            for k, weights in enumerate(image_weights):
                np.matmul(one.values[label, seed, :, k, : one.counts[k]], weights, out=r[:, k])
            scores[:, label] += seed_weights[:, seed] * score(np.moveaxis(r, -1, 0))
    return scores


def _weights(n: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of n is drawn in n draws with replacement, divided by n; ``[draws, n]``."""
    return rng.multinomial(n, np.full(n, 1 / n), size=draws) / n


def _check_identities(identities: Sequence[IdentityImages], at_least: int) -> None:
    if len(identities) < at_least:
        raise ValueError(f"an interval over identities needs at least {at_least} of them, got {len(identities)}")
    names = [one.identity for one in identities]
    if len(set(names)) < len(names):
        raise ValueError(f"an identity is given twice: {names}")
    for one in identities:
        if one.labels != identities[0].labels:
            raise ValueError(
                f"labels of {one.identity} are {one.labels}, those of {names[0]} {identities[0].labels}: expected "
                "the same for all identities"
            )


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")


def _check_resamples(resamples: int) -> None:
    if resamples < 1:
        raise ValueError(f"expected at least 1 resample, got {resamples}")


def _at_least_two(values: Sequence[float] | np.ndarray) -> np.ndarray:
    values = _finite(values)
    if values.size < 2:
        raise ValueError(f"an interval over identities needs at least 2 of them, got {values.size}")
    return values


def _finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"expected one finite value per identity, shape [n], got {values!r}")
    return values
