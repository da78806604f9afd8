"""Effect sizes, tests, probabilities and study sizes against brute force, integration, simulation and statsmodels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from clstudy.analysis.comparisons import compare, compare_all, compare_sizes, families, weigh
from clstudy.analysis.image_values import identity_images
from clstudy.analysis.matrix import ScoreCell, result_matrices, score_values
from clstudy.analysis.scores import SCORES, MissingCellsError
from clstudy.analysis.statistics.intervals import cluster_bootstrap, t_interval
from clstudy.analysis.statistics.paired import effect_size, holm, probability_of_improvement, sign_flip
from clstudy.analysis.statistics.sample_size import (
    cautious_sd,
    identities_for_difference,
    identities_for_half_width,
    minimum_detectable_difference,
    power_of,
    size_next_study,
)
from clstudy.errors import UserError
from clstudy.records.rows import RESULT_SCHEMA

# --- sign flips ---------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.integers(-6, 6), min_size=2, max_size=9))
def test_sign_flip_equals_all_patterns_in_whole_numbers(tenths):
    found = sign_flip([i / 10 for i in tenths])  # tenths: many ties, which floats do not see
    sums = [abs(sum(s * i for s, i in zip(signs, tenths, strict=True))) for signs in
            itertools.product((1, -1), repeat=len(tenths))]  # fmt: skip
    assert found.p == sum(total >= abs(sum(tenths)) for total in sums) / 2 ** len(tenths)
    assert found.exact and found.patterns == 2 ** len(tenths) and found.p >= found.smallest


def test_sign_flip_equals_scipys_permutation_test_and_cannot_go_below_its_floor():
    values = [0.31, -0.12, 0.5, 0.44, 0.27, 0.09, -0.03]
    theirs = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(values).p == pytest.approx(theirs.pvalue, abs=1e-15)
    assert sign_flip([0.2, 0.5, 0.1, 0.4, 0.3]).p == sign_flip([-1] * 5).smallest == 0.0625
    assert sign_flip([0.0] * 4).p == 1.0
    assert sign_flip(np.arange(1, 21) / 10).p == 2 / 2**20


def test_many_differences_are_drawn_with_the_plus_one_rule():
    values = np.random.default_rng(4).integers(-9, 14, size=24)
    ways = {0: 1}  # exact: how many sign patterns give each sum
    for value in values.tolist():
        ways = {
            total: ways.get(total - value, 0) + ways.get(total + value, 0)
            for total in {s + sign * value for s in ways for sign in (1, -1)}
        }
    # A difference of 0 maps both signs to one sum: the dictionary counts it twice, as it should.
    exact = sum(count for total, count in ways.items() if abs(total) >= abs(values.sum())) / 2**24
    assert 0.005 < exact < 0.5
    found = sign_flip(values, np.random.default_rng(0))
    assert found.p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / found.patterns))
    assert not found.exact and found == sign_flip(values, np.random.default_rng(0))
    all_one_way = sign_flip(np.ones(40), np.random.default_rng(0), draws=999)
    assert all_one_way.p == all_one_way.smallest == 1 / 1000
    with pytest.raises(ValueError, match="seeded"):
        sign_flip(values)
    for bad in ([0.1], [], [0.1, math.nan], [[1.0, 2.0]]):
        with pytest.raises(ValueError):
            sign_flip(bad)


# --- Holm ---------------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04; the last may not fall below 0.06.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
    assert holm([]).shape == (0,)
    for bad in ([0.1, math.nan], [1.1], [-0.1], [[0.1]]):
        with pytest.raises(ValueError, match="p-values"):
            holm(bad)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_closed_testing_with_bonferroni(p_values):
    """A hypothesis falls if every set of hypotheses that has it in it falls to Bonferroni (Marcus et al. 1976)."""
    m = len(p_values)
    sets = [s for size in range(1, m + 1) for s in itertools.combinations(range(m), size)]
    closed = [max(min(1.0, len(s) * min(p_values[i] for i in s)) for s in sets if j in s) for j in range(m)]
    np.testing.assert_allclose(holm(p_values), closed, rtol=1e-12)


# --- effect size --------------------------------------------------------------------------------------------------


def probability_below(t, df, shift):
    """P((Z + shift) / U <= t), U = chi / sqrt(df), by integrating over U."""
    density = lambda u: stats.norm.cdf(t * u - shift) * stats.chi.pdf(u * math.sqrt(df), df) * math.sqrt(df)  # noqa: E731
    return integrate.quad(density, 0, 20, limit=400, points=[0.2, 0.6, 1, 1.5, 2, 4])[0]


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
@pytest.mark.parametrize("shift", [0.0, -0.7, 4.0])
def test_effect_size_limits_are_where_the_noncentral_t_has_its_tails(n, shift):
    values = np.random.default_rng(n).standard_normal(n) + shift
    found = effect_size(values, 0.9)
    assert found.d == pytest.approx(values.mean() / values.std(ddof=1))
    t = found.d * math.sqrt(n)
    for limit, tail in ((found.low, 0.95), (found.high, 0.05)):
        assert probability_below(t, n - 1, limit * math.sqrt(n)) == pytest.approx(tail, abs=1e-6)
    mirrored = effect_size(-values, 0.9)
    np.testing.assert_allclose(
        [mirrored.d, mirrored.low, mirrored.high], [-found.d, -found.high, -found.low], atol=1e-8
    )


@pytest.mark.parametrize("n", [3, 5, 12])
def test_hedges_correction_makes_d_unbiased(n):
    found = effect_size(np.arange(n) + 1.0)
    mean_d = stats.nct.mean(n - 1, 0.8 * math.sqrt(n)) / math.sqrt(n) if n > 2 else None
    assert found.g / found.d * mean_d == pytest.approx(0.8)


def test_effect_sizes_that_are_not_there_are_nan():
    for values in ([0.3], [0.2, 0.2, 0.2]):
        found = effect_size(values)
        assert all(math.isnan(number) for number in (found.d, found.g, found.low, found.high))
    two = effect_size([0.1, 0.4])
    assert math.isnan(two.g) and two.low < two.d < two.high
    nearly_equal = effect_size([1, 1 + 1e-9, 1 - 1e-9])
    assert 0 < nearly_equal.low < nearly_equal.d < nearly_equal.high < math.inf
    with pytest.raises(ValueError):
        effect_size([])
    with pytest.raises(ValueError, match="confidence"):
        effect_size([1.0, 2.0], 95)


# --- probability of improvement -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(2, 30), st.data())
def test_probability_of_improvement_equals_scipys_exact_binomial_interval(n, data):
    wins = data.draw(st.integers(0, n))
    values = [-1.5] * wins + [0.25] * (n - wins)
    found = probability_of_improvement(values, negative_is_better=True, confidence=0.9)
    theirs = stats.binomtest(wins, n).proportion_ci(0.9, method="exact")
    np.testing.assert_allclose([found.low, found.high], [theirs.low, theirs.high], atol=1e-9)
    assert found.mean == wins / n and found.population == "new identities"
    turned = probability_of_improvement(values, negative_is_better=False, confidence=0.9)
    np.testing.assert_allclose([turned.mean, turned.low, turned.high], [1 - found.mean, 1 - found.high, 1 - found.low])


def test_ties_count_half_and_one_identity_has_no_interval():
    tied = probability_of_improvement([0.0, 0.0, 1.0, 2.0], negative_is_better=False)
    assert tied.mean == 0.75
    fewer, more = (probability_of_improvement(v, negative_is_better=False) for v in ([-1, -1, 1, 2], [1, 1, 1, 2]))
    assert fewer.low < tied.low < more.low and fewer.high < tied.high <= more.high
    one = probability_of_improvement([0.3], negative_is_better=True)
    assert one.mean == 0.0 and math.isnan(one.low) and "this identity" in one.population


# --- power and study size -----------------------------------------------------------------------------------------


def test_power_equals_statsmodels():
    """``statsmodels.stats.power.TTestPower`` 0.15: ``power`` and ``solve_power`` of the two-sided test at 0.05."""
    for difference, n, power in (
        (0.5, 5, 0.140516689990298),
        (1.0, 5, 0.4013899173717948),
        (2.0, 5, 0.9088848681009402),
        (0.5, 25, 0.6697077041795115),
        (0.3, 100, 0.8439471027374158),
        (1.2, 10, 0.9203333855897898),
    ):
        assert power_of(3 * difference, 3.0, n) == pytest.approx(power, abs=1e-9)
        assert power_of(-difference, 1.0, n) == pytest.approx(power, abs=1e-9)
    for n, difference in ((2, 11.549889754978167), (5, 1.6819970833232674), (25, 0.5840261396263716)):
        assert minimum_detectable_difference(2.0, n) == pytest.approx(2 * difference, rel=1e-5)
    for difference, n in ((0.2, 198.150820955562), (0.5, 33.36713118431779), (1.0, 9.93785), (2.0, 4.22071858501904)):
        assert identities_for_difference(difference, 1.0) == math.ceil(n)


def test_power_equals_simulated_t_tests():
    rng, n, difference, sd = np.random.default_rng(1), 5, 0.02, 0.012
    samples = difference + sd * rng.standard_normal((20_000, n))
    found = (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()
    assert power_of(difference, sd, n) == pytest.approx(found, abs=0.01)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.floats(1e-4, 1e3), st.floats(0.2, 0.97))
def test_the_detectable_difference_is_found_with_just_that_power(n, sd, power):
    difference = minimum_detectable_difference(sd, n, power=power)
    assert power_of(difference, sd, n) == pytest.approx(power, abs=1e-8)
    assert power_of(difference * 1.01, sd, n) > power > power_of(difference * 0.99, sd, n)


def test_power_never_falls_with_the_difference_however_large():
    for n in (2, 5, 25, 1000):
        powers = [power_of(difference, 1.0, n) for difference in np.geomspace(1e-4, 1e6, 300)]
        assert powers[0] == pytest.approx(0.05, abs=1e-4) and powers[-1] == pytest.approx(1.0, abs=1e-4)
        assert (np.diff(powers) >= -1e-12).all()


@settings(max_examples=30, deadline=None)
@given(st.floats(0.15, 3.0))
def test_the_fewest_identities_are_enough_and_one_less_is_not(wish):
    n = identities_for_difference(wish, 1.0)
    assert power_of(wish, 1.0, n) >= 0.8
    assert n == 2 or power_of(wish, 1.0, n - 1) < 0.8
    n = identities_for_half_width(wish, 1.0)
    widths = [stats.t.ppf(0.975, m - 1) / math.sqrt(m) for m in range(2, n + 1)]
    assert [width <= wish for width in widths] == [False] * (n - 2) + [True]


def test_the_cautious_spread_is_rarely_too_small():
    spreads = np.random.default_rng(3).standard_normal((4_000, 5)).std(axis=1, ddof=1)
    covered = np.mean([cautious_sd(spread, 5) >= 1.0 for spread in spreads.tolist()])
    assert covered == pytest.approx(0.8, abs=0.02)


def test_the_next_study_is_sized_from_this_one():
    differences = [0.01, 0.03, 0.02, -0.01, 0.04]
    plan = size_next_study(differences, difference=0.01, half_width=0.005)
    sd = float(np.std(differences, ddof=1))
    assert plan.n == 5 and plan.sd == pytest.approx(sd) and plan.sd_cautious > 1.2 * sd
    assert plan.detectable == pytest.approx(1.6819970833 * sd, rel=1e-5)
    assert plan.for_difference[0] == identities_for_difference(0.01, sd) < plan.for_difference[1]
    assert plan.for_half_width[0] == identities_for_half_width(0.005, sd) < plan.for_half_width[1]
    unasked = size_next_study(differences)
    assert unasked.for_difference is None and unasked.for_half_width is None
    for bad in (
        lambda: size_next_study([0.1]),
        lambda: size_next_study([0.1, 0.1]),
        lambda: size_next_study(differences, difference=0.0),
        lambda: size_next_study(differences, half_width=-1.0),
        lambda: size_next_study(differences, difference=1e-7),
        lambda: minimum_detectable_difference(1.0, 1),
        lambda: minimum_detectable_difference(1.0, 5, power=0.01),
        lambda: power_of(math.nan, 1.0, 5),
        lambda: power_of(1.0, math.nan, 5),
        lambda: power_of(1.0, 1.0, 5, alpha=5),
    ):
        with pytest.raises(ValueError):
            bad()


# --- who meets whom, families -------------------------------------------------------------------------------------


def cell(strategy, buffer_size, score="forgetting", metric="lpips", rate=0.001):
    return ScoreCell("reconstruction", metric, score, rate, strategy, buffer_size)


def people(*values):
    return {f"p{i}": {0: value} for i, value in enumerate(values)}


def test_a_spread_that_is_rounding_is_no_spread():
    theirs = [0.1, 0.3, 0.7, 0.2]
    mine = [value - 0.05 for value in theirs]  # equal differences, but for their last bits: g was -2e15
    assert len({a - b for a, b in zip(mine, theirs, strict=True)}) > 1
    values = {cell("er_hull", 3): people(*mine), cell("lower", None): people(*theirs)}
    (one,) = compare(values)
    (found,) = weigh([one]).members
    assert np.isnan([found.effect.d, found.effect.g, found.effect.low, found.effect.high]).all()
    assert one.verdict == "better" and one.scale == 0.7
    with pytest.raises(ValueError, match="positive standard deviation"):
        size_next_study(one.differences, scale=one.scale)
    # a difference of 1e-16 between scores of 0.7 is as much rounding as a spread of 1e-16
    values[cell("er_hull", 3)] = people(*(value + 1e-16 * (1 + value) for value in theirs))
    (one,) = compare(values)
    assert one.verdict == "interval includes 0"
    # small differences of small scores are differences
    values = {cell("er_hull", 3): people(1e-12, 2e-12, 4e-12), cell("lower", None): people(3e-12, 5e-12, 6e-12)}
    (one,) = compare(values)
    assert effect_size(one.differences, scale=one.scale).d == pytest.approx(effect_size(one.differences).d)
    assert np.isfinite(effect_size(one.differences, scale=one.scale).d)


def test_every_two_strategies_meet_once_at_each_size():
    cells = [("lower", None), ("er_rand", 3), ("er_rand", 5), ("er_hull", 3), ("kmeans", 7)]
    values = {cell(*which): people(0.1, 0.2, 0.4) for which in cells}
    met = [(c.cell.strategy, c.baseline, c.cell.buffer_size) for c in compare_all(values)]
    assert sorted(met) == [
        ("er_hull", "er_rand", 3),
        ("er_hull", "lower", 3),
        ("er_rand", "lower", 3),
        ("er_rand", "lower", 5),
        ("kmeans", "lower", 7),
    ]
    assert compare_all({cell("a", 3): people(1, 2), cell("b", 3, rate=0.1): people(1, 2)}) == []
    assert compare_all({cell("a", 3, "bwt"): people(1, 2), cell("b", 3, "bwt"): people(1, 2)}) == []


def test_one_strategy_between_its_sizes_is_the_larger_minus_the_smaller():
    values = {
        cell("er_rand", 3): people(0.5, 0.6, 0.9),
        cell("er_rand", 10): people(0.2, 0.1, 0.5),
        cell("er_rand", 5): people(0.4, 0.4, 0.4),
        cell("lower", None): people(1.0, 1.0, 1.0),
        cell("er_hull", 5): people(0.1, 0.1, 0.1),
    }
    found = {(c.cell.buffer_size, c.baseline_size): c for c in compare_sizes(values)}
    assert set(found) == {(10, 3), (10, 5), (5, 3)}
    assert all((c.cell.strategy, c.baseline) == ("er_rand", "er_rand") for c in found.values())
    assert found[10, 3].difference == t_interval([0.2 - 0.5, 0.1 - 0.6, 0.5 - 0.9])
    assert found[10, 3].verdict == "better" and found[10, 3].negative_is_better


def test_comparisons_carry_their_differences_in_the_order_of_identities():
    ours = {"bob": {0: 2.0, 1: 3.0}, "ann": {0: 1.0}, "eve": {0: 9.0}}
    theirs = {"ann": {0: 0.25}, "bob": {0: 1.0, 1: 1.0}, "dan": {0: 3.0}}
    (found,) = compare({cell("er_hull", 3): ours, cell("er_rand", 3): theirs}, ["er_rand"])
    assert found.identities == ("ann", "bob") and found.differences == (0.75, 1.5) and found.n_seeds == 1
    assert found.difference == t_interval(found.differences) and found.baseline_size == 3


def evidence_of(n, m):
    rng = np.random.default_rng(0)
    values = {cell("er_rand", 3): people(*rng.uniform(size=n))}
    values |= {cell(f"s{i}", 3): people(*rng.uniform(size=n) - i) for i in range(m)}
    return weigh(compare(values))


def test_a_family_says_where_it_cannot_reach_significance():
    five = evidence_of(5, 3)
    assert len(five.members) == 3 and not five.can_reach and five.smallest == pytest.approx(3 * 0.0625)
    assert "cannot go below p = 0.0625" in five.statement and "that takes 7 identities" in five.statement
    assert [member.p_holm for member in five.members] == pytest.approx(holm([m.test.p for m in five.members]).tolist())
    seven = evidence_of(7, 3)
    assert seven.can_reach and seven.smallest == pytest.approx(3 * 2 / 2**7) and "Holm" in seven.statement
    assert not evidence_of(6, 3).can_reach
    best = seven.members[-1]
    assert best.improvement.mean == 1.0 and best.effect.d < -1 and best.p_holm <= 0.05
    assert best.improvement.low > 0.5
    one = evidence_of(1, 2)
    assert not one.can_reach and "no test" in one.statement
    assert all(member.test is None and math.isnan(member.p_holm) for member in one.members)
    assert weigh([]).members == ()


def test_families_are_the_blocks_of_a_table():
    values = {
        cell(strategy, 3, score, rate=rate): people(1, 2)
        for strategy in ("er_rand", "er_hull", "lower")
        for score in ("aip", "forgetting")
        for rate in (0.1, 0.2)
    }
    found = families(compare(values))
    assert {key[2:] for key in found} == {(s, r) for s in ("aip", "forgetting") for r in (0.1, 0.2)}
    assert all(len(family) == 3 for family in found.values())


# --- from rows to the cluster bootstrap ---------------------------------------------------------------------------


def trial_rows(identity, strategy, buffer_size, *, seed=0, size=3, photos=(2, 3, 1), metric="lpips"):
    rng = np.random.default_rng([seed, *f"{identity}{strategy}{buffer_size}{metric}".encode()])
    return [
        {
            "trial": f"{identity}-{strategy}-{buffer_size}-s{seed}",
            "identity": identity,
            "strategy": strategy,
            "buffer_size": buffer_size,
            "learning_rate": 0.001,
            "seed": seed,
            "train_timestamp": t,
            "test_timestamp": k,
            "protocol": "reconstruction",
            "metric": metric,
            "image": f"{'zyx'[i]}{k}",
            "value": float(rng.uniform()),
        }
        for t in range(size)
        if strategy != "upper" or t == size - 1
        for k in range(t + 1)
        for i in range(photos[k])
    ]


STUDY = [
    row
    for identity in ("ann", "bob", "cat")
    for seed in (0, 1)
    for strategy, buffer_size in (("er_rand", 3), ("er_hull", 3), ("lower", None), ("upper", None))
    for metric in ("lpips", "id")
    for row in trial_rows(identity, strategy, buffer_size, seed=seed, metric=metric)
    if (identity, strategy, seed) != ("bob", "lower", 1)  # a trial that is missing
]


def rows_table(rows):
    order = np.random.default_rng(0).permutation(len(rows))
    return pa.Table.from_pylist([rows[i] for i in order], schema=RESULT_SCHEMA)


@pytest.mark.parametrize("score", ["aip", "forgetting", "final"])
def test_rows_become_images_whose_scores_are_the_tables(score):
    rows = rows_table(STUDY)
    strategies = [("er_rand", 3), ("er_hull", 3), ("lower", None)] + [("upper", None)] * (score == "final")
    cells = [cell(*which, score=score) for which in strategies]
    images = identity_images(rows, cells)
    assert [(one.identity, one.values.shape[1], one.counts.tolist()) for one in images] == [
        ("ann", 2, [2, 3, 1]),
        ("bob", 1, [2, 3, 1]),
        ("cat", 2, [2, 3, 1]),
    ]
    found = cluster_bootstrap(images, lambda r: SCORES[score].compute(r, False), np.random.default_rng(0), resamples=20)
    values = score_values(result_matrices(rows))
    for place, one in enumerate(images):
        seeds = range(one.values.shape[1])
        expected = [np.mean([values[label][one.identity][seed] for seed in seeds]) for label in cells]
        np.testing.assert_allclose(found.observed[place], expected, rtol=1e-12)
    # The same photo in the same place, whatever the strategy, seed and t: names in order.
    by_key = {
        (r["strategy"], r["seed"], r["train_timestamp"], r["test_timestamp"], r["image"]): r["value"]
        for r in STUDY
        if (r["identity"], r["metric"]) == ("cat", "lpips")
    }
    for i, name in enumerate(("x1", "y1", "z1")):
        assert images[2].values[1, 1, 2, 1, i] == by_key["er_hull", 1, 2, 1, name]


def test_holes_are_errors_and_identities_without_a_trial_are_not_paired():
    rand, hull = cell("er_rand", 3), cell("er_hull", 3)
    hole = [
        row
        for row in STUDY
        if (row["identity"], row["strategy"], row["seed"], row["train_timestamp"], row["image"])
        != ("cat", "er_hull", 1, 2, "y1")
    ]
    images = identity_images(rows_table(hole), [rand, hull])
    with pytest.raises(MissingCellsError, match=r"identity cat.*er_hull.*R\[1, 2, 1\]"):
        cluster_bootstrap(images, lambda r: SCORES["aip"].compute(r, False), np.random.default_rng(0))
    short = identity_images(rows_table(STUDY), [rand, hull], timestamps=4)
    with pytest.raises(MissingCellsError, match="identity ann"):
        cluster_bootstrap(short, lambda r: SCORES["final"].compute(r, False), np.random.default_rng(0))
    without = rows_table([row for row in STUDY if (row["identity"], row["strategy"]) != ("ann", "er_hull")])
    assert [one.identity for one in identity_images(without, [rand, hull])] == ["bob", "cat"]
    assert [one.identity for one in identity_images(without, [rand])] == ["ann", "bob", "cat"]
    assert identity_images(without, [rand, cell("kmeans", 3)]) == []
    with pytest.raises(UserError, match="twice"):
        identity_images(rows_table(STUDY + STUDY[:1]), [rand])
    with pytest.raises(UserError, match="timestamp < 2"):
        identity_images(rows_table(STUDY), [rand], timestamps={"ann": 2})
    assert [one.identity for one in identity_images(rows_table(STUDY), [rand], trials={"cat-er_rand-3-s1"})] == ["cat"]
    at_another_rate = [row | {"trial": "other", "learning_rate": 0.01} for row in trial_rows("ann", "er_rand", 3)]
    any_rate, both = cell("er_rand", 3, rate=None), rows_table(STUDY + at_another_rate)
    (found,) = identity_images(both, [any_rate], trials={"other"})
    assert found.identity == "ann" and found.values.shape[1] == 1
    with pytest.raises(UserError, match="the same cell, identity and seed"):
        identity_images(both, [any_rate])
    for bad in ([], [rand, rand], [rand, cell("er_hull", 3, metric="id")]):
        with pytest.raises(ValueError):
            identity_images(rows_table(STUDY), bad)
