"""Intervals and paired comparisons against scipy, bootstraps against slow loops with the same draws."""

from __future__ import annotations

import itertools
import math
import statistics
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from clstudy.analysis.comparisons import compare, paired_difference
from clstudy.analysis.matrix import ScoreCell
from clstudy.analysis.scores import (
    MissingCellsError,
    average_incremental_performance,
    backward_transfer,
    final_performance,
    forgetting,
)
from clstudy.analysis.statistics.intervals import (
    IdentityImages,
    bootstrap_t,
    cluster_bootstrap,
    identity_interval,
    sign_flip_interval,
    t_interval,
)

# scipy's oracles are undefined where the spread underflows to 0, so values lie on a grid.
NUMBERS = st.integers(-(10**6), 10**6).map(lambda i: i / 1e4)


@given(
    hnp.arrays(np.float64, st.integers(2, 20), elements=NUMBERS, unique=True),
    st.floats(0.5, 0.999),
)
def test_t_interval_equals_scipy(values, confidence):
    ours = t_interval(values, confidence)
    theirs = stats.t.interval(confidence, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose([ours.low, ours.high], theirs, rtol=1e-9, atol=1e-9)
    other = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    np.testing.assert_allclose([ours.low, ours.high], [other.low, other.high], rtol=1e-9, atol=1e-9)
    assert (ours.n, ours.population) == (len(values), "new identities")


@pytest.mark.parametrize("n", [2, 5, 10])
def test_t_interval_keeps_its_word_on_normal_values(n):
    samples = np.random.default_rng(n).standard_normal((4_000, n)) + 0.3
    intervals = [t_interval(sample) for sample in samples]
    assert 0.94 < np.mean([one.low <= 0.3 <= one.high for one in intervals]) < 0.96


def test_equal_values_give_an_interval_of_no_width():
    interval = t_interval([0.2, 0.2, 0.2])
    assert interval.low == pytest.approx(0.2) and interval.high == pytest.approx(0.2)


def test_one_identity_gives_no_interval_and_bad_values_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        t_interval([0.3])
    one = identity_interval([0.3])
    assert one.mean == 0.3 and one.n == 1 and math.isnan(one.low) and math.isnan(one.high)
    assert "this identity" in one.population
    for bad in ([], [0.1, math.nan], [0.1, math.inf], [[0.1, 0.2]]):
        with pytest.raises(ValueError):
            identity_interval(bad)
    with pytest.raises(ValueError, match="confidence"):
        t_interval([0.1, 0.2], confidence=95)


@given(hnp.arrays(np.float64, st.tuples(st.just(2), st.integers(2, 12)), elements=NUMBERS, unique=True))
def test_paired_difference_equals_ttest_rel(values):
    ours, theirs = ({f"p{i}": {0: v} for i, v in enumerate(row)} for row in values.tolist())
    interval, seeds = paired_difference(ours, theirs)
    expected = stats.ttest_rel(*values).confidence_interval(0.95)
    np.testing.assert_allclose([interval.low, interval.high], [expected.low, expected.high], rtol=1e-7, atol=1e-7)
    assert (interval.n, seeds) == (values.shape[1], 1)


def test_pairs_are_the_common_identities_and_seeds():
    ours = {"ann": {0: 1.0, 1: 3.0}, "bob": {0: 2.0, 1: 9.0}, "cat": {0: 5.0}, "dan": {1: 1.0}}
    theirs = {"ann": {0: 0.5, 1: 0.5}, "bob": {0: 1.0}, "eve": {0: 5.0}, "dan": {0: 1.0}}
    interval, seeds = paired_difference(ours, theirs)
    assert interval == t_interval([1.5, 1.0])
    assert seeds == 1
    assert paired_difference(ours, {"eve": {0: 1.0}}) is None


def cell(strategy, buffer_size, score="forgetting", metric="id"):
    return ScoreCell("reconstruction", metric, score, 0.001, strategy, buffer_size)


def people(*values):
    return {f"p{i}": {0: value} for i, value in enumerate(values)}


def test_who_meets_whom_at_which_buffer_size():
    strategies = [("lower", None), ("er_rand", 3), ("er_rand", 5), ("er_hull", 3), ("kmeans", 7)]
    values = {cell(*which): people(0.1, 0.2) for which in strategies}
    values |= {cell(*which, score="final"): people(0.1, 0.2) for which in [*strategies, ("upper", None)]}
    values |= {cell(*which, score="bwt"): people(0.1, 0.2) for which in strategies}
    met = {(c.cell.score, c.cell.strategy, c.cell.buffer_size, c.baseline) for c in compare(values)}
    for score in ("forgetting", "final"):
        assert {pair[1:] for pair in met if pair[0] == score and pair[1] != "upper"} == {
            ("er_hull", 3, "er_rand"),
            ("er_rand", 3, "lower"),
            ("er_rand", 5, "lower"),
            ("er_hull", 3, "lower"),
            ("kmeans", 7, "lower"),
        }
    assert {pair for pair in met if pair[1] == "upper"} == {
        ("final", "upper", 3, "er_rand"),
        ("final", "upper", 5, "er_rand"),
        ("final", "upper", None, "lower"),
    }
    assert {pair[0] for pair in met} == {"forgetting", "final"}
    other_rate = {cell("er_rand", 3)._replace(learning_rate=0.1): people(1, 2), cell("er_hull", 3): people(1, 2)}
    assert compare(other_rate) == []


@pytest.mark.parametrize(
    ("score", "metric", "negative_is_better"),
    [
        ("forgetting", "id", True),
        ("forgetting", "lpips", True),
        ("aip", "id", False),
        ("aip", "lpips", True),
        ("final", "psnr", False),
    ],
)
def test_the_sign_and_the_verdict(score, metric, negative_is_better):
    def versus(*values):
        (found,) = compare(
            {
                cell("lower", None, score, metric): people(*[1.0] * len(values)),
                cell("er_rand", 3, score, metric): people(*values),
            }
        )
        return found

    less = versus(0.5, 0.51, 0.52)
    assert less.difference.mean == pytest.approx(-0.49)
    assert less.negative_is_better is negative_is_better
    assert less.verdict == ("better" if negative_is_better else "worse")
    assert versus(1.5, 1.51, 1.52).verdict == ("worse" if negative_is_better else "better")
    assert versus(0.5, 1.5, 1.0).verdict == "interval includes 0"
    assert versus(1.0, 1.0, 1.0).verdict == "interval includes 0"
    assert versus(0.5).verdict == "no interval"


# --- bootstrap-t --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[0.3, 0.1, 0.7], [1.0, 5.0, 2.0, 2.5, 9.0], list(np.linspace(-1, 3, 12) ** 3)])
def test_bootstrap_t_equals_a_slow_loop_with_the_same_draws(values):
    resamples, n = 400, len(values)
    interval = bootstrap_t(values, np.random.default_rng(7), resamples=resamples, confidence=0.9)
    draws = np.random.default_rng(7).integers(n, size=(resamples, n)).tolist()
    ordered, mean, spread = sorted(values), statistics.fmean(values), statistics.stdev(values)
    ratios, dropped = [], 0
    for draw in draws:
        drawn = [ordered[i] for i in draw]
        if len(set(drawn)) == 1 or statistics.stdev(drawn) < 0.1 * spread:
            dropped += 1
        else:
            ratios.append((statistics.fmean(drawn) - mean) / (statistics.stdev(drawn) / math.sqrt(n)))
    low, high = (mean - q * spread / math.sqrt(n) for q in np.quantile(ratios, [0.95, 0.05]))
    assert (interval.low, interval.high) == (pytest.approx(low, rel=1e-12), pytest.approx(high, rel=1e-12))
    assert (interval.dropped, interval.resamples, interval.n) == (dropped, resamples, n)
    assert dropped > 20 if n == 3 else True  # one in nine
    assert (interval.population, interval.method) == ("new identities", "bootstrap-t")


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, st.integers(3, 8), elements=st.integers(-50, 50).map(float), unique=True),
    st.sampled_from([0.125, 1.0, 64.0]),
    st.integers(-8, 8),
    st.randoms(use_true_random=False),
)
# 10 10 12 12 12 has exactly a tenth of the spread
@example(np.array([1.0, 10.0, 12.0, 24.0, 28.0]), 1.0, -4, Random(0))
def test_bootstrap_t_moves_with_shift_and_scale_and_not_with_order_or_clock(values, scale, shift, random):
    def interval(values):
        return bootstrap_t(values, np.random.default_rng(3), resamples=200)

    plain, moved = interval(values), interval(scale * values + shift)
    np.testing.assert_allclose(
        [moved.mean, moved.low, moved.high],
        scale * np.array([plain.mean, plain.low, plain.high]) + shift,
        rtol=1e-9,
        atol=1e-9,
    )
    shuffled = values.tolist()
    random.shuffle(shuffled)
    assert interval(shuffled) == plain
    assert plain.low <= plain.high


