"""What differences are worth, from a study's own rows: the tables agree with numbers computed here the slow way."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from scipy import stats

from clstudy.analysis import report
from clstudy.analysis.evidence import EVIDENCE_SCHEMA, evidence_files, judge
from clstudy.analysis.pages.evidence import evidence_sections
from clstudy.analysis.report_data import gather
from clstudy.analysis.sensitivity import SENSITIVITY_SCHEMA
from clstudy.analysis.summary import summarise
from tests.analysis.test_report import Study
from tests.support.pages import shown

PANEL = ("reconstruction", "lpips")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(tmp_path_factory.mktemp("evidence") / "study", identities=("ann", "bob", "cat", "dan"))


@pytest.fixture(scope="module")
def found(study):
    return judge(summarise(study.folder))


def paired(study, score, strategy, size, baseline, baseline_size):
    """One difference per identity, by loops."""
    ours = study.per_identity(PANEL, score, strategy, size)
    theirs = study.per_identity(PANEL, score, baseline, baseline_size)
    return np.array([ours[name] - theirs[name] for name in sorted(ours)])


def rows_of(table, score, **wanted):
    wanted |= {"protocol": PANEL[0], "metric": PANEL[1], "score": score}
    return [row for row in table.to_pylist() if all(row[name] == value for name, value in wanted.items())]


def brute_force_p(values):
    patterns = np.array(list(itertools.product([1, -1], repeat=len(values))))
    means = np.abs((patterns * np.abs(values)).mean(axis=1))
    return np.mean(means >= abs(values.mean()) * (1 - 1e-12))


@pytest.mark.parametrize("score", ["aip", "forgetting"])
def test_every_comparison_is_what_a_loop_finds(study, found, score):
    rows = rows_of(found.evidence, score)
    assert len(rows) == 4 + 2 + 2, "4 replay cells against lower, 2 against er_rand, 2 strategies at two sizes"
    raw = []
    for row in rows:
        values = paired(study, score, row["strategy"], row["buffer_size"], row["baseline"], row["baseline_size"])
        n = len(values)
        assert row["mean"] == pytest.approx(values.mean(), rel=1e-9)
        interval = stats.ttest_1samp(values, 0).confidence_interval()
        np.testing.assert_allclose([row["low"], row["high"]], interval, rtol=1e-8)
        d = values.mean() / values.std(ddof=1)
        assert row["effect_size"] == pytest.approx(d * (1 - 3 / (4 * (n - 1) - 1)), rel=0.05), "Hedges' approximation"
        assert row["p_sign_flip"] == pytest.approx(brute_force_p(values))
        assert row["improvement"] == pytest.approx(np.mean(values < 0))
        assert (row["identities_needed"] is None) == (interval.low <= 0 <= interval.high)
        if row["identities_needed"] is not None:
            assert row["identities_needed"] <= row["identities_needed_cautious"]
        raw.append((row["compared"], row["p_sign_flip"], row["p_holm"]))
    for compared in ("strategies", "buffer sizes"):
        block = sorted((p, adjusted) for kind, p, adjusted in raw if kind == compared)
        expected = np.minimum(1, np.maximum.accumulate([p * (len(block) - i) for i, (p, _) in enumerate(block)]))
        np.testing.assert_allclose([adjusted for _, adjusted in block], expected)


def test_the_next_study_finds_the_difference_with_the_power_it_says(found):
    for row in rows_of(found.evidence, "aip")[:3]:
        n, sd = row["n_identities"], abs(row["mean"]) / abs(row["effect_size"])
        df, shift = n - 1, row["detectable"] / ((row["high"] - row["low"]) / 2 / stats.t.ppf(0.975, n - 1))
        limit = stats.t.ppf(0.975, df)
        power = stats.nct.sf(limit, df, shift) + stats.nct.cdf(-limit, df, shift)
        assert power == pytest.approx(0.8, abs=1e-3)
        assert sd > 0


def test_p_values_that_cannot_be_small_are_said_to_be_so(found):
    text = found.statements[(*PANEL, "aip", 0.001, "strategies")]
    assert "n = 4" in text and "none of them can reach 0.05" in text


def test_other_intervals_stand_beside_the_primary_one(study, found):
    rows = rows_of(found.sensitivity, "forgetting")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    assert methods == [
        "Student t (primary)",
        "sign flips, inverted",
        "cluster bootstrap, new identities",
        "cluster bootstrap, these identities",
    ]
    assert len(rows) == 6 * len(methods)
    for row in rows:
        values = paired(study, "forgetting", row["strategy"], row["buffer_size"], row["baseline"], row["baseline_size"])
        assert row["mean"] == pytest.approx(values.mean(), rel=1e-9)
        # of Forgetting's difference: its max makes resampled matrices forget more, on both sides alike
        assert row["low"] < row["high"]
        assert ("new" in row["population"]) != row["method"].endswith("these identities")
        assert (row["n_identities"], row["n_seeds"], row["left_out"]) == (4, 2, "")
        if row["method"] == "sign flips, inverted":
            assert (row["low"], row["high"]) == pytest.approx((values.min(), values.max()))
            assert row["confidence"] == 0.875 and "87.50%" in row["note"]
        else:
            assert row["confidence"] == 0.95


def sensitivity_of(summary, **wanted):
    return [
        row
        for row in judge(summary).sensitivity.to_pylist()
        if all(row[name] == value for name, value in wanted.items())
    ]


def section_of(summary):
    (section,) = evidence_sections(gather(summary), judge(summary))
    return shown(section)


def test_every_pair_rests_on_the_people_and_seeds_that_it_has(tmp_path):
    """Holes in one pair take nobody from another: all methods speak of the same people, and say how many."""
    skip = [f"{name}-er_hull-k3-lr0.001-s{seed}" for name in ("ann", "bob") for seed in (0, 1)]
    skip += ["cat-er_rand-k5-lr0.001-s0", "cat-er_rand-k5-lr0.001-s1", "dan-er_hull-k5-lr0.001-s1"]
    names = ("ann", "bob", "cat", "dan", "eve")
    study = Study(tmp_path / "study", identities=names, skip=skip)
    summary = summarise(study.folder)
    rows = sensitivity_of(summary)
    assert len(rows) == 2 * 6 * 4
    supports = set()
    for row in rows:
        ours = study.per_identity(PANEL, row["score"], row["strategy"], row["buffer_size"])
        theirs = study.per_identity(PANEL, row["score"], row["baseline"], row["baseline_size"])
        common = sorted(ours.keys() & theirs.keys())
        one_seed = (row["strategy"], row["buffer_size"]) == ("er_hull", 5)  # of dan, who has one seed there
        assert (row["n_identities"], row["n_seeds"]) == (len(common), 1 if one_seed else 2), row
        assert row["low"] < row["high"] and row["left_out"] == ""
        if not one_seed:
            mean = np.mean([ours[name] - theirs[name] for name in common])
            assert row["mean"] == pytest.approx(mean, rel=1e-9)
        supports.add((row["strategy"], row["buffer_size"], row["baseline"], row["n_identities"]))
    assert supports == {
        ("er_hull", 3, "lower", 3),
        ("er_hull", 3, "er_rand", 3),
        ("er_hull", 5, "lower", 5),
        ("er_hull", 5, "er_rand", 4),
        ("er_rand", 3, "lower", 5),
        ("er_rand", 5, "lower", 4),
    }
    assert 'scope="col">people</th><th scope="col">seeds</th>' in section_of(summary)


def test_a_whole_pair_has_the_interval_that_it_has_in_a_whole_study(tmp_path):
    """Equal people and seeds give equal resamples, whatever is missing elsewhere."""
    whole = Study(tmp_path / "whole", identities=("ann", "bob", "cat", "dan"))
    holed = Study(tmp_path / "holed", identities=("ann", "bob", "cat", "dan"))
    for name in ("ann-er_hull-k3-lr0.001-s0", "ann-er_hull-k3-lr0.001-s1"):
        holed.results(name).unlink()
    wanted = {"strategy": "er_rand", "buffer_size": 5}
    assert sensitivity_of(summarise(holed.folder), **wanted) == sensitivity_of(summarise(whole.folder), **wanted) != []


def test_an_incomplete_trial_is_left_out_and_named(tmp_path):
    study = Study(tmp_path / "study", identities=("ann", "bob", "cat"))
    half = "ann-er_hull-k3-lr0.001-s0"
    table = pq.read_table(study.results(half))
    pq.write_table(table.filter(pc.field("train_timestamp") < 2), study.results(half))
    summary = summarise(study.folder)
    for row in sensitivity_of(summary):
        concerned = (row["strategy"], row["buffer_size"]) == ("er_hull", 3)
        assert row["left_out"] == (half if concerned else ""), row
        assert row["n_seeds"] == (1 if concerned else 2) and row["n_identities"] == 3
        assert row["low"] < row["high"], row
    assert f"in none of these intervals: {half}." in section_of(summary)


def test_a_study_with_a_learning_rate_search_has_them_too(tmp_path):
    """Each cell at its own rate: cells have none, rows do."""
    study = Study(tmp_path / "study", identities=("ann", "bob", "cat"), rates=(0.001, 0.01))
    path = study.folder / "study.yaml"
    plan = yaml.safe_load(path.read_text())
    rates = {("er_hull", 3): 0.01, ("er_rand", 5): 0.01}
    at = lambda trial: rates.get((trial["strategy"], trial["buffer_size"]), 0.001)  # noqa: E731
    plan["trials"] = [trial for trial in plan["trials"] if trial["learning_rate"] == at(trial)]
    cells = {(trial["strategy"], trial["buffer_size"], trial["learning_rate"]) for trial in plan["trials"]}
    keys = ("strategy", "buffer_size", "learning_rate")
    plan["chosen_rates"] = [dict(zip(keys, cell, strict=True)) for cell in sorted(cells, key=str)]
    path.write_text(yaml.safe_dump(plan))
    rows = sensitivity_of(summarise(study.folder))
    assert len(rows) == 2 * 6 * 4
    for row in rows:
        mine = rates.get((row["strategy"], row["buffer_size"]), 0.001)
        theirs = rates.get((row["baseline"], row["baseline_size"]), 0.001)
        ours = study.per_identity(PANEL, row["score"], row["strategy"], row["buffer_size"], mine)
        base = study.per_identity(PANEL, row["score"], row["baseline"], row["baseline_size"], theirs)
        assert row["learning_rate"] is None and row["low"] < row["high"], row
        assert row["mean"] == pytest.approx(np.mean([ours[name] - base[name] for name in ours]), rel=1e-9)
        assert (row["n_identities"], row["n_seeds"]) == (3, 2)


def test_equal_studies_give_equal_bytes(study, found):
    again = judge(summarise(study.folder))
    assert evidence_files(again) == evidence_files(found)
    assert found.evidence.schema == EVIDENCE_SCHEMA and found.sensitivity.schema == SENSITIVITY_SCHEMA


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize("identities", [("ann",), ("ann", "bob")])
def test_small_studies_say_what_does_not_exist(tmp_path, identities):
    study = Study(tmp_path / "study", identities=identities, seeds=(0,))
    found = judge(summarise(study.folder))
    for row in rows_of(found.evidence, "aip"):
        assert (row["p_holm"] is None) == (len(identities) == 1)
    notes = {row["method"]: row["note"] for row in rows_of(found.sensitivity, "aip")}
    if len(identities) == 1:
        assert "at least 2" in notes["cluster bootstrap, new identities"]
    report.write_report(study.folder)
    page = (study.folder / "report" / "index.html").read_text()
    assert "AIP: what the differences are worth" in page


def test_a_next_study_is_sized_for_the_difference_of_interest_whatever_was_observed(study):
    wanted = {(*PANEL, "aip"): 0.05}
    rows = rows_of(judge(summarise(study.folder), wanted).evidence, "aip")
    assert any(row["low"] <= 0 <= row["high"] for row in rows)
    for row in rows:
        sd = (row["high"] - row["low"]) / 2 / stats.t.ppf(0.975, row["n_identities"] - 1) * np.sqrt(row["n_identities"])
        n = row["identities_needed"]
        for people, enough in ((n, True), (n - 1, False)):
            df, shift, limit = people - 1, 0.05 / sd * np.sqrt(people), stats.t.ppf(0.975, people - 1)
            assert (stats.nct.sf(limit, df, shift) + stats.nct.cdf(-limit, df, shift) >= 0.8) == enough
    others = rows_of(judge(summarise(study.folder), wanted).evidence, "forgetting")
    assert all(row["identities_needed"] is None for row in others if row["low"] <= 0 <= row["high"])


def test_a_study_with_a_hole_still_gets_its_tables(tmp_path):
    study = Study(tmp_path / "study", skip=("ann-er_hull-k3-lr0.001-s0",))
    found = judge(summarise(study.folder))
    assert {row["n_seeds"] for row in rows_of(found.evidence, "aip", strategy="er_hull", buffer_size=3)} == {1}


@pytest.mark.usefixtures("few_figures")
def test_the_report_shows_them_and_keeps_the_files(study):
    report.write_report(study.folder)
    folder = study.folder / "report"
    page = (folder / "index.html").read_text()
    for text in ("Forgetting: what the differences are worth", "by other intervals", "none of them can reach 0.05"):
        assert text in page
    assert "People, seeds, photos: what more of each would buy" in page
    assert "No primary comparison was named before the study ran, so all are exploratory" in page
    for name in ("evidence.csv", "evidence.parquet", "sensitivity.csv", "variance.csv"):
        assert (folder / name).stat().st_size > 100
