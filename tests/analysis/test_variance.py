"""The variance budget: known components come back, an analysis of variance by hand agrees, and a study says its own."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from clstudy.analysis.pages.variance import variance_sections
from clstudy.analysis.report_data import gather
from clstudy.analysis.scores import SCORES
from clstudy.analysis.summary import summarise
from clstudy.analysis.variance import (
    NO_PHOTOS,
    ONE_PERSON,
    ONE_PHOTO,
    ONE_SEED,
    photo_variance,
    score_gradient,
    spread_factors,
    variance_budget,
    variance_table,
)
from tests.analysis.test_report import Study
from tests.support.pages import shown

PANEL = ("reconstruction", "lpips")


def simulated(rng, people, seeds, photos, *, timestamps, n, r, m):
    """Differences of n people under r seeds, measured on m photos per timestamp: budget of one made-up study.

    ``people``, ``seeds``, ``photos``: standard deviations of a person's true difference, of what a seed adds to it,
    and of a single photo's contribution.
    """
    person = rng.normal(0.3, people, size=n)
    seed = rng.normal(0, seeds, size=(n, r))
    photo = rng.normal(0, photos, size=(n, 1, timestamps, m))
    z = (person[:, None] + seed)[..., None, None] / timestamps + photo
    differences = z.mean(axis=-1).sum(axis=-1)
    variances = [photo_variance([z[i, :, k] for k in range(timestamps)]) for i in range(n)]
    return variance_budget(differences.tolist(), variances)


def test_known_components_come_back():
    """Moments are unbiased: averaged over many studies of many people, the parts are those that were put in."""
    rng = np.random.default_rng(0)
    people, seeds, photos, timestamps, r, m = 0.5, 0.4, 0.3, 3, 3, 4
    found = [simulated(rng, people, seeds, photos, timestamps=timestamps, n=1500, r=r, m=m) for _ in range(3)]
    expected = (people**2, seeds**2 / r, timestamps * photos**2 / m)
    for name, value in zip(("people", "seeds", "photos"), expected, strict=True):
        assert np.mean([getattr(budget, name) for budget in found]) == pytest.approx(value, rel=0.05), name
    assert np.mean([budget.total for budget in found]) == pytest.approx(sum(expected), rel=0.05)


def test_what_photos_and_seeds_do_together_belongs_to_the_seeds():
    rng = np.random.default_rng(1)
    n, r, m, single, joint = 400, 2, 4, 0.3, 0.6
    z = rng.normal(0, single, size=(n, 1, m)) + rng.normal(0, joint, size=(n, r, m))
    photos = np.mean([photo_variance([one]) for one in z])
    assert photos == pytest.approx(single**2 / m, abs=0.004), "without the correction it would be 3 times as much"
    budget = variance_budget(z.mean(axis=-1).tolist(), [photo_variance([one]) for one in z])
    assert budget.seeds == pytest.approx(joint**2 / m / r, rel=0.12)


def test_the_prediction_is_what_a_larger_study_has():
    """Expected squared half-widths of studies with one more person, one more seed, twice the photos."""
    rng = np.random.default_rng(2)

    def squared(name, parts, n, r=2, m=2):
        studies = [simulated(rng, *parts, timestamps=2, n=n, r=r, m=m) for _ in range(1200 // n)]
        return np.mean([getattr(study, name) ** 2 for study in studies])

    for name, now, change, parts, least in (  # the part that shrinks is the large one: a wrong prediction would show
        ("with_person", {"n": 6}, {"n": 7}, (0.9, 0.1, 0.1), 0.15),
        ("with_seed", {"n": 60}, {"n": 60, "r": 3}, (0.1, 0.9, 0.1), 0.2),
        ("with_photos", {"n": 60}, {"n": 60, "m": 4}, (0.1, 0.1, 0.9), 0.35),
    ):
        predicted = squared(name, parts, **now)
        assert predicted == pytest.approx(squared("half_width", parts, **change), rel=0.15), name
        assert predicted < (1 - least) * squared("half_width", parts, **now), name


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 6), st.integers(2, 5), st.integers(0, 10_000))
def test_it_is_the_nested_analysis_of_variance(n, r, seed):
    """Balanced data: mean squares by loops, set equal to their expectations."""
    d = np.random.default_rng(seed).normal(size=(n, r)) + np.random.default_rng(seed + 1).normal(size=(n, 1))
    grand, between, within = d.mean(), 0.0, 0.0
    for row in d:
        between += r * (row.mean() - grand) ** 2
        for value in row:
            within += (value - row.mean()) ** 2
    between, within = between / (n - 1), within / (n * (r - 1))
    assert np.isclose(between / within, stats.f_oneway(*d).statistic), "the mean squares are scipy's"
    budget = variance_budget(d.tolist(), [0.0] * n)
    assert budget.total == pytest.approx(between / r)
    if between >= within:
        assert budget.seeds == pytest.approx(within / r)
        assert budget.people == pytest.approx((between - within) / r)
    else:
        assert budget.people == pytest.approx(0, abs=1e-12) and budget.seeds == pytest.approx(budget.total)
    assert budget.half_width == pytest.approx(stats.t.ppf(0.975, n - 1) * math.sqrt(between / r / n))


GROUPS = st.lists(st.lists(st.floats(-5, 5).map(lambda x: round(x, 4)), min_size=1, max_size=4), min_size=1, max_size=6)


@settings(deadline=None, max_examples=50)
@given(GROUPS, st.floats(0, 2))
def test_parts_are_never_negative_and_add_up(groups, photos):
    budget = variance_budget(groups, [photos] * len(groups))
    parts = [budget.people, budget.seeds, budget.photos]
    assert all(math.isnan(part) or part >= 0 for part in parts)
    if len(groups) == 1:
        assert math.isnan(budget.half_width) and math.isnan(budget.total)
        return
    assert np.nansum(parts) <= budget.total * (1 + 1e-9) + 1e-12
    if any(len(group) > 1 for group in groups):
        assert sum(parts) == pytest.approx(budget.total)
    else:
        assert math.isnan(budget.people) and math.isnan(budget.seeds) and math.isnan(budget.with_seed)
    for more in (budget.with_person, budget.with_seed, budget.with_photos):
        assert math.isnan(more) or more <= budget.half_width * (1 + 1e-9)


def test_what_cannot_be_is_refused():
    for groups, photos in (([], []), ([[1.0]], []), ([[]], [0.0]), ([[math.nan]], [0.0])):
        with pytest.raises(ValueError, match="expected"):
            variance_budget(groups, photos)
    low, high = spread_factors(5)
    assert (low, high) == pytest.approx((0.599, 2.874), abs=1e-3), "chi-square with 4 degrees of freedom"


@pytest.mark.parametrize("score", ["aip", "forgetting", "bwt", "final"])
@pytest.mark.parametrize("higher", [True, False])
def test_the_gradient_is_what_moving_one_cell_does(score, higher):
    size = 4
    r = np.random.default_rng(3).uniform(size=(size, size))
    gradient = score_gradient(r, lambda moved: SCORES[score].compute(moved, higher))
    for t, k in np.ndindex(size, size):
        moved = r.copy()
        moved[t, k] += 1e-4
        step = (SCORES[score].compute(moved, higher) - SCORES[score].compute(r, higher)) / 1e-4
        assert gradient[t, k] == pytest.approx(step if k <= t else 0.0, abs=1e-8)


# --- a study ---------------------------------------------------------------------------------------------------------


def by_hand(study, score, strategy, baseline, seeds=(0, 1)):
    """Differences [n, seeds] and photo variances [n], by loops over the stored rows."""
    size, differences, variances = study.size, [], []
    for identity in sorted({spec["identity"] for spec in study.trials}):
        terms, own = [], []
        for seed in seeds:
            arms = []
            for arm in (strategy, baseline):
                wanted = (identity, seed, *arm)
                fields = ("identity", "seed", "strategy", "buffer_size")
                spec = next(spec for spec in study.trials if tuple(spec[name] for name in fields) == wanted)
                x = np.full((size, size, 2), np.nan)
                for row in pq.read_table(study.results(spec["trial"])).to_pylist():
                    if (row["protocol"], row["metric"]) == PANEL:
                        x[row["train_timestamp"], row["test_timestamp"], int(row["image"][-1])] = row["value"]
                r = x.mean(axis=-1)
                z = np.zeros((size, 2))
                if score == "aip":
                    value = np.mean([r[t, : t + 1].mean() for t in range(size)])
                    for t, k in np.ndindex(size, size):
                        if k <= t:
                            z[k] += x[t, k] / (size * (t + 1))
                else:
                    value = 0.0
                    for k in range(size - 1):  # LPIPS: the best is the smallest
                        best = min(range(k, size - 1), key=lambda t, k=k: r[t, k])
                        value += (r[size - 1, k] - r[best, k]) / (size - 1)
                        z[k] = (x[size - 1, k] - x[best, k]) / (size - 1)
                arms.append((value, z))
            own.append(arms[0][0] - arms[1][0])
            terms.append(arms[0][1] - arms[1][1])
        z = np.array(terms)  # [seeds, k, 2]
        total = 0.0
        for k in range(size):
            variance = np.var(z[:, k].mean(axis=0), ddof=1)
            if len(seeds) > 1:  # two by two: what is left of one photo's difference between seeds
                half = (z[0, k, 0] - z[0, k, 1] - z[1, k, 0] + z[1, k, 1]) / 2
                variance -= half**2 / 2
            total += variance / 2
        differences.append(own)
        variances.append(total)
    return np.array(differences), variances


@pytest.mark.parametrize("seeds", [(0, 1), (0,)])
def test_a_studys_budget_is_what_loops_over_its_rows_find(tmp_path, seeds):
    study = Study(tmp_path / "study", identities=("ann", "bob", "cat", "dan"), seeds=seeds)
    summary = summarise(study.folder)
    table = variance_table(summary)
    rows = table.to_pylist()
    assert len(rows) == 2 * 6, "AIP and Forgetting of 4 replay cells to lower and 2 to er_rand, of one metric"
    for row in rows:
        arms = [(name, None if name == "lower" else row["buffer_size"]) for name in (row["strategy"], row["baseline"])]
        d, variances = by_hand(study, row["score"], *arms, seeds=seeds)
        assert row["variance"] == pytest.approx(np.var(d.mean(axis=1), ddof=1))
        assert (row["n_identities"], row["n_seeds"], row["n_photos"]) == (4, len(seeds), 2)
        photos = max(np.mean(variances), 0)
        within = np.mean(np.var(d, axis=1, ddof=1)) / 2 if len(seeds) == 2 else 0.0
        scale = min(1.0, row["variance"] / (photos + within))
        assert row["photos"] == pytest.approx(photos * scale, abs=1e-9)
        half = stats.t.ppf(0.975, 3) * math.sqrt(row["variance"] / 4)
        assert row["half_width"] == pytest.approx(half)
        assert row["half_width_photos"] == pytest.approx(half * math.sqrt(1 - row["photos"] / row["variance"] / 2))
        if len(seeds) == 1:
            assert (row["people"], row["seeds"], row["half_width_seed"], row["note"]) == (None, None, None, ONE_SEED)
        else:
            assert row["seeds"] == pytest.approx(within * scale) and row["note"] == ""
            assert row["people"] == pytest.approx(row["variance"] - row["seeds"] - row["photos"], abs=1e-12)
    (section,) = variance_sections(gather(summary), table)
    assert ("One seed: people and seeds cannot be told apart." in shown(section)) == (len(seeds) == 1)
    assert "% with seeds" in shown(section) if len(seeds) == 1 else "with seeds" not in shown(section)
    assert "a spread is known to within a factor of 0.6 to 3.7" in shown(section)


def rewrite(study, change):
    """Change the rows of every trial."""
    for path in (study.folder / "results").glob("*.parquet"):
        rows = pq.read_table(path)
        pq.write_table(pa.Table.from_pylist(change(rows.to_pylist()), schema=rows.schema), path)


def notes_of(study):
    return {row["note"] for row in variance_table(summarise(study.folder)).to_pylist()}


def test_what_cannot_be_told_apart_is_said(tmp_path):
    one_photo = Study(tmp_path / "photo")
    rewrite(one_photo, lambda rows: [row for row in rows if row["image"].endswith("-0")])
    assert notes_of(one_photo) == {ONE_PHOTO}
    generated = Study(tmp_path / "generated")
    rewrite(generated, lambda rows: [row for row in rows if row["protocol"] == "synthesis"])
    assert notes_of(generated) == {NO_PHOTOS}
    alone = Study(tmp_path / "alone", identities=("ann",), seeds=(0,))
    assert notes_of(alone) == {f"{ONE_PERSON}; {ONE_SEED}"}
    hole = Study(tmp_path / "hole", skip=("ann-er_hull-k3-lr0.001-s0", "bob-lower-lr0.001-s1"))
    assert notes_of(hole) == {""} and variance_table(summarise(hole.folder)).num_rows == 12
    empty = Study(tmp_path / "empty", identities=("ann",), seeds=(0,), skip=[spec["trial"] for spec in alone.trials])
    assert variance_table(summarise(empty.folder)).num_rows == 0


def test_cells_with_a_learning_rate_of_their_own_have_a_budget_too(tmp_path):
    study = Study(tmp_path / "study")
    plain = variance_table(summarise(study.folder)).drop_columns(["learning_rate"])
    path = study.folder / "study.yaml"
    chosen = [{"strategy": name, "buffer_size": 3, "learning_rate": 0.001} for name in ("er_hull", "er_rand")]
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"chosen_rates": chosen}))
    table = variance_table(summarise(study.folder))
    assert set(table["learning_rate"].to_pylist()) == {None}
    assert table.drop_columns(["learning_rate"]).equals(plain)