def test_bootstrap_t_says_where_there_is_no_interval_and_refuses_bad_values():
    def interval(values, **settings):
        return bootstrap_t(values, np.random.default_rng(0), **{"resamples": 100} | settings)

    for values in ([0.1, 0.9], [0.1, 0.1, 0.1]):
        none = interval(values)
        assert math.isnan(none.low) and math.isnan(none.high) and none.mean == pytest.approx(np.mean(values))
    assert none.dropped == none.resamples == 100
    for bad in ([], [0.3], [0.1, math.nan, 0.2], [[0.1, 0.2]]):
        with pytest.raises(ValueError):
            interval(bad)
    with pytest.raises(ValueError, match="confidence"):
        interval([1, 2, 3], confidence=95)
    with pytest.raises(ValueError, match="resample"):
        interval([1, 2, 3], resamples=0)


# Differences as a study of five people gives them where two strategies mostly keep the same photos: near-duplicates.
NEAR = [-0.0449, -0.0448, -0.0447, -0.0301, -0.0300]


def test_near_duplicates_do_not_blow_bootstrap_t_up():
    primary, boot = t_interval(NEAR), bootstrap_t(NEAR, np.random.default_rng(0))
    assert boot.dropped > 10_000 * 3 * (1 / 5) ** 5  # more than those without any spread
    assert boot.high < 0 and boot.high - boot.low < 3 * (primary.high - primary.low)


