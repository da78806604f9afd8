"""Intervals and paired comparisons against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from clstudy.analysis.comparisons import compare, paired_difference
from clstudy.analysis.intervals import identity_interval, t_interval
from clstudy.analysis.matrix import Cell

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
    return Cell("reconstruction", metric, score, 0.001, strategy, buffer_size)


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