def test_well_spread_values_lose_no_resample_from_eight_on():
    for seed in range(20):
        values = np.random.default_rng(seed).standard_normal(8)
        assert bootstrap_t(values, np.random.default_rng(seed), resamples=2_000).dropped <= 1


# --- sign flips, inverted -----------------------------------------------------------------------------------------


def rejected(values, centre, confidence):
    """The two-sided sign-flip test by all patterns; sums that differ by rounding are equal."""
    signs = np.array(list(itertools.product([1, -1], repeat=len(values))))
    sums = np.abs(signs @ (np.asarray(values) - centre))
    return np.mean(sums >= abs((np.asarray(values) - centre).sum()) - 1e-9) <= 1 - confidence + 1e-12


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-40, 40), min_size=2, max_size=8, unique=True), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_inverted_sign_flips_are_the_centres_that_the_test_does_not_reject(values, confidence):
    """Brute force: the test itself at every point of a grid, whose step divides all subset means' distances."""
    found = sign_flip_interval(values, confidence)
    level = min(confidence, 1 - 2 / 2 ** len(values))  # what n values can attain
    grid = np.unique(np.concatenate([np.arange(-42, 43), [found.low, found.high]]))
    for centre in grid.tolist():
        if math.isclose(centre, found.low) or math.isclose(centre, found.high):
            continue  # the limits themselves: the p-value jumps there
        assert rejected(values, centre, level) == (not found.low < centre < found.high), centre
    step = 1e-7
    assert rejected(values, found.low - step, level) and not rejected(values, found.low + step, level)
    assert rejected(values, found.high + step, level) and not rejected(values, found.high - step, level)


@pytest.mark.parametrize("n", [5, 7, 9])
def test_inverted_sign_flips_agree_with_scipys_p_values_just_inside_and_outside(n):
    values = np.random.default_rng(n).gamma(2.0, size=n)
    found = sign_flip_interval(values)

    def p(centre):
        shifted = (values - centre,)
        return stats.permutation_test(shifted, np.mean, permutation_type="samples", n_resamples=np.inf).pvalue

    alpha = 1 - found.confidence
    for limit, outwards in ((found.low, -1), (found.high, 1)):
        assert p(limit + outwards * 1e-6) <= alpha + 1e-12 < p(limit - outwards * 1e-6)


@pytest.mark.parametrize(
    ("n", "confidence"), [(2, 0.5), (3, 0.75), (4, 0.875), (5, 0.9375), (6, 1 - 2 / 64), (7, 1 - 6 / 128)]
)
def test_few_identities_attain_what_they_can_and_say_it(n, confidence):
    values = np.random.default_rng(n).standard_normal(n)
    found = sign_flip_interval(values)
    assert found.confidence == confidence and found.population == "new identities" and found.n == n
    if n <= 6:
        assert (found.low, found.high) == (values.min(), values.max())


def test_inverted_sign_flips_hold_exactly_what_they_say_whatever_the_symmetric_shape():
    rng = np.random.default_rng(2)
    for draw in (
        rng.standard_normal,
        lambda shape: rng.standard_t(2, shape),
        lambda shape: rng.laplace(size=shape) ** 3,
    ):
        for n in (5, 7):
            intervals = [sign_flip_interval(sample + 0.3) for sample in draw((4_000, n))]
            held = np.mean([one.low <= 0.3 <= one.high for one in intervals])
            assert held == pytest.approx(intervals[0].confidence, abs=0.02)


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, st.integers(2, 9), elements=st.integers(-50, 50).map(float)),
    st.sampled_from([-64.0, -1.0, 0.125, 3.0]),
    st.integers(-8, 8),
    st.randoms(use_true_random=False),
)
def test_inverted_sign_flips_move_with_shift_and_scale_and_not_with_order(values, scale, shift, random):
    plain, moved = sign_flip_interval(values), sign_flip_interval(scale * values + shift)
    limits = sorted(scale * np.array([plain.low, plain.high]) + shift)
    np.testing.assert_allclose([moved.low, moved.high], limits, rtol=1e-12, atol=1e-12)
    shuffled = values.tolist()
    random.shuffle(shuffled)
    assert sign_flip_interval(shuffled) == plain
    assert values.min() <= plain.low <= plain.high <= values.max()


def test_equal_values_and_bad_ones():
    same = sign_flip_interval([0.1] * 5)
    assert (same.low, same.high) == (0.1, 0.1)
    for bad in ([], [0.3], [0.1, math.nan, 0.2], [[0.1, 0.2]], np.arange(21)):
        with pytest.raises(ValueError):
            sign_flip_interval(bad)
    with pytest.raises(ValueError, match="confidence"):
        sign_flip_interval([1, 2, 3], confidence=95)


# --- cluster bootstrap --------------------------------------------------------------------------------------------


def made_up(identity, *, size=3, seeds=2, counts=(3, 1, 4), labels=("a", "b"), rng=None, offset=0.0):
    """Random values of one identity; NaN where a study measures nothing."""
    rng = rng or np.random.default_rng(list(identity.encode()))
    values = rng.uniform(size=(len(labels), seeds, size, size, max(counts))) + offset
    for t, k, i in np.ndindex(size, size, max(counts)):
        if k > t or i >= counts[k]:
            values[:, :, t, k, i] = np.nan
    return IdentityImages(identity=identity, labels=labels, values=values, counts=np.array(counts))


def slow_aip(r):
    return statistics.fmean(statistics.fmean(r[t][: t + 1]) for t in range(len(r)))


def slow_forgetting(r):
    last = len(r) - 1  # lower is better
    return statistics.fmean(r[last][k] - min(r[t][k] for t in range(k, last)) for k in range(last))


def slow_bwt(r):
    last = len(r) - 1
    return statistics.fmean(r[k][k] - r[last][k] for k in range(last))


def slow_cluster_bootstrap(identities, score, seed, resamples, new_identities):
    """Draws in the documented order, then one resample after the other, photos repeated as often as drawn."""
    rng, n = np.random.default_rng(seed), len(identities)
    people = rng.integers(n, size=(resamples, n)) if new_identities else np.tile(np.arange(n), (resamples, 1))
    inside = []
    for i, one in enumerate(identities):
        times = int((people == i).sum())
        sizes = [one.values.shape[1], *one.counts.tolist()]
        inside.append([rng.multinomial(m, [1 / m] * m, size=times).tolist() for m in sizes])
    used = [0] * n
    means = []
    for row in people:
        scores = []
        for i in row:
            seeds, *photos = (draws[used[i]] for draws in inside[i])
            used[i] += 1
            values, size = identities[i].values, len(identities[i].counts)
            per_label = []
            for label in range(len(values)):
                per_seed = []
                for s, times in enumerate(seeds):
                    r = [
                        [
                            statistics.fmean(
                                value for j, c in enumerate(photos[k]) for value in [values[label, s, t, k, j]] * c
                            )
                            for k in range(t + 1)
                        ]
                        for t in range(size)
                    ]
                    per_seed += [score(r)] * times
                per_label.append(statistics.fmean(per_seed))
            scores.append(per_label)
        means.append(np.mean(scores, axis=0))
    return np.array(means)


SCORE_PAIRS = {
    "aip": (lambda r: average_incremental_performance(r, False), slow_aip),
    "forgetting": (lambda r: forgetting(r, False), slow_forgetting),
    "bwt": (lambda r: backward_transfer(r, False), slow_bwt),
}


@pytest.mark.parametrize("new_identities", [True, False])
@pytest.mark.parametrize("name", SCORE_PAIRS)
def test_cluster_bootstrap_equals_a_slow_loop_with_the_same_draws(name, new_identities):
    people = [
        made_up("ann"),
        made_up("bob", seeds=1, counts=(2, 2, 5)),
        made_up("cat", size=2, seeds=3, counts=(4, 2)),
    ]
    fast, slow = SCORE_PAIRS[name]
    found = cluster_bootstrap(people, fast, np.random.default_rng(5), resamples=60, new_identities=new_identities)
    expected = slow_cluster_bootstrap(people, slow, 5, 60, new_identities)
    np.testing.assert_allclose(found.resampled, expected, rtol=1e-12, atol=1e-14)
    assert found.observed.shape == (3, 2) and found.identities == ("ann", "bob", "cat")
    assert len(np.unique(found.resampled[:, 0])) > 40


def test_with_one_photo_and_one_seed_it_is_scipys_percentile_bootstrap():
    values = np.array([0.3, 0.9, 0.1, 0.75, 0.2, 0.6])
    people = [
        IdentityImages(identity=f"p{i}", labels=("a",), values=np.full((1, 1, 1, 1, 1), v), counts=np.array([1]))
        for i, v in enumerate(values)
    ]
    found = cluster_bootstrap(people, final_performance, np.random.default_rng(11), resamples=999)
    ours = found.interval("a", expanded=False)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=999, method="percentile", rng=np.random.default_rng(11)
    ).confidence_interval
    np.testing.assert_allclose([ours.low, ours.high], [theirs.low, theirs.high], rtol=1e-12)
    assert ours.mean == pytest.approx(values.mean()) and ours.population == "new identities"
    wider = found.interval("a")
    tail = stats.norm.cdf(-math.sqrt(6 / 5) * stats.t.ppf(0.975, 5))
    np.testing.assert_allclose([wider.low, wider.high], np.quantile(found.resampled, [tail, 1 - tail]))
    assert wider.low < ours.low < ours.high < wider.high


def test_draws_are_shared_by_rows_labels_and_scores():
    people = [made_up(name) for name in ("ann", "bob", "cat", "dan")]
    for one in people:
        one.values[1] = one.values[0] + 0.25
        one.values[:, :, 1:] = np.where(np.isnan(one.values[:, :, 1:]), np.nan, one.values[:, :, 2:])
        one.values[:, :, 0, 0] = one.values[:, :, 2, 0]  # every photo is as good at each t as at the last
    found = cluster_bootstrap(people, SCORE_PAIRS["bwt"][0], np.random.default_rng(0), resamples=200)
    np.testing.assert_allclose(found.resampled, 0.0, atol=1e-15)
    both = cluster_bootstrap(people, final_performance, np.random.default_rng(0), resamples=200)
    assert both.resampled[:, 0].std() > 0.01
    difference = both.interval("b", "a")
    np.testing.assert_allclose([difference.low, difference.mean, difference.high], 0.25)
    only = [
        IdentityImages(identity=one.identity, labels=("a",), values=one.values[:1], counts=one.counts) for one in people
    ]
    alone = cluster_bootstrap(only[::-1], final_performance, np.random.default_rng(0), resamples=200)
    np.testing.assert_array_equal(alone.resampled[:, 0], both.resampled[:, 0])  # nor does the order of people matter


@settings(deadline=None)
@given(st.sampled_from([0.5, 8.0]), st.sampled_from([-2.0, 0.25, 16.0]), st.booleans())
def test_cluster_intervals_move_with_shift_and_scale(scale, shift, new_identities):
    def interval(scale, shift, name):
        people = [made_up(name, labels=("a",)) for name in ("ann", "bob", "cat")]
        for one in people:
            one.values[:] = scale * one.values + shift
        found = cluster_bootstrap(
            people, SCORE_PAIRS[name][0], np.random.default_rng(1), resamples=50, new_identities=new_identities
        ).interval("a")
        return np.array([found.mean, found.low, found.high])

    np.testing.assert_allclose(interval(scale, shift, "aip"), scale * interval(1, 0, "aip") + shift, atol=1e-12)
    np.testing.assert_allclose(interval(scale, shift, "forgetting"), scale * interval(1, 0, "forgetting"), atol=1e-12)


def test_each_population_is_named_and_these_identities_ignore_how_different_they_are():
    people = [made_up(name, offset=far) for name, far in (("ann", 0.0), ("bob", 100.0), ("cat", 200.0))]
    run = {
        new: cluster_bootstrap(
            people, final_performance, np.random.default_rng(2), resamples=300, new_identities=new
        ).interval("a")
        for new in (True, False)
    }
    assert (run[True].population, run[False].population) == ("new identities", "these identities")
    assert run[True].high - run[True].low > 100 and run[False].high - run[False].low < 1
    assert run[False].mean == run[True].mean
    one = cluster_bootstrap(people[:1], final_performance, np.random.default_rng(2), new_identities=False)
    assert one.interval("a").low < one.interval("a").high and one.interval("a").n == 1
    with pytest.raises(ValueError, match="at least 2"):
        one.interval("a", expanded=True)


def test_missing_cells_and_photos_are_errors_that_name_the_identity():
    people = [made_up("ann"), made_up("bob")]
    people[1].values[1, 0, 2, 0, 1] = np.nan
    with pytest.raises(MissingCellsError, match=r"identity bob, b.*R\[0, 2, 0\]"):
        cluster_bootstrap(people, final_performance, np.random.default_rng(0))
    joint = [made_up("ann"), made_up("bob")]
    for one in joint:
        one.values[:, :, :-1] = np.nan
    assert np.isfinite(
        cluster_bootstrap(joint, final_performance, np.random.default_rng(0), resamples=9).resampled
    ).all()
    with pytest.raises(MissingCellsError, match="identity ann, a"):
        cluster_bootstrap(joint, SCORE_PAIRS["aip"][0], np.random.default_rng(0))
    with pytest.raises(ValueError, match="ann, a.*finite"):
        cluster_bootstrap(people, lambda r: np.full(r.shape[:-2], np.nan), np.random.default_rng(0))


def test_what_cannot_be_resampled_is_refused():
    ann, rng = made_up("ann"), np.random.default_rng(0)
    for people, match in (
        ([], "at least 2"),
        ([ann], "at least 2"),
        ([ann, made_up("ann")], "twice"),
        ([ann, made_up("bob", labels=("a", "c"))], "labels of bob"),
    ):
        with pytest.raises(ValueError, match=match):
            cluster_bootstrap(people, final_performance, rng)
    with pytest.raises(ValueError, match="resample"):
        cluster_bootstrap([ann, made_up("bob")], final_performance, rng, resamples=0)
    found = cluster_bootstrap([ann, made_up("bob")], final_performance, rng, resamples=5)
    with pytest.raises(ValueError, match="no label 'z'"):
        found.interval("z")
    with pytest.raises(ValueError, match="confidence"):
        found.interval("a", confidence=0)
    for values, counts in (
        (np.zeros((2, 1, 3, 2, 4)), [1, 1, 1]),
        (np.zeros((1, 1, 2, 2, 4)), [1, 1]),
        (np.zeros((2, 2, 2, 4)), [1, 1]),
        (np.zeros((2, 1, 2, 2, 4)), [1, 5]),
        (np.zeros((2, 1, 2, 2, 4)), [0, 4]),
        (np.zeros((2, 1, 2, 2, 4)), [4]),
    ):
        with pytest.raises(ValueError, match="eve"):
            IdentityImages(identity="eve", labels=("a", "b"), values=values, counts=np.array(counts))
